import BareMetalCore
import Inspections
import Kernel
import ServiceCatalog
package import ServiceKit
import WebAPI

/// Bare Metal as one value.
package enum BareMetalModule {
    /// One look at the power of all nodes, as the periodic task does it.
    package static func lookAtPower(_ surroundings: ServiceSurroundings) async throws {
        let hardware = HardwareFleet([FakeHardware(database: surroundings.database, ambient: surroundings.ambient)])
        try await PowerSync(surroundings: surroundings, hardware: hardware).run()
    }

    /// - Throws: 400 for a policy rule that cannot be parsed.
    package static func make(_ surroundings: ServiceSurroundings) throws -> ServiceModule {
        let (database, ambient, log) = (surroundings.database, surroundings.ambient, surroundings.log)
        let hardware = HardwareFleet([FakeHardware(database: database, ambient: ambient)])
        let bareMetal = BareMetal(surroundings: surroundings, hardware: hardware)
        let sync = PowerSync(surroundings: surroundings, hardware: hardware)
        let tasks = PeriodicTask(
            CloudService.bareMetal.section, every: PowerSync.interval, database: database, ambient: ambient, log: log
        ) {
            try await sync.run()
            return true
        }
        return ServiceModule(
            .bareMetal, surroundings, api: try surroundings.api(.bareMetal, resources: bareMetal.resources, rules: NodePolicy.extra),
            workflows: bareMetal.workflows.definitions, loops: [.init("power") { try await tasks.run() }])
    }
}
