package import ServiceKit
package import Settings

/// The executable `wolke-network`.
package struct NetworkApplication: Sendable {
    private let process: ServiceProcess

    /// Keys of the settings section `network`.
    package static let settingsKeys = NetworkOptions.settingsKeys

    package init(_ process: ServiceProcess) { self.process = process }

    /// Runs until the process is stopped.
    package func run() async throws {
        let options = try NetworkOptions(process.settings)
        let configuration = try NorthboundConfiguration(process.settings)
        try await process.run { surroundings in
            let reconciler = NorthboundReconciler(
                configuration, options: options, database: surroundings.database, ambient: surroundings.ambient,
                log: surroundings.log, metrics: surroundings.metrics)
            return try NetworkModule.make(options, .ovn(reconciler, surroundings), surroundings)
        }
    }
}
