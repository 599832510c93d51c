import Hummingbird
package import Kernel
package import Logging
import ServiceLifecycle
import Synchronization
package import Telemetry

/// The service's readiness, checked at most once a second.
package actor Readiness {
    private static let lifetime: UInt64 = 1_000_000_000

    private let time: any TimeSource
    private let check: @Sendable () async throws -> Void
    private var known: (problem: String?, at: UInt64)?
    private var asking: Task<String?, Never>?

    /// - Parameter check: throws an error with a message for the operator while the service cannot work.
    package init(time: any TimeSource, check: @escaping @Sendable () async throws -> Void) {
        self.time = time
        self.check = check
    }

    /// The reason why the service is not ready, for operators; nil if it is ready. At most one second old.
    package func problem() async -> String? {
        if let known, time.monotonicNanoseconds() < known.at + Readiness.lifetime { return known.problem }
        if let asking { return await asking.value }
        let check = check
        let task = Task { () -> String? in
            do {
                try await check()
                return nil
            } catch {
                return (error as? ResourceError).map { $0.context ?? $0.message } ?? "\(error)"
            }
        }
        asking = task
        let problem = await task.value
        asking = nil
        known = (problem, time.monotonicNanoseconds())
        return problem
    }
}

/// Endpoints for operators and their tools: `/healthz`, `/readyz` with reasons, `/version`, `/metrics`, `/openapi.json`.
/// They are on a separate address that only operators should be able to reach.
package struct OperatorServer: Service {
    private let api: API
    private let listener: Listener
    private let metrics: Metrics
    private let readiness: Readiness
    private let log: Logger

    package init(api: API, host: String, port: Int, metrics: Metrics, log: Logger, readiness: Readiness) {
        self.api = api
        self.metrics = metrics
        self.readiness = readiness
        self.log = log
        listener = Listener(
            host: host, port: port, ledger: ConnectionLedger(limits: .small, listener: "operator", metrics: metrics))
    }

    package func run() async throws {
        let responder = OperatorResponder(api: api, metrics: metrics, readiness: readiness)
        try await listener.run(responder, log: log) { ([("content-type", "text/plain")], Array(($0.message + "\n").utf8)) }
    }
}

extension ConnectionLimits {
    /// Limits for a listener with few clients.
    package static var small: ConnectionLimits {
        var limits = ConnectionLimits()
        limits.connectionsMax = 64
        limits.connectionsPerSourceMax = 64
        limits.refusalsMax = 16
        limits.headBytesMax = 8192
        return limits
    }
}

private struct OperatorResponder: HTTPResponder {
    typealias Context = PeerContext

    let api: API
    let metrics: Metrics
    let readiness: Readiness

    func respond(to request: Hummingbird.Request, context: Context) async throws -> Hummingbird.Response {
        var response = await answer(request.method.rawValue, request.uri.path)
        if request.method == .head { response.body = .none }
        return response.hummingbird
    }

    private func answer(_ method: String, _ path: String) async -> Response {
        guard method == "GET" || method == "HEAD" else {
            var response = Response.text(405, "only GET is answered here\n")
            response.headers["allow"] = "GET, HEAD"
            return response
        }
        switch path {
        case "/healthz": return .text(200, "ok\n")
        case "/version": return .text(200, WolkeVersion.current + "\n")
        case "/readyz":
            let problem = await readiness.problem()
            return problem.map { .text(503, $0 + "\n") } ?? .text(200, "ready\n")
        case "/metrics":
            return Response(
                status: 200, headers: ["content-type": "text/plain; version=0.0.4"], body: .bytes(Array(metrics.render().utf8)))
        case "/openapi.json": return .json(200, OpenAPI.document(api))
        default: return .text(404, "here are /healthz, /readyz, /version, /metrics and /openapi.json\n")
        }
    }
}
