import ComputeAgentCore
import Contracts
import JSON
package import Kernel
package import Logging
package import Messaging
import Synchronization
import Telemetry

/// The agent's message exchange with the control plane over the broker.
package struct PlaneLink: Sendable {
    package static let version = "1"

    private let host: String
    private let bus: any MessageBus
    private let fleet: ServerFleet
    private let inspector: any HostFacts
    private let heartbeatInterval: Duration
    private let ambient: Ambient
    private let log: Logger
    private let answers = SyncAnswers()

    package init(
        host: String, bus: any MessageBus, fleet: ServerFleet, inspector: any HostFacts,
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
            if let server = message.body["server"] { await fleet.refuse(.init(document: server, error: error)) }
            if message.replyTo != nil { throw ResourceError.badRequest("\(error)") }
            throw PoisonMessage("\(error)")
        }
        switch decoded {
        case .ensure(let server): try await fleet.ensure(server)
        case .sync(let servers, let unreadable):
            try await fleet.sync(servers, unreadable: unreadable)
            answers.note()
        case .consoleLog(let id, let lines):
            return try JSONValue(encoding: ConsoleLogQuestion.Answer(output: try await fleet.consoleLog(id, lines: lines)))
        case .diagnostics(let id, let ofHypervisor): return try await fleet.diagnostics(id, ofHypervisor: ofHypervisor)
        case .hostUptime: return try JSONValue(encoding: try await inspector.uptime())
        case .processors(let id): return try JSONValue(encoding: ProcessorsQuestion.Answer(processors: try await fleet.processors(of: id)))
        case .crashDump(let id): try await fleet.crashDump(id)
        case .setPassword(let order): try await fleet.setPassword(order)
        case .connectConsole(let order): return try JSONValue(encoding: try await fleet.connectConsole(order))
        case .cacheImages(let images): await fleet.cache(images)
        }
        return [:]
    }

    /// Rate limit for introductions while the switch restarts repeatedly, because each one is answered with all servers of
    /// the host.
    private static let introductionPause = Duration.seconds(10)

    /// Interval between heartbeats that list all servers: a report is sent once, and the list replaces a lost one.
    private static let listInterval = Duration.seconds(60)

    /// Introduces the host at each new connection, when its switch or its sandbox has changed, and again while no sync answers; and sends
    /// heartbeats until the task is cancelled.
    package func announce() async throws {
        var told: SwitchReport?
        var toldAt: UInt64 = 0
        var problem: String?
        var listAt: UInt64 = 0
        var patience = AnswerPatience()
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
                    let isAnswered = answers.isAnswered || clock < toldAt + patience.nanoseconds
                    if let told, isSandboxKnown, isAnswered, told == network || isPausing {
                        let isListDue = clock >= listAt
                        try await beat(servers: isListDue ? await fleet.held() : nil)
                        if isListDue { listAt = clock + UInt64(PlaneLink.listInterval.microseconds) * 1000 }
                    } else {
                        patience.begin(again: told == network && !answers.isAnswered)
                        answers.expect()
                        problem = try await introduce(network, expiration: patience.duration)
                        (told, toldAt) = (network, clock)
                        // The sync that answers makes the agent report every server.
                        listAt = clock + UInt64(PlaneLink.listInterval.microseconds) * 1000
                    }
                } catch {
                    try Task.checkCancellation()
                    log.warning("the control plane could not be informed", metadata: ["error": "\(error)"])
                }
            }
            try await ambient.time.sleep(for: told != nil ? heartbeatInterval : min(heartbeatInterval, .milliseconds(500)))
        }
    }

    /// - Returns: the sandbox state reported to the control plane.
    private func introduce(_ network: SwitchReport, expiration: Duration) async throws -> String? {
        var inventory = try await inspector.inventory()
        inventory.network = network
        try await bus.publish(
            try Message(
                AgentHello(host: host, agentVersion: PlaneLink.version, capabilities: inventory.capabilities),
                id: ambient.newUUID(), expiration: expiration), to: .computeAgents)
        if let problem = inventory.sandboxProblem {
            log.error("images cannot be read on this host", metadata: ["error": "\(problem)"])
        }
        log.notice("introduced to the plane", metadata: ["virt_type": "\(inventory.virtType.rawValue)"])
        return inventory.sandboxProblem
    }

    private func beat(servers: [HeldServer]?) async throws {
        let usage = try await inspector.usage()
        let heartbeat = AgentHeartbeat(
            host: host, agentVersion: PlaneLink.version, freeMemoryMiB: usage.freeMemoryMiB, freeDiskGiB: usage.freeDiskGiB,
            servers: servers)
        // Old heartbeats are worthless, so they expire.
        try await bus.publish(
            try Message(heartbeat, id: ambient.newUUID(), expiration: heartbeatInterval * 5), to: .computeAgents)
    }
}

/// Whether the last introduction was answered.
private final class SyncAnswers: Sendable {
    private let state = Mutex(false)

    var isAnswered: Bool { state.withLock { $0 } }
    func expect() { state.withLock { $0 = false } }
    func note() { state.withLock { $0 = true } }
}

/// How long an introduction waits for its answer: longer each time, because the control plane may be down for a long time.
private struct AnswerPatience {
    private static let least = Duration.seconds(30)
    private static let most = Duration.seconds(600)
    private(set) var duration = least

    var nanoseconds: UInt64 { UInt64(duration.microseconds) * 1000 }

    mutating func begin(again: Bool) { duration = again ? min(duration * 2, AnswerPatience.most) : AnswerPatience.least }
}
