package import Kernel

/// The external gateway of a router.
package struct ExternalGateway: Hashable, Sendable {
    package var portID: UUID128
    package var networkID: UUID128
    package var enableSNAT: Bool
    package var fixedIPs: [FixedIP]

    package init(portID: UUID128, networkID: UUID128, enableSNAT: Bool, fixedIPs: [FixedIP]) {
        self.portID = portID
        self.networkID = networkID
        self.enableSNAT = enableSNAT
        self.fixedIPs = fixedIPs
    }
}

/// A router with the data that the compiler needs.
package struct Router: Hashable, Sendable {
    package var id: UUID128
    package var name: String
    package var adminStateUp: Bool
    package var gateway: ExternalGateway?
    package var routes: [StaticRoute]

    package init(
        id: UUID128, name: String = "", adminStateUp: Bool = true, gateway: ExternalGateway? = nil, routes: [StaticRoute] = []
    ) {
        self.id = id
        self.name = name
        self.adminStateUp = adminStateUp
        self.gateway = gateway
        self.routes = routes
    }
}

/// A floating IP with the data that the compiler needs; one without a port has no rows.
package struct FloatingIP: Hashable, Sendable {
    package var id: UUID128
    package var address: IPAddress
    package var mac: MACAddress?
    package var routerID: UUID128?
    package var portID: UUID128?
    package var fixedAddress: IPAddress?

    package init(
        id: UUID128, address: IPAddress, mac: MACAddress? = nil, routerID: UUID128? = nil, portID: UUID128? = nil,
        fixedAddress: IPAddress? = nil
    ) {
        self.id = id
        self.address = address
        self.mac = mac
        self.routerID = routerID
        self.portID = portID
        self.fixedAddress = fixedAddress
    }
}
