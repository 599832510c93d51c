import Contracts
package import Database
import JSON
package import Kernel
import Logging
import ServiceLifecycle
import Synchronization

/// Resolves a token to a caller.
package protocol Authenticating: Sendable {
    /// - Throws: 401 if the token is not or no longer valid; 503 if its validity cannot be determined.
    func caller(token: String) async throws -> Caller
    /// The cached result of `caller`; nil if the token must be resolved.
    ///
    /// - Throws: 401 if the token is no longer valid.
    func keptCaller(token: String) throws -> Caller?
    /// The user of a subject with its current roles in the subject's project.
    ///
    /// - Throws: 403 if the user is not enabled or has no role in the project; 503 if this cannot be determined.
    func caller(subject: ActingSubject) async throws -> Caller
}

extension Authenticating {
    package func keptCaller(token: String) throws -> Caller? { nil }
}

/// Verifies tokens locally: the signature with the public key, roles and scope from the shared schema.
///
/// Results are cached until `identity_changes` has a newer entry: each change in Identity (password, role, disable, delete,
/// revoke) appends one and notifies; polling twice a second is the fallback. If the newest entry has not been confirmed for
/// `freshness`, the cache is not used.
package final class TokenAuthenticator: Authenticating, Service {
    private struct Entry {
        var caller: Caller
        var epoch: Int64
    }

    private struct State {
        var entries: [String: Entry] = [:]
        var epoch: Int64 = -1
        var confirmedAt: UInt64 = 0
    }

    private let verifier: TokenVerifier
    private let database: Database
    private let ambient: Ambient
    private let state = Mutex(State())

    private static let entriesMax = 20_000
    private static let freshnessNanoseconds: UInt64 = 1_900_000_000

    package init(verifier: TokenVerifier, database: Database, ambient: Ambient) {
        self.verifier = verifier
        self.database = database
        self.ambient = ambient
    }

    private static let invalid = ResourceError(.unauthorized, "The request you have made requires authentication.")

    package func keptCaller(token: String) throws -> Caller? {
        let clock = ambient.time.monotonicNanoseconds()
        let kept = state.withLock { state -> Caller? in
            guard clock < state.confirmedAt + TokenAuthenticator.freshnessNanoseconds,
                let entry = state.entries[token], entry.epoch == state.epoch
            else { return nil }
            return entry.caller
        }
        guard let kept else { return nil }
        guard ambient.now < kept.token.expiresAt else { throw TokenAuthenticator.invalid }
        return kept
    }

    package func caller(token: String) async throws -> Caller {
        if let kept = try keptCaller(token: token) { return kept }
        let clock = ambient.time.monotonicNanoseconds()
        guard let payload = verifier.verify(token), ambient.now < payload.expiresAt else {
            throw TokenAuthenticator.invalid
        }
        // After the signature is verified the owner is known, so resolving the token counts against the owner's share.
        let scope = DatabaseScope.current.of(.tenant(payload.scope.projectText ?? "user \(payload.userID)"))
        let (caller, epoch) = try await DatabaseScope.$current.withValue(scope) { try await resolve(payload) }
        state.withLock { state in
            if state.epoch < epoch { state.epoch = epoch }
            state.confirmedAt = max(state.confirmedAt, clock)
            if state.entries.count >= TokenAuthenticator.entriesMax { state.entries.removeAll() }
            state.entries[token] = Entry(caller: caller, epoch: epoch)
        }
        return caller
    }

    package func caller(subject: ActingSubject) async throws -> Caller {
        let now = ambient.now
        let payload = TokenPayload(
            userID: subject.user, scope: .project(ID(subject.project)), methods: [], issuedAt: now, expiresAt: now, auditIDs: [])
        let caller = try await database.read { try TokenAuthenticator.resolve($0, payload) }
        guard let caller else {
            throw ResourceError.forbidden("The user \(subject.user) has no role in the project \(subject.project).")
        }
        return caller
    }

    /// Looks up the current rights of a verified payload.
    package func resolve(_ payload: TokenPayload) async throws -> (Caller, epoch: Int64) {
        try await database.read { connection in
            // Read the change number first: a later change then only causes another look-up.
            let epoch = try TokenAuthenticator.epoch(connection)
            guard let caller = try TokenAuthenticator.resolve(connection, payload) else { throw TokenAuthenticator.invalid }
            return (caller, epoch)
        }
    }

    /// The caller that a payload stands for in this transaction; nil if the token is not or no longer valid.
    package static func resolve(_ connection: Connection, _ payload: TokenPayload) throws -> Caller? {
        let rows = try connection.query(
            """
            SELECT * FROM published_token(
                \(payload.userID)::text, \(payload.scope.projectText)::text, \(payload.scope.domainText)::text,
                \(payload.scope == .system)::boolean, \(payload.applicationCredentialID)::text,
                \(payload.auditIDs)::text[], \(payload.issuedAt)::timestamptz)
            """)
        guard let row = rows.first, try row.bool("valid") else { return nil }
        return try caller(from: row, payload)
    }

    /// The number of the newest change in Identity.
    package static func epoch(_ connection: Connection) throws -> Int64 {
        Int64(try connection.query("SELECT coalesce(max(id), 0) AS id FROM published_identity_changes")[0].int("id"))
    }

    /// The number of the newest change, if it was confirmed recently enough to use results cached at it.
    package func confirmedEpoch() -> Int64? {
        let clock = ambient.time.monotonicNanoseconds()
        return state.withLock { state in
            clock < state.confirmedAt + TokenAuthenticator.freshnessNanoseconds ? state.epoch : nil
        }
    }

    private static func caller(from row: Row, _ payload: TokenPayload) throws -> Caller {
        Caller(
            userID: payload.userID, userName: try row.string("user_name"),
            userDomainID: try row.string("user_domain_id"), userDomainName: try row.string("user_domain_name"),
            scope: payload.scope, projectName: try row.optionalString("project_name"),
            projectDomainID: try row.optionalString("project_domain_id"),
            projectDomainName: try row.optionalString("project_domain_name"),
            domainName: try row.optionalString("domain_name"),
            roles: try (row.optionalJSON("roles")?.arrayValue ?? []).compactMap { role in
                guard let id = role["id"]?.stringValue, let name = role["name"]?.stringValue else { return nil }
                return RoleReference(id: id, name: name)
            },
            token: payload, accessRules: try row.optionalJSON("access_rules"))
    }

    /// Follows Identity's changes until the task is cancelled.
    package func run() async throws {
        let database = database
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                for await _ in database.notifications(.identityChanged) { await self.refresh() }
            }
            group.addTask {
                while !Task.isCancelled {
                    await self.refresh()
                    do { try await self.ambient.time.sleep(for: .milliseconds(500)) } catch { return }
                }
            }
            do { try await gracefulShutdown() } catch {}
            group.cancelAll()
        }
    }

    /// Checks for new changes in Identity.
    package func refresh() async {
        let clock = ambient.time.monotonicNanoseconds()
        do {
            let epoch = try await database.read { try TokenAuthenticator.epoch($0) }
            state.withLock { state in
                // A read that began earlier may complete later, so never go back to a lower number.
                if state.epoch < epoch {
                    state.entries.removeAll(keepingCapacity: true)
                    state.epoch = epoch
                }
                state.confirmedAt = max(state.confirmedAt, clock)
            }
        } catch {
            // Unconfirmed: after `freshness` every token is looked up again.
        }
    }
}

extension Scope {
    var projectText: String? { if case .project(let id) = self { id.text } else { nil } }
    var domainText: String? { if case .domain(let id) = self { id.text } else { nil } }
}
