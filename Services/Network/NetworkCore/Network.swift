package import Kernel

/// Provider attributes: how a network is connected to the physical network.
package struct ProviderAttributes: Hashable, Sendable {
    package enum Kind: String, Sendable, CaseIterable {
        case geneve
        case flat
        case vlan
    }

    package var kind: Kind
    package var physicalNetwork: String?
    package var segmentationID: Int?

    package init(kind: Kind, physicalNetwork: String? = nil, segmentationID: Int? = nil) {
        self.kind = kind
        self.physicalNetwork = physicalNetwork
        self.segmentationID = segmentationID
    }

    /// - Throws: 400 for an unsupported combination.
    package func validate() throws {
        switch kind {
        case .geneve:
            guard physicalNetwork == nil else {
                throw ResourceError.badRequest(
                    "Invalid input for operation: provider:physical_network specified for geneve network.",
                    type: "InvalidInput")
            }
        case .flat:
            guard physicalNetwork != nil else {
                throw ResourceError.badRequest(
                    "Invalid input for operation: physical_network required for flat provider network.",
                    type: "InvalidInput")
            }
            guard segmentationID == nil else {
                throw ResourceError.badRequest(
                    "Invalid input for operation: segmentation_id specified for flat provider network.",
                    type: "InvalidInput")
            }
        case .vlan:
            guard physicalNetwork != nil, let tag = segmentationID, (1...4094).contains(tag) else {
                throw ResourceError.badRequest(
                    "Invalid input for operation: a vlan provider network needs provider:physical_network and a "
                        + "provider:segmentation_id from 1 to 4094.", type: "InvalidInput")
            }
        }
    }
}

/// A network with the data that the compiler needs.
package struct Network: Hashable, Sendable {
    package var id: UUID128
    package var projectID: String
    package var name: String
    package var adminStateUp: Bool
    package var shared: Bool
    package var external: Bool
    package var mtu: Int
    package var portSecurityEnabled: Bool
    package var provider: ProviderAttributes

    package init(
        id: UUID128, projectID: String, name: String = "", adminStateUp: Bool = true, shared: Bool = false,
        external: Bool = false, mtu: Int = 1442, portSecurityEnabled: Bool = true,
        provider: ProviderAttributes = ProviderAttributes(kind: .geneve)
    ) {
        self.id = id
        self.projectID = projectID
        self.name = name
        self.adminStateUp = adminStateUp
        self.shared = shared
        self.external = external
        self.mtu = mtu
        self.portSecurityEnabled = portSecurityEnabled
        self.provider = provider
    }
}
