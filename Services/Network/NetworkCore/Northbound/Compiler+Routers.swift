package import Kernel

extension Compiler {
    /// Rows of a router, without its ports.
    ///
    /// - Parameters:
    ///   - internalNetworks: CIDRs of the subnets of its interfaces.
    ///   - gatewaySubnets: the subnets of the gateway port's fixed IPs, by id.
    package func compile(
        _ router: Router, internalNetworks: [IPNetwork], gatewaySubnets: [UUID128: Subnet]
    ) -> NBDesired {
        let key = Compiler.routerKey(router.id)
        var rows = [
            NBRow(
                key,
                [
                    "name": .string("\(router.id)"), "enabled": .boolean(router.adminStateUp),
                    "options": .map(["always_learn_from_arp_request": "false", "dynamic_neigh_routers": "true"]),
                    "external_ids": Compiler.labels(["wolke:name": router.name]),
                ])
        ]
        for route in router.routes { rows.append(Compiler.route(router.id, key, route.destination, route.nexthop, nil)) }
        guard let gateway = router.gateway else { return NBDesired(rows: rows) }
        let output = Compiler.routerPortName(gateway.portID)
        var translated = false
        for fixed in gateway.fixedIPs {
            guard let subnet = gatewaySubnets[fixed.subnetID] else { continue }
            let everything = IPNetwork(IPAddress(version: subnet.cidr.version, value: 0), prefixLength: 0)
            let isOverridden = router.routes.contains { $0.destination == everything }
            if let nexthop = subnet.gatewayIP, !isOverridden {
                let row = Compiler.route(router.id, key, everything, nexthop, output)
                if !rows.contains(where: { $0.key == row.key }) { rows.append(row) }
            }
            guard gateway.enableSNAT, fixed.address.version == .v4, !translated else { continue }
            translated = true
            for network in Set(internalNetworks).sorted(by: { $0.description < $1.description })
            where network.version == .v4 {
                rows.append(
                    NBRow(
                        NBKey(.nat, "\(router.id)/snat/\(network)"), in: key, column: "nat",
                        [
                            "type": .string("snat"), "external_ip": .string(fixed.address.description),
                            "logical_ip": .string(network.description), "external_mac": .none, "logical_port": .none,
                            "external_ids": .map([:]),
                        ]))
            }
        }
        return NBDesired(rows: rows)
    }

    private static func route(
        _ router: UUID128, _ key: NBKey, _ destination: IPNetwork, _ nexthop: IPAddress, _ output: String?
    ) -> NBRow {
        NBRow(
            NBKey(.staticRoute, "\(router)/\(destination)/\(nexthop)"), in: key, column: "static_routes",
            [
                "ip_prefix": .string(destination.description), "nexthop": .string(nexthop.description),
                "output_port": output.map { .string($0) } ?? .none, "external_ids": .map([:]),
            ])
    }

    /// Rows of a floating IP: none while it is not associated.
    package func compile(_ floating: FloatingIP) -> NBDesired {
        guard let router = floating.routerID, let port = floating.portID, let fixed = floating.fixedAddress else {
            return .nothing
        }
        let distributed = distributedFloatingIPs && floating.mac != nil
        return NBDesired(rows: [
            NBRow(
                NBKey(.nat, "floatingip/\(floating.id)"), in: Compiler.routerKey(router), column: "nat",
                [
                    "type": .string("dnat_and_snat"), "external_ip": .string(floating.address.description),
                    "logical_ip": .string(fixed.description),
                    "external_mac": distributed ? .string(floating.mac?.description ?? "") : .none,
                    "logical_port": distributed ? .string("\(port)") : .none, "external_ids": .map([:]),
                ])
        ])
    }
}
