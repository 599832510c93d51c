import Database
import JSON
import Kernel
import Synchronization
import TestKit
import Testing
import WebAPI

@testable import NetworkService

/// Several ports in one request.
@Suite struct BulkPortTests {
    private static func bulk(_ ports: [JSONValue]) -> JSONValue { ["ports": .array(ports)] }

    private static func addresses(_ answer: NetworkHarness.Answer) -> [String] {
        (answer.json["ports"]?.arrayValue ?? []).map { $0["fixed_ips"]?[0].text("ip_address") ?? "" }
    }

    /// Counts the statements of its only session.
    private final class Counter: Sendable {
        let count = Atomic<Int>(0)
        func take() -> Int { count.exchange(0, ordering: .relaxed) }
    }

    @Test(arguments: ["10.0.0.0/23", "10.64.0.0/12"]) func statementsDoNotGrowWithThePorts(cidr: String) async throws {
        try await TestDatabase.with(connectionsMax: 1) { test in
            let cloud = try NetworkHarness(test.database)
            let network = try await cloud.network()
            _ = try await cloud.subnet(network, cidr)
            let port: JSONValue = ["network_id": .string(network)]
            try await cloud.make("ports", "port", port)
            let counter = Counter()
            try await test.database.read { $0.beforeStatement = { counter.count.add(1, ordering: .relaxed) } }
            try await cloud.make("ports", "port", port)
            let one = counter.take()
            // The last ones look for addresses in a second window, or lose a random one to another request.
            for count in [2, 20, 100, 200] {
                let answer = try await cloud.call("POST", "/ports", Self.bulk(Array(repeating: port, count: count)))
                #expect(answer.status == 201)
                #expect(Set(Self.addresses(answer)).count == count)
                let many = counter.take()
                #expect(many <= one + 4, "\(many) statements for \(count) ports, \(one) for one")
            }
            #expect(one <= 12)
        }
    }

    @Test func bulkAnswersMatchTheRequest() async throws {
        try await NetworkHarness.with { cloud in
            let (first, second) = (try await cloud.network("first"), try await cloud.network("second"))
            let subnet = try await cloud.subnet(first)
            _ = try await cloud.subnet(second, "10.1.0.0/24")
            let group = try await cloud.make("security-groups", "security_group", ["name": "g"]).id
            let ask = Self.bulk([
                ["network_id": .string(first), "name": "any"], ["network_id": .string(second), "tags": ["b", "a", "a \"c\""]],
                ["network_id": .string(first), "name": "named", "fixed_ips": [["ip_address": "10.0.0.3"]]],
                ["network_id": .string(first), "security_groups": [], "fixed_ips": []],
                [
                    "network_id": .string(first), "security_groups": [.string(group)], "description": "d\\e",
                    "allowed_address_pairs": [["ip_address": "10.9.0.0/16"]],
                ],
                [
                    "network_id": .string(first), "port_security_enabled": false,
                    "fixed_ips": [["subnet_id": .string(subnet.id)], ["ip_address": "10.0.0.4"]],
                ],
            ])
            let answer = try await cloud.call("POST", "/ports", ask, headers: [("Idempotency-Key", "k1")])
            try #require(answer.status == 201, "\(answer.json)")
            let ports = try #require(answer.json["ports"]?.arrayValue)
            #expect(ports.map { $0.text("name") } == ["any", "", "named", "", "", ""])
            #expect(ports.map { $0["security_groups"]?.count } == [1, 1, 1, 0, 1, 0])
            #expect(ports[4]["security_groups"] == [.string(group)])
            #expect(ports[4]["description"] == "d\\e")
            #expect(ports[4]["allowed_address_pairs"]?[0]["mac_address"] == ports[4]["mac_address"])
            #expect(ports[1]["tags"]?.arrayValue?.map(\.stringValue).contains("a \"c\"") == true)
            // A port without a requested address gets none that another port requests.
            #expect(ports[2]["fixed_ips"]?[0].text("ip_address") == "10.0.0.3")
            #expect(ports[3]["fixed_ips"] == [])
            #expect(ports[5]["fixed_ips"]?.arrayValue?.count == 2)
            #expect(ports[5]["fixed_ips"]?[1].text("ip_address") == "10.0.0.4")
            let all = ports.flatMap { $0["fixed_ips"]?.arrayValue?.map { $0.text("ip_address") } ?? [] }
            #expect(Set(all).count == all.count)
            for port in ports {
                #expect(try await cloud.call("GET", "/ports/\(port.id)").json["port"] == port)
            }
            let again = try await cloud.call("POST", "/ports", ask, headers: [("Idempotency-Key", "k1")])
            #expect(again.json == answer.json)
            #expect(try await cloud.used("port") == 6)
            let audited = try await cloud.database.read { connection in
                try connection.query(
                    "SELECT content FROM audit_records WHERE action = 'create_port'"
                ).map { try $0.json("content") }
            }
            #expect(audited == [["ids": .array(ports.map { .string($0.id) })]])
            let noted = try await cloud.database.read { connection in
                Set(
                    try connection.query("SELECT ids FROM northbound_changes WHERE kind = 'port'")
                        .flatMap { try $0.uuids("ids") }.map(\.description))
            }
            for port in ports { #expect(noted.contains(port.id)) }
        }
    }

    private struct Refusal {
        let ports: [JSONValue]
        let status: Int
        let type: String
        let words: String
        var token = "member"
    }

    @Test func bulkRequestsAreAtomic() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            let subnet = try await cloud.subnet(
                network, "10.0.0.0/24", ["allocation_pools": [["start": "10.0.0.10", "end": "10.0.0.14"]]])
            let foreign = try await cloud.network("foreign", as: "other")
            let foreignGroup = try await cloud.make("security-groups", "security_group", as: "other", ["name": "g"]).id
            let nowhere = UUID128(high: 9, low: 9)
            let port: JSONObject = ["network_id": .string(network)]
            func with(_ name: String, _ value: JSONValue) -> JSONValue {
                var body = port
                body[name] = value
                return .object(body)
            }
            let good = JSONValue.object(port)
            let named = with("fixed_ips", [["ip_address": "10.0.0.200"]])
            let mac = with("mac_address", "fa:16:3e:00:00:01")
            let cases = [
                Refusal(
                    ports: [named, good, named], status: 409, type: "IpAddressAlreadyAllocated",
                    words: "IP address 10.0.0.200 already allocated in subnet \(subnet.id)"),
                Refusal(
                    ports: [mac, good, mac], status: 409, type: "MacAddressInUse",
                    words: "The mac address fa:16:3e:00:00:01 is in use", token: "admin"),
                Refusal(
                    ports: Array(repeating: good, count: 5), status: 409, type: "IpAddressGenerationFailure",
                    words: "No more IP addresses available on network \(network)"),
                Refusal(
                    ports: Array(repeating: with("fixed_ips", [["subnet_id": .string(subnet.id)]]), count: 5), status: 409,
                    type: "IpAddressGenerationFailure", words: "No more IP addresses available for subnet \(subnet.id)"),
                Refusal(
                    ports: [good, ["network_id": .string("\(nowhere)")]], status: 404, type: "NetworkNotFound",
                    words: "Network \(nowhere) could not be found"),
                Refusal(
                    ports: [good, ["network_id": .string(foreign)]], status: 404, type: "NetworkNotFound",
                    words: "Network \(foreign) could not be found"),
                Refusal(
                    ports: [good, with("security_groups", [.string(foreignGroup)])], status: 404,
                    type: "SecurityGroupNotFound", words: foreignGroup),
                Refusal(
                    ports: [good, with("binding:host_id", "hv1")], status: 403, type: "PolicyNotAuthorized",
                    words: "create_port:binding:host_id"),
                Refusal(
                    ports: [good, with("fixed_ips", [["ip_address": "10.9.0.1"]])], status: 400,
                    type: "InvalidIpForNetwork", words: "10.9.0.1"),
                Refusal(
                    ports: [good, with("fixed_ips", [["subnet_id": .string("\(nowhere)")]])], status: 400,
                    type: "InvalidInput", words: "invalid subnet \(nowhere)"),
                Refusal(
                    ports: [good, ["name": "x"]], status: 400, type: "HTTPBadRequest",
                    words: "network_id"),
            ]
            for refusal in cases {
                let answer = try await cloud.call("POST", "/ports", as: refusal.token, Self.bulk(refusal.ports))
                #expect(answer.status == refusal.status, "\(answer.json)")
                #expect(answer.type == refusal.type)
                #expect(answer.message?.contains(refusal.words) == true, "\(answer.json)")
                #expect(try await cloud.used("port") == 0)
            }
            #expect(try await cloud.call("GET", "/ports?device_owner=").json["ports"]?.count == 0)
            let rest = try await cloud.call("POST", "/ports", Self.bulk(Array(repeating: good, count: 4)))
            #expect(Set(Self.addresses(rest)) == ["10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"])
        }
    }

    @Test("S19: the quota of many ports is reserved at once") func s19TheQuotaIsTakenAtOnce() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            let port: JSONValue = ["network_id": .string(network)]
            _ = try await cloud.call("PUT", "/quotas/p1", as: "admin", ["quota": ["port": 3]])
            let refused = try await cloud.call("POST", "/ports", Self.bulk(Array(repeating: port, count: 4)))
            #expect(refused.status == 409)
            #expect(refused.message == "Quota exceeded for resources: ['port'].")
            #expect(try await cloud.used("port") == 0)
            #expect(try await cloud.call("POST", "/ports", Self.bulk(Array(repeating: port, count: 3))).status == 201)
            #expect(try await cloud.used("port") == 3)
        }
    }

    /// Two projects on one network, whose requests only wait for each other's addresses.
    @Test func competitorsShareAPoolToItsEnd() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network("shared", as: "admin", ["shared": true])
            // 23 addresses, one for metadata.
            let pools: JSONValue = [["start": "10.0.0.10", "end": "10.0.0.32"]]
            _ = try await cloud.subnet(network, "10.0.0.0/24", as: "admin", ["allocation_pools": pools])
            let ask = Self.bulk(Array(repeating: ["network_id": .string(network)], count: 5))
            let answers = try await withThrowingTaskGroup(of: NetworkHarness.Answer.self) { group in
                for number in 0..<8 {
                    group.addTask { try await cloud.call("POST", "/ports", as: number % 2 == 0 ? "member" : "other", ask) }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(answers.count { $0.status == 201 } == 4)
            #expect(Set(answers.filter { $0.status == 201 }.flatMap { Self.addresses($0) }).count == 20)
            for refused in answers where refused.status != 201 { #expect(refused.type == "IpAddressGenerationFailure") }
            let used = (try await cloud.used("port"), try await cloud.used("port", project: "p2"))
            #expect(used.0 + used.1 == 20)
        }
    }

    /// Few hardware addresses to choose from; other random values are unchanged.
    private struct FewMACs: RandomSource {
        func next() -> UInt64 { SystemRandom().next() & ~0xff_ffc0 }
    }

    @Test func hardwareAddressesOfTheServicesChoiceAreFound() async throws {
        try await TestDatabase.with(connectionsMax: 8) { test in
            let cloud = try NetworkHarness(test.database, ambient: Ambient(random: FewMACs()))
            let network = try await cloud.network()
            _ = try await cloud.subnet(network, "10.0.0.0/24")
            let ask = Self.bulk(Array(repeating: ["network_id": .string(network)], count: 5))
            let answers = try await withThrowingTaskGroup(of: NetworkHarness.Answer.self) { group in
                for _ in 0..<8 { group.addTask { try await cloud.call("POST", "/ports", ask) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            for answer in answers { #expect(answer.status == 201, "\(answer.json)") }
            let macs = answers.flatMap { ($0.json["ports"]?.arrayValue ?? []).map { $0.text("mac_address") } }
            #expect(macs.count == 40)
            #expect(Set(macs).count == 40)
            #expect(try await cloud.used("port") == 40)
            let noted = try await cloud.database.read { try $0.query("SELECT count(*) AS count FROM ports")[0].int("count") }
            #expect(noted == 41)
        }
    }

    /// An address that each of the writers requests goes to one of them; requests without an address are never refused.
    @Test func concurrentRequestsForOneAddressHaveOneWinner() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network("shared", as: "admin", ["shared": true])
            // 12 addresses, one for metadata.
            let pools: JSONValue = [["start": "10.0.0.10", "end": "10.0.0.21"]]
            _ = try await cloud.subnet(network, "10.0.0.0/24", as: "admin", ["allocation_pools": pools])
            let free: JSONValue = ["network_id": .string(network)]
            let mac: JSONValue = ["network_id": .string(network), "mac_address": "fa:16:3e:00:00:01", "fixed_ips": []]
            let address: JSONValue = ["network_id": .string(network), "fixed_ips": [["ip_address": "10.0.0.15"]]]
            let asks: [(kind: String, ask: JSONValue)] = (0..<5).flatMap { _ in
                [("mac", Self.bulk([mac])), ("address", Self.bulk([address])), ("free", Self.bulk([free, free]))]
            }
            let answers = try await withThrowingTaskGroup(of: (String, NetworkHarness.Answer).self) { group in
                for (kind, ask) in asks { group.addTask { (kind, try await cloud.call("POST", "/ports", as: "admin", ask)) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            let refused = answers.filter { $0.1.status != 201 }
            for (kind, type) in [("mac", "MacAddressInUse"), ("address", "IpAddressAlreadyAllocated")] {
                let faults = refused.filter { $0.0 == kind }.map(\.1)
                #expect(faults.allSatisfy { $0.status == 409 && $0.type == type })
                #expect(faults.count == 4 || kind == "address" && faults.count == 5)
            }
            #expect(!refused.contains { $0.0 == "free" })
            let taken = answers.filter { $0.0 != "mac" && $0.1.status == 201 }.flatMap { Self.addresses($0.1) }
            #expect(taken.count == Set(taken).count)
        }
    }
}
