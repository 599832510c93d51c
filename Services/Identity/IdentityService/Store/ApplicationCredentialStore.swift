import Authorization
import Database
import IdentityCore
import JSON
import Kernel
import WebAPI

/// The statements about application credentials.
extension Identity {
    /// The attributes of a new credential.
    struct NewCredential: Sendable {
        let id: String
        let project: String
        let secretHash: String
        let expiresAt: Timestamp?
        let body: JSONObject
        let caller: Caller
    }

    /// A restricted credential must not create or delete credentials; otherwise a leaked one could not be revoked
    /// effectively.
    func requireMayManage(_ caller: Caller) async throws {
        guard let id = caller.token.applicationCredentialID else { return }
        let unrestricted = try await database.read {
            try $0.query("SELECT unrestricted FROM application_credentials WHERE id = \(id)").first?.bool("unrestricted") ?? false
        }
        guard unrestricted else { throw Identity.mayNotManage }
    }

    private static let mayNotManage = ResourceError.forbidden(
        "Using method 'application_credential' is not allowed for managing additional application credentials.")

    /// Upper limits of a credential created by this caller. Locks the caller's own credential until the transaction ends.
    private func limits(_ connection: Connection, _ caller: Caller) throws -> CredentialLimits {
        guard let id = caller.token.applicationCredentialID else { return CredentialLimits(expiresAt: nil, accessRules: nil) }
        let rows = try connection.query(
            "SELECT unrestricted, expires_at, access_rules FROM application_credentials WHERE id = \(id) FOR SHARE")
        guard let own = rows.first, try own.bool("unrestricted") else { throw Identity.mayNotManage }
        let rules = try own.optionalJSON("access_rules")?.arrayValue
        return CredentialLimits(
            expiresAt: try own.optionalTimestamp("expires_at"), accessRules: rules?.compactMap { AccessRule($0) })
    }

    func insert(_ connection: Connection, credential new: NewCredential, of decision: Authorized<Found>) throws {
        let user = try decision.value(for: "identity:create_application_credential").id
        let body = new.body
        let name = body["name"]?.stringValue
        let limits = try limits(connection, new.caller)
        let rules = try accessRules(connection, body, user: user, limits)
        let expiresAt = try limits.expiry(asked: new.expiresAt)
        let row: Changes = [
            "id": "\(new.id)", "user_id": "\(user)", "project_id": "\(new.project)", "name": "\(name)", "secret_hash": "\(new.secretHash)",
            "description": "\(body["description"]?.stringValue)", "unrestricted": "\(body["unrestricted"]?.boolValue ?? false)",
            "expires_at": "\(expiresAt)", "access_rules": "\(rules)::jsonb",
        ]
        try storing("application_credential", name) {
            try connection.execute(row.insertion("application_credentials", at: ambient.now, isUpdated: false))
        }
        for role in try roles(body, held: new.caller.roles) {
            try connection.execute(
                """
                INSERT INTO application_credential_roles (application_credential_id, role_id) VALUES (\(new.id), \
                \(role)) ON CONFLICT DO NOTHING
                """
            )
        }
    }

    /// The ids of the requested roles; all roles of the token if none are named.
    private func roles(_ body: JSONObject, held: [RoleReference]) throws -> [String] {
        guard let asked = body["roles"]?.arrayValue, !asked.isEmpty else { return held.map(\.id) }
        return try asked.map { role in
            let found = held.first {
                role["id"]?.stringValue == $0.id || (role["id"] == nil && role["name"]?.stringValue == $0.name)
            }
            guard let found else {
                throw ResourceError.badRequest(
                    """
                    Invalid application credential: Could not find role assignment with role: \
                    \(role["id"]?.stringValue ?? role["name"]?.stringValue ?? "").
                    """
                )
            }
            return found.id
        }
    }

    /// - Throws: 404 if the user has no such credential.
    func delete(_ connection: Connection, credential id: String, of decision: Authorized<Found>) throws {
        let user = try decision.value(for: "identity:delete_application_credential").id
        let removed = try connection.execute("DELETE FROM application_credentials WHERE id = \(id) AND user_id = \(user)")
        guard removed == 1 else { throw Identity.missing("application credential", id) }
    }
}
