import JSON
import Kernel
import Testing

@testable import NetworkService

/// Attributes belong to the core of Networking v2.0 or to an extension that is advertised (neutron-lib, api/definitions).
@Suite struct AttributeTests {
    private static let core: [String: Set<String>] = [
        "network": ["id", "name", "tenant_id", "subnets", "status", "admin_state_up", "shared"],
        "subnet": [
            "id", "name", "tenant_id", "network_id", "ip_version", "cidr", "gateway_ip", "enable_dhcp", "allocation_pools",
            "dns_nameservers", "host_routes", "ipv6_address_mode", "ipv6_ra_mode", "subnetpool_id", "shared",
        ],
        "port": [
            "id", "name", "tenant_id", "network_id", "status", "admin_state_up", "mac_address", "device_id", "device_owner", "fixed_ips",
        ],
        "router": [], "floatingip": [], "security_group": [], "security_group_rule": [],
    ]

    /// By alias: the attributes that the extension adds, to all resources (`*`) or to some.
    private static let extensions: [String: [String: Set<String>]] = [
        "project-id": ["*": ["project_id"]], "standard-attr-description": ["*": ["description"]],
        "standard-attr-timestamp": ["*": ["created_at", "updated_at"]], "standard-attr-revisions": ["*": ["revision_number"]],
        "standard-attr-tag": ["*": ["tags"]], "external-net": ["network": ["router:external"], "subnet": ["router:external"]],
        "net-mtu": ["network": ["mtu"]], "l2_adjacency": ["network": ["l2_adjacency"]],
        "provider": ["network": ["provider:network_type", "provider:physical_network", "provider:segmentation_id"]],
        "port-security": ["network": ["port_security_enabled"], "port": ["port_security_enabled"]],
        "availability_zone": ["network": ["availability_zone_hints"], "router": ["availability_zone_hints"]],
        "network_availability_zone": ["network": ["availability_zones"]],
        "router_availability_zone": ["router": ["availability_zones"]],
        "allowed-address-pairs": ["port": ["allowed_address_pairs"]], "extra_dhcp_opt": ["port": ["extra_dhcp_opts"]],
        "binding": [
            "port": ["binding:vnic_type", "binding:host_id", "binding:profile", "binding:vif_type", "binding:vif_details"]
        ],
        "router": [
            "router": ["id", "name", "tenant_id", "status", "admin_state_up", "external_gateway_info"],
            "floatingip": [
                "id", "tenant_id", "floating_network_id", "floating_ip_address", "port_id", "fixed_ip_address", "router_id", "status",
            ],
        ],
        "extraroute": ["router": ["routes"]], "fip-port-details": ["floatingip": ["port_details"]],
        "security-group": [
            "security_group": ["id", "name", "tenant_id", "security_group_rules"], "port": ["security_groups"],
            "security_group_rule": [
                "id", "tenant_id", "security_group_id", "direction", "ethertype", "protocol", "port_range_min", "port_range_max",
                "remote_ip_prefix", "remote_group_id",
            ],
        ],
        "stateful-security-group": ["security_group": ["stateful"]],
        "security-groups-normalized-cidr": ["security_group_rule": ["normalized_cidr"]],
        "security-groups-rules-belongs-to-default-sg": ["security_group_rule": ["belongs_to_default_sg"]],
    ]

    /// A port behind a router, with a floating IP.
    private static func reachablePort(
        _ cloud: NetworkHarness
    ) async throws -> (network: String, subnet: JSONValue, port: JSONValue, router: JSONValue, floating: JSONValue) {
        let external = try await cloud.external()
        let network = try await cloud.network()
        let subnet = try await cloud.subnet(network)
        let port = try await cloud.make("ports", "port", ["network_id": .string(network)])
        let router = try await cloud.make("routers", "router", ["external_gateway_info": ["network_id": .string(external)]])
        _ = try await cloud.call("PUT", "/routers/\(router.id)/add_router_interface", ["subnet_id": .string(subnet.id)])
        let floating = try await cloud.make(
            "floatingips", "floatingip", ["floating_network_id": .string(external), "port_id": .string(port.id)])
        return (network, subnet, port, router, floating)
    }

    @Test func answersHaveAttributesOfAdvertisedExtensionsOnly() async throws {
        try await NetworkHarness.with { cloud in
            let listed = try await cloud.call("GET", "/extensions").json["extensions"]?.arrayValue ?? []
            let advertised = Set(listed.map { $0.text("alias") })
            #expect(AttributeTests.extensions.keys.allSatisfy(advertised.contains))
            let (network, subnet, port, router, floating) = try await AttributeTests.reachablePort(cloud)
            let group = try await cloud.make("security-groups", "security_group", ["name": "g"])
            let rule = group["security_group_rules"]?[0] ?? .null
            let all: [(String, String)] = [
                ("network", "networks/\(network)"), ("subnet", "subnets/\(subnet.id)"), ("port", "ports/\(port.id)"),
                ("router", "routers/\(router.id)"), ("floatingip", "floatingips/\(floating.id)"),
                ("security_group", "security-groups/\(group.id)"), ("security_group_rule", "security-group-rules/\(rule.id)"),
            ]
            for (name, path) in all {
                let shown = try #require(try await cloud.call("GET", "/\(path)", as: "admin").json[name]?.objectValue)
                var known = AttributeTests.core[name] ?? []
                for (alias, attributes) in AttributeTests.extensions where advertised.contains(alias) {
                    known.formUnion(attributes["*"] ?? [])
                    known.formUnion(attributes[name] ?? [])
                }
                let unknown = shown.names.filter { !known.contains($0) }
                #expect(unknown.isEmpty, "\(name): \(unknown)")
            }
            for inner in group["security_group_rules"]?.arrayValue ?? [] {
                #expect(inner["remote_address_group_id"] == nil)
            }
        }
    }

    @Test func tagsAreAdded() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            let path = "/networks/\(network)/tags"
            let first = try await cloud.call("POST", path, ["tags": ["a", "b"]])
            #expect(first.status == 200, "\(first.json)")
            #expect(first.json["tags"] == ["a", "b"])
            #expect(try await cloud.call("POST", path, ["tags": ["c", "a"]]).status == 200)
            #expect(try await cloud.call("GET", path).json["tags"] == ["a", "b", "c"])
            #expect(try await cloud.call("POST", path, as: "reader", ["tags": ["d"]]).status == 403)
            #expect(try await cloud.call("POST", path, as: "other", ["tags": ["d"]]).status == 404)
            #expect(try await cloud.call("POST", path, ["tags": ["x,y"]]).status == 400)
            #expect(try await cloud.call("PUT", path, ["tags": ["z", "y", "z"]]).json["tags"] == ["y", "z"])
            for _ in 1...2 { #expect(try await cloud.call("PUT", path + "/x").status == 201) }
            #expect(try await cloud.call("GET", path + "/x").status == 204)
            #expect(try await cloud.call("DELETE", path + "/z").status == 204)
            #expect(try await cloud.call("GET", path).json["tags"] == ["x", "y"])
            #expect(try await cloud.call("PUT", path, ["tags": JSONValue((1...50).map { "t\($0)" })]).status == 200)
            #expect(try await cloud.call("PUT", path + "/t51").status == 400)
            #expect(try await cloud.call("DELETE", path).status == 204)
            #expect(try await cloud.call("GET", path).json["tags"] == [])
        }
    }

    @Test func serviceProvidersAreAnEmptyList() async throws {
        try await NetworkHarness.with { cloud in
            let answer = try await cloud.call("GET", "/service-providers?service_type=VPN")
            #expect(answer.json == ["service_providers": []])
            #expect(try await cloud.call("GET", "/service-providers?colour=red").status == 400)
        }
    }

    @Test func filtersFindHoweverTheyWriteIt() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            let subnet = try await cloud.make(
                "subnets", "subnet", ["network_id": .string(network), "cidr": "fd00:0:0:1::/64", "ip_version": 6])
            let port = try await cloud.make(
                "ports", "port", ["network_id": .string(network), "mac_address": "FA:16:3E:00:00:AB"])
            let group = try await cloud.make("security-groups", "security_group", ["name": "g"])
            func rule(_ more: JSONObject) async throws -> NetworkHarness.Answer {
                var body: JSONObject = ["security_group_id": .string(group.id), "direction": "ingress"]
                for (name, value) in more.members { body[name] = value }
                return try await cloud.call("POST", "/security-group-rules", ["security_group_rule": .object(body)])
            }
            #expect(try await rule(["protocol": "tcp", "port_range_min": 22, "port_range_max": 22]).status == 201)
            #expect(try await rule(["protocol": "17", "remote_ip_prefix": "10.0.0.7/24"]).status == 201)
            for (path, list) in [
                ("subnets?cidr=FD00:0:0:1:0::/64", "subnets"), ("subnets?gateway_ip=fd00:0:0:1:0:0:0:1", "subnets"),
                ("ports?mac_address=fa-16-3e-00-00-ab", "ports"), ("security-group-rules?protocol=6", "security_group_rules"),
                ("security-group-rules?protocol=TCP", "security_group_rules"),
                ("security-group-rules?protocol=udp", "security_group_rules"),
                ("security-group-rules?protocol=udp&ethertype=ipv4", "security_group_rules"),
                ("security-group-rules?remote_ip_prefix=10.0.0.0/24", "security_group_rules"),
            ] {
                let found = try await cloud.call("GET", "/" + path)
                #expect(found.json[list]?.count == 1, "\(path): \(found.json)")
            }
            #expect(subnet["cidr"] == "fd00:0:0:1::/64")
            #expect(port["mac_address"] == "fa:16:3e:00:00:ab")
        }
    }

    @Test func aRuleForAllAddressesIsTheOneWithoutAPrefix() async throws {
        try await NetworkHarness.with { cloud in
            let group = try await cloud.make("security-groups", "security_group", ["name": "g"])
            func rule(_ prefix: JSONValue, _ type: String) async throws -> NetworkHarness.Answer {
                try await cloud.call(
                    "POST", "/security-group-rules",
                    [
                        "security_group_rule": [
                            "security_group_id": .string(group.id), "direction": "ingress", "protocol": "tcp",
                            "ethertype": .string(type), "remote_ip_prefix": prefix,
                        ]
                    ])
            }
            #expect(try await rule("0.0.0.0/0", "IPv4").status == 201)
            #expect(try await rule(.null, "IPv4").type == "SecurityGroupRuleExists")
            #expect(try await rule(.null, "IPv6").status == 201)
            #expect(try await rule("::/0", "IPv6").type == "SecurityGroupRuleExists")
        }
    }

    @Test func aFloatingIPKeepsItsAddress() async throws {
        try await NetworkHarness.with { cloud in
            let (_, _, port, _, floating) = try await AttributeTests.reachablePort(cloud)
            let held = port["fixed_ips"]?[0] ?? .null
            func change(_ addresses: JSONValue) async throws -> NetworkHarness.Answer {
                try await cloud.call("PUT", "/ports/\(port.id)", as: "admin", ["port": ["fixed_ips": addresses]])
            }
            for other: JSONValue in [[["ip_address": "10.0.0.77"]], []] {
                let refused = try await change(other)
                #expect(refused.status == 400)
                #expect(refused.message?.contains(floating.text("floating_ip_address")) == true, "\(refused.json)")
            }
            let more = try await change([held, ["ip_address": "10.0.0.77"]])
            #expect(more.status == 200, "\(more.json)")
            let shown = try await cloud.call("GET", "/floatingips/\(floating.id)")
            #expect(shown.json["floatingip"]?.text("port_id") == port.id)
            _ = try await cloud.call("PUT", "/floatingips/\(floating.id)", ["floatingip": ["port_id": .null]])
            #expect(try await change([["ip_address": "10.0.0.78"]]).status == 200)
        }
    }

    @Test func pairsAreAddressesOfGuests() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            _ = try await cloud.subnet(network)
            let port = try await cloud.make("ports", "port", ["network_id": .string(network)])
            let bad = [
                "224.0.0.18", "10.0.0.255", "10.0.0.0", "255.255.255.255", "169.254.169.254", "ff02::1", "::ffff:10.0.0.1",
                "224.0.0.18/32", "10.0.0.255/32", "10.0.0.0/32", "255.255.255.255/32", "ff02::1/128",
            ]
            for address in bad {
                let body: JSONObject = ["allowed_address_pairs": [["ip_address": .string(address)]]]
                var create = body
                create["network_id"] = .string(network)
                let refused = try await cloud.call("POST", "/ports", ["port": .object(create)])
                #expect(refused.status == 400)
                #expect(refused.message?.contains(String(address.prefix { $0 != "/" })) == true, "\(refused.json)")
                #expect(try await cloud.call("PUT", "/ports/\(port.id)", ["port": .object(body)]).status == 400)
            }
            // One address in two spellings is one pair.
            let mac = port["mac_address"]
            for pairs in [
                [["ip_address": "10.0.0.5"], ["ip_address": "10.0.0.5/32"]],
                [["ip_address": "2001:db8::5/128"], ["ip_address": "2001:DB8:0::5"]],
                [["ip_address": "10.0.0.5"], ["ip_address": "10.0.0.5", "mac_address": mac ?? .null]],
            ] as [JSONValue] {
                let refused = try await cloud.call("PUT", "/ports/\(port.id)", ["port": ["allowed_address_pairs": pairs]])
                #expect(refused.status == 400 && refused.message?.contains("duplicate address pair") == true, "\(pairs) \(refused.json)")
                let create: JSONObject = [
                    "network_id": .string(network), "mac_address": "fa:16:3e:77:77:77", "allowed_address_pairs": pairs,
                ]
                if pairs[1]["mac_address"] == nil {
                    #expect(try await cloud.call("POST", "/ports", ["port": .object(create)]).status == 400)
                }
            }
            #expect(try await cloud.used("port") == 1)
            let kept = try await cloud.call(
                "PUT", "/ports/\(port.id)", ["port": ["allowed_address_pairs": [["ip_address": "10.0.0.5/32"]]]])
            #expect(kept.json["port"]?["allowed_address_pairs"]?[0]["ip_address"] == "10.0.0.5", "\(kept.json)")
        }
    }
}
