package import Kernel

/// A hypervisor that can host the external ports of routers.
package struct GatewayCandidate: Hashable, Sendable {
    package let chassis: String
    /// Physical networks for which it has a bridge.
    package let physicalNetworks: Set<String>
    /// Whether the operator enabled it as a gateway (`ovn-cms-options=enable-chassis-as-gw`).
    package let isMarked: Bool

    package init(chassis: String, physicalNetworks: Set<String>, isMarked: Bool) {
        self.chassis = chassis
        self.physicalNetworks = physicalNetworks
        self.isMarked = isMarked
    }
}

/// Compiles the state of the API to northbound rows. Pure: the same state always gives the same rows.
package struct Compiler: Sendable {
    /// Name servers for subnets that specify none.
    package var dnsServers: [IPAddress]
    package var dhcpLeaseSeconds: Int
    package var dnsDomain: String
    /// Whether floating IPs are translated on the hypervisor of the server instead of the gateway chassis.
    package var distributedFloatingIPs: Bool
    package var gateways: [GatewayCandidate]

    package init(
        dnsServers: [IPAddress] = [], dhcpLeaseSeconds: Int = 43_200, dnsDomain: String = "",
        distributedFloatingIPs: Bool = false, gateways: [GatewayCandidate] = []
    ) {
        self.dnsServers = dnsServers
        self.dhcpLeaseSeconds = dhcpLeaseSeconds
        self.dnsDomain = dnsDomain
        self.distributedFloatingIPs = distributedFloatingIPs
        self.gateways = gateways
    }

    // MARK: keys

    package static func switchKey(_ network: UUID128) -> NBKey { NBKey(.logicalSwitch, "\(network)") }
    package static func switchPortKey(_ port: UUID128) -> NBKey { NBKey(.logicalSwitchPort, "\(port)") }
    package static func routerKey(_ router: UUID128) -> NBKey { NBKey(.logicalRouter, "\(router)") }
    package static func routerPortName(_ port: UUID128) -> String { "lrp-\(port)" }
    package static func dhcpKey(_ subnet: UUID128) -> NBKey { NBKey(.dhcpOptions, "\(subnet)") }
    package static func groupKey(_ group: UUID128) -> NBKey { NBKey(.portGroup, "\(group)") }
    package static let dropGroupKey = NBKey(.portGroup, "drop")

    /// Port group names are identifiers in matches: letters, digits and underscores only.
    package static func groupName(_ group: UUID128) -> String { "pg_" + group.compact }
    package static let dropGroupName = "pg_drop"

    /// `external_ids` for operators who inspect OVN; empty values are omitted.
    static func labels(_ entries: NBEntries) -> NBValue { .map(entries.filter { !$0.value.isEmpty }) }

    // MARK: network

    package func compile(_ network: Network) -> NBDesired {
        let key = Compiler.switchKey(network.id)
        var rows = [
            NBRow(
                key,
                [
                    "name": .string("\(network.id)"), "other_config": .map([:]),
                    "external_ids": Compiler.labels(["wolke:name": network.name]),
                ])
        ]
        if let physical = network.provider.physicalNetwork {
            let tag = network.provider.kind == .vlan ? network.provider.segmentationID : nil
            rows.append(
                NBRow(
                    NBKey(.logicalSwitchPort, "provnet/\(network.id)"), in: key, column: "ports",
                    [
                        "name": .string("provnet-\(network.id)"), "type": .string("localnet"),
                        "addresses": .strings(["unknown"]), "options": .map(["network_name": physical]),
                        "tag": tag.map { .integer($0) } ?? .none,
                    ]))
        }
        return NBDesired(rows: rows)
    }

    // MARK: subnet

    /// - Parameter metadata: the address of the network's metadata port in this subnet.
    package func compile(_ subnet: Subnet, network: Network, metadata: IPAddress?) -> NBDesired {
        guard subnet.servesDHCP, let options = dhcpOptions(subnet, network: network, metadata: metadata) else {
            return .nothing
        }
        return NBDesired(rows: [
            NBRow(
                Compiler.dhcpKey(subnet.id),
                ["cidr": .string(subnet.cidr.description), "options": .map(options), "external_ids": .map([:])])
        ])
    }

    /// - Parameter extra: options of a single port, which override the subnet's.
    func dhcpOptions(
        _ subnet: Subnet, network: Network, metadata: IPAddress?, extra: [DHCPOption] = []
    ) -> NBEntries? {
        let common =
            subnet.cidr.version == .v4
            ? dhcpv4Options(subnet, network: network, metadata: metadata, extra: extra) : dhcpv6Options(subnet)
        guard var options = common else { return nil }
        // Routes are merged above.
        for option in extra where option.name != Compiler.routesOption { options[option.name] = option.value }
        return options
    }

    private static let routesOption = "classless_static_route"

    private func dhcpv4Options(
        _ subnet: Subnet, network: Network, metadata: IPAddress?, extra: [DHCPOption]
    ) -> NBEntries? {
        // OVN responds to DHCP only if it has a server address.
        guard let server = subnet.gatewayIP ?? metadata ?? SubnetRules.usableRange(subnet.cidr)?.start else { return nil }
        var options: NBEntries = [
            "server_id": server.description, "server_mac": Compiler.serverMAC(subnet.id).description,
            "lease_time": String(dhcpLeaseSeconds), "mtu": String(network.mtu),
        ]
        var routes: [StaticRoute] = []
        let own = extra.first { $0.name == Compiler.routesOption }.flatMap { DHCPOption.routes($0.value) }
        let metadataRoute = metadata.map {
            StaticRoute(destination: IPNetwork(AddressRules.metadata, prefixLength: 32), nexthop: $0)
        }
        // A port's own routes replace all others except the route to the metadata service.
        if let metadataRoute, !(own ?? []).contains(where: { $0.destination == metadataRoute.destination }) {
            routes.append(metadataRoute)
        }
        routes += own ?? subnet.hostRoutes
        let gateway = extra.first { $0.name == "router" }.flatMap { IPAddress($0.value) } ?? subnet.gatewayIP
        if let gateway {
            options["router"] = gateway.description
            // A client that takes option 121 ignores the router option (RFC 3442), so the default route is here too.
            if !routes.isEmpty, own == nil {
                routes.append(StaticRoute(destination: IPNetwork(IPAddress(version: .v4, value: 0), prefixLength: 0), nexthop: gateway))
            }
        }
        if !routes.isEmpty { options[Compiler.routesOption] = DHCPOption.text(routes) }
        if let servers = nameServers(subnet, .v4) { options["dns_server"] = servers }
        if !dnsDomain.isEmpty { options["domain_name"] = "\"\(dnsDomain)\"" }
        return options
    }

    private func dhcpv6Options(_ subnet: Subnet) -> NBEntries? {
        var options: NBEntries = ["server_id": Compiler.serverMAC(subnet.id).description]
        if let servers = nameServers(subnet, .v6) { options["dns_server"] = servers }
        if subnet.ipv6AddressMode == .stateless { options["dhcpv6_stateless"] = "true" }
        if !dnsDomain.isEmpty { options["domain_search"] = "\"\(dnsDomain)\"" }
        return options
    }

    private func nameServers(_ subnet: Subnet, _ version: IPAddress.Version) -> String? {
        let own = subnet.dnsNameservers.isEmpty ? dnsServers : subnet.dnsNameservers
        // The unspecified address means that no name server is handed out.
        let servers = own.filter { $0.version == version && $0.value != 0 }
        return servers.isEmpty ? nil : "{" + servers.map(\.description).joined(separator: ", ") + "}"
    }

    /// Constant for the lifetime of a subnet and different between subnets.
    package static func serverMAC(_ subnet: UUID128) -> MACAddress {
        MACAddress(value: 0xfa16_3e00_0000 | ((subnet.high ^ subnet.low) & 0xff_ffff))
    }

    // MARK: gateways

    /// Gateway chassis for the external port of a router, highest priority first. Rendezvous hashing by the router's id
    /// spreads routers over the chassis, so that adding or removing a chassis moves only the routers on it.
    package func gatewayChassis(for router: UUID128, physicalNetwork: String?) -> [String] {
        let able = gateways.filter { physicalNetwork.map($0.physicalNetworks.contains) ?? true }
        let marked = able.filter(\.isMarked)
        let chosen = (marked.isEmpty ? able : marked)
            .map { (score: Compiler.score(router, $0.chassis), chassis: $0.chassis) }
            .sorted { ($0.score, $0.chassis) > ($1.score, $1.chassis) }
        return chosen.prefix(NetworkLimits.gatewayChassisMax).map(\.chassis)
    }

    /// Rendezvous hashing with FNV-1a, and a finaliser because FNV's high bits are weak.
    private static func score(_ router: UUID128, _ chassis: String) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in Array("\(router)/\(chassis)".utf8) { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        hash = (hash ^ (hash >> 33)) &* 0xff51_afd7_ed55_8ccd
        return hash ^ (hash >> 33)
    }
}
