import Authorization
import Crypto
import Database
import JSON
import Kernel
import Logging
import NIOCore
import Synchronization

/// A change as it was made: what to answer, and what the audit records about it.
package struct Change: Sendable {
    package let response: Response
    package let resourceType: String
    package let resourceID: String?
    /// The resource's new content; nil after a delete. Never holds secrets.
    package let content: JSONValue?

    package init(_ response: Response, _ resourceType: String, _ resourceID: String?, content: JSONValue? = nil) {
        self.response = response
        self.resourceType = resourceType
        self.resourceID = resourceID
        self.content = content
    }
}

/// A routed, authenticated, validated request as a handler receives it.
package struct RequestContext: Sendable {
    /// Whether the handler has made the policy decision that its route declares.
    final class Decision: Sendable {
        private let made = Atomic<Bool>(false)
        var isMade: Bool { made.load(ordering: .relaxed) }
        func make() { made.store(true, ordering: .relaxed) }
    }

    package let service: ServiceDescription
    package let route: Route
    package let requestID: String
    package let method: String
    package let path: String
    package let parameters: [String: String]
    package let query: Query
    package let headers: Headers
    /// The validated body; null where there is none.
    package let body: JSONValue
    /// For routes with `RouteBody.stream`.
    package let stream: BodyStream
    package let version: Microversion
    package let ambient: Ambient
    package let log: Logger
    let verifiedCaller: Caller?
    let policy: Policy
    let decision: Decision
    /// Hash of the body as it came, to tell a repeated request from another under the same key.
    let bodyDigest: String

    // MARK: input

    /// Who asks.
    ///
    /// - Throws: 401 on a route without authentication.
    package var caller: Caller {
        get throws {
            guard let verifiedCaller else { throw ResourceError(.unauthorized, "Authentication is required.") }
            return verifiedCaller
        }
    }

    /// A path parameter; empty where the route has no such parameter.
    package func parameter(_ name: String) -> String { parameters[name] ?? "" }

    /// A path parameter that must be a UUID.
    ///
    /// - Throws: 404 naming the resource: what is no id cannot be found.
    package func uuidParameter(_ name: String, of resource: String) throws -> String {
        let text = parameter(name)
        guard let uuid = UUID128(text) else { throw ResourceError.notFound("\(resource) \(text) could not be found.") }
        return uuid.description
    }

    package func version(atLeast major: Int, _ minor: Int) -> Bool { version >= Microversion(major, minor) }

    /// The service's base URL as this client reached it.
    package var publicURL: String {
        guard let host = headers["x-forwarded-host"] else { return service.publicURL }
        return "\(headers["x-forwarded-proto"] ?? "http")://\(host)"
    }

    // MARK: policy

    /// Decides the route's action (or `action`) on `target`.
    ///
    /// - Throws: 403 that names the action.
    package func authorize<Value>(
        _ value: Value, target: PolicyTarget, action: String? = nil
    ) throws -> Authorized<Value> {
        decision.make()
        return try policy.authorize(action ?? route.action ?? "", caller, value, target: target)
    }

    /// Decides without a value: for lists and for what belongs to nobody.
    @discardableResult
    package func authorize(target: PolicyTarget, action: String? = nil) throws -> Authorized<Void> {
        try authorize((), target: target, action: action)
    }

    /// Whether the caller may do `action`; does not count as the route's own decision.
    package func allows(_ action: String, target: PolicyTarget = .none) -> Bool {
        guard let verifiedCaller else { return false }
        return policy.allows(action, verifiedCaller, target)
    }

    /// Decides on something that was looked up: 404 where the caller may not even see it, 403 where they may.
    package func authorizeVisible<Value>(
        _ value: Value, target: PolicyTarget, visibleBy readAction: String, notFound: @autoclosure () -> ResourceError
    ) throws -> Authorized<Value> {
        decision.make()
        guard policy.allows(readAction, try caller, target) else { throw notFound() }
        return try authorize(value, target: target)
    }

    // MARK: writing

    /// Runs the one transaction of an accepted change: effect, audit record and, where the client sent an
    /// `Idempotency-Key`, the answer under that key. The same key again gives the same answer and no second effect.
    package func write(
        _ database: Database, _ body: @escaping @Sendable (Connection) throws -> Change
    ) async throws -> Response {
        let caller = try caller
        let key = headers["idempotency-key"]
        if let key, key.isEmpty || key.utf8.count > 255 {
            throw ResourceError.badRequest("The Idempotency-Key header must have 1 to 255 characters.")
        }
        let scope = try idempotencyScope
        return try await database.write { connection in
            if let key, let earlier = try earlierResponse(connection, scope: scope, key: key) {
                // Decided when the answer was made; handlers that decide inside `body` are not asked again.
                decision.make()
                return earlier
            }
            let change = try body(connection)
            try audit(connection, change, caller)
            if let key { try remember(connection, scope: scope, key: key, change.response) }
            return change.response
        }
    }

    /// As `write`, for an answer that is known only when work has gone on for a while. Under an `Idempotency-Key` the
    /// first answer stays the answer, whoever was still there to give it.
    ///
    /// - Parameters:
    ///   - accept: the transaction's body; returns what `answer` needs to go on.
    ///   - answer: waits and renders; run again by a repetition that finds no answer yet.
    package func write(
        _ database: Database, accept: @escaping @Sendable (Connection) throws -> (Change, ticket: String),
        answer: (_ ticket: String) async throws -> Response
    ) async throws -> Response {
        let accepted = try await write(database) { connection in
            let (change, ticket) = try accept(connection)
            var response = change.response
            response.headers[RequestContext.ticketHeader] = ticket
            return Change(response, change.resourceType, change.resourceID, content: change.content)
        }
        guard let ticket = accepted.headers[RequestContext.ticketHeader] else { return accepted }
        let response = try await answer(ticket)
        guard let key = headers["idempotency-key"] else { return response }
        let scope = try idempotencyScope
        try await database.write { try remember($0, scope: scope, key: key, response) }
        return response
    }

    /// Marks an answer that is not there yet; never sent.
    private static let ticketHeader = "wolke-ticket"

    private var idempotencyScope: String {
        get throws {
            let caller = try caller
            return "\(service.type):\(caller.userID):\(caller.projectID ?? "")"
        }
    }

    private var fingerprint: String { "\(method) \(path) \(bodyDigest)" }

    private func earlierResponse(_ connection: Connection, scope: String, key: String) throws -> Response? {
        // A concurrent request with the same key waits here for the first one's end.
        let inserted = try connection.query(
            """
            INSERT INTO idempotency_keys (scope, key, fingerprint, created_at)
            VALUES (\(scope), \(key), \(fingerprint), \(ambient.now)) ON CONFLICT DO NOTHING RETURNING key
            """)
        if !inserted.isEmpty { return nil }
        let row = try connection.query(
            "SELECT fingerprint, status, headers, encode(body, 'hex') AS body FROM idempotency_keys WHERE scope = \(scope) AND key = \(key)"
        )[0]
        guard try row.string("fingerprint") == fingerprint else {
            throw ResourceError(
                .unprocessable, "The Idempotency-Key '\(key)' was used before for another request.")
        }
        var headers = Headers()
        for member in try row.object("headers").members { headers.append(member.name, member.value.stringValue ?? "") }
        headers["idempotent-replay"] = "true"
        let bytes = Hexadecimal.decode(try row.string("body")) ?? []
        return Response(status: try row.int("status"), headers: headers, body: bytes.isEmpty ? .none : .bytes(bytes))
    }

    private func remember(_ connection: Connection, scope: String, key: String, _ response: Response) throws {
        let headers = JSONObject(response.headers.fields.map { ($0.name, JSONValue.string($0.value)) })
        let body = Hexadecimal.encode(response.bytes ?? [])
        try connection.execute(
            """
            UPDATE idempotency_keys SET status = \(response.status), headers = \(headers)::jsonb,
                body = decode(\(body), 'hex')
            WHERE scope = \(scope) AND key = \(key)
            """)
    }

    private func audit(_ connection: Connection, _ change: Change, _ caller: Caller) throws {
        try connection.execute(
            """
            INSERT INTO audit_records (at, request_id, user_id, project_id, action, resource_type, resource_id, content)
            VALUES (\(ambient.now), \(requestID), \(caller.userID), \(caller.projectID), \(route.action ?? route.path),
                \(change.resourceType), \(change.resourceID), \(change.content)::jsonb)
            """)
    }

    static func digest(_ bytes: [UInt8]) -> String {
        bytes.isEmpty ? "" : Hexadecimal.encode(SHA256.hash(data: bytes))
    }
}
