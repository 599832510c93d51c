import Database
import JSON
import Kernel
import Schema
import Settings
import Testing
import WebAPI

@testable import NetworkService

@Suite struct NetworkAPITests {
    /// The operator's settings apply to projects without limits of their own.
    @Test func presetQuotasAreSettings() async throws {
        let settings = try Settings.parse(
            "network:\n  quota_subnet: -1\n", name: "f", environment: ["WOLKE_NETWORK_QUOTA_ROUTER": "1"],
            schema: .section("network", NetworkApplication.settingsKeys))
        try await NetworkHarness.with(try NetworkOptions(settings)) { cloud in
            let preset = try await cloud.call("GET", "/quotas/p1/default").json["quota"]
            #expect(preset?["router"] == 1 && preset?["subnet"] == -1 && preset?["port"] == 500, "\(preset ?? [:])")
            _ = try await cloud.make("routers", "router", ["name": "first"])
            let second = try await cloud.call("POST", "/routers", ["router": ["name": "second"]])
            #expect(second.status == 409 && second.json["NeutronError"]?["type"] == "OverQuota", "\(second.json)")
            _ = try await cloud.call("PUT", "/quotas/p1", as: "admin", ["quota": ["router": 2]])
            _ = try await cloud.make("routers", "router", ["name": "second"])
        }
    }

    @Test func versionsNeedNoToken() async throws {
        try await NetworkHarness.with { cloud in
            let root = try await cloud.raw("GET", "/", as: nil, [])
            #expect(root.status == 200)
            #expect(root.json["versions"]?[0]["id"] == "v2.0")
            #expect(root.json["versions"]?[0]["links"]?[0]["href"] == "http://network.example:9696/v2.0/")
            #expect(try await cloud.raw("GET", "/v2.0/", as: nil, []).status == 200)
            #expect(try await cloud.call("GET", "/networks", as: nil).status == 401)
        }
    }

    @Test func networksAndSubnets() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.make(
                "networks", "network", ["name": "net", "admin_state_up": true, "tags": ["b", "a"]])
            #expect(network["status"] == "ACTIVE")
            #expect(network["mtu"] == 1442)
            #expect(network["tags"] == ["a", "b"])
            #expect(network["router:external"] == false)
            #expect(network["provider:network_type"] == nil)
            #expect(network["revision_number"] == 1)
            let subnet = try await cloud.subnet(network.id)
            #expect(subnet["gateway_ip"] == "10.0.0.1")
            #expect(subnet["allocation_pools"] == [["start": "10.0.0.2", "end": "10.0.0.254"]])
            #expect(subnet["enable_dhcp"] == true)
            let shown = try await cloud.call("GET", "/networks/\(network.id)")
            #expect(shown.json["network"]?["subnets"] == [.string(subnet.id)])
            let asAdmin = try await cloud.call("GET", "/networks/\(network.id)", as: "admin")
            #expect(asAdmin.json["network"]?["provider:network_type"] == "geneve")
            // The service's own metadata port does not count.
            let ports = try await cloud.call("GET", "/ports?network_id=\(network.id)")
            #expect(ports.json["ports"]?[0]["device_owner"] == "network:distributed")
            #expect(ports.json["ports"]?[0]["fixed_ips"]?[0]["ip_address"] == "10.0.0.2")
            #expect(try await cloud.used("port") == 0)
            try await checkMetadataPortHasNoProject(cloud, network: network.id)

            let renamed = try await cloud.call("PUT", "/networks/\(network.id)", ["network": ["name": "other"]])
            #expect(renamed.json["network"]?["name"] == "other")
            #expect(renamed.json["network"]?["revision_number"] == 2)
            #expect(try await cloud.call("GET", "/networks?name=other").json["networks"]?.count == 1)
            #expect(try await cloud.call("GET", "/networks?name=net").json["networks"]?.count == 0)
            #expect(try await cloud.call("GET", "/networks/other").status == 404)
            #expect(try await cloud.call("DELETE", "/networks/\(network.id)").status == 204)
            #expect(try await cloud.call("GET", "/networks/\(network.id)").type == "NetworkNotFound")
            #expect(try await cloud.used("network") == 0)
            #expect(try await cloud.used("subnet") == 0)
        }
    }

    /// openstacksdk's project cleanup keeps a network with a port of the project whose owner it does not know.
    private func checkMetadataPortHasNoProject(_ cloud: NetworkHarness, network: String) async throws {
        func ports(_ query: String = "", as token: String = "member") async throws -> [JSONValue] {
            let answer = try await cloud.call("GET", "/ports?network_id=\(network)\(query)", as: token)
            return answer.json["ports"]?.arrayValue ?? []
        }
        let port = try #require(try await ports().first)
        #expect(port["project_id"] == "")
        #expect(try await ports("&project_id=p1").isEmpty)
        #expect(try await cloud.call("GET", "/ports/\(port.id)", as: "reader").status == 200)
        #expect(try await ports(as: "other").isEmpty)
        #expect(try await cloud.call("GET", "/ports/\(port.id)", as: "other").status == 404)
        #expect(try await cloud.call("DELETE", "/ports/\(port.id)").status == 409)
        // Rows of earlier versions have the network's project.
        let migration = try #require(Schema.migrations.first { $0.name == "metadata_ports" })
        try await cloud.database.write { connection in
            try connection.execute("UPDATE ports SET project_id = 'p1' WHERE device_owner = 'network:distributed'")
        }
        #expect(try await ports("&project_id=p1").count == 1)
        try await cloud.database.write { try $0.script(migration.sql) }
        #expect(try await ports("&project_id=p1").isEmpty)
    }

    /// The zone is that of the agents, regardless of hints.
    @Test func availabilityZonesAreTheAgents() async throws {
        try await NetworkHarness.with { cloud in
            for (path, name) in [("networks", "network"), ("routers", "router")] {
                for hints in [[], ["nova"]] as [JSONValue] {
                    let creation = try await cloud.make(path, name, ["name": "n", "availability_zone_hints": hints])
                    #expect(creation["availability_zones"] == ["nova"])
                    #expect(creation["availability_zone_hints"] == hints)
                }
                let shown = try await cloud.call("GET", "/\(path)?fields=availability_zones").json[path]
                #expect(shown == [["availability_zones": ["nova"]], ["availability_zones": ["nova"]]])
            }
        }
    }

    @Test func portsGetAddressesAndGroups() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            let subnet = try await cloud.subnet(network)
            let port = try await cloud.make("ports", "port", ["network_id": .string(network), "name": "p"])
            #expect(port["fixed_ips"] == [["subnet_id": .string(subnet.id), "ip_address": "10.0.0.3"]])
            #expect(port["security_groups"]?.count == 1)
            #expect(port.text("mac_address").hasPrefix("fa:16:3e:"))
            #expect(port["status"] == "DOWN")
            #expect(port["binding:host_id"] == nil)
            #expect(port["binding:vnic_type"] == "normal")
            // Only services may bind.
            let refused = try await cloud.call("PUT", "/ports/\(port.id)", ["port": ["binding:host_id": "hv1"]])
            #expect(refused.status == 403)
            let bound = try await cloud.call(
                "PUT", "/ports/\(port.id)", as: "service",
                ["port": ["binding:host_id": "hv1", "device_id": "s1", "device_owner": "compute:nova"]],
                headers: ActingSubject.accepted(project: "p1", user: "u1").headers)
            #expect(bound.status == 200)
            #expect(bound.json["port"]?["binding:vif_type"] == "ovs")
            let found = try await cloud.call("GET", "/ports?fixed_ips=ip_address%3D10.0.0.3&device_id=s1")
            #expect(found.json["ports"]?[0].id == port.id)
            #expect(try await cloud.call("GET", "/ports?fixed_ips=ip_address%3D10.0.0.9").json["ports"]?.count == 0)

            let taken = try await cloud.call(
                "POST", "/ports", ["port": ["network_id": .string(network), "fixed_ips": [["ip_address": "10.0.0.3"]]]])
            #expect(taken.status == 409)
            #expect(taken.type == "IpAddressAlreadyAllocated")
            let outside = try await cloud.call(
                "POST", "/ports", ["port": ["network_id": .string(network), "fixed_ips": [["ip_address": "10.9.0.3"]]]])
            #expect(outside.type == "InvalidIpForNetwork")
            #expect(try await cloud.used("port") == 1)
            let changed = try await cloud.call(
                "PUT", "/ports/\(port.id)", ["port": ["fixed_ips": [["ip_address": "10.0.0.3"], ["ip_address": "10.0.0.77"]]]])
            #expect(changed.json["port"]?["fixed_ips"]?.count == 2)

            #expect(try await cloud.call("DELETE", "/networks/\(network)").type == "NetworkInUse")
            #expect(try await cloud.call("DELETE", "/subnets/\(subnet.id)").type == "SubnetInUse")
            #expect(try await cloud.call("DELETE", "/ports/\(port.id)").status == 204)
            #expect(try await cloud.call("DELETE", "/subnets/\(subnet.id)").status == 204)
            #expect(try await cloud.call("DELETE", "/networks/\(network)").status == 204)
            #expect(try await cloud.used("port") == 0)
        }
    }

    @Test func aPoolIsUsedToItsEnd() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            _ = try await cloud.subnet(
                network, "10.0.0.0/24", ["allocation_pools": [["start": "10.0.0.10", "end": "10.0.0.30"]]])
            // 21 addresses, one for metadata; thirty concurrent requests.
            let answers = try await withThrowingTaskGroup(of: NetworkHarness.Answer.self) { group in
                for _ in 0..<30 {
                    group.addTask { try await cloud.call("POST", "/ports", ["port": ["network_id": .string(network)]]) }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            let creation = answers.filter { $0.status == 201 }
            #expect(creation.count == 20)
            #expect(Set(creation.map { $0.json["port"]?["fixed_ips"]?[0].text("ip_address") ?? "" }).count == 20)
            for refused in answers where refused.status != 201 {
                #expect(refused.status == 409)
                #expect(refused.type == "IpAddressGenerationFailure")
            }
            #expect(try await cloud.used("port") == 20)
        }
    }

    @Test func routersAndFloatingIPs() async throws {
        try await NetworkHarness.with { cloud in
            let external = try await cloud.external()
            let network = try await cloud.network()
            let subnet = try await cloud.subnet(network)
            let port = try await cloud.make("ports", "port", ["network_id": .string(network)])
            let router = try await cloud.make("routers", "router", ["name": "r"])
            #expect(router["external_gateway_info"] == .null)
            let early = try await cloud.call(
                "POST", "/floatingips",
                ["floatingip": ["floating_network_id": .string(external), "port_id": .string(port.id)]])
            #expect(early.type == "ExternalGatewayForFloatingIPNotFound")
            let gateway = try await cloud.call(
                "PUT", "/routers/\(router.id)", ["router": ["external_gateway_info": ["network_id": .string(external)]]])
            #expect(gateway.status == 200, "\(gateway.json)")
            #expect(gateway.json["router"]?["external_gateway_info"]?["enable_snat"] == true)
            #expect(gateway.json["router"]?["external_gateway_info"]?["external_fixed_ips"]?[0]["ip_address"] == "172.24.4.2")
            let added = try await cloud.call(
                "PUT", "/routers/\(router.id)/add_router_interface", ["subnet_id": .string(subnet.id)])
            #expect(added.status == 200, "\(added.json)")
            #expect(added.json["subnet_id"]?.stringValue == subnet.id)
            let again = try await cloud.call(
                "PUT", "/routers/\(router.id)/add_router_interface", ["subnet_id": .string(subnet.id)])
            #expect(again.status == 400)

            let floating = try await cloud.make(
                "floatingips", "floatingip", ["floating_network_id": .string(external), "port_id": .string(port.id)])
            #expect(floating["status"] == "ACTIVE")
            #expect(floating["router_id"]?.stringValue == router.id)
            #expect(floating["fixed_ip_address"] == "10.0.0.3")
            #expect(floating["port_details"]?["network_id"]?.stringValue == network)
            let second = try await cloud.call(
                "POST", "/floatingips",
                ["floatingip": ["floating_network_id": .string(external), "port_id": .string(port.id)]])
            #expect(second.type == "FloatingIPPortAlreadyAssociated")
            #expect(try await cloud.used("floatingip") == 1)

            let inUse = try await cloud.call(
                "PUT", "/routers/\(router.id)/remove_router_interface", ["subnet_id": .string(subnet.id)])
            #expect(inUse.type == "RouterInterfaceInUseByFloatingIP")
            let gatewayUsed = try await cloud.call(
                "PUT", "/routers/\(router.id)", ["router": ["external_gateway_info": .null]])
            #expect(gatewayUsed.type == "RouterExternalGatewayInUseByFloatingIp")
            #expect(try await cloud.call("DELETE", "/routers/\(router.id)").type == "RouterInUse")
            let interface = added.json.text("port_id")
            #expect(try await cloud.call("DELETE", "/ports/\(interface)").type == "ServicePortInUse")

            let loose = try await cloud.call("PUT", "/floatingips/\(floating.id)", ["floatingip": ["port_id": .null]])
            #expect(loose.json["floatingip"]?["status"] == "DOWN")
            #expect(loose.json["floatingip"]?["router_id"] == .null)
            #expect(try await cloud.call("DELETE", "/floatingips/\(floating.id)").status == 204)
            let removed = try await cloud.call(
                "PUT", "/routers/\(router.id)/remove_router_interface", ["port_id": .string(interface)])
            #expect(removed.status == 200, "\(removed.json)")
            #expect(try await cloud.call("DELETE", "/routers/\(router.id)").status == 204)
            #expect(try await cloud.used("router") == 0)
            #expect(try await cloud.used("port") == 1)
            let left = try await cloud.call("GET", "/ports?network_id=\(external)", as: "admin")
            #expect(left.json["ports"]?.count == 0)
        }
    }

    @Test func routes() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            let subnet = try await cloud.subnet(network)
            let router = try await cloud.make("routers", "router", ["name": "r"])
            let path = "/routers/\(router.id)"
            _ = try await cloud.call("PUT", path + "/add_router_interface", ["subnet_id": .string(subnet.id)])
            let far: JSONValue = ["destination": "192.168.0.0/16", "nexthop": "10.0.0.9"]
            let set = try await cloud.call("PUT", path, ["router": ["routes": [far]]])
            #expect(set.json["router"]?["routes"] == [far])
            let unreachable = try await cloud.call(
                "PUT", path, ["router": ["routes": [["destination": "192.168.0.0/16", "nexthop": "11.0.0.9"]]]])
            #expect(unreachable.type == "InvalidRoutes")
            let more = try await cloud.call(
                "PUT", path + "/add_extraroutes",
                ["router": ["routes": [["destination": "192.0.2.0/24", "nexthop": "10.0.0.8"]]]])
            #expect(more.json["router"]?["routes"]?.count == 2)
            let less = try await cloud.call("PUT", path + "/remove_extraroutes", ["router": ["routes": [far]]])
            #expect(less.json["router"]?["routes"]?.count == 1)
            let used = try await cloud.call("PUT", path + "/remove_router_interface", ["subnet_id": .string(subnet.id)])
            #expect(used.type == "RouterInterfaceInUseByRoute")
        }
    }

    @Test func securityGroups() async throws {
        try await NetworkHarness.with { cloud in
            let groups = try await cloud.call("GET", "/security-groups")
            #expect(groups.json["security_groups"]?.count == 1)
            let standard = try #require(groups.json["security_groups"]?[0])
            #expect(standard["name"] == "default")
            #expect(standard["security_group_rules"]?.count == 4)
            #expect(try await cloud.call("DELETE", "/security-groups/\(standard.id)").type == "SecurityGroupCannotRemoveDefault")
            let group = try await cloud.make("security-groups", "security_group", ["name": "web", "description": "w"])
            #expect(group["security_group_rules"]?.count == 2)
            let rule: JSONValue = [
                "security_group_id": .string(group.id), "direction": "ingress", "protocol": "tcp", "port_range_min": 22,
                "port_range_max": 22, "remote_ip_prefix": "0.0.0.0/0",
            ]
            let creation = try await cloud.make("security-group-rules", "security_group_rule", rule)
            #expect(creation["ethertype"] == "IPv4")
            #expect(creation["protocol"] == "tcp")
            let twice = try await cloud.call("POST", "/security-group-rules", ["security_group_rule": rule])
            #expect(twice.type == "SecurityGroupRuleExists")
            #expect(twice.message?.contains(creation.id) == true)
            let number = try await cloud.make(
                "security-group-rules", "security_group_rule",
                ["security_group_id": .string(group.id), "direction": "egress", "protocol": 50])
            #expect(number["protocol"] == "50")
            let network = try await cloud.network()
            _ = try await cloud.subnet(network)
            let port = try await cloud.make(
                "ports", "port", ["network_id": .string(network), "security_groups": [.string(group.id)]])
            #expect(try await cloud.call("DELETE", "/security-groups/\(group.id)").type == "SecurityGroupInUse")
            _ = try await cloud.call("PUT", "/ports/\(port.id)", ["port": ["security_groups": []]])
            #expect(try await cloud.call("DELETE", "/security-group-rules/\(creation.id)").status == 204)
            #expect(try await cloud.call("DELETE", "/security-groups/\(group.id)").status == 204)
            #expect(try await cloud.used("security_group") == 1)
            #expect(try await cloud.used("security_group_rule") == 4)
        }
    }

    @Test func guestsOnAutoAddressedSubnetsNameThemselves() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            let early = try await cloud.make("ports", "port", ["network_id": .string(network), "mac_address": "fa:16:3e:00:00:01"])
            #expect(early["fixed_ips"]?.count == 0)
            let subnet = try await cloud.make(
                "subnets", "subnet",
                [
                    "network_id": .string(network), "cidr": "fd00:1::/64", "ip_version": 6, "ipv6_ra_mode": "slaac",
                    "ipv6_address_mode": "slaac",
                ])
            #expect(subnet["gateway_ip"] == "fd00:1::1")
            let shown = try await cloud.call("GET", "/ports/\(early.id)")
            #expect(shown.json["port"]?["fixed_ips"]?[0]["ip_address"] == "fd00:1::f816:3eff:fe00:1")
            let chosen = try await cloud.call(
                "POST", "/ports", ["port": ["network_id": .string(network), "fixed_ips": [["ip_address": "fd00:1::99"]]]])
            #expect(chosen.status == 400)
            let router = try await cloud.make("routers", "router", ["name": "r"])
            let path = "/routers/\(router.id)/"
            let added = try await cloud.call("PUT", path + "add_router_interface", ["subnet_id": .string(subnet.id)])
            #expect(added.status == 200, "\(added.json)")
            #expect(try await cloud.call("DELETE", "/subnets/\(subnet.id)").type == "SubnetInUse")
            _ = try await cloud.call("PUT", path + "remove_router_interface", ["subnet_id": .string(subnet.id)])
            #expect(try await cloud.call("DELETE", "/subnets/\(subnet.id)").status == 204)
        }
    }

    @Test func anExternalNetworkTakesItsIdleFloatingIPsAlong() async throws {
        try await NetworkHarness.with { cloud in
            let external = try await cloud.external()
            _ = try await cloud.make("floatingips", "floatingip", ["floating_network_id": .string(external)])
            #expect(try await cloud.used("floatingip") == 1)
            #expect(try await cloud.call("DELETE", "/networks/\(external)", as: "admin").status == 204)
            #expect(try await cloud.used("floatingip") == 0)
        }
    }

    @Test func aRoutersInterfaceChangesItsAddress() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            let subnet = try await cloud.subnet(network)
            let router = try await cloud.make("routers", "router", ["name": "r"])
            let added = try await cloud.call(
                "PUT", "/routers/\(router.id)/add_router_interface", ["subnet_id": .string(subnet.id)])
            let port = added.json.text("port_id")
            let updated = try await cloud.call(
                "PUT", "/ports/\(port)",
                ["port": ["fixed_ips": [["subnet_id": .string(subnet.id), "ip_address": "10.0.0.200"]]]])
            #expect(updated.json["port"]?["fixed_ips"]?[0]["ip_address"] == "10.0.0.200", "\(updated.json)")
        }
    }

    @Test func optionalFieldsMayBeNull() async throws {
        try await NetworkHarness.with { cloud in
            let creation = try await cloud.call(
                "POST", "/networks", ["network": ["name": "n", "description": .null, "mtu": .null, "shared": .null]])
            #expect(creation.status == 201, "\(creation.json)")
            let options = try await cloud.make(
                "ports", "port",
                [
                    "network_id": .string(creation.json["network"]?.id ?? ""), "device_id": .null, "fixed_ips": .null,
                    "extra_dhcp_opts": [
                        ["opt_name": "bootfile-name", "opt_value": "pxelinux.0"],
                        ["opt_name": "server-ip-address", "opt_value": "192.0.2.1"],
                    ],
                ])
            #expect(options["extra_dhcp_opts"]?.count == 2)
        }
    }
}
