import ConsoleCore
import Contracts
import Cryptography
import Database
import Kernel
import Logging
import Messaging
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOWebSocket
import ServiceKit
import ServiceLifecycle
import Synchronization
import Telemetry

/// Serves the port of the consoles: web pages, WebSockets of browsers (RFC 6455), and the connections of agents.
///
/// A browser's WebSocket carries the bytes of the console unchanged in binary frames. Its token names the server. The host's agent
/// is asked over the broker to connect to this process; until then the session waits.
struct ConsoleListener: Service {
    typealias Pages = NIOAsyncChannel<HTTPServerRequestPart, HTTPPart<HTTPResponseHead, ByteBuffer>>
    typealias Frames = NIOAsyncChannel<WebSocketFrame, WebSocketFrame>
    typealias Bytes = NIOAsyncChannel<ByteBuffer, ByteBuffer>

    /// The purpose of a connection after its first request.
    enum Purpose: Sendable {
        case page(Pages)
        case browser(Frames, ConsoleTarget)
        case agent(Bytes, Meeting)
    }

    private let options: ConsoleOptions
    private let sessions: ConsoleSessions
    private let tokens: ConsoleTokens
    private let gate: ConsoleGate
    private let log: Logger

    init(_ options: ConsoleOptions, _ surroundings: ServiceSurroundings) {
        self.options = options
        log = surroundings.log
        tokens = ConsoleTokens(database: surroundings.database, ambient: surroundings.ambient)
        sessions = ConsoleSessions(
            bus: surroundings.bus, ambient: surroundings.ambient, address: options.agentAddress, limits: options.limits,
            metrics: surroundings.metrics, log: surroundings.log)
        gate = ConsoleGate(options.limits, metrics: surroundings.metrics)
    }

    /// Serves until the process shuts down; sessions end then.
    ///
    /// - Throws: an error if the port cannot be used.
    func run() async throws {
        let pages = try await options.pages.load()
        for problem in pages.problems { log.warning("a console page is unavailable", metadata: ["problem": "\(problem)"]) }
        let (gate, options, tokens, sessions) = (gate, options, tokens, sessions)
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.backlog, value: 256)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .bind(host: options.bind, port: options.port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(ConsoleGate.Handler(gate))
                    return try ConsoleListener.upgradable(channel, options: options, tokens: tokens, sessions: sessions)
                }
            }
        try await cancelWhenGracefulShutdown {
            try await withThrowingDiscardingTaskGroup { group in
                try await server.executeThenClose { connections in
                    for try await purpose in connections {
                        group.addTask { await serve(purpose, pages) }
                    }
                }
            }
        }
    }

    private func serve(_ purpose: EventLoopFuture<Purpose>, _ pages: LoadedPages) async {
        do {
            switch try await purpose.get() {
            case .page(let channel): try await PageServer(pages: pages).serve(channel)
            case .browser(let channel, let target):
                await gate.upgraded(channel.channel)
                try await sessions.run(channel, target)
            case .agent(let channel, let meeting):
                await gate.upgraded(channel.channel)
                try await channel.executeThenClose { inbound, outbound in await meeting.attend(inbound, outbound) }
            }
        } catch {
            // An error ends only its own connection.
            log.debug("a console connection ended", metadata: ["error": "\(error)"])
        }
    }

    // MARK: upgrades

    /// Longest head of a request.
    private static let headBytesMax = 16 * 1024
    /// Longest frame of a browser. noVNC sends at most the clipboard in one.
    private static let frameBytesMax = 1 << 20

    private static func upgradable(
        _ channel: any Channel, options: ConsoleOptions, tokens: ConsoleTokens, sessions: ConsoleSessions
    ) throws -> EventLoopFuture<Purpose> {
        let agreed = Agreed()
        let browser = NIOTypedWebSocketServerUpgrader<Purpose>(
            maxFrameSize: frameBytesMax,
            shouldUpgrade: { channel, head in
                channel.eventLoop.makeFutureWithTask {
                    guard
                        ConsoleRules.allows(
                            origin: head.headers.first(name: "origin"), host: head.headers.first(name: "host"),
                            allowed: options.allowedOrigins)
                    else { throw ConsoleRefusal.origin }
                    guard let token = ConsoleRules.token(in: head.uri), let target = try await tokens.redeem(token) else {
                        throw ConsoleRefusal.token
                    }
                    agreed.set(target)
                    // RFC 6455, 4.2.2: one of the protocols that the client offers.
                    let offers = head.headers[canonicalForm: "sec-websocket-protocol"]
                    return offers.contains("binary") ? ["sec-websocket-protocol": "binary"] : [:]
                }.flatMapErrorThrowing { error in
                    refuse(channel, error is ConsoleRefusal ? .forbidden : .serviceUnavailable)
                    throw error
                }
            },
            upgradePipelineHandler: { channel, _ in
                channel.eventLoop.makeCompletedFuture {
                    guard let target = agreed.target else { throw ConsoleRefusal.token }
                    return .browser(try Frames(wrappingChannelSynchronously: channel), target)
                }
            })
        let configuration = NIOTypedHTTPServerUpgradeConfiguration<Purpose>(
            upgraders: [browser, AgentUpgrader(sessions: sessions)],
            notUpgradingCompletionHandler: { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(PageEncoder())
                    return .page(try Pages(wrappingChannelSynchronously: channel))
                }
            })
        var pipeline = NIOUpgradableHTTPServerPipelineConfiguration(upgradeConfiguration: configuration)
        pipeline.enablePipelining = false
        pipeline.decoderConfiguration.maxHeaderFieldSize = headBytesMax
        pipeline.decoderConfiguration.maxHeaderListSize = headBytesMax
        pipeline.decoderConfiguration.maxHeaderFieldCount = 100
        return try channel.pipeline.syncOperations.configureUpgradableHTTPServerPipeline(configuration: pipeline)
    }
}

extension ConsoleListener {
    /// Answers a request for an upgrade that is refused, and closes the connection. The answer has no body, because some clients
    /// would take it for a frame.
    fileprivate static func refuse(_ channel: any Channel, _ status: HTTPResponseStatus) {
        let head = HTTPResponseHead(version: .http1_1, status: status, headers: ["content-length": "0", "connection": "close"])
        channel.write(HTTPServerResponsePart.head(head), promise: nil)
        channel.writeAndFlush(HTTPServerResponsePart.end(nil)).whenComplete { _ in channel.close(promise: nil) }
    }
}

/// Why a WebSocket is refused.
enum ConsoleRefusal: Error {
    case origin, token
}

/// The target of one connection, between the decision to upgrade and the upgrade.
private final class Agreed: Sendable {
    private let value = Mutex<ConsoleTarget?>(nil)

    var target: ConsoleTarget? { value.withLock { $0 } }
    func set(_ target: ConsoleTarget) { value.withLock { $0 = target } }
}

/// The upgrade that agents request: afterwards the connection carries the console's bytes.
private struct AgentUpgrader: NIOTypedHTTPServerProtocolUpgrader {
    let sessions: ConsoleSessions

    var supportedProtocol: String { ConsoleUpgrade.name }
    var requiredUpgradeHeaders: [String] { ["authorization"] }

    func buildUpgradeResponse(
        channel: any Channel, upgradeRequest: HTTPRequestHead, initialResponseHeaders: HTTPHeaders
    ) -> EventLoopFuture<HTTPHeaders> {
        guard AgentUpgrader.meeting(upgradeRequest, sessions) != nil else {
            ConsoleListener.refuse(channel, .unauthorized)
            return channel.eventLoop.makeFailedFuture(ConsoleRefusal.token)
        }
        return channel.eventLoop.makeSucceededFuture(initialResponseHeaders)
    }

    func upgrade(channel: any Channel, upgradeRequest: HTTPRequestHead) -> EventLoopFuture<ConsoleListener.Purpose> {
        channel.eventLoop.makeCompletedFuture {
            guard let meeting = AgentUpgrader.meeting(upgradeRequest, sessions) else { throw ConsoleRefusal.token }
            return .agent(try ConsoleListener.Bytes(wrappingChannelSynchronously: channel), meeting)
        }
    }

    private static func meeting(_ head: HTTPRequestHead, _ sessions: ConsoleSessions) -> Meeting? {
        guard let field = head.headers.first(name: "authorization"), field.hasPrefix("Bearer ") else { return nil }
        return sessions.meeting(String(field.dropFirst("Bearer ".count)))
    }
}
