import JSON
import Kernel
package import WebAPI

extension RouteSweep {
    /// Finds routes whose effects may happen twice although the client sent an `Idempotency-Key`.
    ///
    /// Each POST is sent eight times concurrently, then once more, then with another body. The nine responses must be equal, the
    /// ninth request must change no table, and the last one must be refused. At the end everything that the requests named is
    /// deleted, and each request is sent once more: its response must not depend on the current data.
    ///
    /// - Parameters:
    ///   - except: routes that have no effect, or none that a key can guard, with the reason.
    ///   - keeping: tables that are kept at the end, because they contain the caller.
    ///   - prepare: creates, before each route, what the request needs to succeed.
    package func repeated(
        _ token: String, except: [String: String] = [:], keeping: Set<String> = [], where included: (Route) -> Bool = { _ in true },
        prepare: (String) async throws -> Void = { _ in }
    ) async throws -> [String] {
        var findings: [String] = []
        var answered: [Answered] = []
        for route in routes where route.method == .post && route.action != nil && included(route) {
            let name = RouteSweep.name(route)
            guard except[name] == nil else { continue }
            try await prepare(name)
            findings += try await repeated(route, token, &answered).map { "\(name): \($0)" }
        }
        try await removeAll(except: keeping.union(["idempotency_keys", "schema_migrations"]))
        for old in answered {
            let text = RouteSweep.text(await api.respond(to: old.request))
            if text != old.text {
                findings.append(
                    "\(RouteSweep.name(old.route)): first \(RouteSweep.short(old.text)), when all is gone \(RouteSweep.short(text))")
            }
        }
        let known = Set(routes.map(RouteSweep.name))
        return findings + except.keys.filter { !known.contains($0) }.sorted().map { "there is no route \($0)" }
    }

    /// An accepted request and its response.
    private struct Answered {
        let route: Route
        let request: IncomingRequest
        let text: String
    }

    private func repeated(_ route: Route, _ token: String, _ answered: inout [Answered]) async throws -> [String] {
        let key = SystemRandom().uuid().description
        let api = api
        // A request's body can be read once, so each request has its own body with the same bytes.
        let bytes = body(route)?.encoded
        let requests = try (0..<10).map { _ in try self.request(route, token, key: key, bytes: bytes ?? []).request }
        let answers = await withTaskGroup(of: Response.self) { group in
            for request in requests.prefix(8) { group.addTask { await api.respond(to: request) } }
            return await group.reduce(into: [Response]()) { $0.append($1) }
        }
        let texts = Set(answers.map(RouteSweep.text))
        // A route that answers 501 must have no effect.
        if answers.allSatisfy({ $0.status == 501 }) {
            return route.isUnavailable ? [] : ["answers 501 and is in the OpenAPI document: declare it with Route.unavailable"]
        }
        guard texts.count == 1, let first = texts.first else {
            return ["eight concurrent requests got \(texts.sorted().map(RouteSweep.short))"]
        }
        guard answers[0].status < 300 else { return ["is refused, so nothing is shown: \(RouteSweep.short(first))"] }
        answered.append(Answered(route: route, request: requests[9], text: first))
        let originals = answers.count { $0.headers["idempotent-replay"] == nil }
        var findings = originals == 1 ? [] : ["\(originals) of eight concurrent requests had an effect"]
        let before = try await digest()
        let again = await api.respond(to: requests[8])
        let demoted = await api.respond(
            to: try self.request(route, token + StaticAuthenticator.demoted, key: key, bytes: bytes ?? []).request)
        if !RouteSweep.isForEverybody(route),
            ![
                401, 403,
                404,
            ].contains(demoted.status)
        {
            findings.append("without its roles the caller got \(RouteSweep.text(demoted).prefix(60))")
        }
        if RouteSweep.text(again) != first {
            findings.append("first \(RouteSweep.short(first)), again \(RouteSweep.short(RouteSweep.text(again)))")
        }
        findings += try await changed(since: before)
        if let bytes {
            // The same meaning with other bytes is another request.
            let other = await api.respond(to: try self.request(route, token, key: key, bytes: bytes + Array(" ".utf8)).request)
            if other.status != 422 { findings.append("another body under the same key got \(RouteSweep.text(other))") }
        }
        return findings
    }

    private static func text(_ response: Response) -> String {
        "\(response.status) \(String(decoding: response.bytes ?? [], as: UTF8.self))"
    }

    private static func short(_ text: String) -> String { String(text.prefix(200)) }
}
