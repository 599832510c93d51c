import ComputeAgentCore
import Kernel
import Logging
import Messaging
import OVSDB
import ServiceKit
import ServiceLifecycle
import Settings
import Telemetry
import UnixSignals

/// `wolke-compute-agent simulate`: a fleet of simulated hosts instead of the agent of this one.
package struct SimulationApplication: Sendable {
    private let settings: Settings
    private let options: SimulationOptions
    private let southbound: [OVSDBEndpoint]
    private let ambient = Ambient()
    private let metrics = Metrics()
    private let log: Logger

    /// - Parameter arguments: the arguments after `simulate`: `--config`, `--southbound` (OVN's southbound database;
    ///   without it no port comes up) and those of `SimulationOptions`.
    /// - Throws: `SettingsError`; `ResourceError` 400 for wrong arguments.
    package init(arguments: [String], environment: [String: String]) throws {
        var rest = arguments
        func take(_ name: String) throws -> String? {
            guard let index = rest.firstIndex(of: name) else { return nil }
            guard index + 1 < rest.count else { throw ResourceError.badRequest("\(name) needs a value") }
            defer { rest.removeSubrange(index...index + 1) }
            return rest[index + 1]
        }
        let path = try take("--config")
        southbound = try take("--southbound").map { try OVSDBEndpoint.list($0) } ?? []
        options = try SimulationOptions(arguments: rest)
        settings = try Settings.load(path: path, environment: environment, schema: ComputeAgentApplication.schema)
        log = Telemetry.logger(service: "wolke-compute-agent", level: settings.string("log.level"))
    }

    /// Runs until SIGTERM or SIGINT.
    package func run() async throws {
        let bus = RabbitBus(
            BusConfiguration(
                addresses: try BrokerAddress.list(settings.requiredSecret("messaging.url").exposed),
                name: "wolke-compute-agent \(options.prefix)-*"),
            ambient: ambient, logger: log, metrics: metrics)
        var loops: [BackgroundLoop] = []
        var chassis: SimulatedChassis?
        if !southbound.isEmpty {
            let client = OVSDBClient(
                OVSDBConfiguration(
                    endpoints: southbound, database: "OVN_Southbound", monitors: SimulatedChassis.monitors),
                ambient: ambient, logger: log)
            chassis = SimulatedChassis(client: client, ambient: ambient, log: log)
            loops.append(BackgroundLoop { await client.run() })
        }
        let fleet = SimulatedFleet(
            options: options, bus: bus, reports: ReportQueue(bus: bus, ambient: ambient, log: log), chassis: chassis,
            heartbeatInterval: settings.duration("agent.heartbeat_interval"), ambient: ambient, log: log)
        loops.append(BackgroundLoop { try await fleet.run() })
        var quiet = log
        quiet.logLevel = max(.warning, log.logLevel)
        let group = ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: loops.map { .init(service: $0, successTerminationBehavior: .ignore) },
                gracefulShutdownSignals: [.sigterm, .sigint], logger: quiet))
        do { try await group.run() } catch is CancellationError {}
        bus.close()
    }
}
