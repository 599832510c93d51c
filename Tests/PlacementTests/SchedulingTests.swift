import Database
import JSON
import Kernel
import PlacementCore
import ServiceCatalog
@testable import PlacementService
import TestKit
import Testing

@Suite struct PlacementSchedulingTests {
    private func results(_ bench: PlacementBench, _ bodies: [JSONValue]) async throws -> [JSONValue] {
        try await withThrowingTaskGroup(of: JSONValue.self) { group in
            for body in bodies { group.addTask { try await bench.placement.schedule(body) } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
    }

    private func result(_ answer: JSONValue) -> String { answer["result"]?.stringValue ?? "" }

    @Test func placesAndReleases() async throws {
        try await PlacementBench.with { bench in
            let id = try await bench.addHost("h1")
            let consumer = SystemRandom().uuid()
            let answer = try await bench.placement.schedule(wanted(consumer))
            #expect(answer["result"] == "scheduled")
            #expect(answer["host"] == "h1")
            #expect(answer["resource_provider_id"]?.stringValue == id)
            let shown = try await bench.call("GET", "/allocations/\(consumer)")
            #expect(shown.json["allocations"]?[id]?["resources"] == ["DISK_GB": 1, "MEMORY_MB": 512, "VCPU": 1])
            #expect(shown.json["consumer_type"] == "INSTANCE")
            #expect(try await bench.call("DELETE", "/allocations/\(consumer)").status == 204)
            #expect(try await bench.call("DELETE", "/allocations/\(consumer)").status == 404)
            #expect(try await bench.count("allocations") == 0)
        }
    }

    @Test("S20: no race exceeds a host's capacity") func s20CapacityIsNeverExceededByARace() async throws {
        try await PlacementBench.with(connectionsMax: 16) { bench in
            for number in 0..<3 { try await bench.addHost("h\(number)", cpus: 4) }
            let answers = try await results(bench, (0..<40).map { _ in wanted() })
            #expect(answers.filter { result($0) == "scheduled" }.count == 12)
            #expect(answers.filter { result($0) == "rejected" }.count == 28)
            #expect(try await bench.count("consumers") == 12)
            let most = try await bench.test.database.read {
                try $0.query(
                    "SELECT max(n)::int AS n FROM (SELECT sum(used) AS n FROM allocations WHERE resource_class = 'VCPU' GROUP BY resource_provider_id) x"
                )[0].int("n")
            }
            #expect(most == 4)
        }
    }

    @Test("S20: schedulers in several processes share the capacity") func s20SeparateProcessesShareTheCapacity() async throws {
        try await PlacementBench.with(connectionsMax: 16) { bench in
            for number in 0..<3 { try await bench.addHost("h\(number)", cpus: 4) }
            let other = Placement(database: bench.test.database, ambient: Ambient())
            let count = try await withThrowingTaskGroup(of: Bool.self) { group in
                for number in 0..<30 {
                    let placement = number % 2 == 0 ? bench.placement : other
                    group.addTask { try await placement.schedule(wanted())["result"] == "scheduled" }
                }
                return try await group.reduce(0) { $0 + ($1 ? 1 : 0) }
            }
            #expect(count == 12)
        }
    }

    @Test func repetitionsGetTheSameAnswer() async throws {
        try await PlacementBench.with { bench in
            for number in 0..<5 { try await bench.addHost("h\(number)") }
            let body = wanted()
            let answers = try await results(bench, Array(repeating: body, count: 12))
            #expect(Set(answers.map { $0["host"]?.stringValue }).count == 1)
            #expect(try await bench.count("allocations") == 3)
            // Released, and then the message is delivered again: nothing is claimed.
            let consumer = body["consumer_id"]?.stringValue ?? ""
            #expect(try await bench.call("DELETE", "/allocations/\(consumer)").status == 204)
            #expect(try await bench.placement.schedule(body) == answers[0])
            #expect(try await bench.count("allocations") == 0)
            let refused = wanted(cpus: 500)
            let first = try await bench.placement.schedule(refused)
            #expect(first["result"] == "rejected")
            #expect(try await bench.placement.schedule(refused) == first)
        }
    }

    @Test func aNewOperationMovesTheConsumer() async throws {
        try await PlacementBench.with { bench in
            for number in 0..<2 { try await bench.addHost("h\(number)") }
            let consumer = SystemRandom().uuid()
            let first = try await bench.placement.schedule(wanted(consumer))["host"]?.stringValue ?? ""
            let second = try await bench.placement.schedule(wanted(consumer, cpus: 2, with: ["exclude_hosts": [.string(first)]]))
            #expect(second["result"] == "scheduled")
            #expect(second["host"]?.stringValue != first)
            #expect(try await bench.count("allocations") == 3)
        }
    }

    @Test("S20: anti-affinity holds in a race") func s20AntiAffinityHoldsUnderConcurrency() async throws {
        try await PlacementBench.with(connectionsMax: 12) { bench in
            for number in 0..<4 { try await bench.addHost("h\(number)", cpus: 64) }
            let group = SystemRandom().uuid().description
            let consumers = (0..<8).map { _ in SystemRandom().uuid() }
            try await bench.test.database.write { connection in
                try connection.execute(
                    "INSERT INTO server_groups (id, project_id, user_id, name, policy, created_at) VALUES (\(group)::uuid, 'p1', 'u1', 'g', 'anti-affinity', now())"
                )
                for consumer in consumers { try PlacementSchedulingTests.addServer(connection, consumer, group: group) }
            }
            let spec: JSONValue = ["id": .string(group), "policy": "anti-affinity", "rules": [:], "members": []]
            let answers = try await results(bench, consumers.map { wanted($0, with: ["group": spec]) })
            let hosts = answers.compactMap { $0["host"]?.stringValue }
            #expect(hosts.count == 4)
            #expect(Set(hosts).count == 4)
            let refused = try #require(answers.first { result($0) == "rejected" })
            #expect(refused["message"]?.stringValue?.contains("server group") == true)
        }
    }

    static func addServer(_ connection: Connection, _ id: UUID128, group: String? = nil, deleted: Bool = false) throws {
        try connection.execute(
            """
            INSERT INTO servers (id, project_id, user_id, name, hostname, vm_state, flavor_id, flavor, group_id, reservation_id,
                deleted, created_at, updated_at)
            VALUES (\(id), 'p1', 'u1', 's', 's', \(deleted ? "deleted" : "building"), \(id), '{}', \(group)::uuid, 'r-1',
                \(deleted), now(), now())
            """)
    }

    @Test func affinityFollowsTheFirstMember() async throws {
        try await PlacementBench.with { bench in
            for number in 0..<4 { try await bench.addHost("h\(number)", cpus: 3) }
            let consumers = (0..<4).map { _ in SystemRandom().uuid() }
            let spec: JSONValue = [
                "id": "g", "policy": "affinity", "rules": [:], "members": JSONValue(consumers.map(\.description)),
            ]
            var hosts: [String?] = []
            for consumer in consumers {
                hosts.append(try await bench.placement.schedule(wanted(consumer, with: ["group": spec]))["host"]?.stringValue)
            }
            #expect(Set(hosts.prefix(3)).count == 1)
            #expect(hosts[0] != nil && hosts[3] == nil)
        }
    }

    @Test func hostStateTakesEffectAtOnce() async throws {
        try await PlacementBench.with { bench in
            try await bench.addHost("h1")
            #expect(try await bench.placement.schedule(wanted(with: ["availability_zone": "far"]))["result"] == "rejected")
            try await bench.test.database.write { connection in
                try connection.execute(
                    "INSERT INTO aggregates (uuid, name, availability_zone, metadata, created_at) VALUES (gen_random_uuid(), 'a', 'far', '{\"filter_tenant_id\": \"p1\"}', now())"
                )
                try connection.execute("INSERT INTO aggregate_hosts SELECT id, 'h1' FROM aggregates")
            }
            #expect(try await bench.placement.schedule(wanted(with: ["availability_zone": "far"]))["result"] == "scheduled")
            let other = try await bench.placement.schedule(wanted(with: ["project_id": "p2"]))
            #expect(other["filters"]?.description.contains("reserved for other projects") == true)
            try await bench.test.database.write {
                _ = try $0.execute("UPDATE compute_services SET last_seen_at = now() - interval '2 minutes'")
            }
            try await SystemTime().sleep(for: .milliseconds(250))
            let silent = try await bench.placement.schedule(wanted())
            #expect(silent["operator"]?.description.contains("not sent a heartbeat") == true)
            try await bench.test.database.write { _ = try $0.execute("UPDATE compute_services SET last_seen_at = now()") }
            #expect(try await bench.placement.schedule(wanted())["result"] == "scheduled")
            try await bench.test.database.write { _ = try $0.execute("UPDATE compute_services SET forced_down = true") }
            let down = try await bench.placement.schedule(wanted())
            #expect(down["result"] == "rejected")
            #expect(down["operator"]?.description.contains("forced down") == true)
        }
    }

    @Test func dryRunsClaimNothing() async throws {
        try await PlacementBench.with { bench in
            for number in 0..<3 { try await bench.addHost("h\(number)", cpus: 4) }
            let answer = try await bench.placement.schedule(wanted(with: ["dry_run": true]))
            #expect(answer["result"] == "scheduled")
            #expect(answer["fits"] == 12)
            #expect(try await bench.count("allocations") == 0)
            #expect(try await bench.count("scheduling_explanations") == 0)
            let refused = try await bench.placement.schedule(wanted(cpus: 9, with: ["dry_run": true]))
            #expect(refused["fits"] == 0)
            #expect(refused["nearest"]?["resources"]?["VCPU"] == 4)
            #expect(refused["operator"]?.arrayValue?.count == 3)
        }
    }

    private func trial(_ bench: PlacementBench, _ requests: [JSONValue], _ members: JSONObject = [:]) async throws -> JSONValue {
        var body: JSONObject = ["dry_run": true, "together": true, "exclude_hosts": [], "requests": .array(requests)]
        for member in members.members { body[member.name] = member.value }
        return try await bench.placement.schedule(.object(body))
    }

    @Test func severalAreTriedTogetherOrAlone() async throws {
        try await PlacementBench.with { bench in
            for number in 0..<2 { try await bench.addHost("h\(number)", cpus: 4) }
            let requests = (0..<5).map { _ in wanted(cpus: 2) }
            let together = try await trial(bench, requests)
            #expect(
                together["answers"]?.arrayValue?.map { $0["result"] } == ["scheduled", "scheduled", "scheduled", "scheduled", "rejected"])
            #expect(together["answers"]?.arrayValue?.last?["filters"]?.arrayValue?.isEmpty == false)
            #expect(together["capacity"]?["before"]?["resources"]?["VCPU"] == ["capacity": 8, "free": 8])
            #expect(together["capacity"]?["after"]?["resources"]?["VCPU"] == ["capacity": 8, "free": 0])
            let alone = try await trial(bench, requests, ["together": false])
            #expect(alone["answers"]?.arrayValue?.allSatisfy { $0["fits"] == 4 } == true)
            let fewer = try await trial(bench, requests, ["exclude_hosts": ["h0"]])
            #expect(fewer["answers"]?.arrayValue?.filter { $0["host"] == "h1" }.count == 2)
            #expect(fewer["capacity"]?["after"]?["hosts"] == 1)
            #expect(try await bench.count("allocations") + bench.count("scheduling_explanations") == 0)
            for bad in [["dry_run": false], ["requests": "all"], ["requests": [["resources": []]]]] as [JSONObject] {
                await #expect(throws: ResourceError.self) { try await trial(bench, requests, bad) }
            }
        }
    }

    /// A moving server leaves its current host: a group with affinity gets another host for all its members.
    @Test func aGroupLeavesItsHostTogether() async throws {
        try await PlacementBench.with { bench in
            for number in 0..<3 { try await bench.addHost("h\(number)", cpus: 4) }
            let consumers = (0..<3).map { _ in SystemRandom().uuid() }
            func requests(_ policy: String) -> [JSONValue] {
                consumers.map {
                    wanted(
                        $0,
                        with: [
                            "group": [
                                "id": "g", "policy": .string(policy), "rules": [:], "members": JSONValue(consumers.map(\.description)),
                            ]
                        ])
                }
            }
            var host: String?
            for request in requests("affinity") { host = try await bench.placement.schedule(request)["host"]?.stringValue }
            let failed = try #require(host)
            let together = try await trial(bench, requests("affinity"), ["exclude_hosts": [.string(failed)]])
            let hosts = Set(together["answers"]?.arrayValue?.map { $0["host"]?.stringValue } ?? [])
            #expect(hosts.count == 1 && !hosts.contains(failed) && !hosts.contains(nil), "\(together)")
            let apart = try await trial(bench, requests("anti-affinity"), ["exclude_hosts": [.string(failed)]])
            #expect(apart["answers"]?.arrayValue?.filter { $0["result"] == "scheduled" }.count == 2)
            // The first one must be on the host of the last one, so it has to wait.
            let follower = wanted(consumers[0], with: ["same_host": [.string(consumers[1].description)]])
            let pair = try await trial(bench, [follower, wanted(consumers[1])], ["exclude_hosts": [.string(failed)]])
            #expect(Set(pair["answers"]?.arrayValue?.map { $0["host"]?.stringValue } ?? [nil]).count == 1)
            #expect(pair["answers"]?.arrayValue?.first?["result"] == "scheduled")
        }
    }

    @Test func explanationsAreKept() async throws {
        try await PlacementBench.with { bench in
            try await bench.addHost("h1")
            let consumer = SystemRandom().uuid()
            _ = try await bench.placement.schedule(wanted(consumer, memory: 1 << 20))
            let kept = try await bench.test.database.read {
                try $0.query("SELECT explanation FROM scheduling_explanations WHERE consumer_id = \(consumer)")[0].json("explanation")
            }
            #expect(kept["result"] == "rejected")
            #expect(kept["operator"]?.description.contains("MEMORY_MB") == true)
        }
    }

    @Test func leftoversGo() async throws {
        try await PlacementBench.with { bench in
            try await bench.addHost("h1")
            let (alive, gone, unknown) = (SystemRandom().uuid(), SystemRandom().uuid(), SystemRandom().uuid())
            try await bench.test.database.write { connection in try PlacementSchedulingTests.addServer(connection, alive) }
            for consumer in [alive, gone, unknown] { _ = try await bench.placement.schedule(wanted(consumer)) }
            try await bench.test.database.write { connection in try PlacementSchedulingTests.addServer(connection, gone, deleted: true) }
            #expect(try await bench.placement.removeOrphans().isEmpty)
            try await bench.test.database.write { _ = try $0.execute("UPDATE consumers SET created_at = now() - interval '1 hour'") }
            let removed = try await bench.placement.removeOrphans()
            #expect(Set(removed.map(\.subject)) == [gone.description, unknown.description])
            #expect(try await bench.count("allocations") == 3)
            // A late message for a deleted server claims nothing.
            #expect(try await bench.placement.schedule(wanted(gone))["result"] == "rejected")
        }
    }

    @Test func hostsAreRegisteredAgainAndAgain() async throws {
        try await PlacementBench.with { bench in
            let id = try await bench.addHost("h1", cpus: 4, traits: ["HW_CPU_X86_AVX", "NOT_A_TRAIT", "CUSTOM_NEW"])
            let traits = try await bench.call("GET", "/resource_providers/\(id)/traits")
            #expect(traits.json["traits"] == ["CUSTOM_NEW", "HW_CPU_X86_AVX"])
            _ = try await bench.placement.schedule(wanted())
            // The host returns with another id, more of one class, and without another class that is in use.
            try await bench.hear([
                "type": "host", "host": "h1", "resource_provider_id": .string(SystemRandom().uuid().description),
                "inventories": ["VCPU": ["total": 8], "MEMORY_MB": ["total": 4096]], "traits": [], "enabled": true, "forced_down": false,
            ])
            let inventories = try await bench.call("GET", "/resource_providers/\(id)/inventories").json["inventories"]
            #expect(inventories?["VCPU"]?["total"] == 8)
            #expect(inventories?["DISK_GB"]?["total"] == 100)
            #expect(try await bench.count("resource_providers") == 1)
            for bad in [["type": "host", "host": ""], ["type": "other"], ["type": "host", "host": "x", "resource_provider_id": "y"]]
                as [JSONValue]
            {
                await #expect(throws: (any Error).self) { try await bench.hear(bad) }
            }
            try await bench.hear(["type": "host_removed", "host": "h1"])
            #expect(try await bench.placement.schedule(wanted())["result"] == "rejected")
        }
    }
}
