import Contracts
import Inspections
import JSON
import Kernel
import Logging
import Messaging
import PlacementCore
import ServiceKit
import Settings

/// The process `wolke-placement`: the API, the scheduler, and the consumer of Compute's hosts.
package struct PlacementApplication {
    private let process: ServiceProcess

    package init(_ process: ServiceProcess) { self.process = process }

    /// The keys of the section `placement`.
    package static let settingsKeys: [SettingsKey] = [
        .integer("cpu_weight", default: 1, in: -1000...1000, "How much the share of free VCPU counts for a host; negative fills hosts up."),
        .integer("memory_weight", default: 1, in: -1000...1000, "How much the share of free memory counts."),
        .integer("disk_weight", default: 1, in: -1000...1000, "How much the share of free disk counts."),
        .duration("host_silence", default: "60s", "After how long without a sign of life no server is placed on a host."),
        .integer("decisions", default: 32, in: 1...1000, "Scheduling requests handled at a time."),
    ]

    /// Runs until the process is told to stop.
    package func run() async throws {
        guard process.arguments.isEmpty else {
            throw ResourceError.badRequest("unknown argument \"\(process.arguments[0])\"")
        }
        let settings = process.settings
        let authenticator = try process.makeAuthenticator()
        let placement = Placement(
            database: process.database, ambient: process.ambient,
            weights: SchedulingWeights(
                cpu: Double(settings.integer("placement.cpu_weight")),
                memory: Double(settings.integer("placement.memory_weight")),
                disk: Double(settings.integer("placement.disk_weight"))),
            hostSilence: settings.duration("placement.host_silence"), metrics: process.metrics)
        let api = try PlacementAPI.make(
            placement, publicURL: process.publicURL, policyOverrides: try process.policyOverrides(),
            authenticator: authenticator, log: process.log, metrics: process.metrics)
        let bus = RabbitBus(
            BusConfiguration(
                addresses: try BrokerAddress.list(settings.requiredSecret("messaging.url").exposed),
                name: process.name),
            ambient: process.ambient, logger: process.log, metrics: process.metrics)
        let decisions = ConsumeOptions(prefetch: settings.integer("placement.decisions"))
        let life = SignOfLife("nova-scheduler", database: process.database, ambient: process.ambient, log: process.log)
        try await process.run(
            api,
            services: [authenticator, BackgroundLoop { try await life.run() }]
                + placement.workers(
                    bus: bus, decisions: decisions,
                    log: process.log
                ).map { BackgroundLoop($0) },
            ready: {
                guard bus.isConnected else { throw ResourceError.unavailable("RabbitMQ is not reachable") }
            })
        bus.close()
    }
}

extension Placement {
    /// What the process does beside answering requests; each runs until its task is cancelled.
    package func workers(
        bus: any MessageBus, decisions: ConsumeOptions, log: Logger
    ) -> [@Sendable () async throws -> Void] {
        [
            { await fleet.follow(database) },
            { try await bus.serve(queue: .placementSchedule, options: decisions) { try await schedule($0.body) } },
            // One after the other: what is said later about a host counts.
            {
                try await bus.consume(queue: .placementHosts, options: ConsumeOptions(prefetch: 1)) {
                    try await register($0)
                }
            },
            {
                try await PeriodicTask("placement", every: Placement.periodicTaskInterval, database: database, ambient: ambient, log: log) {
                    try await runPeriodicTasks(log)
                    return true
                }.run()
            },
        ]
    }
}
