package import Kernel

/// Validation of subnets. Errors name the value and the rule, with Neutron's error types and texts.
package enum SubnetRules {
    /// The default gateway: the first address.
    package static func defaultGateway(_ cidr: IPNetwork) -> IPAddress? {
        cidr.prefixLength >= cidr.version.width - 1 ? cidr.first : cidr.first.advanced(by: 1)
    }

    /// All addresses that hosts may use: without the network and broadcast address (IPv4), the subnet-router anycast address
    /// (IPv6), and the gateway.
    package static func defaultPools(_ cidr: IPNetwork, gateway: IPAddress?) -> [AddressPool] {
        guard let usable = usableRange(cidr) else { return [] }
        guard let gateway, usable.contains(gateway) else { return [usable] }
        var pools: [AddressPool] = []
        if gateway > usable.start {
            pools.append(
                AddressPool(
                    start: usable.start, end: IPAddress(version: gateway.version, value: gateway.value - 1)))
        }
        if gateway < usable.end {
            pools.append(
                AddressPool(start: IPAddress(version: gateway.version, value: gateway.value + 1), end: usable.end))
        }
        return pools
    }

    /// The range of host addresses.
    package static func usableRange(_ cidr: IPNetwork) -> AddressPool? {
        if cidr.prefixLength >= cidr.version.width - 1 { return AddressPool(start: cidr.first, end: cidr.last) }
        guard let first = cidr.first.advanced(by: 1) else { return nil }
        let last =
            cidr.version == .v4 ? IPAddress(version: .v4, value: cidr.last.value - 1) : cidr.last
        return AddressPool(start: first, end: last)
    }

    /// - Throws: 400 if the network is not valid for a subnet.
    package static func validate(cidr: IPNetwork) throws {
        guard cidr.prefixLength > 0 else {
            throw ResourceError.badRequest(
                "Invalid input for operation: 0 is not allowed as CIDR prefix length.", type: "InvalidInput")
        }
        try AddressRules.check(cidr, as: .subnet, field: "cidr")
    }

    /// - Throws: 400 `InvalidInput` if no host of the subnet could reach the gateway.
    package static func validate(gateway: IPAddress, cidr: IPNetwork) throws {
        let linkLocal = IPNetwork("fe80::/10")
        if cidr.version == .v6, let linkLocal, linkLocal.contains(gateway) { return }
        guard let usable = usableRange(cidr), usable.contains(gateway) || (cidr.version == .v6 && gateway == cidr.first)
        else {
            throw ResourceError.badRequest(
                "Invalid input for operation: Gateway \(gateway) is not valid on subnet \(cidr).", type: "InvalidInput")
        }
    }

    /// - Throws: 400 `InvalidAllocationPool`, `OutOfBoundsAllocationPool`; 409 `OverlappingAllocationPools`,
    ///   `GatewayConflictWithAllocationPools`.
    package static func validate(pools: [AddressPool], cidr: IPNetwork, gateway: IPAddress?) throws {
        guard pools.count <= NetworkLimits.poolsPerSubnetMax else {
            throw ResourceError.badRequest(
                "Invalid input for allocation_pools. Reason: more than \(NetworkLimits.poolsPerSubnetMax) pools.",
                type: "InvalidInput")
        }
        guard let usable = usableRange(cidr) else { return }
        for pool in pools {
            let text = "\(pool.start)-\(pool.end)"
            guard pool.start.version == cidr.version, pool.end.version == cidr.version, pool.start <= pool.end else {
                throw ResourceError.badRequest(
                    "The allocation pool \(text) is not valid.", type: "InvalidAllocationPool")
            }
            guard usable.contains(pool.start), usable.contains(pool.end) else {
                throw ResourceError.badRequest(
                    "The allocation pool \(text) spans beyond the subnet cidr \(cidr).",
                    type: "OutOfBoundsAllocationPool")
            }
            if let gateway, pool.contains(gateway) {
                throw ResourceError.conflict(
                    "Gateway ip \(gateway) conflicts with allocation pool \(text).",
                    type: "GatewayConflictWithAllocationPools")
            }
        }
        let sorted = pools.sorted()
        for (left, right) in zip(sorted, sorted.dropFirst()) where right.start <= left.end {
            throw ResourceError.conflict(
                "Found overlapping allocation pools: \(left.start)-\(left.end), \(right.start)-\(right.end) "
                    + "for subnet \(cidr).", type: "OverlappingAllocationPools")
        }
    }

    /// - Throws: 400 if `cidr` overlaps another subnet of the same network.
    package static func validateNoOverlap(_ cidr: IPNetwork, on networkID: UUID128, others: [IPNetwork]) throws {
        for other in others where other.version == cidr.version && other.overlaps(cidr) {
            throw ResourceError.badRequest(
                "Invalid input for operation: Requested subnet with cidr: \(cidr) for network: \(networkID) overlaps "
                    + "with another subnet.", type: "InvalidInput")
        }
    }

    /// - Throws: 400 if a router would have two interfaces in overlapping networks.
    package static func validateRouterInterface(
        _ cidr: IPNetwork, subnetID: UUID128, routerSubnets: [(id: UUID128, cidr: IPNetwork)]
    ) throws {
        for other in routerSubnets {
            if other.id == subnetID {
                throw ResourceError.badRequest(
                    "Bad router request: Router already has a port on subnet \(subnetID).", type: "BadRequest")
            }
            if other.cidr.version == cidr.version, other.cidr.overlaps(cidr) {
                throw ResourceError.badRequest(
                    "Bad router request: Cidr \(cidr) of subnet \(subnetID) overlaps with cidr \(other.cidr) of "
                        + "subnet \(other.id).", type: "BadRequest")
            }
        }
    }

    /// - Throws: 400 for routes to or through addresses of special ranges.
    package static func validate(routes: [StaticRoute], field: String) throws {
        for route in routes {
            try AddressRules.check(route.destination, as: .destination, field: field)
            try AddressRules.check(route.nexthop, as: .nexthop, field: field)
        }
    }

    /// - Throws: 400 for invalid host routes or name servers.
    package static func validate(
        hostRoutes: [StaticRoute], dnsNameservers: [IPAddress], cidr: IPNetwork
    ) throws {
        guard dnsNameservers.count <= NetworkLimits.dnsNameserversMax else {
            throw ResourceError.badRequest(
                "Unable to complete operation for the subnet. The number of DNS nameservers exceeds the limit "
                    + "\(NetworkLimits.dnsNameserversMax).", type: "DNSNameServersExhausted")
        }
        guard hostRoutes.count <= NetworkLimits.hostRoutesMax else {
            throw ResourceError.badRequest(
                "Unable to complete operation for the subnet. The number of host routes exceeds the limit "
                    + "\(NetworkLimits.hostRoutesMax).", type: "HostRoutesExhausted")
        }
        for server in dnsNameservers { try AddressRules.check(server, as: .nameServer, field: "dns_nameservers") }
        try validate(routes: hostRoutes, field: "host_routes")
        for route in hostRoutes {
            guard route.destination.version == cidr.version, route.nexthop.version == cidr.version else {
                throw ResourceError.badRequest(
                    "Invalid input for operation: host route \(route.destination) via \(route.nexthop) does not match "
                        + "the ip_version of \(cidr).", type: "InvalidInput")
            }
        }
        guard Set(dnsNameservers).count == dnsNameservers.count else {
            throw ResourceError.badRequest(
                "Invalid input for dns_nameservers. Reason: Duplicate nameserver.", type: "HTTPBadRequest")
        }
    }
}
