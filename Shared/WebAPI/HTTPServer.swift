import HTTPTypes
import Hummingbird
import HummingbirdCore
import Kernel
package import Logging
import NIOCore
import ServiceLifecycle
import Synchronization
package import Telemetry

/// Serves an API over HTTP, in addition to `/healthz` and `/readyz`.
///
/// Endpoints for operators have a separate listener: `OperatorServer`.
package struct HTTPServer: Service {
    private let api: API
    private let listener: Listener
    private let readiness: Readiness
    private let log: Logger

    /// - Parameter limits: the limits of connections.
    package init(
        api: API, host: String, port: Int, metrics: Metrics, log: Logger, limits: ConnectionLimits = ConnectionLimits(),
        readiness: Readiness
    ) {
        self.api = api
        self.readiness = readiness
        self.log = log
        listener = Listener(host: host, port: port, ledger: ConnectionLedger(limits: limits, listener: "api", metrics: metrics))
    }

    package func run() async throws {
        let api = api
        let clients = Clients()
        let responder = APIResponder(api: api, readiness: readiness, limits: listener.ledger.limits, clients: clients)
        try await listener.run(responder, clients: clients, log: log) { refusal in
            // The guard writes `Retry-After`.
            let response = api.refusal(ResourceError(ResourceError.Code(rawValue: refusal.status) ?? .badRequest, refusal.message))
            return (response.headers.fields, response.bytes ?? [])
        }
    }
}

/// One listening address and its guarded connections.
struct Listener: Sendable {
    let host: String
    let port: Int
    let ledger: ConnectionLedger

    /// Serves until the process shuts down.
    ///
    /// - Parameter clients: is notified of clients that disconnect.
    func run<Responder: HTTPResponder>(
        _ responder: Responder, clients: Clients = Clients(), log: Logger, writer: @escaping RefusalWriter
    ) async throws
    where Responder.Context == PeerContext {
        let (ledger, limits) = (ledger, ledger.limits)
        let application = Application(
            responder: responder,
            server: HTTPServerBuilder { respond in
                GuardedChannel(
                    inner: HTTP1Channel(
                        responder: respond,
                        configuration: .init(
                            additionalChannelHandlers: [Clients.Watch(clients, patience: limits.halfClosedTimeout)],
                            httpDecoderConfiguration: .init(
                                maxHeaderFieldSize: limits.headBytesMax, maxHeaderListSize: limits.headBytesMax,
                                maxHeaderFieldCount: 200))),
                    ledger: ledger, writer: writer)
            },
            configuration: .init(address: .hostname(host, port: port), serverName: nil, backlog: 1024),
            onServerRunning: { channel in
                do {
                    try await channel.eventLoop.submit {
                        try channel.pipeline.syncOperations.limitAccepting(ledger)
                    }.get()
                } catch {
                    log.error("connections are accepted without a limit", metadata: ["error": "\(error)"])
                }
            },
            logger: quiet(log))
        try await application.run()
    }

    /// Hummingbird's own records below warning are of no use to an operator.
    private func quiet(_ log: Logger) -> Logger {
        var logger = log
        logger.logLevel = max(.warning, log.logLevel)
        return logger
    }
}

/// HTTP/1.1 with guards around it.
private struct GuardedChannel: ServerChildChannel {
    let inner: HTTP1Channel
    let ledger: ConnectionLedger
    let writer: RefusalWriter

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<HTTP1Channel.Value> {
        let (ledger, writer) = (ledger, writer)
        return inner.setup(channel: channel, logger: logger).flatMapThrowing { value in
            try channel.pipeline.syncOperations.guardHTTP(ledger, writer: writer)
            // A stopping listener releases connections that were accepted but not yet handled. NIO traps if the writer of
            // such a connection is released before the connection is closed.
            channel.closeFuture.whenComplete { _ in withExtendedLifetime(value) {} }
            return value
        }
    }

    func handle(value: HTTP1Channel.Value, logger: Logger) async { await inner.handle(value: value, logger: logger) }
}

/// Records the address of the connection's peer.
struct PeerContext: Hummingbird.RequestContext {
    var coreContext: CoreRequestContextStorage
    let channel: any Channel

    init(source: ApplicationRequestContextSource) {
        coreContext = .init(source: source)
        channel = source.channel
    }
}

private struct APIResponder: HTTPResponder {
    typealias Context = PeerContext

    let api: API
    let readiness: Readiness
    let limits: ConnectionLimits
    let clients: Clients

    func respond(to request: Hummingbird.Request, context: Context) async throws -> Hummingbird.Response {
        let target = request.head.path ?? "/"
        let parts = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let path = parts.first.map(String.init) ?? "/"
        if let own = await builtIn(path) { return own.hummingbird }
        var headers = Headers(request.headers.map { ($0.name.canonicalName, $0.value) })
        let peer = PeerAddress.parse(context.channel.remoteAddress?.ipAddress)
        let source = PeerAddress.source(limits.client(of: peer, forwardedFor: headers.values("x-forwarded-for")))
        if !limits.trusts(peer) { headers.removeForwarded() }
        let isAwaited = headers["expect"] != nil
        let body = RequestBytes(request.body, asking: isAwaited ? context.channel : nil)
        let query: Query
        var response: Response
        do {
            query = try Query(parsing: parts.count == 2 ? parts[1] : "")
            response = await api.respond(
                to: IncomingRequest(
                    method: request.method.rawValue, path: path, query: query, headers: headers, body: body,
                    presence: clients.presence(context.channel), source: source))
        } catch let error as ResourceError {
            response = api.refusal(error, accept: headers["accept"])
        }
        let sendsBody = headers["transfer-encoding"] != nil || headers["content-length"].map { $0 != "0" } ?? false
        guard sendsBody, !body.ended else { return response.hummingbird }
        if isAwaited, !body.wasAsked {
            // After a refusal the client may still send the body or omit it, so the connection must be closed (RFC 9110,
            // 10.1.1).
            response.headers["connection"] = "close"
        }
        let answer = response.hummingbird
        return Hummingbird.Response(
            status: answer.status, headers: answer.headers, body: answer.body.lingering(over: body, time: api.ambient.time))
    }

    /// Health checks for load balancers. They are public, so the answers contain no details.
    private func builtIn(_ path: String) async -> Response? {
        switch path {
        case "/healthz": .text(200, "ok\n")
        case "/readyz": await readiness.problem() == nil ? .text(200, "ready\n") : .text(503, "not ready\n")
        default: nil
        }
    }
}

extension Response {
    /// Plain text.
    static func text(_ status: Int, _ text: String) -> Response {
        Response(status: status, headers: ["content-type": "text/plain"], body: .bytes(Array(text.utf8)))
    }
}

extension Response {
    var hummingbird: Hummingbird.Response {
        var fields = HTTPFields()
        for (name, value) in headers.fields {
            if let name = HTTPField.Name(name) { fields.append(HTTPField(name: name, value: value)) }
        }
        let status = HTTPResponse.Status(code: status)
        switch body {
        case .none: return Hummingbird.Response(status: status, headers: fields)
        case .bytes(let bytes):
            return Hummingbird.Response(
                status: status, headers: fields, body: ResponseBody(byteBuffer: ByteBuffer(bytes: bytes)))
        case .stream(let length, let write):
            let body = ResponseBody(contentLength: length) { writer in
                var sink: any ByteSink = WriterSink(writer: writer)
                try await write(&sink)
                try await writer.finish(nil)
            }
            return Hummingbird.Response(status: status, headers: fields, body: body)
        }
    }
}

/// A request's body that knows whether it was read to its end. Read by one reader after the other.
private final class RequestBytes: AsyncSequence, Sendable {
    // Used by one task at a time: the handler, then the task that drains the rest.
    private nonisolated(unsafe) var iterator: RequestBody.AsyncIterator
    private let end = Atomic<Bool>(false)
    private let asked = Atomic<Bool>(false)
    private let channel: (any Channel)?

    /// - Parameter channel: the channel of a client that waits for `100 Continue`; nil if it does not wait.
    init(_ body: RequestBody, asking channel: (any Channel)?) {
        iterator = body.makeAsyncIterator()
        self.channel = channel
    }

    /// Whether the body is complete.
    var ended: Bool { end.load(ordering: .acquiring) }
    var wasAsked: Bool { asked.load(ordering: .acquiring) }

    struct AsyncIterator: AsyncIteratorProtocol {
        fileprivate let bytes: RequestBytes

        func next() async throws -> ByteBuffer? { try await bytes.next() }
    }

    func makeAsyncIterator() -> AsyncIterator { AsyncIterator(bytes: self) }

    private func next() async throws -> ByteBuffer? {
        if ended { return nil }
        if let channel, asked.compareExchange(expected: false, desired: true, ordering: .acquiringAndReleasing).exchanged {
            channel.triggerUserOutboundEvent(ContinueWanted(), promise: nil)
        }
        do {
            if let buffer = try await iterator.next() { return buffer }
        } catch let error as CancellationError {
            throw error
        } catch {
            // Any error here means that the client ended the body early.
            end.store(true, ordering: .releasing)
            if error is RequestBodyTooSlow {
                throw ResourceError(.requestTimeout, "The request body arrives too slowly.")
            }
            throw ResourceError.badRequest("The request body is malformed, or ended before its announced end.")
        }
        end.store(true, ordering: .releasing)
        return nil
    }
}

extension ResponseBody {
    /// How long a client may keep sending a refused body.
    private static let patience = Duration.seconds(30)

    /// Wraps the response so that, after it is written, further input is read and discarded. A client that writes its whole
    /// request before it reads then still gets the response (RFC 9112, 9.6). If it sends for too long, the connection is
    /// closed.
    fileprivate func lingering(over request: RequestBytes, time: any TimeSource) -> ResponseBody {
        let body = self
        return ResponseBody(contentLength: contentLength) { writer in
            try await body.write(writer)
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { for try await _ in request {} }
                group.addTask {
                    try await time.sleep(for: ResponseBody.patience)
                    throw CancellationError()
                }
                defer { group.cancelAll() }
                try await group.next()
            }
        }
    }
}

private struct WriterSink: ByteSink {
    var writer: any ResponseBodyWriter

    mutating func write(_ bytes: ByteBuffer) async throws { try await writer.write(bytes) }
}
