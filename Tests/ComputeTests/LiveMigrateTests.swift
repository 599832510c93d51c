import ComputeCore
@testable import ComputeService
import Contracts
import Database
import JSON
import Kernel
import ServiceKit
import TestKit
import Testing
import Workflow

/// Moving servers to other hosts while they run.
@Suite struct LiveMigrateTests {
    private static let live: JSONValue = ["os-migrateLive": ["host": nil, "block_migration": "auto"]]

    @Test func aRunningServerMovesAndReturns() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            let before = try await cloud.server(id)
            #expect(try await cloud.act(id, LiveMigrateTests.live).status == 202)
            #expect(try await cloud.server(id)["status"] == "MIGRATING")
            #expect(try await cloud.server(id)["OS-EXT-STS:task_state"] == "migrating")
            #expect(try await cloud.migrations(of: id).first?["status"] == "queued")
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            let moved = try await cloud.server(id, as: "admin")
            #expect(moved["status"] == "ACTIVE" && moved["OS-EXT-SRV-ATTR:host"] == "host-2")
            #expect(moved["addresses"] == before["addresses"])
            #expect(moved["OS-SRV-USG:launched_at"] == before["OS-SRV-USG:launched_at"], "the guest has not been started again")
            #expect(cloud.hosts(of: id) == ["host-2"])
            #expect(try await cloud.recordedHosts(of: id) == ["host-2"])
            #expect(try await cloud.leftovers() == [])
            let record = try #require(try await cloud.migrations(of: id).first)
            #expect(record["status"] == "completed" && record["migration_type"] == "live-migration")
            #expect(record["source_compute"] == "host-1" && record["dest_compute"] == "host-2")
            let actions = try await cloud.call("GET", "/v2.1/servers/\(id)/os-instance-actions", as: "admin").json
            #expect(actions["instanceActions"]?.arrayValue?.first?["action"] == "live-migration")

            #expect(try await cloud.act(id, ["os-migrateLive": ["host": "host-1", "block_migration": "auto"]]).status == 202)
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.hosts(of: id) == ["host-1"])
            #expect(try await cloud.recordedHosts(of: id) == ["host-1"])
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func aPausedServerMovesAndStaysPaused() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            #expect(try await cloud.act(id, ["pause": nil]).status == 202)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.act(id, LiveMigrateTests.live).status == 202)
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            let moved = try await cloud.server(id, as: "admin")
            #expect(moved["status"] == "PAUSED" && moved["OS-EXT-SRV-ATTR:host"] == "host-2", "\(moved)")
            #expect(cloud.cloud.domains(on: "host-2")[id]?.power == "paused" && cloud.hosts(of: id) == ["host-2"])
            #expect(try await cloud.migrations(of: id).first?["status"] == "completed")
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func eachVersionHasItsForm() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            func answer(_ version: String, _ members: JSONObject) async throws -> Int {
                try await cloud.act(id, ["os-migrateLive": .object(members)], version: version).status
            }
            // The target is the server's own host, so that every valid form is refused only for that reason.
            let own: JSONObject = ["host": "host-1", "block_migration": "auto"]
            func adding(_ name: String, _ value: JSONValue, _ members: JSONObject) -> JSONObject {
                var members = members
                members[name] = value
                return members
            }
            let message = "to current host"
            let old = adding("disk_over_commit", false, ["host": "host-1", "block_migration": true])
            for (version, body) in [
                ("2.1", old), ("2.24", old), ("2.25", own), ("2.67", adding("force", false, own)), ("2.68", own), ("2.96", own),
            ] {
                let answer = try await cloud.act(id, ["os-migrateLive": .object(body)], version: version)
                #expect(answer.status == 400 && answer.message.contains(message), "\(version): \(answer.message)")
            }
            for (version, body) in [
                ("2.24", own), ("2.24", adding("disk_over_commit", true, old)), ("2.24", adding("disk_over_commit", "on", old)),
                ("2.67", adding("force", true, own)), ("2.30", adding("force", "yes", own)),
                ("2.25", old), ("2.29", adding("force", true, own)), ("2.68", adding("force", true, own)),
                ("2.96", ["block_migration": "auto"]), ("2.96", ["host": "host-1"]),
                ("2.96", ["host": "host-1", "block_migration": "yes please"]),
            ] {
                let answer = try await cloud.act(id, ["os-migrateLive": .object(body)], version: version)
                #expect(answer.status == 400 && !answer.message.contains(message), "\(version): \(answer.message)")
            }
            #expect(try await cloud.migrations(of: id).isEmpty)
        }
    }

    @Test func impossibleLiveMigrationsAreRefused() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            func refusal(_ host: JSONValue, blocks: JSONValue = "auto", as token: String = "admin") async throws -> TestCloud.Answer {
                try await cloud.act(id, ["os-migrateLive": ["host": host, "block_migration": blocks]], as: token)
            }
            #expect(try await refusal(nil, as: "member").status == 403)
            // A process that does not support moves would order the other host to remove the guest.
            let now = cloud.cloud.ambient.now
            try await cloud.database.write {
                try $0.execute(
                    """
                    INSERT INTO service_replicas (id, service, host, process, release, schema_version, started_at, last_seen_at)
                    VALUES (gen_random_uuid(), 'wolke-compute', 'node', 7, '0.1.1', 44, \(now), now())
                    """)
            }
            let mixed = try await refusal(nil)
            #expect(mixed.status == 409 && mixed.message.contains("release 0.1.1"), "\(mixed.message)")
            try await cloud.database.write { try $0.execute("DELETE FROM service_replicas") }
            try await cloud.database.write {
                try $0.execute("UPDATE hypervisors SET capabilities = capabilities - 'release' WHERE host = 'host-2'")
            }
            #expect(try await refusal("host-2").message.contains("without live migration"))
            try await cloud.cloud.send(Fixtures.hello(host: "host-2"), cloud.consumer)
            #expect(try await refusal("nowhere").message.contains("could not be found"))
            #expect(try await refusal(nil, blocks: false).message.contains("not on shared storage"))
            try await cloud.database.write { try $0.execute("UPDATE compute_services SET enabled = false WHERE host = 'host-2'") }
            #expect(try await refusal("host-2").message.contains("is disabled"))
            try await cloud.database.write {
                try $0.execute("UPDATE compute_services SET enabled = true, forced_down = true WHERE host = 'host-2'")
            }
            #expect(try await refusal("host-2").message.contains("unavailable"))
            try await cloud.database.write { connection in
                try connection.execute("UPDATE compute_services SET forced_down = false")
                try connection.execute(
                    "UPDATE hypervisors SET capabilities = jsonb_set(capabilities, '{hypervisor_version}', '6000000') WHERE host = 'host-2'"
                )
            }
            let old = try await refusal("host-2")
            #expect(old.status == 400 && old.message.contains("6.0.0 is older than 7.2.0"), "\(old.message)")
            #expect(try await cloud.act(id, ["suspend": nil]).status == 202)
            #expect(try await refusal(nil).status == 409)
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            let suspended = try await refusal(nil)
            #expect(suspended.status == 409 && suspended.message.contains("vm_state suspended"), "\(suspended.message)")
            #expect(try await cloud.migrations(of: id).isEmpty)
            #expect(try await cloud.leftovers() == [])
        }
    }

    /// The operator reads every reason before anything has begun.
    @Test func aMoveWithoutAHostIsRefusedWithTheReasons() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            func refusal(_ host: JSONValue) async throws -> String {
                let answer = try await cloud.act(id, ["os-migrateLive": ["host": host, "block_migration": "auto"]])
                #expect(answer.status == 400, "\(answer.json)")
                return answer.message
            }
            // The server is on a provider network that the other host is not connected to.
            try await cloud.database.write { connection in
                try connection.execute(
                    """
                    UPDATE networks SET provider_type = 'flat', physical_network = 'physnet2', segmentation_id = NULL
                    WHERE id = \(Fixtures.network)
                    """)
                try connection.execute(
                    """
                    UPDATE hypervisors SET capabilities = jsonb_set(capabilities, '{physical_networks}', '["physnet1"]')
                    WHERE host = 'host-2'
                    """)
            }
            let network = "It is not connected to the server's physical network physnet2"
            #expect(try await refusal("host-2").contains(network))
            #expect(try await refusal(nil).contains("no host can take instance \(id): host-2: \(network)"))
            // The named host has no room either.
            cloud.cloud.fill("host-2")
            let both = try await refusal("host-2")
            #expect(both.contains(network) && both.contains("Needs 512 MEMORY_MB, 100 of 16384 free."), "\(both)")
            try await cloud.database.write { try $0.execute("UPDATE hypervisors SET capabilities = capabilities - 'physical_networks'") }
            #expect(try await refusal(nil).contains("host-2: Needs 512 MEMORY_MB, 100 of 16384 free."))
            #expect(try await cloud.migrations(of: id).isEmpty)
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func progressIsShownAndAnOperatorCanAbort() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.holdJobs(true)
            #expect(try await cloud.act(id, LiveMigrateTests.live).status == 202)
            let engine = cloud.engine()
            let number = try #require(try await cloud.migrations(of: id).first?["id"]?.intValue)
            let path = "/v2.1/servers/\(id)/migrations"
            #expect(try await cloud.call("POST", "\(path)/\(number)/action", ["force_complete": nil], as: "admin").status == 400)
            #expect(try await cloud.call("DELETE", "\(path)/\(number)", as: "admin", version: "2.64").status == 400)
            let drained = Task { try await engine.drain() }
            var live: JSONValue = .null
            while live["memory_remaining_bytes"] != 600 {
                try await cloud.cloud.deliver(to: cloud.consumer)
                live = try await cloud.call("GET", path, as: "admin").json["migrations"]?.arrayValue?.first ?? .null
            }
            #expect(live["status"] == "running" && live["memory_total_bytes"] == 1000 && live["dest_compute"] == "host-2")
            #expect(try await cloud.call("GET", "\(path)/\(number)", as: "admin").json["migration"]?["server_uuid"] == .string(id))
            #expect(try await cloud.call("GET", path).status == 403)
            #expect(try await cloud.call("POST", "\(path)/\(number)/action", ["force_complete": nil], as: "admin").status == 202)
            #expect(try await cloud.act(id, ["os-stop": nil], as: "member").status == 409)
            #expect(try await cloud.call("DELETE", "\(path)/\(number)", as: "admin").status == 202)
            try await drained.value
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.cloud.received.contains { $0["server"]?["jobs"]?.arrayValue?.first?["migration"]?["completes"] == true })
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(cloud.hosts(of: id) == ["host-1"])
            #expect(try await cloud.recordedHosts(of: id) == ["host-1"])
            #expect(try await cloud.migrations(of: id).first?["status"] == "cancelled")
            #expect(try await cloud.call("GET", "\(path)/\(number)", as: "admin").status == 404)
            #expect(try await cloud.call("DELETE", "\(path)/\(number)", as: "admin").status == 400)
            #expect(try await cloud.call("DELETE", "\(path)/99999", as: "admin").status == 404)
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func aFailureLeavesTheServerWhereItWas() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.failJobs("the other host refuses it")
            #expect(try await cloud.act(id, LiveMigrateTests.live).status == 202)
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(cloud.hosts(of: id) == ["host-1"])
            #expect(cloud.cloud.domains(on: "host-1")[id]?.power == "running")
            #expect(try await cloud.recordedHosts(of: id) == ["host-1"])
            #expect(try await cloud.migrations(of: id).first?["status"] == "error")
            #expect(try await cloud.leftovers() == [])
        }
    }

    /// Whatever happens at any step: the guest is on one host, the database records which, and nothing is left on the other one.
    @Test func moveUnderEveryDisturbance() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == "server.live_migrate" })
            for variant in WorkflowChecks(definition).variants {
                let label = Comment(rawValue: variant.name)
                let engine = cloud.engine([variant.definition])
                let id = try await cloud.createServer()
                #expect(try await cloud.act(id, LiveMigrateTests.live).status == 202, label)
                try await engine.drain()
                try await cloud.cloud.deliver(to: cloud.consumer)
                let home = try await cloud.server(id, as: "admin")["OS-EXT-SRV-ATTR:host"]?.stringValue ?? ""
                if variant.succeeds { #expect(home == "host-2", label) }
                #expect(try await cloud.server(id)["status"] == "ACTIVE", label)
                #expect(cloud.hosts(of: id) == [home], label)
                #expect(cloud.cloud.domains(on: home)[id]?.power == "running", label)
                #expect(try await cloud.recordedHosts(of: id) == [home], label)
                #expect(try await cloud.migrations(of: id).first?["status"] == (home == "host-2" ? "completed" : "error"), label)
                #expect(try await cloud.leftovers() == [], label)
                try await cloud.call("DELETE", "/v2.1/servers/\(id)")
                try await engine.drain()
                try await cloud.cloud.deliver(to: cloud.consumer)
                #expect(cloud.hosts(of: id) == [], label)
                #expect(try await cloud.leftovers() == [], label)
            }
        }
    }
}

/// Starting servers elsewhere because their host is down.
@Suite struct EvacuateTests {
    /// Takes the server's host down and declares it down, or brings it back.
    private func fence(_ cloud: TestCloud, _ isDown: Bool) async throws {
        try await cloud.declare("host-1", isDown: isDown)
        if isDown { cloud.cloud.silence("host-1") } else { cloud.cloud.wake("host-1") }
    }

    private func evacuate(
        _ cloud: TestCloud, _ id: String, _ body: JSONObject = [:], version: String = "2.94", as token: String = "admin"
    ) async throws -> TestCloud.Answer {
        try await cloud.act(id, ["evacuate": .object(body)], version: version, as: token)
    }

    @Test func aServerStartsElsewhereAndItsHostLosesIt() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            #expect(try await evacuate(cloud, id).message.contains("is still in use"))
            try await fence(cloud, true)
            #expect(try await evacuate(cloud, id, as: "member").status == 403)
            #expect(try await evacuate(cloud, id, ["onSharedStorage": true], version: "2.13").message.contains("local disks"))
            #expect(try await evacuate(cloud, id, ["host": "host-1"]).message.contains("same one"))
            #expect(try await evacuate(cloud, id, ["force": true]).status == 400)
            let forced = try await evacuate(cloud, id, ["host": "host-2", "force": true], version: "2.67")
            #expect(forced.status == 400 && forced.message.contains("'force': true"), "\(forced.message)")
            #expect(try await evacuate(cloud, id, ["onSharedStorage": false], version: "2.14").status == 400)
            let answer = try await evacuate(cloud, id, ["onSharedStorage": false, "adminPass": "secret"], version: "2.13")
            #expect(answer.status == 200 && answer.json["adminPass"] == "secret")
            #expect(try await cloud.server(id)["status"] == "REBUILD")
            try await cloud.engine().drain()
            let moved = try await cloud.server(id, as: "admin")
            #expect(moved["status"] == "ACTIVE" && moved["OS-EXT-SRV-ATTR:host"] == "host-2")
            #expect(cloud.cloud.domains(on: "host-2")[id]?.power == "running")
            let list = try await cloud.call("GET", "/v2.1/os-migrations?migration_type=evacuation", as: "admin").json["migrations"]
            #expect(list?.arrayValue?.first?["status"] == "done")
            #expect(try await cloud.leftovers() == [])
            // The host returns: its first order is to remove the server.
            #expect(cloud.cloud.domains(on: "host-1")[id] != nil)
            try await fence(cloud, false)
            try await cloud.cloud.send(Fixtures.hello(host: "host-1"), cloud.consumer)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.cloud.domains(on: "host-1")[id] == nil)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
        }
    }

    /// Whatever happens at any step: the server belongs to one host, and no other responding host has it.
    @Test func evacuateUnderEveryDisturbance() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == "server.evacuate" })
            for variant in WorkflowChecks(definition).variants {
                let label = Comment(rawValue: variant.name)
                let engine = cloud.engine([variant.definition])
                let id = try await cloud.createServer()
                try await fence(cloud, true)
                #expect(try await evacuate(cloud, id).status == 200, label)
                try await engine.drain()
                try await cloud.cloud.deliver(to: cloud.consumer)
                let server = try await cloud.server(id, as: "admin")
                let home = server["OS-EXT-SRV-ATTR:host"]?.stringValue ?? ""
                #expect(home == (variant.succeeds ? "host-2" : "host-1"), label)
                #expect(server["status"] == "ACTIVE" && server["OS-EXT-STS:task_state"] == .null, label)
                #expect((cloud.cloud.domains(on: "host-2")[id]?.power == "running") == variant.succeeds, label)
                #expect(try await cloud.migrations(of: id).first?["status"] == (variant.succeeds ? "done" : "failed"), label)
                #expect(try await cloud.leftovers() == [], label)
                // The host that was down returns.
                try await fence(cloud, false)
                try await cloud.cloud.send(Fixtures.hello(host: "host-1"), cloud.consumer)
                try await cloud.cloud.deliver(to: cloud.consumer)
                #expect(cloud.cloud.domains(on: "host-1")[id] != nil || variant.succeeds, label)
                #expect(cloud.cloud.domains(on: "host-1")[id] == nil || !variant.succeeds, label)
                try await cloud.call("DELETE", "/v2.1/servers/\(id)")
                try await engine.drain()
                try await cloud.cloud.deliver(to: cloud.consumer)
                #expect(cloud.cloud.domains(on: "host-1")[id] == nil && cloud.cloud.domains(on: "host-2")[id] == nil, label)
                #expect(try await cloud.leftovers() == [], label)
            }
        }
    }

    @Test func aSlowEvacuationIsNotBrokenOff() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            try await fence(cloud, true)
            #expect(try await evacuate(cloud, id).status == 200)
            cloud.time.advance(by: .seconds(1000))
            _ = try await ComputePeriodicTasks(cloud.compute).runOnce()
            #expect(try await cloud.server(id)["status"] == "REBUILD")
        }
    }

    @Test func from295OnTheServerStaysOff() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            try await fence(cloud, true)
            #expect(try await evacuate(cloud, id, version: "2.95").status == 200)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "SHUTOFF")
            #expect(cloud.cloud.domains(on: "host-2")[id]?.power == "shutoff")
        }
    }

    @Test func aFailureLeavesTheServerToItsHost() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            try await fence(cloud, true)
            cloud.cloud.failOnHost("no room", reason: "no room", permanent: true)
            #expect(try await evacuate(cloud, id).status == 200)
            try await cloud.engine().drain()
            cloud.cloud.failOnHost(nil)
            let server = try await cloud.server(id, as: "admin")
            #expect(server["OS-EXT-SRV-ATTR:host"] == "host-1" && server["OS-EXT-STS:task_state"] == .null)
            #expect(cloud.cloud.domains(on: "host-2")[id] == nil)
            #expect(try await cloud.leftovers() == [])
        }
    }
}
