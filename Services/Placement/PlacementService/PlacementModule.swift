import Contracts
import Inspections
import JSON
import Kernel
import Messaging
import PlacementCore
import ServiceCatalog
package import ServiceKit
import WebAPI

/// The Placement service as a module: the API, the scheduler, and the consumer of Compute's messages about hosts.
package enum PlacementModule {
    /// - Parameter decisions: number of scheduling requests processed concurrently.
    /// - Throws: 400 for a policy rule that cannot be parsed.
    package static func make(
        _ placement: Placement, _ surroundings: ServiceSurroundings, decisions: Int = 4
    ) throws -> ServiceModule {
        let (bus, log) = (surroundings.bus, surroundings.log)
        let (database, ambient) = (surroundings.database, surroundings.ambient)
        let heartbeat = ProcessHeartbeat("nova-scheduler", host: surroundings.machine, database: database, ambient: ambient, log: log)
        let tasks = PeriodicTask("placement", every: Placement.periodicTaskInterval, database: database, ambient: ambient, log: log) {
            try await placement.runPeriodicTasks(log)
            return true
        }
        return ServiceModule(
            .placement, surroundings, api: try PlacementAPI.make(placement, surroundings),
            consumers: [
                .init("scheduler") {
                    try await bus.serve(queue: .placementSchedule, options: ConsumeOptions(prefetch: decisions)) {
                        try await placement.schedule($0.body)
                    }
                },
                // One at a time, because a later message about a host overrides an earlier one.
                .init("hosts") {
                    try await bus.consume(queue: .placementHosts, options: ConsumeOptions(prefetch: 1)) {
                        try await placement.register($0)
                    }
                },
            ],
            loops: [
                .init("fleet") { await placement.fleet.follow(database) },
                .init("announcements") {
                    try await PeriodicTask.repeating(
                        every: FleetCache.announceInterval, ambient, log, failure: "changed resource providers were not announced"
                    ) {
                        try await placement.fleet.announce(database)
                    }
                },
                .init("periodic tasks") { try await tasks.run() },
                .init("heartbeat") { try await heartbeat.run() },
            ],
            inspections: PlacementInspections.all,
            ready: {
                guard bus.isConnected else { throw ResourceError.unavailable("RabbitMQ is not reachable") }
            })
    }
}
