import Inspections
import Kernel
import OVSDB
import ServiceKit
import Settings
import WebAPI

/// Networking as a process: the API, and the reconciler that makes OVN follow the database.
package struct NetworkApplication: Sendable {
    private let process: ServiceProcess

    /// Keys of the settings section `network`.
    package static let settingsKeys = NetworkOptions.settingsKeys

    package init(_ process: ServiceProcess) { self.process = process }

    /// Runs until the process is told to stop.
    package func run() async throws {
        let options = try NetworkOptions(process.settings)
        let configuration = try NorthboundConfiguration(process.settings)
        let reconciler = NorthboundReconciler(
            configuration, options: options, database: process.database, ambient: process.ambient, log: process.log,
            metrics: process.metrics)
        let authenticator = try process.makeAuthenticator()
        let api = try NetworkAPI(
            database: process.database, ambient: process.ambient, options: options, fleet: reconciler.fleet
        ).make(
            publicURL: process.publicURL, policyOverrides: try process.policyOverrides(), authenticator: authenticator,
            log: process.log, metrics: process.metrics)
        let process = process
        let quotas = PeriodicTask(
            "network", every: .seconds(20), database: process.database, ambient: process.ambient, log: process.log
        ) {
            _ = try await Repairs.recount(service: "network", process.database, at: process.ambient.now, process.log)
            return true
        }
        let northbound = PeriodicTask(
            "northbound", every: nil, database: process.database, ambient: process.ambient, log: process.log
        ) { try await reconciler.audit() }
        try await process.run(
            api,
            services: [
                authenticator, BackgroundLoop { try await reconciler.run() }, BackgroundLoop { try await quotas.run() },
                BackgroundLoop { try await northbound.run() },
            ],
            ready: { try await reconciler.requireConnected() })
    }
}
