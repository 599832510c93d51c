import IdentityCore
import ServiceCatalog
package import ServiceKit

/// Identity as one value.
package enum IdentityModule {
    /// - Throws: 400 for a policy rule that cannot be parsed.
    package static func make(_ identity: Identity, _ surroundings: ServiceSurroundings) throws -> ServiceModule {
        ServiceModule(
            .identity, surroundings, api: try IdentityAPI.make(identity, surroundings),
            loops: [.init("periodic tasks") { try await identity.runPeriodicTasks(surroundings.log) }],
            inspections: IdentityInspections.all)
    }
}
