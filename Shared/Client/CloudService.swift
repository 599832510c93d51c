/// A service with a REST API, under the names that catalogs know it by.
package enum CloudService: String, Sendable, CaseIterable {
    case identity, compute, network, image, placement
    case blockStorage = "block-storage"
    case bareMetal = "baremetal"
    case loadBalancer = "load-balancer"

    /// Catalog types that mean this service, the preferred one first.
    package var catalogTypes: [String] {
        switch self {
        case .blockStorage: ["block-storage", "volumev3", "block-store", "volume"]
        case .identity, .compute, .network, .image, .placement, .bareMetal, .loadBalancer: [rawValue]
        }
    }

    /// The path of the API version that this client speaks, below the service's root.
    ///
    /// - Parameter project: the id of the token's project, which Block Storage has in its path.
    func versionPath(project: String?) -> String {
        switch self {
        case .identity: "/v3"
        case .compute: "/v2.1"
        case .network: "/v2.0"
        case .image: "/v2"
        case .blockStorage: project.map { "/v3/\($0)" } ?? "/v3"
        case .placement: ""
        case .bareMetal: "/v1"
        case .loadBalancer: "/v2"
        }
    }

    /// The service's word in `OpenStack-API-Version`.
    var microversionName: String { self == .blockStorage ? "volume" : rawValue }

    /// The service under any of its names; nil for an unknown one.
    package init?(name: String) {
        let name = name.replacing("_", with: "-")
        guard let service = CloudService.allCases.first(where: { $0.catalogTypes.contains(name) }) else { return nil }
        self = service
    }
}
