/// Limits of the Networking API; what a project may have is its quota, these hold for everybody.
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
    /// Subnets up to this many addresses hand them out in order; larger ones at random, which needs no look at what is
    /// taken.
    package static let orderedPoolSize = 1024
    /// How often addresses are tried at random before looking which ones are free.
    package static let addressGuesses = 3
    /// Addresses looked at in the first round, and in a later one at most.
    package static let addressWindowMin = 128
    package static let addressWindowMax = 4096
    /// Operations planned for one northbound transaction, unless one resource alone needs more.
    package static let northboundOperationsMax = 6000
    /// Gateway chassis per router.
    package static let gatewayChassisMax = 5
}

/// Prefixes and values of `device_owner` that mean something to the engine.
package enum DeviceOwner {
    package static let routerInterface = "network:router_interface"
    package static let routerGateway = "network:router_gateway"
    package static let floatingIP = "network:floatingip"
    /// The port through which hypervisors serve metadata: the same address on every one of them.
    package static let metadata = "network:distributed"
    package static let computePrefix = "compute:"
    package static let networkPrefix = "network:"

    /// Whether traffic of the port is the plane's own and never filtered.
    package static func isTrusted(_ owner: String) -> Bool { owner.hasPrefix(networkPrefix) }
    /// Whether a server has the port.
    package static func isServer(_ owner: String) -> Bool { owner.hasPrefix("compute:") || owner.hasPrefix("baremetal:") }
    package static func isRouterPort(_ owner: String) -> Bool { owner == routerInterface || owner == routerGateway }
}
