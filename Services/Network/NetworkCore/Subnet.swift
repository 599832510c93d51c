package import Kernel

/// A closed range of addresses.
package struct AddressPool: Hashable, Sendable, Comparable {
    package let start: IPAddress
    package let end: IPAddress

    package init(start: IPAddress, end: IPAddress) {
        self.start = start
        self.end = end
    }

    package func contains(_ address: IPAddress) -> Bool {
        address.version == start.version && start <= address && address <= end
    }

    /// The number of addresses; saturates for IPv6.
    package var count: UInt128 {
        guard start <= end else { return 0 }
        let (size, overflow) = (end.value - start.value).addingReportingOverflow(1)
        return overflow ? UInt128.max : size
    }

    package static func < (left: AddressPool, right: AddressPool) -> Bool { left.start < right.start }
}

/// A route of a router, or for DHCP clients.
package struct StaticRoute: Hashable, Sendable {
    package let destination: IPNetwork
    package let nexthop: IPAddress

    package init(destination: IPNetwork, nexthop: IPAddress) {
        self.destination = destination
        self.nexthop = nexthop
    }
}

/// How IPv6 guests get their addresses.
package enum IPv6Mode: String, Sendable, CaseIterable {
    case slaac
    case stateful = "dhcpv6-stateful"
    case stateless = "dhcpv6-stateless"
}

/// A subnet with the data that the compiler needs.
package struct Subnet: Hashable, Sendable {
    package var id: UUID128
    package var networkID: UUID128
    package var cidr: IPNetwork
    package var gatewayIP: IPAddress?
    package var enableDHCP: Bool
    package var allocationPools: [AddressPool]
    package var dnsNameservers: [IPAddress]
    package var hostRoutes: [StaticRoute]
    package var ipv6AddressMode: IPv6Mode?
    package var ipv6RouterMode: IPv6Mode?

    package init(
        id: UUID128, networkID: UUID128, cidr: IPNetwork, gatewayIP: IPAddress?, enableDHCP: Bool = true,
        allocationPools: [AddressPool] = [], dnsNameservers: [IPAddress] = [], hostRoutes: [StaticRoute] = [],
        ipv6AddressMode: IPv6Mode? = nil, ipv6RouterMode: IPv6Mode? = nil
    ) {
        self.id = id
        self.networkID = networkID
        self.cidr = cidr
        self.gatewayIP = gatewayIP
        self.enableDHCP = enableDHCP
        self.allocationPools = allocationPools
        self.dnsNameservers = dnsNameservers
        self.hostRoutes = hostRoutes
        self.ipv6AddressMode = ipv6AddressMode
        self.ipv6RouterMode = ipv6RouterMode
    }

    /// Whether guests compute their own addresses.
    package var isAutoAddressed: Bool { ipv6AddressMode == .slaac || ipv6AddressMode == .stateless }

    /// Whether OVN answers DHCP requests for the subnet.
    package var servesDHCP: Bool { enableDHCP && !(cidr.version == .v6 && ipv6AddressMode == .slaac) }
}
