import Inspections
import Kernel
import NetworkCore
import ServiceCatalog
package import ServiceKit
import WebAPI

/// The backend that implements the networks, with its loops.
package struct NetworkBackend: Sendable {
    /// The known hypervisors, for agents and availability zones.
    package let fleet: any FleetView
    package let loops: [ServiceModule.Loop]
    /// Throws an error for the operator while networks cannot be changed.
    package let ready: @Sendable () async throws -> Void

    package init(
        fleet: any FleetView, loops: [ServiceModule.Loop] = [], ready: @escaping @Sendable () async throws -> Void = {}
    ) {
        self.fleet = fleet
        self.loops = loops
        self.ready = ready
    }

    /// The OVN backend, which follows the database.
    static func ovn(_ reconciler: NorthboundReconciler, _ surroundings: ServiceSurroundings) -> NetworkBackend {
        let audit = PeriodicTask(
            "northbound", every: nil, database: surroundings.database, ambient: surroundings.ambient, log: surroundings.log
        ) { try await reconciler.audit() }
        return NetworkBackend(
            fleet: reconciler.fleet,
            loops: [.init("reconciler") { try await reconciler.run() }, .init("northbound audit") { try await audit.run() }],
            ready: { try await reconciler.requireConnected() })
    }
}

/// The Networking service as a module: the API, and the loops that make the backend follow the database.
package enum NetworkModule {
    /// - Throws: 400 for an operator's policy rule that cannot be parsed.
    package static func make(
        _ options: NetworkOptions, _ backend: NetworkBackend, _ surroundings: ServiceSurroundings
    ) throws -> ServiceModule {
        let (database, ambient, log) = (surroundings.database, surroundings.ambient, surroundings.log)
        let quotas = PeriodicTask("network", every: .seconds(20), database: database, ambient: ambient, log: log) {
            _ = try await Repairs.recount(NetworkQuotas.all, service: "network", database, at: ambient.now, log)
            return true
        }
        let api = try NetworkAPI(database: database, ambient: ambient, options: options, fleet: backend.fleet).make(surroundings)
        return ServiceModule(
            .network, surroundings, api: api, loops: [.init("periodic tasks") { try await quotas.run() }] + backend.loops,
            inspections: NetworkInspections.all, quota: options.quota, ready: backend.ready)
    }
}
