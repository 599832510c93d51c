import Inspections
import NetworkCore
import ServiceKit
import WebAPI

/// What carries the networks, and what has to run for it.
package struct NetworkBackend: Sendable {
    /// What is known of the hypervisors, for agents and availability zones.
    package let fleet: any FleetView
    package let loops: [ServiceModule.Loop]
    /// Throws, with words for the operator, while networks cannot be changed.
    package let ready: @Sendable () async throws -> Void

    package init(
        fleet: any FleetView, loops: [ServiceModule.Loop] = [], ready: @escaping @Sendable () async throws -> Void = {}
    ) {
        self.fleet = fleet
        self.loops = loops
        self.ready = ready
    }

    /// OVN, made to follow the database.
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

/// Networking as one value: the API, and what makes the backend follow the database.
package enum NetworkModule {
    /// - Throws: 400 for a rule of the operator's that cannot be read.
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
            .network, surroundings, api: api, loops: [.init("quota audit") { try await quotas.run() }] + backend.loops,
            inspections: NetworkInspections.all, quota: options.quota, ready: backend.ready)
    }
}
