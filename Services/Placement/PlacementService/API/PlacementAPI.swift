import Kernel
import ServiceCatalog
import ServiceKit
import WebAPI

/// The complete API of Placement.
package enum PlacementAPI {
    /// - Throws: 400 for a policy rule that cannot be parsed.
    static func make(_ placement: Placement, _ surroundings: ServiceSurroundings) throws -> API {
        try surroundings.api(
            .placement,
            resources: [
                placement.discoveryResource, placement.resourceProviderResource, placement.inventoryResource,
                placement.usageResource, placement.allocationResource, placement.candidateResource,
                placement.traitResource, placement.resourceClassResource, placement.aggregateResource,
            ])
    }
}
