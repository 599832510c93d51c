import ComputeAgentCore
import Contracts
import JSON
import Kernel
import Logging
import Messaging
import Telemetry

/// The agent's message exchange with the control plane over the broker.
package struct PlaneLink: Sendable {
    package static let version = "1"

    private let host: String
    private let bus: any MessageBus
    private let fleet: ServerFleet
    private let inspector: HostInspector
    private let heartbeatInterval: Duration
    private let ambient: Ambient
    private let log: Logger

    package init(
        host: String, bus: any MessageBus, fleet: ServerFleet, inspector: HostInspector,
        heartbeatInterval: Duration, ambient: Ambient, log: Logger
    ) {
        self.host = host
        self.bus = bus
        self.fleet = fleet
        self.inspector = inspector
        self.heartbeatInterval = heartbeatInterval
        self.ambient = ambient
        self.log = log
    }

    /// Follows the plane's messages until the task is cancelled.
    package func listen() async throws {
        try await bus.serve(queue: .agent(host: host)) { try await handle($0) }
    }

    private func handle(_ message: Message) async throws -> JSONValue {
        let decoded: PlaneMessage
        do { decoded = try PlaneMessage.decode(message.body) } catch {
            log.error("a message from the control plane cannot be decoded", metadata: ["error": "\(error)", "id": "\(message.id)"])
            if let server = message.body["server"] { await fleet.refuse(server, error) }
            if message.replyTo != nil { throw ResourceError.badRequest("\(error)") }
            throw PoisonMessage("\(error)")
        }
        switch decoded {
        case .ensure(let server): try await fleet.ensure(server)
        case .sync(let servers, let unreadable):
            for error in unreadable { log.error("a server in the sync message cannot be decoded", metadata: ["error": "\(error)"]) }
            try await fleet.sync(servers)
        case .consoleLog(let id, let lines):
            return try JSONValue(encoding: ConsoleLogQuestion.Answer(output: try await fleet.consoleLog(id, lines: lines)))
        case .diagnostics(let id): return try await fleet.diagnostics(id)
        }
        return [:]
    }

    /// Rate limit for introductions while the switch restarts repeatedly, because each one is answered with all servers of
    /// the host.
    private static let introductionPause = Duration.seconds(10)

    /// Introduces the host at each new connection and when its switch or its sandbox has changed, and says regularly that it
    /// lives, until the task is cancelled.
    package func announce() async throws {
        var told: SwitchReport?
        var toldAt: UInt64 = 0
        var problem: String?
        while true {
            if !bus.isConnected {
                told = nil
            } else {
                do {
                    let clock = ambient.time.monotonicNanoseconds()
                    let network = await inspector.network()
                    let isPausing = clock < toldAt + UInt64(PlaneLink.introductionPause.microseconds) * 1000
                    // The reported sandbox state has changed: introduce the host again.
                    let isSandboxKnown = await inspector.sandboxProblem() == problem
                    if let told, isSandboxKnown, told == network || isPausing {
                        try await beat()
                    } else {
                        problem = try await introduce(network)
                        (told, toldAt) = (network, clock)
                    }
                } catch {
                    try Task.checkCancellation()
                    log.warning("the control plane could not be informed", metadata: ["error": "\(error)"])
                }
            }
            try await ambient.time.sleep(for: told != nil ? heartbeatInterval : min(heartbeatInterval, .milliseconds(500)))
        }
    }

    /// - Returns: what the plane was told of the sandbox.
    private func introduce(_ network: SwitchReport) async throws -> String? {
        var inventory = try await inspector.inventory()
        inventory.network = network
        try await bus.publish(
            try Message(
                AgentHello(host: host, agentVersion: PlaneLink.version, capabilities: inventory.capabilities),
                id: ambient.newUUID()), to: .computeAgents)
        if let problem = inventory.sandboxProblem {
            log.error("images cannot be read on this host", metadata: ["error": "\(problem)"])
        }
        log.notice("introduced to the plane", metadata: ["virt_type": "\(inventory.virtType.rawValue)"])
        return inventory.sandboxProblem
    }

    private func beat() async throws {
        let usage = try await inspector.usage()
        let heartbeat = AgentHeartbeat(
            host: host, agentVersion: PlaneLink.version, freeMemoryMiB: usage.freeMemoryMiB, freeDiskGiB: usage.freeDiskGiB)
        // Old heartbeats are worthless, so they expire.
        try await bus.publish(
            try Message(heartbeat, id: ambient.newUUID(), expiration: heartbeatInterval * 5), to: .computeAgents)
    }
}
