import Client
import JSON
import Kernel
import WebAPI

/// REST between processes, and from clients to them, without HTTP.
extension World {
    /// The base URLs in the services' configuration.
    static func url(_ service: String) -> String { "http://\(service).example" }

    /// Sends a request to one of the service's replicas.
    ///
    /// - Throws: `TransportError` if there is no response.
    func exchange(_ request: HTTPTransport.Outgoing, timeout: Duration?) async throws -> HTTPTransport.Incoming {
        let rest = request.url.dropFirst("http://".count)
        let service = String(rest.prefix { $0 != "." })
        let target = String(rest.drop { $0 != "/" })
        if service == "identity" { return World.signOn }
        try await executor.sleep(between(.microseconds(100), .milliseconds(2)))
        let replicas = replicas(service).filter { $0.api != nil }
        guard !replicas.isEmpty, !happens(faults.refusedCalls, "call refused") else {
            throw TransportError(isBeforeSending: true, reason: "connection refused")
        }
        let process = replicas[random.below(replicas.count)]
        if happens(faults.slowCalls, "slow call") { try await executor.sleep(between(.seconds(1), .seconds(20))) }
        let answer = try await ask(process, request, target, timeout: timeout ?? .seconds(120))
        trace("\(process.name) \(request.method) \(target) \(answer.status) \(World.digest(answer.body))")
        if answer.status == 500 {
            violation("500 from \(process.name) \(request.method) \(target): \(String(decoding: answer.body, as: UTF8.self))")
        }
        try await executor.sleep(between(.microseconds(100), .milliseconds(2)))
        if happens(faults.lostReplies, "reply lost") {
            trace("reply lost")
            throw TransportError(isBeforeSending: false, reason: "the connection was closed before the answer")
        }
        return answer
    }

    private func ask(
        _ process: SimulatedProcess, _ request: HTTPTransport.Outgoing, _ target: String, timeout: Duration
    ) async throws -> HTTPTransport.Incoming {
        guard process.isAlive, let api = process.api else {
            throw TransportError(isBeforeSending: true, reason: "connection refused")
        }
        let wait = Wait<HTTPTransport.Incoming>()
        let watch = process.watch {
            wait.finish(.failure(TransportError(isBeforeSending: false, reason: "the connection was closed before the answer")))
        }
        defer { process.unwatch(watch) }
        let incoming = try IncomingRequest(request.method, target, headers: Headers(request.headers), body: request.body)
        process.spawn {
            let response = await api.respond(to: incoming)
            wait.finish(
                .success(
                    HTTPTransport.Incoming(
                        status: response.status, headers: response.headers.fields.map { ($0.name, $0.value) },
                        body: response.bytes ?? [])))
        }
        return try await wait.value {
            executor.after(timeout) {
                wait.finish(.failure(TransportError(isBeforeSending: false, reason: "the answer took too long")))
            }
        }
    }

    /// Identity's response: the service user's token, without expiry.
    private static let signOn = HTTPTransport.Incoming(
        status: 201, headers: [("x-subject-token", "service"), ("content-type", "application/json")],
        body: JSONValue.object([
            "token": [
                "expires_at": "2100-01-01T00:00:00.000000Z", "user": ["id": "wolke", "name": "wolke"],
                "project": ["id": "service", "name": "service"], "roles": [["id": "r", "name": "service"]], "catalog": [],
            ]
        ]).encoded)
}
