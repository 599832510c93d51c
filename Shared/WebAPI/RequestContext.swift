package import Authorization
import Cryptography
package import Database
package import JSON
package import Kernel
package import Logging
import NIOCore
import Synchronization

/// A completed change: the response, and the content of its audit record.
package struct Change: Sendable {
    package let response: Response
    package let resourceType: String
    package let resourceID: String?
    /// The resource's new content for the audit record. Never holds secrets.
    let record: Record
    /// Whether the response contains a secret that is stored nowhere else.
    package let holdsSecret: Bool

    package init(
        _ response: Response, _ resourceType: String, _ resourceID: String?, content: JSONValue? = nil, holdsSecret: Bool = false
    ) {
        self.init(response, resourceType, resourceID, record: content.map { .value($0) } ?? .nothing, holdsSecret: holdsSecret)
    }

    /// A change whose response contains the resource as it was written.
    ///
    /// - Parameters:
    ///   - member: the member of the response with the content; nil for the whole response.
    package init(answer response: Response, _ resourceType: String, _ resourceID: String?, member: String? = nil) {
        self.init(response, resourceType, resourceID, record: .document(response.bytes ?? [], member: member), holdsSecret: false)
    }

    private init(_ response: Response, _ resourceType: String, _ resourceID: String?, record: Record, holdsSecret: Bool) {
        self.response = response
        self.resourceType = resourceType
        self.resourceID = resourceID
        self.record = record
        self.holdsSecret = holdsSecret
    }

    /// A copy with another response.
    package func answering(_ response: Response, holdsSecret: Bool) -> Change {
        Change(response, resourceType, resourceID, record: record, holdsSecret: holdsSecret)
    }

    enum Record: Sendable {
        /// No content, as after a delete.
        case nothing
        case value(JSONValue)
        /// JSON as written, or one of its members, which must exist; empty for no content.
        case document([UInt8], member: String?)
    }

    /// The document of the audit record, nil for none, and the member with the content.
    var recorded: (document: String?, path: [String]) {
        switch record {
        case .nothing: (nil, [])
        case .value(let value): (String(decoding: value.encoded, as: UTF8.self), [])
        case .document(let bytes, let member):
            (bytes.isEmpty ? nil : String(decoding: bytes, as: UTF8.self), member.map { [$0] } ?? [])
        }
    }
}

/// A change whose response waits for work that goes on after the transaction.
package struct BegunWork: Sendable {
    /// Identifies the work.
    let work: JSONValue
    let resourceType: String
    let resourceID: String?
    /// The content of the audit record.
    let content: JSONValue?

    package init(_ work: JSONValue, _ resourceType: String, _ resourceID: String?, content: JSONValue? = nil) {
        self.work = work
        self.resourceType = resourceType
        self.resourceID = resourceID
        self.content = content
    }
}

/// A routed, authenticated, validated request as a handler receives it.
package struct RequestContext: Sendable {
    /// Records the handler's policy decisions.
    final class Decision: Sendable {
        private let hasDecided = Atomic<Bool>(false)
        private let granted = Mutex<[Grant]>([])
        /// Whether the handler has made at least one decision.
        var wasMade: Bool { hasDecided.load(ordering: .relaxed) }
        /// The actions that the caller was allowed, without duplicates.
        var grants: [Grant] { granted.withLock { $0 } }

        func allows(_ action: String) -> Bool { granted.withLock { $0.contains { $0.action == action } } }

        /// Records that the handler has made a decision, whatever the result.
        func recordDecision() { hasDecided.store(true, ordering: .relaxed) }

        func add(_ grant: Grant) {
            granted.withLock { if !$0.contains(grant) { $0.append(grant) } }
        }
    }

    package let service: ServiceDescription
    package let route: Route
    package let requestID: String
    package let method: String
    package let path: String
    package let parameters: [String: String]
    package let query: Query
    package let headers: Headers
    /// The validated body; null if there is none.
    package let body: JSONValue
    /// For routes with `RouteBody.stream`.
    package let stream: BodyStream
    package let version: Microversion
    package let ambient: Ambient
    package let log: Logger
    let verifiedCaller: Caller?
    let policy: Policy
    let decision: Decision
    /// Hash of the received body, to distinguish a repeated request from another one with the same key.
    let bodyDigest: String

    // MARK: input

    /// The caller.
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
    /// - Throws: 404 naming the resource if the value is not a valid id.
    package func uuidParameter(_ name: String, of resource: String) throws -> String {
        let text = parameter(name)
        guard let uuid = UUID128(text) else { throw ResourceError.notFound("\(resource) \(text) could not be found.") }
        return uuid.description
    }

    package func version(atLeast major: Int, _ minor: Int) -> Bool { version >= Microversion(major, minor) }

    /// The service's base URL as seen by this client. `X-Forwarded-*` fields come from a trusted proxy, because the server
    /// removes those of other peers. Of several values the last one was added by that proxy.
    package var publicURL: String {
        guard let host = RequestContext.last(headers["x-forwarded-host"]), RequestContext.isHost(host) else { return service.publicURL }
        let scheme = RequestContext.last(headers["x-forwarded-proto"]) == "https" ? "https" : "http"
        return "\(scheme)://\(host)"
    }

    private static func last(_ list: String?) -> String? {
        list?.split(separator: ",").last.map { String($0.drop { $0 == " " }.prefix { $0 != " " }) }
    }

    /// A host name or address, with or without a port.
    private static func isHost(_ text: String) -> Bool {
        (1...262).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: ":"),
                    UInt8(ascii: "["), UInt8(ascii: "]"), UInt8(ascii: "_"):
                    true
                default: false
                }
            }
    }

    // MARK: policy

    /// Decides the route's action (or `action`) on `target`.
    ///
    /// - Throws: 403 that names the action.
    package func authorize<Value>(
        _ value: Value, target: PolicyTarget, action: String? = nil
    ) throws -> Authorized<Value> {
        decision.recordDecision()
        let action = action ?? route.action ?? ""
        let authorized = try policy.authorize(action, caller, value, target: target)
        decision.add(Grant(action: action, target: target))
        return authorized
    }

    /// Decides on a target without a value: for lists and resources without an owner.
    @discardableResult
    package func authorize(target: PolicyTarget, action: String? = nil) throws -> Authorized<Void> {
        try authorize((), target: target, action: action)
    }

    /// Whether the caller may do `action`; does not count as the route's own decision.
    package func allows(_ action: String, target: PolicyTarget = .none) -> Bool {
        guard let verifiedCaller else { return false }
        return policy.allows(action, verifiedCaller, target)
    }

    /// Decides on a resource that was looked up: 404 if the caller may not see it, 403 if they may see it but not do the
    /// action.
    package func authorizeVisible<Value>(
        _ value: Value, target: PolicyTarget, visibleBy readAction: String, notFound: @autoclosure () -> ResourceError
    ) throws -> Authorized<Value> {
        decision.recordDecision()
        guard policy.allows(readAction, try caller, target) else { throw notFound() }
        return try authorize(value, target: target)
    }

    // MARK: writing

    /// Runs the single transaction of an accepted change: the effect, the audit record and, if the client sent an
    /// `Idempotency-Key`, the stored response. Repeating the key returns the same response without a second effect.
    package func write(
        _ database: Database, _ body: @escaping @Sendable (Connection) throws -> Change
    ) async throws -> Response {
        let caller = try caller
        let kept = try idempotency()
        return try await database.write(stops: true) { connection in
            if let earlier = try kept?.earlier(connection, ambient) { return try replay(earlier) }
            let change = try body(connection)
            // A decision about another action, such as reading, is not enough.
            guard route.action.map(decision.allows) ?? true else {
                throw ResourceError.internalError(
                    "\(route.method.rawValue) \(route.path) wrote without a decision about \(route.action ?? "")")
            }
            try audit(connection, change, caller)
            try kept?.remember(connection, change.response, holdsSecret: change.holdsSecret, decision.grants, ambient)
            return change.response
        }
    }

    /// For responses that wait for work: the transaction of `begin` stores an identifier of the work, and `finish` performs
    /// or awaits the work and creates the response. Repeating the `Idempotency-Key` never calls `begin` again. `finish`
    /// must be idempotent, because it is called again if the first request was interrupted.
    ///
    /// - Parameter begin: the effect; returns the value for `finish`, and what the audit records.
    package func write(
        _ database: Database,
        begin: @escaping @Sendable (Connection) throws -> BegunWork,
        finish: (_ work: JSONValue) async throws -> Response
    ) async throws -> Response {
        let begun = try await write(database) { connection in
            let begun = try begin(connection)
            return Change(
                Response(status: Idempotency.provisional, headers: [:], body: .bytes(begun.work.encoded)), begun.resourceType,
                begun.resourceID, content: begun.content)
        }
        guard begun.status == Idempotency.provisional else { return begun }
        var response = try await finish(try JSONValue.parse(begun.bytes ?? []))
        if let kept = try idempotency() {
            let answer = response
            // A repetition may have waited for the same work and seen another result; the first stored response is used for both.
            let earlier = try await database.write { connection -> Response? in
                let begun = try kept.look(connection, isLocked: true)
                if let earlier = begun?.response, earlier.status != Idempotency.provisional { return earlier }
                // The first request made the decisions. A repetition that ends before it has made none.
                let first = try begun?.grants ?? ownGrants
                let grants = first + decision.grants.filter { !first.contains($0) }
                try kept.remember(connection, answer, holdsSecret: false, grants, ambient)
                return nil
            }
            response = earlier ?? response
        }
        response.headers["idempotent-replay"] = begun.headers["idempotent-replay"]
        return response
    }

    /// The idempotency key of the request; nil without one.
    private func idempotency() throws -> Idempotency? {
        guard let key = headers["idempotency-key"] else { return nil }
        let caller = try caller
        // A service has its own key namespace, also when it acts on behalf of a user.
        let owner = caller.serviceUserID.map { "\($0) for " } ?? ""
        return try Idempotency(
            key: key, scope: "\(service.type):\(owner)\(caller.userID):\(caller.projectID ?? "")",
            request: "\(method) \(path) \(bodyDigest)")
    }

    /// Look up the stored response before authorizing again: the effect of the first request may be the reason for a
    /// refusal now.
    ///
    /// - Throws: like `replay`.
    func earlierAnswer(_ database: Database) async throws -> Response? {
        guard let kept = try idempotency(), let answer = try await database.read({ try kept.look($0) }),
            answer.response.status != Idempotency.provisional
        else { return nil }
        return try replay(answer)
    }

    /// A stored response, if the caller is still allowed all actions that were authorized when it was created.
    ///
    /// - Throws: 403 that names the action.
    private func replay(_ kept: KeptAnswer) throws -> Response {
        let caller = try caller
        for grant in try kept.grants ?? ownGrants { _ = try policy.authorize(grant.action, caller, (), target: grant.target) }
        decision.recordDecision()
        return kept.response
    }

    /// The route's action on the caller's own project, for responses that were stored without decisions.
    private var ownGrants: [Grant] {
        get throws {
            let project = try caller.projectID
            return route.action.map { [Grant(action: $0, target: .project(project))] } ?? []
        }
    }

    private func audit(_ connection: Connection, _ change: Change, _ caller: Caller) throws {
        // PostgreSQL parses the document, so invalid JSON fails the transaction.
        let (document, path) = change.recorded
        let recorded = try connection.query(
            """
            INSERT INTO audit_records (at, request_id, user_id, service_user_id, project_id, action, resource_type, resource_id, content)
            VALUES (\(ambient.now), \(requestID), \(caller.userID), \(caller.serviceUserID), \(caller.projectID),
                \(route.action ?? route.path),
                \(change.resourceType), \(change.resourceID), \(document)::jsonb #> \(path)::text[])
            RETURNING content IS NOT NULL AS has_content
            """)[0]
        // A JSON null is content.
        guard try path.isEmpty || recorded.bool("has_content") else {
            throw ResourceError.internalError("the audit record of \(change.resourceType) names \(path), which the response does not have")
        }
    }

    static func digest(_ bytes: [UInt8]) -> String {
        bytes.isEmpty ? "" : Hexadecimal.encode(HashAlgorithm.sha256.hash(bytes))
    }
}
