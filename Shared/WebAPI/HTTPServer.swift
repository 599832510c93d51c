import HTTPTypes
import Hummingbird
import Kernel
import Logging
import NIOCore
import ServiceLifecycle
import Synchronization
import Telemetry

/// Serves an API over HTTP, with `/healthz`, `/readyz` and `/metrics` beside it.
package struct HTTPServer: Service {
    private let api: API
    private let host: String
    private let port: Int
    private let ready: @Sendable () async throws -> Void
    private let metrics: Metrics
    private let log: Logger
    private let idle: Duration

    /// - Parameters:
    ///   - idle: after this long without a request or an answer under way a connection is closed. Longer than clients
    ///     keep theirs for the next request (60 s in the services' own).
    ///   - ready: throws with words for the operator while the service cannot do its work.
    package init(
        api: API, host: String, port: Int, metrics: Metrics, log: Logger, idle: Duration = .seconds(120),
        ready: @escaping @Sendable () async throws -> Void
    ) {
        self.idle = idle
        self.api = api
        self.host = host
        self.port = port
        self.metrics = metrics
        self.log = log
        self.ready = ready
    }

    package func run() async throws {
        let application = Application(
            responder: Responder(api: api, ready: ready, metrics: metrics),
            server: .http1(configuration: .init(idleTimeout: .nanoseconds(idle.microseconds * 1000))),
            configuration: .init(address: .hostname(host, port: port), serverName: nil, backlog: 1024), logger: quiet)
        try await application.run()
    }

    /// Hummingbird's own records below warning are of no use to an operator.
    private var quiet: Logger {
        var logger = log
        logger.logLevel = max(.warning, log.logLevel)
        return logger
    }
}

private struct Responder: HTTPResponder {
    typealias Context = BasicRequestContext

    let api: API
    let ready: @Sendable () async throws -> Void
    let metrics: Metrics

    func respond(to request: Hummingbird.Request, context: Context) async throws -> Hummingbird.Response {
        let target = request.head.path ?? "/"
        let parts = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let path = parts.first.map(String.init) ?? "/"
        if let own = await builtIn(path) { return own.hummingbird }
        let query: Query
        do { query = try Query(parsing: parts.count == 2 ? parts[1] : "") } catch let error as ResourceError {
            return api.service.faults.response(error, requestID: "", versions: nil, accept: request.headers[.accept]).hummingbird
        }
        let headers = Headers(request.headers.map { ($0.name.canonicalName, $0.value) })
        let body = RequestBytes(request.body)
        let incoming = IncomingRequest(
            method: request.method.rawValue, path: path, query: query, headers: headers, body: body)
        let response = await api.respond(to: incoming).hummingbird
        let sendsBody = headers["transfer-encoding"] != nil || headers["content-length"].map { $0 != "0" } ?? false
        guard sendsBody, !body.ended else { return response }
        return Hummingbird.Response(
            status: response.status, headers: response.headers, body: response.body.lingering(over: body, time: api.ambient.time))
    }

    private func builtIn(_ path: String) async -> Response? {
        switch path {
        case "/healthz": return Response(status: 200, headers: ["content-type": "text/plain"], body: .bytes(Array("ok\n".utf8)))
        case "/readyz":
            do {
                try await ready()
                return Response(status: 200, headers: ["content-type": "text/plain"], body: .bytes(Array("ready\n".utf8)))
            } catch {
                let text = (error as? ResourceError).map { $0.context ?? $0.message } ?? "\(error)"
                return Response(status: 503, headers: ["content-type": "text/plain"], body: .bytes(Array((text + "\n").utf8)))
            }
        case "/metrics":
            return Response(
                status: 200, headers: ["content-type": "text/plain; version=0.0.4"],
                body: .bytes(Array(metrics.render().utf8)))
        case "/openapi.json": return Response.json(200, OpenAPI.document(api))
        default: return nil
        }
    }
}

extension Response {
    fileprivate var hummingbird: Hummingbird.Response {
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
    // Used by one task at a time: the handler, and what lingers after it.
    private nonisolated(unsafe) var iterator: RequestBody.AsyncIterator
    private let end = Atomic<Bool>(false)

    init(_ body: RequestBody) { iterator = body.makeAsyncIterator() }

    var ended: Bool { end.load(ordering: .acquiring) }

    struct AsyncIterator: AsyncIteratorProtocol {
        fileprivate let bytes: RequestBytes

        func next() async throws -> ByteBuffer? { try await bytes.next() }
    }

    func makeAsyncIterator() -> AsyncIterator { AsyncIterator(bytes: self) }

    private func next() async throws -> ByteBuffer? {
        if ended { return nil }
        if let buffer = try await iterator.next() { return buffer }
        end.store(true, ordering: .releasing)
        return nil
    }
}

extension ResponseBody {
    /// How long a client may go on sending what was refused.
    private static let patience = Duration.seconds(30)

    /// The same body; once it is written, what the client still sends is read and dropped: a client that writes before
    /// it reads gets its answer (RFC 9112, 9.6). One that goes on for too long loses the connection.
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
