import Database
import JSON
import Kernel
import Testing

/// Adds and removes a security group of several ports at once, as Compute requests it.
@Suite struct NetworkPortGroupTests {
    private static let subject = ActingSubject.accepted(project: "p1", user: "u1")

    private static func change(
        _ cloud: NetworkHarness, _ ports: [String], _ more: JSONObject, as token: String = "service",
        for subject: ActingSubject? = NetworkPortGroupTests.subject
    ) async throws -> NetworkHarness.Answer {
        var body = more
        body["ports"] = JSONValue(ports)
        return try await cloud.call(
            "PUT", "/wolke/port-security-groups", as: token, ["port_security_groups": .object(body)], headers: subject?.headers ?? [])
    }

    private static func groups(_ cloud: NetworkHarness, _ port: String) async throws -> Set<String> {
        let answer = try await cloud.call("GET", "/ports/\(port)", as: "admin")
        return Set((answer.json["port"]?["security_groups"]?.arrayValue ?? []).compactMap(\.stringValue))
    }

    @Test func allPortsOrNone() async throws {
        try await NetworkHarness.with { cloud in
            try await cloud.database.write { connection in
                for resource in ["security_group", "security_group_rule"] {
                    try connection.execute(
                        "INSERT INTO quota_limits (project_id, resource, quota_limit) VALUES ('p1', \("network:" + resource), -1)")
                }
            }
            let network = try await cloud.network()
            var ports: [String] = []
            for _ in 0..<3 { ports.append(try await cloud.make("ports", "port", ["network_id": .string(network)]).id) }
            let before = try await NetworkPortGroupTests.groups(cloud, ports[0])
            let group = try await cloud.make("security-groups", "security_group", ["name": "extra"]).id
            let added = try await NetworkPortGroupTests.change(cloud, ports, ["add": .string(group)])
            #expect(added.status == 200, "\(added.json)")
            #expect(Set((added.json["port_security_groups"]?["ports"]?.arrayValue ?? []).compactMap(\.stringValue)) == Set(ports))
            for port in ports { #expect(try await NetworkPortGroupTests.groups(cloud, port) == before.union([group])) }
            // A repetition changes nothing.
            #expect(
                try await NetworkPortGroupTests.change(cloud, ports, ["add": .string(group)]).json["port_security_groups"]?["ports"] == [])
            #expect(try await NetworkPortGroupTests.change(cloud, Array(ports.prefix(2)), ["remove": .string(group)]).status == 200)
            #expect(try await NetworkPortGroupTests.groups(cloud, ports[0]) == before)
            #expect(try await NetworkPortGroupTests.groups(cloud, ports[2]) == before.union([group]))

            // The last port (in the order of ids) has the maximum: the other ports are not changed.
            let last = try #require(ports.max())
            var many = Array(before)
            while many.count < 16 {
                many.append(try await cloud.make("security-groups", "security_group", ["name": .string("g\(many.count)")]).id)
            }
            #expect(try await cloud.call("PUT", "/ports/\(last)", ["port": ["security_groups": JSONValue(many)]]).status == 200)
            let other = try await cloud.make("security-groups", "security_group", ["name": "other"]).id
            let refused = try await NetworkPortGroupTests.change(cloud, ports, ["add": .string(other)])
            #expect(refused.status == 400 && refused.message?.contains(last) == true, "\(refused.json)")
            for port in ports { #expect(try await !NetworkPortGroupTests.groups(cloud, port).contains(other), "\(port)") }
        }
    }

    @Test("S10: a service can only change groups of the subject's own ports, all of them or none")
    func s10PortsOfTheSubject() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            let own = try await cloud.make("ports", "port", ["network_id": .string(network)]).id
            let group = try await cloud.make("security-groups", "security_group", ["name": "g"]).id
            let foreignNetwork = try await cloud.network("n", as: "other")
            let foreign = try await cloud.make("ports", "port", as: "other", ["network_id": .string(foreignNetwork)]).id
            let foreignGroup = try await cloud.make("security-groups", "security_group", as: "other", ["name": "g"]).id
            let before = try await NetworkPortGroupTests.groups(cloud, own)
            func status(
                _ ports: [String], _ more: JSONObject, as token: String = "service",
                for subject: ActingSubject? = NetworkPortGroupTests.subject
            ) async throws -> Int {
                try await NetworkPortGroupTests.change(cloud, ports, more, as: token, for: subject).status
            }
            #expect(try await status([own, foreign], ["add": .string(group)]) == 404)
            #expect(try await [400, 404].contains(status([own], ["add": .string(foreignGroup)])))
            #expect(try await status([own], ["add": .string(group)], as: "member", for: nil) == 403)
            #expect(try await status([own], ["add": .string(group)], for: nil) == 403)
            #expect(try await status([own], ["add": .string(group)], for: .accepted(project: "p2", user: "u3")) == 404)
            for wrong in [[:], ["add": .string(group), "remove": .string(group)], ["add": "x"]] as [JSONObject] {
                #expect(try await status([own], wrong) == 400, "\(wrong)")
            }
            #expect(try await status([], ["add": .string(group)]) == 400)
            #expect(try await NetworkPortGroupTests.groups(cloud, own) == before)
        }
    }
}
