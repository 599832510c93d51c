import Authorization
import Database
import IdentityCore
import Kernel

/// Verifies the credentials of a sign-on.
extension Identity {
    /// An authenticated user, and the restrictions that the new token inherits.
    struct Proof: Sendable {
        var userID: String
        var methods: [String]
        /// Audit id of the first token of the chain; nil for a new chain.
        var chain: String?
        /// The new token must not outlive this.
        var expiresAt: Timestamp?
        /// The application credential, and the only project that it is good for.
        var credential: (id: String, projectID: String)?
        /// The hash that the password was proved with.
        var passwordHash: String?
        var passwordIsLocked = false
    }

    /// The same message for every reason, so that it does not help guessing.
    static let refused = ResourceError(.unauthorized, "The request you have made requires authentication.")

    /// - Parameter receipt: the methods that the user completed in an earlier request.
    /// - Throws: 401 if a proof is wrong, or the proofs belong to different users.
    func prove(_ request: SignOnRequest, receipt: SignOnReceipt?) async throws -> Proof {
        var proof: Proof?
        var code: (user: SignOnRequest.Reference, code: Secret<String>)?
        for method in request.methods {
            if case .totp(let user, let passcode) = method {
                code = (user, passcode)
                continue
            }
            let next = try await prove(method)
            guard let earlier = proof else {
                proof = next
                continue
            }
            guard earlier.userID == next.userID else { throw Identity.refused }
            proof?.methods += next.methods.filter { !earlier.methods.contains($0) }
            proof?.chain = earlier.chain ?? next.chain
            proof?.expiresAt = [earlier.expiresAt, next.expiresAt].compactMap { $0 }.min()
            proof?.credential = earlier.credential ?? next.credential
        }
        if let receipt {
            guard proof == nil || proof?.userID == receipt.userID, try await isUsable(receipt) else { throw Identity.refused }
            if proof == nil { proof = Proof(userID: receipt.userID, methods: []) }
            for method in receipt.methods where proof?.methods.contains(method) == false { proof?.methods.append(method) }
        }
        // One-time codes are checked last, so that only a client with another valid factor can try one.
        guard var proof else { throw Identity.refused }
        if let code {
            guard try await owner(code.user) == proof.userID, try await spendCode(code.code, user: proof.userID) else {
                throw Identity.refused
            }
            if !proof.methods.contains("totp") { proof.methods.append("totp") }
        }
        return proof
    }

    private func prove(_ method: SignOnRequest.Method) async throws -> Proof {
        switch method {
        case .password(let user, let password): return try await provePassword(user, password)
        case .token(let token): return try await proveToken(token)
        case .totp: throw Identity.refused
        case .applicationCredential(let id, let secret):
            return try await proveCredential("c.id = \(id)", secret)
        case .namedApplicationCredential(let name, let user, let secret):
            return try await proveCredential("c.name = \(name) AND \(Identity.condition(user: user))", secret)
        }
    }

    private func owner(_ user: SignOnRequest.Reference) async throws -> String? {
        try await database.read { connection in
            try connection.query(
                "SELECT u.id FROM users u JOIN projects d ON d.id = u.domain_id WHERE \(Identity.condition(user: user))"
            ).first?.string("id")
        }
    }

    /// Whether a receipt is still valid: it has not expired, and the password has not changed since.
    private func isUsable(_ receipt: SignOnReceipt) async throws -> Bool {
        guard ambient.now < receipt.expiresAt else { return false }
        return try await database.read { connection in
            try !connection.query(
                """
                SELECT id FROM users WHERE id = \(receipt.userID)
                    AND (tokens_valid_from IS NULL OR tokens_valid_from <= \(receipt.issuedAt))
                """
            ).isEmpty
        }
    }

    // MARK: references

    /// The condition on `users u JOIN projects d` (the user's domain).
    private static func condition(user: SignOnRequest.Reference) -> SQL {
        switch user {
        case .id(let id): "u.id = \(id)"
        case .name(let name, .id(let domain)): "u.name = \(name) AND d.id = \(domain)"
        case .name(let name, .name(let domain)): "u.name = \(name) AND d.name = \(domain)"
        }
    }

    // MARK: password

    private struct Account: Sendable {
        let id: String
        let hash: String?
        let usable: Bool
        let expired: Bool
        let failedAttempts: Int
        let locked: Bool
        let passwordIsLocked: Bool
    }

    /// - Parameter evenIfExpired: for replacing a password that has expired.
    func provePassword(
        _ user: SignOnRequest.Reference, _ password: Secret<String>, evenIfExpired: Bool = false
    ) async throws -> Proof {
        let account = try await account(user)
        // Always compute exactly one hash, so that the response time does not reveal whether the user exists.
        let right = try await hasher.verify(password, hash: account?.hash, of: "\(user)")
        guard let account else { throw Identity.refused }
        guard right, account.usable, !account.locked, evenIfExpired || !account.expired else {
            if !right, !account.locked { try await noteFailure(account) }
            throw Identity.refused
        }
        if account.failedAttempts > 0 {
            let id = account.id
            try await database.write {
                try $0.execute("UPDATE users SET failed_attempts = 0, failed_at = NULL WHERE id = \(id)")
            }
        }
        return Proof(
            userID: account.id, methods: ["password"], passwordHash: account.hash,
            passwordIsLocked: account.passwordIsLocked)
    }

    private func account(_ user: SignOnRequest.Reference) async throws -> Account? {
        let now = ambient.now
        let options = options
        return try await database.read { connection in
            let rows = try connection.query(
                """
                SELECT u.id, u.password_hash, u.enabled AND d.enabled AS usable, u.failed_attempts, u.failed_at,
                    coalesce(u.password_expires_at <= \(now), false)
                        AND NOT coalesce((u.options ->> 'ignore_password_expiry')::boolean, false) AS expired,
                    coalesce((u.options ->> 'lock_password')::boolean, false) AS password_locked,
                    u.service_user OR coalesce((u.options ->> 'ignore_lockout_failure_attempts')::boolean, false) AS never_locked
                FROM users u JOIN projects d ON d.id = u.domain_id WHERE \(Identity.condition(user: user))
                """)
            guard let row = rows.first else { return nil }
            var locked = false
            if options.lockoutAttempts > 0, try !row.bool("never_locked"), let failedAt = try row.optionalTimestamp("failed_at") {
                locked = try row.int("failed_attempts") >= options.lockoutAttempts && now < failedAt + options.lockoutDuration
            }
            return Account(
                id: try row.string("id"), hash: try row.optionalString("password_hash"), usable: try row.bool("usable"),
                expired: try row.bool("expired"), failedAttempts: try row.int("failed_attempts"), locked: locked,
                passwordIsLocked: try row.bool("password_locked"))
        }
    }

    private func noteFailure(_ account: Account) async throws {
        guard options.lockoutAttempts > 0 else { return }
        let now = ambient.now
        let started = now + .microseconds(-options.lockoutDuration.microseconds)
        try await database.write {
            try $0.execute(
                """
                UPDATE users SET failed_attempts = CASE WHEN failed_at IS NULL OR failed_at < \(started) THEN 1
                    ELSE failed_attempts + 1 END, failed_at = \(now)
                WHERE id = \(account.id)
                """)
        }
    }

    // MARK: token

    private func proveToken(_ token: Secret<String>) async throws -> Proof {
        let caller = try await authenticator.caller(token: token.exposed)
        let payload = caller.token
        var credential: (id: String, projectID: String)?
        if let id = payload.applicationCredentialID, let project = caller.projectID { credential = (id, project) }
        return Proof(
            userID: caller.userID, methods: payload.methods + (payload.methods.contains("token") ? [] : ["token"]),
            chain: payload.auditIDs.last, expiresAt: payload.expiresAt, credential: credential)
    }

    // MARK: application credential

    private func proveCredential(_ condition: SQL, _ secret: Secret<String>) async throws -> Proof {
        let now = ambient.now
        let found = try await database.read { connection -> (proof: Proof, hash: String)? in
            let rows = try connection.query(
                """
                SELECT c.id, c.user_id, c.project_id, c.secret_hash, c.expires_at
                FROM application_credentials c JOIN users u ON u.id = c.user_id JOIN projects d ON d.id = u.domain_id
                WHERE \(condition) AND (c.expires_at IS NULL OR c.expires_at > \(now))
                """)
            guard let row = rows.first else { return nil }
            let proof = Proof(
                userID: try row.string("user_id"), methods: ["application_credential"],
                expiresAt: try row.optionalTimestamp("expires_at"),
                credential: (try row.string("id"), try row.string("project_id")))
            return (proof, try row.string("secret_hash"))
        }
        guard try await hasher.verify(secret, hash: found?.hash), let found else { throw Identity.refused }
        return found.proof
    }
}
