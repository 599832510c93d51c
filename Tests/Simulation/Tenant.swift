import Client
import JSON
import Kernel

/// A client that behaves like a careful script: every POST has a key, and unanswered requests are repeated.
final class Tenant: @unchecked Sendable {
    struct Answer: Sendable {
        let status: Int
        let json: JSONValue
        /// The repeated deletion found nothing: an earlier attempt or another client deleted it.
        var wasGone = false
        /// The request, or an earlier attempt whose response was lost, was accepted.
        var isAccepted: Bool { (200..<300).contains(status) }
    }

    let world: World
    let token: String
    private let number: Int
    private var requests = 0

    init(world: World, token: String, number: Int) {
        self.world = world
        self.token = token
        self.number = number
    }

    func newKey() -> String {
        requests += 1
        return "\(token)-\(number)-\(requests)"
    }

    /// Repeats the request until there is a response other than 503.
    func call(
        _ service: String, _ method: String, _ target: String, _ body: JSONValue? = nil, key: String? = nil
    ) async throws -> Answer {
        var headers = [
            ("x-auth-token", token), ("content-type", "application/json"),
            ("openstack-api-version", service == "compute" ? "compute 2.96" : "volume 3.70"),
        ]
        if let key = key ?? (method == "POST" ? newKey() : nil) { headers.append(("idempotency-key", key)) }
        let request = HTTPTransport.Outgoing(
            method: method, url: World.url(service) + target, headers: headers, body: body?.encoded ?? [])
        var attempts = 0
        while true {
            attempts += 1
            do {
                let answer = try await world.exchange(request, timeout: .seconds(60))
                if answer.status != 503 {
                    let json = answer.body.isEmpty ? JSONValue.null : try JSONValue.parse(answer.body)
                    // An earlier attempt may have succeeded.
                    if method == "DELETE", answer.status == 404, attempts > 1 { return Answer(status: 204, json: json, wasGone: true) }
                    return Answer(status: answer.status, json: json)
                }
            } catch is TransportError {}
            guard attempts < 200 else {
                throw SimulationExecutor.Failure(description: "no answer to \(method) \(service)\(target) in \(attempts) attempts")
            }
            try await world.executor.sleep(world.between(.milliseconds(200), .seconds(2)))
        }
    }

    /// Creates a resource, which must succeed; returns its id.
    func createAndWait(_ service: String, _ target: String, _ name: String, _ body: JSONObject) async throws -> String {
        let answer = try await call(service, "POST", target, .object(JSONObject([(name, .object(body))])))
        guard let id = answer.json[name]?["id"]?.stringValue else {
            throw SimulationExecutor.Failure(description: "no \(name): \(answer.status) \(answer.json)")
        }
        return id
    }
}
