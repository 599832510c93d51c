import ComputeAgentCore
import Contracts
package import JSON
package import Kernel

/// An in-memory host: brings servers to their desired state after a delay, with the agent's own fencing.
package actor SimulatedHost {
    private struct Server {
        var generation: Int
        var epoch: Int
        var power: ReportedPower
        var operationID: String?
        var jobs: [ServerJobReport]?
    }

    private let name: String
    private let options: SimulationOptions
    private let ambient: Ambient
    private let reports: ReportQueue
    private let chassis: SimulatedChassis?
    private let silentHosts: SilentHosts
    private var servers: [String: Server] = [:]

    package init(
        name: String, options: SimulationOptions, ambient: Ambient, reports: ReportQueue, chassis: SimulatedChassis?
    ) {
        silentHosts = SilentHosts(directory: options.silenced, ambient: ambient)
        self.name = name
        self.options = options
        self.ambient = ambient
        self.reports = reports
        self.chassis = chassis
    }

    /// Servers that run here now.
    package var runningCount: Int { servers.values.count { $0.power == .running } }

    /// The machine loses its power: nothing runs any more.
    package func fail() { servers = [:] }

    /// - Throws: `FormError` for a message that cannot be read; `CancellationError`.
    package func handle(_ body: JSONValue) async throws -> JSONValue {
        // Messages to a failed host stay unanswered until it returns.
        while silentHosts.isSilent(name) { try await ambient.time.sleep(for: .milliseconds(200)) }
        switch try PlaneMessage.decode(body) {
        case .ensure(let server): try await ensure(server)
        case .sync(let desired, _):
            let wanted = Set(desired.map(\.id))
            for (id, server) in servers where !wanted.contains(id) {
                await report(id, server, unknown: true)
            }
            for server in desired { try await ensure(server) }
        case .consoleLog: return try JSONValue(encoding: ConsoleLogQuestion.Answer(output: ""))
        case .processors: return try JSONValue(encoding: ProcessorsQuestion.Answer(processors: []))
        case .hostUptime: return try JSONValue(encoding: HostUptimeQuestion.Answer(uptime: 0, loadAverages: [0, 0, 0]))
        case .diagnostics, .connectConsole, .crashDump, .cacheImages: return [:]
        case .setPassword(let order): throw ResourceError.conflict(GuestAgentFault.missing(order.serverID))
        }
        return [:]
    }

    private func ensure(_ desired: DesiredServer) async throws {
        let known = servers[desired.id]
        if let known, desired.epoch < known.epoch || desired.generation < known.generation { return }
        if let known, known.generation == desired.generation, known.epoch == desired.epoch {
            await report(desired.id, known)
            return
        }
        guard desired.power != .absent else {
            servers[desired.id] = nil
            await chassis?.release(ports: desired.ports.map(\.id))
            await report(desired.id, Server(generation: desired.generation, epoch: desired.epoch, power: .absent))
            return
        }
        let power = ReportedPower(desired.power)
        let starts = power == .running && known?.power != .running
        if starts {
            try await ambient.time.sleep(for: startTime())
            guard (servers[desired.id]?.generation ?? 0) <= desired.generation else { return }
            if ambient.random.below(1000) < options.failuresPerMille {
                await reports.put(
                    ObservedReport(
                        host: name, serverID: desired.id, generation: desired.generation, epoch: desired.epoch,
                        power: .absent, state: .failed, error: "the simulated start failed", permanent: true))
                return
            }
        }
        // There is no disk that could be copied.
        let jobs = desired.jobs.map { ServerJobReport(id: $0.id, state: .failed, error: "simulated", reason: "its host is simulated") }
        let server = Server(
            generation: desired.generation, epoch: desired.epoch, power: power, operationID: desired.operation?.id,
            jobs: jobs.isEmpty ? nil : jobs)
        servers[desired.id] = server
        if starts { await chassis?.bind(ports: desired.ports.map(\.id), to: name) }
        await report(desired.id, server)
    }

    private func startTime() -> Duration {
        let whole = max(1, Int(options.startTime.microseconds))
        return .microseconds(Int64(whole / 2 + ambient.random.below(whole)))
    }

    private func report(_ id: String, _ server: Server, unknown: Bool = false) async {
        if silentHosts.isSilent(name) { return }
        await reports.put(
            ObservedReport(
                host: name, serverID: id, generation: server.generation, epoch: server.epoch, power: server.power,
                metadataReady: true, operationID: server.operationID, unknown: unknown, jobs: server.jobs))
    }
}
