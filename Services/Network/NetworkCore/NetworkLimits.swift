/// Limits of the Networking API that apply to everyone, in addition to quotas.
package enum NetworkLimits {
    package static let poolsPerSubnetMax = 64
    package static let dnsNameserversMax = 5
    package static let hostRoutesMax = 20
    package static let routesPerRouterMax = 30
    package static let fixedIPsPerPortMax = 5
    package static let addressPairsMax = 10
    package static let securityGroupsPerPortMax = 16
    package static let bulkMax = 256
    package static let tagsMax = 50
    package static let tagLengthMax = 255
    package static let descriptionLengthMax = 255
    package static let deviceIDLengthMax = 255
    package static let mtuMin = 68
    package static let mtuMax = 65_535
    /// Subnets with up to this many addresses allocate them in order; larger ones at random, which does not require reading the
    /// addresses in use.
    package static let orderedPoolSize = 1024
    /// Number of random attempts before the addresses in use are read.
    package static let addressGuesses = 3
    /// Number of addresses checked in the first round, and maximum in later ones.
    package static let addressWindowMin = 128
    package static let addressWindowMax = 4096
    /// Operations planned for one northbound transaction, unless one resource alone needs more.
    package static let northboundOperationsMax = 6000
    /// Gateway chassis per router.
    package static let gatewayChassisMax = 5
}

/// Prefixes and values of `device_owner` with a meaning for the service.
package enum DeviceOwner {
    package static let routerInterface = "network:router_interface"
    package static let routerGateway = "network:router_gateway"
    package static let floatingIP = "network:floatingip"
    /// The port through which hypervisors serve metadata; it has the same address on each of them.
    package static let metadata = "network:distributed"
    package static let computePrefix = "compute:"
    package static let networkPrefix = "network:"

    /// Whether the port's traffic belongs to the control plane and is never filtered.
    package static func isTrusted(_ owner: String) -> Bool { owner.hasPrefix(networkPrefix) }
    /// Whether the port belongs to a server.
    package static func isServer(_ owner: String) -> Bool { owner.hasPrefix("compute:") || owner.hasPrefix("baremetal:") }
    package static func isRouterPort(_ owner: String) -> Bool { owner == routerInterface || owner == routerGateway }
}
