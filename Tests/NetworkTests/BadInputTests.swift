import JSON
import Kernel
import Testing
import WebAPI

@testable import NetworkService

@Suite struct BadInputTests {
    /// Method, path, body and the expected status; `{net}` and the like are ids of existing resources.
    struct Case: Sendable, CustomStringConvertible {
        let method: String
        let path: String
        let body: String
        let status: Int
        let type: String?

        init(_ method: String, _ path: String, _ body: String, _ status: Int, _ type: String? = nil) {
            self.method = method
            self.path = path
            self.body = body
            self.status = status
            self.type = type
        }

        var description: String { "\(method) \(path) \(body)" }
    }

    private static let long = String(repeating: "x", count: 256)

    static let bodies: [Case] = [
        Case("POST", "/networks", "", 400), Case("POST", "/networks", "{", 400), Case("POST", "/networks", "[]", 400),
        Case("POST", "/networks", "{}", 400), Case("POST", "/networks", "{\"network\": []}", 400),
        Case("POST", "/networks", "{\"network\": null}", 400), Case("POST", "/networks", "{\"network\": {\"nme\": \"x\"}}", 400),
        Case("POST", "/networks", "{\"network\": {\"name\": 7}}", 400),
        Case("POST", "/networks", "{\"network\": {\"name\": \"\(long)\"}}", 400),
        Case("POST", "/networks", "{\"network\": {}, \"more\": {}}", 400),
        Case("POST", "/networks", "{\"networks\": []}", 400), Case("POST", "/networks", "{\"networks\": {}}", 400),
        Case("POST", "/networks", "{\"network\": {\"admin_state_up\": \"maybe\"}}", 400),
        Case("POST", "/networks", "{\"network\": {\"mtu\": 99999}}", 400),
        Case("POST", "/networks", "{\"network\": {\"mtu\": 9000}}", 400, "InvalidInput"),
        Case("POST", "/networks", "{\"network\": {\"mtu\": 12}}", 400, "InvalidInput"),
        Case("POST", "/networks", "{\"network\": {\"shared\": true}}", 403, "PolicyNotAuthorized"),
        Case("POST", "/networks", "{\"network\": {\"router:external\": true}}", 403),
        Case("POST", "/networks", "{\"network\": {\"provider:network_type\": \"flat\"}}", 403),
        Case("POST", "/networks", "{\"network\": {\"project_id\": \"p2\"}}", 403),
        Case("POST", "/networks", "{\"network\": {\"project_id\": \"p1\", \"tenant_id\": \"p2\"}}", 400),
        Case("POST", "/networks", "{\"network\": {\"tags\": [\"a,b\"]}}", 400),
        Case("POST", "/networks", "{\"network\": {\"availability_zone_hints\": [\"mars\"]}}", 404),
        Case("PUT", "/networks/{net}", "{\"network\": {\"id\": \"x\"}}", 400),
        Case("PUT", "/networks/{net}", "{\"network\": {\"shared\": true}}", 403),
        Case("PUT", "/networks/nonsense", "{\"network\": {\"name\": \"x\"}}", 404, "NetworkNotFound"),
        Case("PATCH", "/networks/{net}", "{}", 405), Case("DELETE", "/networks", "", 405),

        Case("POST", "/subnets", "{\"subnet\": {\"cidr\": \"10.1.0.0/24\"}}", 400),
        Case("POST", "/subnets", "{\"subnet\": {\"network_id\": \"{net}\"}}", 400),
        Case("POST", "/subnets", "{\"subnet\": {\"network_id\": \"nope\", \"cidr\": \"10.1.0.0/24\"}}", 400),
        Case("POST", "/subnets", "{\"subnet\": {\"network_id\": \"{random}\", \"cidr\": \"10.1.0.0/24\"}}", 404, "NetworkNotFound"),
        Case("POST", "/subnets", "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"10.1.0.0\"}}", 400),
        Case("POST", "/subnets", "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"10.1.0.7/24\"}}", 400),
        Case("POST", "/subnets", "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"300.1.0.0/24\"}}", 400),
        Case("POST", "/subnets", "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"0.0.0.0/0\"}}", 400),
        Case("POST", "/subnets", "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"224.0.0.0/24\"}}", 400, "InvalidInput"),
        Case(
            "POST", "/subnets", "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"10.1.0.0/24\", \"ip_version\": 6}}", 400,
            "InvalidInput"),
        Case("POST", "/subnets", "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"10.1.0.0/24\", \"ip_version\": 5}}", 400),
        Case(
            "POST", "/subnets", "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"10.1.0.0/24\", \"gateway_ip\": \"10.2.0.1\"}}", 400,
            "InvalidInput"),
        Case(
            "POST", "/subnets", "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"10.1.0.0/24\", \"gateway_ip\": \"10.1.0.255\"}}", 400),
        Case("POST", "/subnets", "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"10.0.0.128/25\"}}", 400, "InvalidInput"),
        Case(
            "POST", "/subnets",
            "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"10.1.0.0/24\", \"allocation_pools\": [{\"start\": \"10.1.0.9\", \"end\": \"10.1.0.2\"}]}}",
            400, "InvalidAllocationPool"),
        Case(
            "POST", "/subnets",
            "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"10.1.0.0/24\", \"allocation_pools\": [{\"start\": \"10.1.0.9\", \"end\": \"10.1.1.2\"}]}}",
            400, "OutOfBoundsAllocationPool"),
        Case(
            "POST", "/subnets",
            "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"10.1.0.0/24\", \"allocation_pools\": [{\"start\": \"10.1.0.1\", \"end\": \"10.1.0.2\"}]}}",
            409, "GatewayConflictWithAllocationPools"),
        Case(
            "POST", "/subnets",
            "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"10.1.0.0/24\", \"dns_nameservers\": [\"dns.example\"]}}", 400),
        Case(
            "POST", "/subnets",
            "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"10.1.0.0/24\", \"host_routes\": [{\"destination\": \"x\", \"nexthop\": \"10.1.0.2\"}]}}",
            400),
        Case("POST", "/subnets", "{\"subnet\": {\"network_id\": \"{net}\", \"cidr\": \"10.1.0.0/24\", \"ipv6_ra_mode\": \"slaac\"}}", 400),
        Case("PUT", "/subnets/{subnet}", "{\"subnet\": {\"cidr\": \"10.1.0.0/24\"}}", 400),
        Case("PUT", "/subnets/{subnet}", "{\"subnet\": {\"gateway_ip\": \"10.0.0.254\"}}", 409, "GatewayIpInUse"),
        Case("DELETE", "/subnets/{random}", "", 404, "SubnetNotFound"),

        Case("POST", "/ports", "{\"port\": {}}", 400),
        Case("POST", "/ports", "{\"port\": {\"network_id\": \"{random}\"}}", 404, "NetworkNotFound"),
        Case("POST", "/ports", "{\"port\": {\"network_id\": \"{foreign}\"}}", 404, "NetworkNotFound"),
        Case("POST", "/ports", "{\"port\": {\"network_id\": \"{external}\"}}", 403),
        Case("POST", "/ports", "{\"port\": {\"network_id\": \"{net}\", \"mac_address\": \"zz\"}}", 400),
        Case("POST", "/ports", "{\"port\": {\"network_id\": \"{net}\", \"mac_address\": \"01:00:00:00:00:01\"}}", 400),
        Case("POST", "/ports", "{\"port\": {\"network_id\": \"{net}\", \"mac_address\": \"{mac}\"}}", 409, "MacAddressInUse"),
        Case("POST", "/ports", "{\"port\": {\"network_id\": \"{net}\", \"fixed_ips\": [{\"ip_address\": \"10.0.0.999\"}]}}", 400),
        Case(
            "POST", "/ports", "{\"port\": {\"network_id\": \"{net}\", \"fixed_ips\": [{\"ip_address\": \"10.0.0.255\"}]}}", 400,
            "InvalidIpForNetwork"),
        Case(
            "POST", "/ports",
            "{\"port\": {\"network_id\": \"{net}\", \"fixed_ips\": [{\"ip_address\": \"10.0.0.9\"}, {\"ip_address\": \"10.0.0.9\"}]}}", 400),
        Case(
            "POST", "/ports", "{\"port\": {\"network_id\": \"{net}\", \"fixed_ips\": [{\"subnet_id\": \"{foreignsubnet}\"}]}}", 400,
            "InvalidInput"),
        Case("POST", "/ports", "{\"port\": {\"network_id\": \"{net}\", \"fixed_ips\": [{}]}}", 400),
        Case("POST", "/ports", "{\"port\": {\"network_id\": \"{net}\", \"fixed_ips\": \"10.0.0.9\"}}", 400),
        Case(
            "POST", "/ports", "{\"port\": {\"network_id\": \"{net}\", \"security_groups\": [\"{random}\"]}}", 404, "SecurityGroupNotFound"),
        Case("POST", "/ports", "{\"port\": {\"network_id\": \"{net}\", \"security_groups\": [\"default\"]}}", 400),
        Case("POST", "/ports", "{\"port\": {\"network_id\": \"{net}\", \"binding:host_id\": \"hv1\"}}", 403),
        Case("POST", "/ports", "{\"port\": {\"network_id\": \"{net}\", \"binding:profile\": {\"a\": 1}}}", 403),
        Case("POST", "/ports", "{\"port\": {\"network_id\": \"{net}\", \"binding:vnic_type\": \"direct\"}}", 400),
        Case("POST", "/ports", "{\"port\": {\"network_id\": \"{net}\", \"device_owner\": \"network:router_interface\"}}", 403),
        Case("POST", "/ports", "{\"port\": {\"network_id\": \"{net}\", \"allowed_address_pairs\": [{\"ip_address\": \"x; drop\"}]}}", 400),
        Case(
            "POST", "/ports",
            "{\"port\": {\"network_id\": \"{net}\", \"port_security_enabled\": false, \"security_groups\": [\"{group}\"]}}", 400),
        Case(
            "POST", "/ports",
            "{\"port\": {\"network_id\": \"{net}\", \"extra_dhcp_opts\": [{\"opt_name\": \"evil\", \"opt_value\": \"x\"}]}}", 400),
        Case(
            "POST", "/ports",
            "{\"port\": {\"network_id\": \"{net}\", \"extra_dhcp_opts\": [{\"opt_name\": \"bootfile-name\", \"opt_value\": \"a\\\"b\"}]}}",
            400),
        Case("PUT", "/ports/{interface}", "{\"port\": {\"fixed_ips\": []}}", 400, "BadRequest"),
        Case("PUT", "/ports/{interface}", "{\"port\": {\"device_id\": \"\"}}", 400, "BadRequest"),
        Case("PUT", "/ports/{port}", "{\"port\": {\"network_id\": \"{net}\"}}", 400),
        Case("PUT", "/ports/{port}", "{\"port\": {\"port_security_enabled\": false}}", 409, "PortSecurityPortHasSecurityGroup"),
        Case("DELETE", "/ports/{interface}", "", 409, "ServicePortInUse"),

        Case("POST", "/routers", "{\"router\": {\"external_gateway_info\": {\"network_id\": \"{net}\"}}}", 400, "BadRequest"),
        Case("POST", "/routers", "{\"router\": {\"external_gateway_info\": {\"network_id\": \"{random}\"}}}", 404, "NetworkNotFound"),
        Case("POST", "/routers", "{\"router\": {\"external_gateway_info\": {\"enable_snat\": true}}}", 400),
        Case(
            "POST", "/routers", "{\"router\": {\"external_gateway_info\": {\"network_id\": \"{external}\", \"enable_snat\": false}}}", 403),
        Case("PUT", "/routers/{router}/add_router_interface", "{}", 400, "BadRequest"),
        Case("PUT", "/routers/{router}/add_router_interface", "{\"subnet_id\": \"{subnet}\", \"port_id\": \"{port}\"}", 400),
        Case("PUT", "/routers/{router}/add_router_interface", "{\"subnet_id\": \"{random}\"}", 404, "SubnetNotFound"),
        Case("PUT", "/routers/{router}/add_router_interface", "{\"subnet_id\": \"{overlap}\"}", 400, "BadRequest"),
        Case("PUT", "/routers/{router}/add_router_interface", "{\"port_id\": \"{interface}\"}", 409, "PortInUse"),
        Case("PUT", "/routers/{router}/remove_router_interface", "{\"subnet_id\": \"{overlap}\"}", 404, "RouterInterfaceNotFoundForSubnet"),
        Case("PUT", "/routers/{router}/remove_router_interface", "{\"port_id\": \"{port}\"}", 404, "RouterInterfaceNotFound"),
        Case(
            "PUT", "/routers/{router}", "{\"router\": {\"routes\": [{\"destination\": \"10.9.0.0/16\", \"nexthop\": \"10.0.0.1\"}]}}", 400,
            "InvalidRoutes"),
        Case("DELETE", "/routers/{router}", "", 409, "RouterInUse"),

        Case("POST", "/floatingips", "{\"floatingip\": {}}", 400),
        Case("POST", "/floatingips", "{\"floatingip\": {\"floating_network_id\": \"{net}\"}}", 400, "BadRequest"),
        Case(
            "POST", "/floatingips", "{\"floatingip\": {\"floating_network_id\": \"{external}\", \"floating_ip_address\": \"172.24.4.9\"}}",
            403),
        Case(
            "POST", "/floatingips", "{\"floatingip\": {\"floating_network_id\": \"{external}\", \"port_id\": \"{random}\"}}", 404,
            "PortNotFound"),
        Case(
            "POST", "/floatingips",
            "{\"floatingip\": {\"floating_network_id\": \"{external}\", \"port_id\": \"{port}\", \"fixed_ip_address\": \"10.0.0.77\"}}",
            400, "BadRequest"),

        Case("POST", "/security-groups", "{\"security_group\": {\"name\": \"default\"}}", 409, "SecurityGroupDefaultAlreadyExists"),
        Case("POST", "/security-group-rules", "{\"security_group_rule\": {\"direction\": \"ingress\"}}", 400),
        Case(
            "POST", "/security-group-rules", "{\"security_group_rule\": {\"security_group_id\": \"{random}\", \"direction\": \"ingress\"}}",
            404),
        Case(
            "POST", "/security-group-rules", "{\"security_group_rule\": {\"security_group_id\": \"{group}\", \"direction\": \"sideways\"}}",
            400),
        Case(
            "POST", "/security-group-rules",
            "{\"security_group_rule\": {\"security_group_id\": \"{group}\", \"direction\": \"ingress\", \"protocol\": \"warp\"}}", 400,
            "SecurityGroupRuleInvalidProtocol"),
        Case(
            "POST", "/security-group-rules",
            "{\"security_group_rule\": {\"security_group_id\": \"{group}\", \"direction\": \"ingress\", \"protocol\": \"tcp\", \"port_range_min\": 9, \"port_range_max\": 1}}",
            400, "SecurityGroupInvalidPortRange"),
        Case(
            "POST", "/security-group-rules",
            "{\"security_group_rule\": {\"security_group_id\": \"{group}\", \"direction\": \"ingress\", \"protocol\": \"tcp\", \"port_range_min\": 1, \"port_range_max\": 70000}}",
            400),
        Case(
            "POST", "/security-group-rules",
            "{\"security_group_rule\": {\"security_group_id\": \"{group}\", \"direction\": \"ingress\", \"protocol\": \"tcp\", \"port_range_min\": -16, \"port_range_max\": 80}}",
            400, "SecurityGroupInvalidPortValue"),
        Case(
            "POST", "/security-group-rules",
            "{\"security_group_rule\": {\"security_group_id\": \"{group}\", \"direction\": \"ingress\", \"protocol\": \"icmp\", \"port_range_min\": 1, \"port_range_max\": 256}}",
            400, "SecurityGroupInvalidIcmpValue"),
        Case(
            "POST", "/security-group-rules",
            "{\"security_group_rule\": {\"security_group_id\": \"{group}\", \"direction\": \"ingress\", \"remote_group_id\": \"bad\"}}",
            404, "SecurityGroupNotFound"),
        Case(
            "POST", "/security-group-rules",
            "{\"security_group_rule\": {\"security_group_id\": \"{group}\", \"direction\": \"ingress\", \"remote_ip_prefix\": \"10.0.0.0/99\"}}",
            400),
        Case(
            "POST", "/security-group-rules",
            "{\"security_group_rule\": {\"security_group_id\": \"{group}\", \"direction\": \"ingress\", \"remote_ip_prefix\": \"fd00::/8\"}}",
            400, "SecurityGroupRuleParameterConflict"),
        Case(
            "POST", "/security-group-rules",
            "{\"security_group_rule\": {\"security_group_id\": \"{group}\", \"direction\": \"ingress\", \"ethertype\": \"IPX\"}}", 400),

        Case("GET", "/networks?nonsense=1", "", 400), Case("GET", "/networks?limit=x", "", 400),
        Case("GET", "/networks?limit=-1", "", 400), Case("GET", "/networks?sort_key=secret", "", 400),
        Case("GET", "/networks?sort_key=name&sort_dir=up", "", 400), Case("GET", "/networks?marker={random}", "", 400),
        Case("GET", "/networks?shared=perhaps", "", 400),
        Case("GET", "/ports?fixed_ips=10.0.0.3", "", 400), Case("GET", "/networks/%00", "", 400),
        Case("GET", "/nothing", "", 404), Case("GET", "/extensions/nothing", "", 404), Case("GET", "/agents/nothing", "", 403),
        Case("PUT", "/quotas/p1", "{\"quota\": {\"network\": 5}}", 403), Case("GET", "/quotas/p2", "", 403),
        Case("PUT", "/networks/{net}/tags", "{\"tags\": \"x\"}", 400), Case("GET", "/networks/{net}/tags/none", "", 404, "TagNotFound"),
        Case("DELETE", "/networks/{net}/tags/none", "", 404, "TagNotFound"),
    ]

    @Test func isRefusedWithoutEffect() async throws {
        try await NetworkHarness.with { cloud in
            let ids = try await BadInputTests.scene(cloud)
            func filled(_ text: String) -> String {
                ids.reduce(text) { $0.replacing("{\($1.key)}", with: $1.value) }
            }
            for example in BadInputTests.bodies {
                let answer = try await cloud.raw(
                    example.method, "/v2.0" + filled(example.path), Array(filled(example.body).utf8))
                #expect(answer.status == example.status, "\(example) → \(answer.json)")
                if let type = example.type { #expect(answer.type == type, "\(example) → \(answer.json)") }
                guard answer.status != 401 else { continue }
                #expect(!(answer.message ?? "").isEmpty, "\(example)")
            }
            for (resource, count) in [("network", 2), ("subnet", 2), ("port", 2), ("router", 1), ("floatingip", 0), ("security_group", 2)] {
                #expect(try await cloud.used(resource) == count, "\(resource)")
            }
        }
    }

    private static func scene(_ cloud: NetworkHarness) async throws -> [String: String] {
        let external = try await cloud.external()
        let network = try await cloud.network()
        let subnet = try await cloud.subnet(network)
        let other = try await cloud.network("other")
        let overlap = try await cloud.subnet(other, "10.0.0.0/16")
        let foreign = try await cloud.network("foreign", as: "other")
        let foreignSubnet = try await cloud.subnet(foreign, "10.3.0.0/24", as: "other")
        let router = try await cloud.make("routers", "router", ["name": "r"])
        let added = try await cloud.call("PUT", "/routers/\(router.id)/add_router_interface", ["subnet_id": .string(subnet.id)])
        let group = try await cloud.make("security-groups", "security_group", ["name": "web"])
        let port = try await cloud.make(
            "ports", "port", ["network_id": .string(network), "security_groups": [.string(group.id)]])
        return [
            "external": external, "net": network, "subnet": subnet.id, "overlap": overlap.id, "foreign": foreign,
            "foreignsubnet": foreignSubnet.id, "router": router.id, "interface": added.json.text("port_id"),
            "group": group.id, "port": port.id, "mac": port.text("mac_address"),
            "random": SystemRandom().uuid().description,
        ]
    }

    @Test("S19: quotas hold in a race") func s19QuotasAreExact() async throws {
        try await NetworkHarness.with { cloud in
            let set = try await cloud.call("PUT", "/quotas/p1", as: "admin", ["quota": ["network": 3, "port": 2]])
            #expect(set.json["quota"]?["network"] == 3)
            let answers = try await withThrowingTaskGroup(of: NetworkHarness.Answer.self) { group in
                for _ in 0..<8 { group.addTask { try await cloud.call("POST", "/networks", ["network": ["name": "n"]]) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(answers.count { $0.status == 201 } == 3)
            #expect(answers.filter { $0.status != 201 }.allSatisfy { $0.status == 409 && $0.type == "OverQuota" })
            let bulk = try await cloud.call(
                "POST", "/ports",
                [
                    "ports": .array(
                        (0..<3).map { _ in ["network_id": .string(answers.first { $0.status == 201 }?.json["network"]?.id ?? "")] })
                ])
            #expect(bulk.type == "OverQuota")
            #expect(try await cloud.used("port") == 0)
            let details = try await cloud.call("GET", "/quotas/p1/details")
            #expect(details.json["quota"]?["network"] == ["limit": 3, "used": 3, "reserved": 0])
            #expect(try await cloud.call("GET", "/quotas", as: "admin").json["quotas"]?[0]["project_id"] == "p1")
            let low = try await cloud.call("PUT", "/quotas/p1", as: "admin", ["quota": ["network": 1, "check_limit": true]])
            #expect(low.status == 400)
            #expect(try await cloud.call("DELETE", "/quotas/p1", as: "admin").status == 204)
            #expect(try await cloud.call("GET", "/quotas/p1").json["quota"]?["network"] == 100)
            #expect(try await cloud.call("GET", "/quotas/p1/default").json["quota"]?["port"] == 500)
        }
    }

    @Test func listsArePagedBothWays() async throws {
        try await NetworkHarness.with { cloud in
            let many = try await cloud.call(
                "POST", "/networks", ["networks": .array((0..<7).map { ["name": .string("n\($0)")] })])
            #expect(many.status == 201)
            #expect(many.json["networks"]?.count == 7)
            var seen: [String] = []
            var target: String? = "/networks?limit=3&sort_key=name&sort_dir=asc&fields=id&fields=name"
            var last = NetworkHarness.Answer(status: 0, json: .null, headers: [:])
            while let path = target {
                last = try await cloud.call("GET", path)
                seen += (last.json["networks"]?.arrayValue ?? []).map { $0.text("name") }
                #expect(last.json["networks"]?[0]["status"] == nil)
                let next = last.json["networks_links"]?.arrayValue?.first { $0["rel"] == "next" }?.text("href")
                target = next.map { String($0.dropFirst("http://network.example:9696/v2.0".count)) }
            }
            #expect(seen == (0..<7).map { "n\($0)" })
            let previous = try #require(last.json["networks_links"]?.arrayValue?.first { $0["rel"] == "previous" }?.text("href"))
            let back = try await cloud.call("GET", String(previous.dropFirst("http://network.example:9696/v2.0".count)))
            #expect(back.json["networks"]?.arrayValue?.map { $0.text("name") } == ["n3", "n4", "n5"])
        }
    }

    @Test func conditionsAndRepetitions() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            let stale = try await cloud.call(
                "PUT", "/networks/\(network)", ["network": ["name": "x"]], headers: [("If-Match", "revision_number=7")])
            #expect(stale.status == 412)
            #expect(stale.type == "RevisionNumberConstraintFailed")
            let fresh = try await cloud.call(
                "PUT", "/networks/\(network)", ["network": ["name": "x"]], headers: [("If-Match", "revision_number=1")])
            #expect(fresh.status == 200)
            let body: JSONValue = ["port": ["network_id": .string(network)]]
            let first = try await cloud.call("POST", "/ports", body, headers: [("Idempotency-Key", "k1")])
            let again = try await cloud.call("POST", "/ports", body, headers: [("Idempotency-Key", "k1")])
            #expect(first.json == again.json)
            #expect(try await cloud.used("port") == 1)
        }
    }
}
