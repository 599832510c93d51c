import BareMetalCore
import Database
import JSON
import Kernel
import TestKit
import Testing

/// Every member of a request has a visible effect or is refused by name.
@Suite struct RequestMemberTests {
    private static let id: JSONValue = "22222222-2222-4222-8222-000000000000"

    private static func nodes(chassis: String, parent: String) -> RequestMembers {
        let interfaces: [(HardwareInterface, String)] = [
            (.bios, "no-bios"), (.boot, "fake"), (.console, "no-console"), (.deploy, "fake"), (.firmware, "no-firmware"),
            (.inspect, "no-inspect"), (.management, "fake"), (.network, "noop"), (.power, "fake"), (.raid, "no-raid"),
            (.rescue, "no-rescue"), (.storage, "noop"), (.vendor, "no-vendor"),
        ]
        return RequestMembers(
            "/v1/nodes", nil, idMember: "uuid", base: ["driver": "fake-hardware"],
            seen: [
                .init("driver", "redfish"), .init("uuid", id), .init("name", "n#"), .init("driver_info", ["fake_delay": 0]),
                .init("properties", ["cpus": 4]), .init("instance_info", ["image_source": "x"]), .init("extra", ["k": "v"]),
                .init("chassis_uuid", .string(chassis)), .init("instance_uuid", id), .init("maintenance", true),
                .init("resource_class", "large"), .init("conductor_group", ""), .init("automated_clean", false), .init("owner", "p1"),
                .init("description", "d"), .init("retired", true), .init("retired_reason", "old"), .init("lessee", "p2"),
                .init("network_data", [:]), .init("shard", "s"), .init("parent_node", .string(parent)), .init("disable_power_off", true),
            ] + interfaces.map { .init($0.0.member, .string($0.1)) },
            refused: [
                .init("driver", "ilo"), .init("conductor_group", "other"), .init("network_data", ["links": []]),
                .init("protected", true), .init("provision_state", "available"), .init("boot_mode", "uefi"), .init("raid_config", [:]),
                .init("instance_info", ["configdrive": "QUFB"]), .init("driver_info", ["fake_password": "x"]), .init("nonsense", 1),
            ] + interfaces.map { .init($0.0.member, "absent") }, refusals: ["interfaces of hardware type", "supports driver"])
    }

    private static func kinds(node: String, group: String) -> [RequestMembers] {
        [
            RequestMembers(
                "/v1/ports", nil, idMember: "uuid", base: ["node_uuid": .string(node), "address": "52:54:00:00:00:01"],
                seen: [
                    .init("address", "52:54:00:00:00:02"), .init("uuid", id), .init("extra", ["k": "v"]), .init("name", "p#"),
                    .init("local_link_connection", ["switch_id": "52:54:00:00:00:09", "port_id": "1"]), .init("pxe_enabled", false),
                    .init("portgroup_uuid", .string(group)), .init("physical_network", "physnet1"),
                ],
                refused: [
                    .init("is_smartnic", true), .init("internal_info", ["k": "v"]), .init("local_link_connection", ["x": "y"]),
                    .init("portgroup_uuid", id),
                ], refusals: ["group"]),
            RequestMembers(
                "/v1/portgroups", nil, idMember: "uuid", base: ["node_uuid": .string(node)],
                seen: [
                    .init("uuid", id), .init("name", "g#"), .init("address", "52:54:00:00:00:03"), .init("extra", ["k": "v"]),
                    .init("standalone_ports_supported", false), .init("mode", "802.3ad"), .init("properties", ["miimon": 100]),
                ], refused: [.init("mode", "none"), .init("internal_info", ["k": "v"])]),
            RequestMembers(
                "/v1/chassis", nil, idMember: "uuid",
                seen: [.init("uuid", id), .init("description", "d"), .init("extra", ["k": "v"])], refused: [.init("name", "n")]),
            RequestMembers(
                "/v1/allocations", nil, idMember: "uuid", base: ["resource_class": "large"],
                seen: [
                    .init("uuid", id), .init("name", "a#"), .init("traits", ["CUSTOM_A"]), .init("extra", ["k": "v"]),
                    .init("owner", "p2"), .init("candidate_nodes", [.string(node)]),
                    .init("node", .string(node), shownAs: "node_uuid", showing: .string(node)),
                ], refused: [.init("traits", ["gpu"]), .init("state", "active"), .init("candidate_nodes", ["absent"])], refusals: ["trait"]),
        ]
    }

    @Test func membersAreSeenOrRefused() async throws {
        try await NodeFixture.with { cloud in
            let node = try await cloud.enroll("one", ["resource_class": "large"])
            let parent = try await cloud.enroll("parent")
            let chassis = try await cloud.call("POST", "/v1/chassis", [:]).json["uuid"]?.stringValue ?? ""
            let group = try await cloud.call("POST", "/v1/portgroups", ["node_uuid": .string(node)]).json["uuid"]?.stringValue ?? ""
            // A node that is in use gets its allocation afterwards.
            try await cloud.database.write { connection in
                try connection.execute("UPDATE bare_metal_nodes SET provision_state = 'active' WHERE id = \(node)::uuid")
            }
            for kind in [RequestMemberTests.nodes(chassis: chassis, parent: parent)] + RequestMemberTests.kinds(node: node, group: group) {
                let findings = try await kind.findings(cloud.api, cloud.database) { method, path, body in
                    // Resources that are in use are removed all the same.
                    if method == "DELETE", let id = path.split(separator: "/").last.map(String.init) {
                        try await cloud.database.write { connection in
                            try connection.execute("UPDATE bare_metal_nodes SET instance_uuid = NULL WHERE instance_uuid = \(id)::uuid")
                            try connection.execute("UPDATE bare_metal_nodes SET instance_uuid = NULL WHERE id = \(id)::uuid")
                            try connection.execute("DELETE FROM bare_metal_allocations WHERE id = \(id)::uuid")
                            try connection.execute("DELETE FROM bare_metal_ports WHERE id = \(id)::uuid")
                        }
                    }
                    let answer = try await cloud.call(method, path, body)
                    return (answer.status, answer.json)
                }
                #expect(findings == [])
            }
        }
    }
}
