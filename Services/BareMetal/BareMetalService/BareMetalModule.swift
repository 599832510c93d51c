import BareMetalCore
import Inspections
import Kernel
import ServiceCatalog
package import ServiceKit
import WebAPI

/// Bare Metal as one value.
package enum BareMetalModule {
    /// Polls the power state of all nodes once, like the periodic task.
    package static func pollPower(_ surroundings: ServiceSurroundings, _ options: BareMetalOptions) async throws {
        try await PowerSync(surroundings: surroundings, hardware: BareMetal(surroundings, options).hardware).run()
    }

    /// - Throws: 400 for a policy rule that cannot be parsed.
    package static func make(_ surroundings: ServiceSurroundings, _ options: BareMetalOptions) throws -> ServiceModule {
        let bareMetal = BareMetal(surroundings, options)
        let sync = PowerSync(surroundings: surroundings, hardware: bareMetal.hardware)
        let tasks = PeriodicTask(
            CloudService.bareMetal.section, every: options.powerSync, database: surroundings.database, ambient: surroundings.ambient,
            log: surroundings.log
        ) {
            try await sync.run()
            return true
        }
        return ServiceModule(
            .bareMetal, surroundings, api: try surroundings.api(.bareMetal, resources: bareMetal.resources, rules: NodePolicy.extra),
            workflows: bareMetal.workflows.definitions, loops: [.init("power") { try await tasks.run() }],
            inspections: BareMetalInspections.all)
    }
}
