package import Kernel

extension Compiler {
    /// Rows of a port: its switch port and, for a router's interface, the router port on the other side.
    ///
    /// - Parameters:
    ///   - subnets: the subnets of the port's fixed IPs, by id.
    ///   - metadata: the address of the metadata port, by subnet.
    package func compile(
        _ port: Port, network: Network, subnets: [UUID128: Subnet], metadata: [UUID128: IPAddress] = [:]
    ) -> NBDesired {
        // The port of a floating IP only reserves its address.
        guard port.deviceOwner != DeviceOwner.floatingIP else { return .nothing }
        let key = Compiler.switchPortKey(port.id)
        // All ports of a network with `admin_state_up` false are disabled.
        let isEnabled = port.adminStateUp && network.adminStateUp
        var columns: NBColumns = [
            "name": .string("\(port.id)"), "enabled": isEnabled ? .none : .boolean(false), "type": .string(""),
            "options": .map([:]), "addresses": .none, "port_security": .none, "dhcpv4_options": .none,
            "dhcpv6_options": .none,
        ]
        columns["external_ids"] = Compiler.labels([
            "wolke:name": port.name, "wolke:device_id": port.deviceID, "wolke:device_owner": port.deviceOwner,
            "wolke:project_id": port.projectID,
        ])
        if DeviceOwner.isRouterPort(port.deviceOwner) { return compileRouterPort(port, network, subnets, key, columns) }

        let own = ([port.mac.description] + port.fixedIPs.map(\.address.description)).joined(separator: " ")
        var addresses = SmallSet(own)
        var ownOptions: [NBRow] = []
        if port.deviceOwner == DeviceOwner.metadata {
            columns["type"] = .string("localport")
        } else {
            if let shared = port.virtualAddress {
                columns["type"] = .string("virtual")
                columns["options"] = .map([
                    "virtual-ip": "\(shared.address)",
                    "virtual-parents": shared.parents.map(\.description).joined(separator: ","),
                ])
            } else if let options = port.chassisOptions {
                columns["options"] = .map(NBEntries(options.map { ($0.key, $0.value) }))
            }
            for fixed in port.fixedIPs {
                guard let subnet = subnets[fixed.subnetID], subnet.servesDHCP else { continue }
                let isDisabled = port.dhcpOptions.contains {
                    $0.name == DHCPOption.disabled && $0.version == subnet.cidr.version
                }
                guard !isDisabled else { continue }
                let column = subnet.cidr.version == .v4 ? "dhcpv4_options" : "dhcpv6_options"
                columns[column] = .row(Compiler.dhcpKey(subnet.id))
                if let row = dhcpRow(port, subnet, network, metadata[subnet.id]) {
                    columns[column] = .row(row.key)
                    ownOptions.append(row)
                }
            }
            if port.isSecured {
                columns["port_security"] = portSecurity(port, own)
            } else if !DeviceOwner.isTrusted(port.deviceOwner) {
                addresses.insert("unknown")
            }
            // Frames to the hardware address of a pair must reach the port as well.
            for pair in port.addressPairs {
                if let mac = pair.mac, mac != port.mac { addresses.insert("\(mac)") }
            }
        }
        columns["addresses"] = .strings(addresses)
        let row = NBRow(key, in: Compiler.switchKey(port.networkID), column: "ports", columns)
        guard port.isSecured else { return NBDesired(rows: ownOptions + [row]) }
        let groups = port.securityGroups.isEmpty ? [Compiler.dropGroupKey] : port.securityGroups.map(Compiler.groupKey)
        let memberships = SmallSet(groups.lazy.map { NBMembership(group: $0, member: key) })
        return NBDesired(rows: ownOptions + [row], memberships: memberships)
    }

    /// DHCP options of a port with options of its own, which override those of the subnet.
    private func dhcpRow(_ port: Port, _ subnet: Subnet, _ network: Network, _ metadata: IPAddress?) -> NBRow? {
        let extra = port.dhcpOptions.filter { $0.version == subnet.cidr.version }
        guard !extra.isEmpty, let options = dhcpOptions(subnet, network: network, metadata: metadata, extra: extra)
        else { return nil }
        return NBRow(
            NBKey(.dhcpOptions, "port/\(port.id)/\(subnet.id)"),
            ["cidr": .string(subnet.cidr.description), "options": .map(options), "external_ids": .map([:])])
    }

    private func portSecurity(_ port: Port, _ own: String) -> NBValue {
        guard !port.addressPairs.isEmpty else { return .string(own) }
        var byMAC: [MACAddress: [String]] = [:]
        for pair in port.addressPairs { byMAC[pair.mac ?? port.mac, default: []].append(pair.ip) }
        var result: Set<String> = []
        let extra = (byMAC[port.mac] ?? []).sorted()
        result.insert(([own] + extra).joined(separator: " "))
        for (mac, addresses) in byMAC where mac != port.mac {
            result.insert(([mac.description] + addresses.sorted()).joined(separator: " "))
        }
        return .strings(result)
    }

    private func compileRouterPort(
        _ port: Port, _ network: Network, _ subnets: [UUID128: Subnet], _ key: NBKey,
        _ base: NBColumns
    ) -> NBDesired {
        guard let router = UUID128(port.deviceID) else { return .nothing }
        let isGateway = port.deviceOwner == DeviceOwner.routerGateway
        let name = Compiler.routerPortName(port.id)
        var columns = base
        columns["type"] = .string("router")
        columns["addresses"] = .strings(["router"])
        var options: NBEntries = ["router-port": name]
        if isGateway { options["nat-addresses"] = "router" }
        columns["options"] = .map(options)

        let networks = port.fixedIPs.compactMap { fixed -> String? in
            subnets[fixed.subnetID].map { "\(fixed.address)/\($0.cidr.prefixLength)" }
        }
        // A router port needs an address (the schema's minimum is one).
        guard !networks.isEmpty else { return .nothing }
        let portKey = NBKey(.logicalRouterPort, "\(port.id)")
        var rows = [
            NBRow(key, in: Compiler.switchKey(port.networkID), column: "ports", columns),
            NBRow(
                portKey, in: Compiler.routerKey(router), column: "ports",
                [
                    "name": .string(name), "mac": .string(port.mac.description), "networks": .strings(networks),
                    "enabled": port.adminStateUp ? .none : .boolean(false), "options": .map([:]),
                    "ipv6_ra_configs": .map(isGateway ? [:] : advertisement(port, network, subnets)),
                    "external_ids": .map([:]),
                ]),
        ]
        if isGateway {
            let chassis = gatewayChassis(for: router, physicalNetwork: network.provider.physicalNetwork)
            for (index, chassis) in chassis.enumerated() {
                rows.append(
                    NBRow(
                        NBKey(.gatewayChassis, "\(port.id)/\(chassis)"), in: portKey, column: "gateway_chassis",
                        [
                            "name": .string("\(name)_\(chassis)"), "chassis_name": .string(chassis),
                            "priority": .integer(chassis.isEmpty ? 0 : NetworkLimits.gatewayChassisMax - index),
                            "external_ids": .map([:]),
                        ]))
            }
        }
        return NBDesired(rows: rows)
    }

    private func advertisement(_ port: Port, _ network: Network, _ subnets: [UUID128: Subnet]) -> NBEntries {
        let modes = port.fixedIPs.compactMap { subnets[$0.subnetID] }
            .filter { $0.cidr.version == .v6 }.compactMap(\.ipv6RouterMode)
        guard let mode = modes.first else { return [:] }
        let name =
            switch mode {
            case .slaac: "slaac"
            case .stateful: "dhcpv6_stateful"
            case .stateless: "dhcpv6_stateless"
            }
        return ["address_mode": name, "send_periodic": "true", "mtu": String(network.mtu)]
    }
}
