import Authorization
import Kernel
import Logging
import Telemetry
import WebAPI

/// Placement's whole API.
package enum PlacementAPI {
    /// - Throws: 400 for a policy rule that cannot be read.
    package static func make(
        _ placement: Placement, publicURL: String, policyOverrides: [String: String], authenticator: any Authenticating,
        log: Logger, metrics: Metrics
    ) throws -> API {
        try API(
            service: ServiceDescription(.placement, publicURL: publicURL),
            resources: [
                placement.discoveryResource, placement.resourceProviderResource, placement.inventoryResource,
                placement.usageResource, placement.allocationResource, placement.candidateResource,
                placement.traitResource, placement.resourceClassResource, placement.aggregateResource,
            ], policyOverrides: policyOverrides, database: placement.database, authenticator: authenticator,
            ambient: placement.ambient, log: log, metrics: metrics)
    }
}
