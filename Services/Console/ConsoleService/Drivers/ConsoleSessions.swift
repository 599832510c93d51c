import ConsoleCore
import Contracts
import Kernel
import Logging
import Messaging
import NIOCore
import NIOWebSocket
import Synchronization
import Telemetry

/// Pairs browser sessions with agents' connections.
final class Meeting: Sendable {
    typealias Side = (inbound: NIOAsyncChannelInboundStream<ByteBuffer>, outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>)

    private let (arrivals, arrival) = AsyncStream.makeStream(of: Side.self)
    private let (endings, ending) = AsyncStream.makeStream(of: Never.self)

    /// The agent's side, once it has connected; nil if the session ends before.
    func agent() async -> Side? { await arrivals.first { _ in true } }

    /// Hands the agent's connection to the session and waits for the session's end.
    func attend(_ inbound: NIOAsyncChannelInboundStream<ByteBuffer>, _ outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>) async {
        arrival.yield((inbound, outbound))
        for await _ in endings {}
    }

    func end() {
        arrival.finish()
        ending.finish()
    }
}

/// The open sessions of this process.
final class ConsoleSessions: Sendable {
    private struct State {
        var meetings: [String: Meeting] = [:]
        var perServer: [String: Int] = [:]
    }

    private let bus: any MessageBus
    private let ambient: Ambient
    private let address: String?
    private let limits: ConsoleRules.Limits
    private let metrics: Metrics
    private let log: Logger
    private let state = Mutex(State())

    init(bus: any MessageBus, ambient: Ambient, address: String?, limits: ConsoleRules.Limits, metrics: Metrics, log: Logger) {
        self.bus = bus
        self.ambient = ambient
        self.address = address
        self.limits = limits
        self.metrics = metrics
        self.log = log
    }

    /// The session that waits for a connection with this secret. Only the first such connection joins it.
    func meeting(_ secret: String) -> Meeting? { state.withLock { $0.meetings[secret] } }

    /// Serves a browser's session to its end.
    func run(_ channel: ConsoleListener.Frames, _ target: ConsoleTarget) async throws {
        guard enter(target.serverID) else {
            try await channel.executeThenClose { _, outbound in
                try await ConsoleSessions.close(outbound, .policyViolation, "Too many sessions of this server are open.")
            }
            return
        }
        defer { leave(target.serverID) }
        let secret = ConsoleSessions.secret(ambient)
        let meeting = Meeting()
        state.withLock { $0.meetings[secret] = meeting }
        defer {
            state.withLock { $0.meetings[secret] = nil }
            meeting.end()
        }
        try await channel.executeThenClose { inbound, outbound in
            let agent: Meeting.Side
            do { agent = try await connect(target, secret, meeting) } catch {
                log.warning(
                    "a console could not be connected",
                    metadata: ["server": "\(target.serverID)", "host": "\(target.host)", "error": "\(error)"])
                let text = (error as? ResourceError)?.message ?? "The console could not be connected."
                try await ConsoleSessions.close(outbound, .unexpectedServerError, text)
                return
            }
            log.info("a console session begins", metadata: ["server": "\(target.serverID)", "kind": "\(target.kind.rawValue)"])
            await splice(inbound, outbound, agent)
        }
    }

    private func enter(_ server: String) -> Bool {
        state.withLock { state in
            guard state.perServer[server, default: 0] < limits.sessionsPerServerMax else { return false }
            state.perServer[server, default: 0] += 1
            show(state)
            return true
        }
    }

    private func leave(_ server: String) {
        state.withLock { state in
            let count = state.perServer[server, default: 1] - 1
            state.perServer[server] = count > 0 ? count : nil
            show(state)
        }
    }

    private func show(_ state: State) {
        metrics.set("wolke_console_sessions", Double(state.perServer.values.reduce(0, +)), [], help: "Open console sessions.")
    }

    /// 192 random bits.
    private static func secret(_ ambient: Ambient) -> String {
        var bytes: [UInt8] = []
        for _ in 0..<3 { withUnsafeBytes(of: ambient.random.next()) { bytes += $0 } }
        return Base64.encode(bytes)
    }

    /// Asks the agent to connect, and waits until it has.
    private func connect(_ target: ConsoleTarget, _ secret: String, _ meeting: Meeting) async throws -> Meeting.Side {
        let order = ConsoleConnection(serverID: target.serverID, kind: target.kind, address: address, secret: secret)
        return try await withThrowingTaskGroup(of: Meeting.Side?.self) { group in
            let (bus, ambient, limits) = (bus, ambient, limits)
            group.addTask {
                _ = try await bus.request(
                    order, to: .agent(host: target.host), id: ambient.newUUID(), timeout: limits.agentTimeout,
                    expiration: limits.agentTimeout)
                return nil
            }
            group.addTask { await meeting.agent() }
            group.addTask {
                try await ambient.time.sleep(for: limits.agentTimeout)
                throw ResourceError.unavailable("The host of the server does not connect its console.")
            }
            defer { group.cancelAll() }
            while let side = try await group.next() {
                if let side { return side }
            }
            throw CancellationError()
        }
    }

    // MARK: bytes

    /// Copies both ways until one side ends or the browser falls silent.
    private func splice(
        _ inbound: NIOAsyncChannelInboundStream<WebSocketFrame>, _ outbound: NIOAsyncChannelOutboundWriter<WebSocketFrame>,
        _ agent: Meeting.Side
    ) async {
        let (time, silence) = (ambient.time, limits.silenceMax)
        let heard = LastHeard(time)
        await withTaskGroup(of: Void.self) { group in
            group.addTask { do { try await ConsoleSessions.forward(inbound, outbound, agent.outbound, heard) } catch {} }
            group.addTask {
                do {
                    for try await bytes in agent.inbound {
                        try await outbound.write(WebSocketFrame(fin: true, opcode: .binary, data: bytes))
                    }
                    try await ConsoleSessions.close(outbound, .normalClosure, "The console has ended.")
                } catch {}
            }
            group.addTask {
                // A client that has vanished without closing answers no ping.
                do {
                    repeat {
                        try await outbound.write(WebSocketFrame(fin: true, opcode: .ping, data: ByteBuffer()))
                        try await time.sleep(for: silence / 3)
                    } while heard.isWithin(silence)
                } catch {}
            }
            await group.next()
            group.cancelAll()
        }
    }

    /// Passes on what the browser sends; answers pings and its end.
    private static func forward(
        _ inbound: NIOAsyncChannelInboundStream<WebSocketFrame>, _ outbound: NIOAsyncChannelOutboundWriter<WebSocketFrame>,
        _ agent: NIOAsyncChannelOutboundWriter<ByteBuffer>, _ heard: LastHeard
    ) async throws {
        for try await frame in inbound {
            heard.note()
            switch frame.opcode {
            case .binary, .text, .continuation: try await agent.write(frame.unmaskedData)
            case .ping: try await outbound.write(WebSocketFrame(fin: true, opcode: .pong, data: frame.unmaskedData))
            case .connectionClose:
                try await close(outbound, .normalClosure, "")
                return
            default: break
            }
        }
    }

    private static func close(_ outbound: NIOAsyncChannelOutboundWriter<WebSocketFrame>, _ code: WebSocketErrorCode, _ reason: String)
        async throws
    {
        var data = ByteBuffer()
        data.write(webSocketErrorCode: code)
        // RFC 6455, 5.5: a control frame has at most 125 bytes.
        data.writeString(String(reason.prefix(100)))
        try await outbound.write(WebSocketFrame(fin: true, opcode: .connectionClose, data: data))
    }
}

/// When the browser last sent a frame.
private final class LastHeard: Sendable {
    private let time: any TimeSource
    private let at: Atomic<UInt64>

    init(_ time: any TimeSource) {
        self.time = time
        at = Atomic(time.monotonicNanoseconds())
    }

    func note() { at.store(time.monotonicNanoseconds(), ordering: .relaxed) }

    func isWithin(_ duration: Duration) -> Bool {
        time.monotonicNanoseconds() < at.load(ordering: .relaxed) + UInt64(duration.microseconds) * 1000
    }
}
