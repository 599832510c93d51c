import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Every member of a request has a visible effect or is refused by name.
@Suite struct NetworkRequestMemberTests {
    /// Members of Neutron's API with a value; nil if this cloud refuses them.
    private struct Kind: Sendable {
        let path: String
        let name: String
        let base: JSONObject
        let seen: [(String, JSONValue)]
        let refused: [(String, JSONValue)]
        var elsewhere: [String: String] = [:]
    }

    private static func kinds(network: String, external: String, port: String) -> [Kind] {
        [
            Kind(
                path: "networks", name: "network", base: [:],
                seen: [
                    ("name", "n"), ("description", "d"), ("admin_state_up", false), ("shared", true), ("router:external", true),
                    ("port_security_enabled", false), ("mtu", 1400), ("availability_zone_hints", ["nova"]), ("tags", ["t"]),
                ],
                refused: [
                    ("availability_zone_hints", ["elsewhere"]), ("dns_domain", "a."), ("qos_policy_id", .string(port)),
                    ("vlan_transparent", true),
                    ("segments", []), ("is_default", true), ("ha", true), ("provider:network_type", "nonsense"), ("status", "DOWN"),
                ]),
            Kind(
                path: "subnets", name: "subnet", base: ["network_id": .string(network), "cidr": "10.77.0.0/24", "ip_version": 4],
                seen: [
                    ("name", "n"), ("description", "d"), ("enable_dhcp", false), ("gateway_ip", "10.77.0.9"), ("gateway_ip", .null),
                    ("dns_nameservers", ["192.0.2.1"]), ("host_routes", [["destination": "192.0.2.0/24", "nexthop": "10.77.0.4"]]),
                    ("allocation_pools", [["start": "10.77.0.20", "end": "10.77.0.30"]]), ("tags", ["t"]),
                ],
                refused: [
                    ("subnetpool_id", .string(port)), ("use_default_subnetpool", true), ("prefixlen", 26),
                    ("service_types", ["compute:nova"]),
                    ("segment_id", .string(port)), ("dns_publish_fixed_ip", true), ("ipv6_ra_mode", "slaac"), ("cidr", "169.254.0.0/16"),
                ]),
            Kind(
                path: "ports", name: "port", base: ["network_id": .string(network)],
                seen: [
                    ("name", "n"), ("description", "d"), ("admin_state_up", false), ("device_id", "x"), ("device_owner", "me:mine"),
                    ("mac_address", "fa:16:3e:77:00:01"), ("security_groups", []),
                    ("allowed_address_pairs", [["ip_address": "10.0.0.250", "mac_address": "fa:16:3e:77:00:02"]]),
                    ("port_security_enabled", true), ("binding:host_id", "hv1"), ("binding:vnic_type", "normal"), ("binding:profile", [:]),
                    ("tags", ["t"]),
                    ("extra_dhcp_opts", [["opt_name": "mtu", "opt_value": "1400", "ip_version": 4]]),
                ],
                refused: [
                    ("binding:profile", ["pci_slot": "x"]), ("binding:vnic_type", "direct"), ("qos_policy_id", .string(port)),
                    ("dns_name", "a"),
                    ("dns_domain", "a."), ("mac_learning_enabled", true), ("propagate_uplink_status", true),
                    ("numa_affinity_policy", "required"),
                    ("device_profile", "x"), ("data_plane_status", "ACTIVE"), ("hints", ["openvswitch": [:]]), ("trusted", true),
                    ("status", "ACTIVE"),
                ]),
            Kind(
                path: "routers", name: "router", base: [:],
                seen: [
                    ("name", "n"), ("description", "d"), ("admin_state_up", false), ("availability_zone_hints", ["nova"]), ("tags", ["t"]),
                ],
                refused: [
                    ("availability_zone_hints", ["elsewhere"]), ("distributed", true), ("ha", true), ("flavor_id", .string(port)),
                    ("service_type_id", .string(port)),
                    ("enable_ndp_proxy", true), ("external_gateways", []), ("enable_default_route_bfd", true),
                    ("qos_policy_id", .string(port)),
                ]),
            Kind(
                path: "floatingips", name: "floatingip", base: ["floating_network_id": .string(external)],
                seen: [("description", "d"), ("tags", ["t"])],
                refused: [
                    ("dns_name", "a"), ("dns_domain", "a."), ("qos_policy_id", .string(port)), ("distributed", true), ("subnet_id", "x"),
                    ("status", "ACTIVE"),
                ]),
            Kind(
                path: "security-groups", name: "security_group", base: ["name": "g"],
                seen: [("description", "d"), ("stateful", false), ("tags", ["t"])],
                refused: [("security_group_rules", []), ("shared", true), ("nonsense", 1)]),
        ]
    }

    /// Members of changing requests.
    private static func changes(network: String, external: String, port: String) -> [RequestMembers] {
        let absent = JSONValue.string("22222222-2222-4222-8222-000000000000")
        let (name, description) = (RequestMembers.Member("name", "n"), RequestMembers.Member("description", "d"))
        return [
            RequestMembers(
                "/networks", "network", change: .put,
                seen: [
                    name, description, .init("admin_state_up", false), .init("shared", true), .init("router:external", true),
                    .init("port_security_enabled", false), .init("mtu", 1400),
                ],
                refused: [
                    .init("availability_zone_hints", ["nova"]), .init("dns_domain", "a."), .init("qos_policy_id", absent),
                    .init("vlan_transparent", true), .init("provider:segmentation_id", 7), .init("project_id", "p2"),
                    .init("tenant_id", "p2"), .init("is_default", true), .init("status", "DOWN"), .init("id", absent),
                ]),
            RequestMembers(
                "/subnets", "subnet", change: .put,
                base: [
                    "network_id": .string(network), "cidr": "10.78.0.0/24", "ip_version": 4,
                    "allocation_pools": [["start": "10.78.0.40", "end": "10.78.0.50"]],
                ],
                seen: [
                    name, description, .init("enable_dhcp", false), .init("gateway_ip", "10.78.0.9"), .init("gateway_ip", .null),
                    .init("dns_nameservers", ["192.0.2.1"]),
                    .init("host_routes", [["destination": "192.0.2.0/24", "nexthop": "10.78.0.4"]]),
                    .init("allocation_pools", [["start": "10.78.0.20", "end": "10.78.0.30"]]),
                ],
                refused: [
                    .init("cidr", "10.79.0.0/24"), .init("network_id", .string(external)), .init("ip_version", 6),
                    .init("service_types", ["compute:nova"]), .init("segment_id", absent), .init("project_id", "p2"),
                ]),
            RequestMembers(
                "/ports", "port", change: .put, base: ["network_id": .string(network)],
                seen: [
                    name, description, .init("admin_state_up", false), .init("device_id", "x"), .init("device_owner", "me:mine"),
                    .init("mac_address", "fa:16:3e:78:00:01"), .init("security_groups", []),
                    .init("allowed_address_pairs", [["ip_address": "10.0.0.250", "mac_address": "fa:16:3e:77:00:02"]]),
                    .init("binding:host_id", "hv1"), .init("binding:vnic_type", "normal"), .init("binding:profile", [:]),
                    .init("extra_dhcp_opts", [["opt_name": "mtu", "opt_value": "1400", "ip_version": 4]]),
                    .init("port_security_enabled", false, with: ["security_groups": []]),
                ],
                refused: [
                    .init("binding:profile", ["pci_slot": "x"]), .init("binding:vnic_type", "direct"), .init("qos_policy_id", absent),
                    .init("dns_name", "a"), .init("network_id", .string(external)), .init("project_id", "p2"),
                    .init("status", "ACTIVE"), .init("fixed_ips", [["ip_address": "192.0.2.1"]]),
                ], refusals: ["192.0.2.1"]),
            RequestMembers(
                "/routers", "router", change: .put, base: [:],
                seen: [name, description, .init("admin_state_up", false)],
                refused: [
                    .init("availability_zone_hints", ["nova"]), .init("distributed", true), .init("ha", true), .init("flavor_id", absent),
                    .init("project_id", "p2"), .init("routes", [["destination": "192.0.2.0/24", "nexthop": "203.0.113.77"]]),
                    .init("external_gateway_info", ["network_id": absent]),
                ], refusals: ["Network 22222222"]),
            RequestMembers(
                "/floatingips", "floatingip", change: .put, base: ["floating_network_id": .string(external)],
                seen: [description],
                refused: [
                    .init("port_id", absent), .init("fixed_ip_address", "10.0.0.9"), .init("floating_network_id", .string(network)),
                    .init("floating_ip_address", "203.0.113.99"), .init("dns_name", "a"), .init("project_id", "p2"),
                ], refusals: ["Port 22222222"]),
            RequestMembers(
                "/security-groups", "security_group", change: .put, base: ["name": "g#"],
                seen: [name, description, .init("stateful", false)],
                refused: [.init("security_group_rules", []), .init("shared", true), .init("project_id", "p2")]),
        ]
    }

    @Test func membersOfChangesAreSeenOrRefused() async throws {
        try await NetworkHarness.with { cloud in
            let external = try await cloud.external()
            let network = try await cloud.network()
            _ = try await cloud.subnet(network)
            let port = try await cloud.make("ports", "port", ["network_id": .string(network)]).id
            for kind in NetworkRequestMemberTests.changes(network: network, external: external, port: port) {
                let findings = try await kind.findings(cloud.api, cloud.database) { method, path, body in
                    let answer = try await cloud.call(method, path, as: "admin", body)
                    return (answer.status, answer.json)
                }
                #expect(findings == [])
            }
        }
    }

    @Test func membersAreSeenOrRefused() async throws {
        try await NetworkHarness.with { cloud in
            let external = try await cloud.external()
            let network = try await cloud.network()
            _ = try await cloud.subnet(network)
            let port = try await cloud.make("ports", "port", ["network_id": .string(network)]).id
            for kind in NetworkRequestMemberTests.kinds(network: network, external: external, port: port) {
                let members = RequestMembers(
                    "/\(kind.path)", kind.name, template: "/v2.0/\(kind.path)", base: kind.base,
                    seen: kind.seen.map { .init($0.0, $0.1) }, refused: kind.refused.map { .init($0.0, $0.1) },
                    elsewhere: kind.elsewhere, refusals: ["AvailabilityZone", "vailability zone", "etwork type"])
                let findings = try await members.findings(cloud.api, cloud.database) { method, path, body in
                    let answer = try await cloud.call(method, path, as: "admin", body)
                    return (answer.status, answer.json)
                }
                #expect(findings == [])
            }
        }
    }

    /// `force` and `check_limit` say the same about limits below what is used; they may not contradict each other.
    @Test func quotasBelowTheUsageFollowTheBody() async throws {
        try await NetworkHarness.with { cloud in
            _ = try await cloud.network()
            func put(_ more: JSONObject) async throws -> NetworkHarness.Answer {
                var quota: JSONObject = ["network": 0]
                for member in more.members { quota[member.name] = member.value }
                return try await cloud.call("PUT", "/quotas/p1", as: "admin", ["quota": .object(quota)])
            }
            for accepted in [[:], ["force": true], ["check_limit": false], ["project_id": "p1"]] as [JSONObject] {
                #expect(try await put(accepted).status == 200, "\(accepted)")
            }
            for refused in [
                ["check_limit": true], ["force": false], ["force": true, "check_limit": true], ["tenant_id": "p2"], ["project_id": "p2"],
            ] as [JSONObject] {
                let answer = try await put(refused)
                #expect(answer.status == 400, "\(refused): \(answer.json)")
            }
        }
    }
}
