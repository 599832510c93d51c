import BareMetalService
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Bonded interfaces of nodes, and the ports in them.
@Suite struct PortGroupTests {
    private static func patch(_ name: String, _ value: JSONValue) -> JSONValue {
        [["op": "replace", "path": .string("/" + name), "value": value]]
    }

    @Test func aGroupHasPorts() async throws {
        try await NodeFixture.with { (cloud: NodeFixture) async throws in
            let node = try await cloud.enroll("one")
            let creation = try await cloud.call(
                "POST", "/v1/portgroups",
                [
                    "node_uuid": .string(node), "name": "bond0", "address": "52:54:00:00:00:0A", "properties": ["miimon": 100],
                    "extra": ["k": 1],
                ])
            #expect(
                creation.status == 201 && creation.json["mode"] == "active-backup" && creation.json["address"] == "52:54:00:00:00:0a",
                "\(creation.json)")
            let group = try #require(creation.json["uuid"]?.stringValue)
            let port = try await cloud.call(
                "POST", "/v1/ports", ["node_uuid": .string(node), "address": "52:54:00:00:00:01", "portgroup_uuid": .string(group)])
            #expect(port.status == 201 && port.json["portgroup_uuid"] == .string(group), "\(port.json)")
            let id = try #require(port.json["uuid"]?.stringValue)
            for path in ["/v1/portgroups/bond0/ports", "/v1/ports?portgroup=bond0", "/v1/ports?portgroup=\(group)"] {
                let list = try await cloud.call("GET", path)
                #expect(list.json["ports"]?.arrayValue?.count == 1, "\(path): \(list.json)")
            }
            let ofNode = try await cloud.call("GET", "/v1/nodes/one/portgroups/detail")
            #expect(ofNode.json["portgroups"]?.arrayValue?.first?["properties"] == ["miimon": 100], "\(ofNode.json)")
            #expect(try await cloud.call("DELETE", "/v1/portgroups/bond0").status == 400)
            let left = try await cloud.call("PATCH", "/v1/ports/\(id)", PortGroupTests.patch("portgroup_uuid", .null))
            #expect(left.json["portgroup_uuid"] == .null, "\(left.json)")
            #expect(try await cloud.call("DELETE", "/v1/portgroups/bond0").status == 204)
            #expect(try await cloud.call("GET", "/v1/portgroups/bond0").status == 404)
        }
    }

    @Test func portsThatBootByThemselvesNeedAGroupThatAllowsIt() async throws {
        try await NodeFixture.with { (cloud: NodeFixture) async throws in
            let node = JSONValue.string(try await cloud.enroll("one"))
            let creation = try await cloud.call(
                "POST", "/v1/portgroups", ["node_uuid": node, "name": "bond0", "standalone_ports_supported": false])
            let group = creation.json["uuid"] ?? .null
            func add(_ address: String, boots: Bool) async throws -> NodeFixture.Answer {
                try await cloud.call(
                    "POST", "/v1/ports",
                    ["node_uuid": node, "address": .string(address), "portgroup_uuid": group, "pxe_enabled": .bool(boots)])
            }
            #expect(try await add("52:54:00:00:00:01", boots: true).status == 409)
            let port = try await add("52:54:00:00:00:01", boots: false)
            #expect(port.status == 201, "\(port.json)")
            let path = "/v1/ports/\(port.json["uuid"]?.stringValue ?? "")"
            #expect(try await cloud.call("PATCH", path, PortGroupTests.patch("pxe_enabled", true)).status == 409)
            let standalone = "standalone_ports_supported"
            #expect(try await cloud.call("PATCH", "/v1/portgroups/bond0", PortGroupTests.patch(standalone, true)).status == 200)
            #expect(try await cloud.call("PATCH", path, PortGroupTests.patch("pxe_enabled", true)).status == 200)
            #expect(try await cloud.call("PATCH", "/v1/portgroups/bond0", PortGroupTests.patch(standalone, false)).status == 409)
        }
    }

    @Test func whatIsNoGroupIsRefused() async throws {
        try await NodeFixture.with { (cloud: NodeFixture) async throws in
            let (node, other) = (JSONValue.string(try await cloud.enroll("one")), JSONValue.string(try await cloud.enroll("two")))
            let creation = try await cloud.call(
                "POST", "/v1/portgroups", ["node_uuid": node, "name": "bond0", "address": "52:54:00:00:00:0a"])
            #expect(creation.status == 201)
            let refused: [(JSONObject, Int)] = [
                ([:], 400), (["node_uuid": "22222222-2222-4222-8222-222222222222"], 400), (["node_uuid": node, "name": "a b"], 400),
                (["node_uuid": node, "name": "bond0"], 409), (["node_uuid": node, "address": "52:54:00:00:00:0A"], 409),
                (["node_uuid": node, "address": "x"], 400), (["node_uuid": node, "mode": "fast"], 400),
                (["node_uuid": node, "colour": 1], 400),
            ]
            for (body, status) in refused {
                let answer = try await cloud.call("POST", "/v1/portgroups", .object(body))
                #expect(answer.status == status, "\(body): \(answer.json)")
            }
            let foreign = try await cloud.call(
                "POST", "/v1/ports", ["node_uuid": other, "address": "52:54:00:00:00:01", "portgroup_uuid": creation.json["uuid"] ?? .null])
            #expect(foreign.status == 400 && foreign.fault.contains("portgroup_uuid"), "\(foreign.json)")
            #expect(try await cloud.call("PATCH", "/v1/portgroups/bond0", PortGroupTests.patch("node_uuid", other)).status == 400)
            #expect(try await cloud.call("GET", "/v1/portgroups", version: "1.22").status == 404)
        }
    }
}
