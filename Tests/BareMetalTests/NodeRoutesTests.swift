import Database
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Nodes, ports, traits, chassis and drivers, from a client's view.
@Suite struct NodeRoutesTests {
    @Test func aNodeIsEnrolledListedChangedAndRemoved() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.enroll("one", ["properties": ["cpus": 8], "extra": ["rack": "r1"], "resource_class": "bm.large"])
            let other = try await cloud.enroll("two", ["owner": "p1"])
            let node = try await cloud.node("one")
            #expect(node["uuid"]?.stringValue == id && node["provision_state"] == "enroll" && node["power_state"] == .null)
            #expect(node["power_interface"] == "fake" && node["bios_interface"] == "no-bios" && node["traits"] == [])
            #expect(node["updated_at"] == .null && node["reservation"] == .null)
            func names(_ query: String, as token: String = "admin") async throws -> [String] {
                let answer = try await cloud.call("GET", "/v1/nodes" + query, as: token)
                #expect(answer.status == 200, "\(query): \(answer.json)")
                return (answer.json["nodes"]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue }
            }
            #expect(try await names("") == ["one", "two"])
            #expect(try await names("?resource_class=bm.large") == ["one"])
            #expect(try await names("?owner=p1&detail=true") == ["two"])
            #expect(try await names("?associated=true") == [])
            #expect(try await names("?provision_state=enroll&sort_key=name&sort_dir=desc") == ["two", "one"])
            let page = try await cloud.call("GET", "/v1/nodes?limit=1")
            #expect(page.json["next"]?.stringValue?.contains("marker=\(id)") == true, "\(page.json)")
            #expect(try await names("?limit=1&marker=\(id)") == ["two"])
            let summary = try await cloud.call("GET", "/v1/nodes").json["nodes"]?.arrayValue?.first?.objectValue?.names ?? []
            #expect(Set(summary) == ["uuid", "name", "instance_uuid", "maintenance", "power_state", "provision_state", "links"])
            let fields = try await cloud.call("GET", "/v1/nodes/one?fields=uuid,extra")
            #expect(Set(fields.json.objectValue?.names ?? []) == ["uuid", "extra"])
            #expect(try await cloud.call("GET", "/v1/nodes/one?fields=none").status == 400)
            #expect(try await cloud.call("GET", "/v1/nodes?nonsense=1").status == 400)

            let changed = try await cloud.call(
                "PATCH", "/v1/nodes/one",
                [
                    ["op": "replace", "path": "/name", "value": "first"], ["op": "add", "path": "/extra/row", "value": 3],
                    ["op": "remove", "path": "/properties/cpus"], ["op": "add", "path": "/maintenance", "value": true],
                ])
            #expect(changed.status == 200, "\(changed.json)")
            #expect(
                changed.json["name"] == "first" && changed.json["extra"] == ["rack": "r1", "row": 3] && changed.json["properties"] == [:])
            #expect(changed.json["maintenance"] == true)
            #expect(try await cloud.patch("first", "replace", "/name", "two").status == 409)
            #expect(try await cloud.patch("first", "replace", "/name", "a b").status == 400)
            #expect(try await cloud.patch("first", "replace", "/name", .string(other)).status == 400)
            #expect(try await cloud.patch("first", "replace", "/provision_state", "active").status == 400)
            #expect(try await cloud.patch("first", "replace", "/driver", "redfish-9").status == 400)
            #expect(try await cloud.patch("first", "replace", "/power_interface", "ipmitool").status == 400)
            #expect(try await cloud.patch("first", "add", "/driver_info/fake_password", "x").status == 400)
            #expect(try await cloud.patch("first", "replace", "/extra", [1]).status == 400)
            #expect(try await cloud.call("DELETE", "/v1/nodes/first").status == 204)
            #expect(try await cloud.call("GET", "/v1/nodes/\(id)").status == 404)
            #expect(try await names("") == ["two"])
        }
    }

    @Test func badInput() async throws {
        try await NodeFixture.with { cloud in
            _ = try await cloud.enroll("taken")
            let refused: [(JSONValue, Int)] = [
                ([:], 400), (["driver": "none"], 400), (["driver": "fake-hardware", "name": "taken"], 409),
                (["driver": "fake-hardware", "name": "detail"], 400), (["driver": "fake-hardware", "nonsense": 1], 400),
                (["driver": "fake-hardware", "chassis_uuid": "6ec9c44a-0000-4000-8000-000000000000"], 400),
                (["driver": "fake-hardware", "parent_node": "6ec9c44a-0000-4000-8000-000000000000"], 400),
                (["driver": "fake-hardware", "driver_info": ["ipmi_password": "x"]], 400),
                (["driver": "fake-hardware", "network_data": ["links": []]], 400),
                (["driver": "fake-hardware", "power_interface": "x"], 400),
                (["driver": "fake-hardware", "extra": "x"], 400), (["driver": 3], 400),
            ]
            for (body, status) in refused {
                let answer = try await cloud.call("POST", "/v1/nodes", body)
                #expect(answer.status == status, "\(body): \(answer.json)")
                #expect(!answer.fault.isEmpty, "\(answer.json)")
            }
            #expect(try await cloud.call("GET", "/v1/nodes").json["nodes"]?.arrayValue?.count == 1)
        }
    }

    @Test func versions() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.enroll("one")
            let old = try await cloud.call("GET", "/v1/nodes/\(id)", version: "1.4")
            #expect(old.json["name"] == nil && old.json["provision_state"] == "enroll" && old.json["traits"] == nil)
            #expect(old.headers["x-openstack-ironic-api-version"] == "1.4")
            #expect(old.headers["x-openstack-ironic-api-minimum-version"] == "1.1")
            #expect(old.headers["x-openstack-ironic-api-maximum-version"] == "1.96")
            let newer = try await cloud.call("GET", "/v1/nodes/\(id)", version: "1.115")
            #expect(newer.status == 406 && newer.headers["x-openstack-ironic-api-maximum-version"] == "1.96")
            #expect(
                try await cloud.call("PATCH", "/v1/nodes/\(id)", [["op": "add", "path": "/owner", "value": "p1"]], version: "1.49").status
                    == 406)
            let states = try await cloud.call("PUT", "/v1/nodes/\(id)/states/provision", ["target": "manage"], version: "1.3")
            #expect(states.status == 406)
            // Before 1.11 a new node was available at once, and before 1.2 this state was shown as null.
            let ready = try await cloud.call("POST", "/v1/nodes", ["driver": "fake-hardware"], version: "1.1")
            #expect(ready.status == 201 && ready.json["provision_state"] == .null, "\(ready.json)")
        }
    }

    @Test("S4: owners and lessees see their nodes, others see none") func s4OwnersAndLessees() async throws {
        try await NodeFixture.with { cloud in
            let own = try await cloud.enroll("own", ["owner": "p1"])
            let leased = try await cloud.enroll("leased", ["lessee": "p1"])
            let foreign = try await cloud.enroll("foreign", ["owner": "p9"])
            for token in ["member", "reader"] {
                let list = try await cloud.call("GET", "/v1/nodes", as: token)
                #expect(list.json["nodes"]?.arrayValue?.count == 2, "\(token): \(list.json)")
                #expect(try await cloud.call("GET", "/v1/nodes/\(own)", as: token).status == 200)
                #expect(try await cloud.call("GET", "/v1/nodes/\(foreign)", as: token).status == 404)
            }
            #expect(try await cloud.call("GET", "/v1/nodes", as: "other").json["nodes"] == [])
            #expect(try await cloud.patch(own, "add", "/extra/k", 1, as: "member").status == 200)
            #expect(try await cloud.patch(leased, "add", "/extra/k", 1, as: "member").status == 200)
            #expect(try await cloud.patch(own, "replace", "/owner", "p2", as: "member").status == 403)
            #expect(try await cloud.patch(leased, "replace", "/lessee", "p2", as: "member").status == 403)
            #expect(try await cloud.patch(own, "add", "/driver_info/fake_delay", 1, as: "member").status == 403)
            #expect(try await cloud.patch(own, "add", "/extra/k", 1, as: "reader").status == 403)
            #expect(try await cloud.provision(own, "manage", as: "member").status == 202)
            #expect(try await cloud.provision(leased, "manage", as: "member").status == 403)
            #expect(try await cloud.provision(foreign, "manage", as: "member").status == 404)
            #expect(try await cloud.call("DELETE", "/v1/nodes/\(own)", as: "member").status == 403)
            #expect(try await cloud.call("POST", "/v1/nodes", ["driver": "fake-hardware"], as: "member").status == 403)
        }
    }

    @Test func portsBelongToNodes() async throws {
        try await NodeFixture.with { cloud in
            let node = try await cloud.enroll("one", ["owner": "p1"])
            let creation = try await cloud.call(
                "POST", "/v1/ports",
                [
                    "node_uuid": .string(node), "address": "52:54:00:AA:bb:01", "name": "nic1", "physical_network": "physnet1",
                    "local_link_connection": ["switch_id": "0A:1b:2c:3d:4e:5f", "port_id": "Eth1", "switch_info": "tor-1"],
                ])
            #expect(creation.status == 201, "\(creation.json)")
            let id = try #require(creation.json["uuid"]?.stringValue)
            #expect(creation.json["address"] == "52:54:00:aa:bb:01" && creation.json["pxe_enabled"] == true)
            #expect(creation.json["local_link_connection"]?["switch_id"] == "0a:1b:2c:3d:4e:5f")
            #expect(try await cloud.call("POST", "/v1/ports", ["node_uuid": .string(node), "address": "52:54:00:aa:bb:01"]).status == 409)
            #expect(try await cloud.call("POST", "/v1/ports", ["node_uuid": .string(node), "address": "nonsense"]).status == 400)
            #expect(
                try await cloud.call(
                    "POST", "/v1/ports", ["node_uuid": "6ec9c44a-0000-4000-8000-000000000000", "address": "52:54:00:aa:bb:02"]
                ).status == 400)
            let links: [JSONValue] = [["port_id": "x"], ["switch_id": "x", "port_id": "y"], ["nonsense": "x"], ["network_type": "x"]]
            for link in links {
                let answer = try await cloud.call(
                    "PATCH", "/v1/ports/\(id)", [["op": "replace", "path": "/local_link_connection", "value": link]])
                #expect(answer.status == 400, "\(link): \(answer.json)")
            }
            let changed = try await cloud.call(
                "PATCH", "/v1/ports/\(id)",
                [
                    ["op": "replace", "path": "/address", "value": "52:54:00:aa:bb:03"],
                    ["op": "replace", "path": "/pxe_enabled", "value": false],
                ])
            #expect(changed.json["address"] == "52:54:00:aa:bb:03" && changed.json["pxe_enabled"] == false, "\(changed.json)")
            for target in [
                "/v1/ports", "/v1/nodes/one/ports", "/v1/ports?node=one", "/v1/ports?node=\(node)",
                "/v1/ports/detail?address=52:54:00:AA:BB:03",
            ] {
                let list = try await cloud.call("GET", target, as: "member")
                #expect(list.json["ports"]?.arrayValue?.count == 1, "\(target): \(list.json)")
            }
            #expect(try await cloud.call("GET", "/v1/ports", as: "other").json["ports"] == [])
            #expect(try await cloud.call("GET", "/v1/ports/\(id)", as: "other").status == 404)
            #expect(try await cloud.call("DELETE", "/v1/ports/\(id)").status == 204)
            #expect(try await cloud.call("GET", "/v1/ports").json["ports"] == [])
        }
    }

    @Test func traits() async throws {
        try await NodeFixture.with { cloud in
            let node = try await cloud.enroll("one")
            func traits() async throws -> JSONValue? { try await cloud.call("GET", "/v1/nodes/one/traits").json["traits"] }
            #expect(try await cloud.call("PUT", "/v1/nodes/\(node)/traits", ["traits": ["CUSTOM_B", "HW_CPU_X86_VMX"]]).status == 204)
            #expect(try await cloud.call("PUT", "/v1/nodes/\(node)/traits/CUSTOM_A").status == 204)
            #expect(try await traits() == ["CUSTOM_A", "CUSTOM_B", "HW_CPU_X86_VMX"])
            #expect(try await cloud.node("one")["traits"] == ["CUSTOM_A", "CUSTOM_B", "HW_CPU_X86_VMX"])
            for name in ["custom_a", "CUSTOM_", "lower", "X"] {
                #expect(try await cloud.call("PUT", "/v1/nodes/\(node)/traits/\(name)").status == 400, "\(name)")
            }
            #expect(try await cloud.call("DELETE", "/v1/nodes/\(node)/traits/CUSTOM_C").status == 404)
            #expect(try await cloud.call("DELETE", "/v1/nodes/\(node)/traits/CUSTOM_A").status == 204)
            let many = (1...49).map { "CUSTOM_T\($0)" }
            #expect(try await cloud.call("PUT", "/v1/nodes/\(node)/traits", ["traits": JSONValue(many)]).status == 204)
            #expect(try await cloud.call("PUT", "/v1/nodes/\(node)/traits/CUSTOM_X").status == 204)
            #expect(try await cloud.call("PUT", "/v1/nodes/\(node)/traits/CUSTOM_Y").status == 400)
            #expect(try await cloud.call("DELETE", "/v1/nodes/\(node)/traits").status == 204)
            #expect(try await traits() == [])
        }
    }

    @Test func chassisAndDrivers() async throws {
        try await NodeFixture.with { cloud in
            let creation = try await cloud.call("POST", "/v1/chassis", ["description": "left", "extra": ["row": 1]])
            let chassis = try #require(creation.json["uuid"]?.stringValue, "\(creation.json)")
            _ = try await cloud.enroll("one", ["chassis_uuid": .string(chassis)])
            #expect(try await cloud.call("DELETE", "/v1/chassis/\(chassis)").status == 400)
            let changed = try await cloud.call(
                "PATCH", "/v1/chassis/\(chassis)", [["op": "replace", "path": "/description", "value": "right"]])
            #expect(changed.json["description"] == "right" && changed.json["extra"] == ["row": 1], "\(changed.json)")
            #expect(try await cloud.call("GET", "/v1/chassis").json["chassis"]?.arrayValue?.count == 1)
            #expect(try await cloud.patch("one", "remove", "/chassis_uuid").status == 200)
            #expect(try await cloud.call("DELETE", "/v1/chassis/\(chassis)").status == 204)
            #expect(try await cloud.call("DELETE", "/v1/chassis/\(chassis)").status == 404)
            let drivers = try await cloud.call("GET", "/v1/drivers")
            #expect(drivers.json["drivers"]?.arrayValue?.first?["name"] == "fake-hardware")
            let driver = try await cloud.call("GET", "/v1/drivers/fake-hardware")
            #expect(driver.json["default_deploy_interface"] == "fake" && driver.json["type"] == "dynamic")
            #expect(try await cloud.call("GET", "/v1/drivers/fake-hardware/properties").json["fake_delay"] != nil)
            #expect(try await cloud.call("GET", "/v1/drivers/none").status == 404)
            #expect(try await cloud.call("GET", "/v1/conductors").json["conductors"]?.arrayValue?.count == 1)
            #expect(try await cloud.call("GET", "/v1/drivers", as: "member").status == 403)
        }
    }
}
