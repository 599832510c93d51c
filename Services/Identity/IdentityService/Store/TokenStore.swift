import Authorization
import Database
import Kernel
import WebAPI

/// The statements about tokens. Tokens are signed and not stored; the database only contains revocations.
extension Identity {
    /// - Returns: the audit id of the token.
    func revoke(_ connection: Connection, token decision: Authorized<TokenPayload>) throws -> String {
        let payload = try decision.value(for: "identity:revoke_token")
        guard let audit = payload.auditIDs.first else { throw ResourceError.internalError("a token without audit id") }
        try connection.execute(
            """
            INSERT INTO token_revocations (audit_id, expires_at, created_at)
            VALUES (\(audit), \(payload.expiresAt), \(ambient.now)) ON CONFLICT DO NOTHING
            """)
        return audit
    }

    func hasSystemRole(_ connection: Connection, _ user: String) throws -> Bool {
        try !connection.query("SELECT 1 AS one FROM effective_roles(\(user), NULL, NULL, true) LIMIT 1").isEmpty
    }
}
