import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// The statements that change users.
extension Identity {
    /// Members of bodies that are not fields.
    private static let userSecrets: Set<String> = ["password", "original_password", "federated"]

    /// - Throws: 400 if the password violates the operator's rule.
    func checkedHash(_ password: String?) async throws -> String? {
        guard let password else { return nil }
        guard password.unicodeScalars.count >= options.passwordLengthMin else {
            throw ResourceError.badRequest(
                "The password does not meet the requirements: it must have \(options.passwordLengthMin) characters or more.")
        }
        return try await hasher.hash(Secret(password))
    }

    func insert(
        _ connection: Connection, user decision: Authorized<JSONObject>, id: String, domain: String, hash: String?
    ) throws {
        let body = try decision.value(for: "identity:create_user")
        let now = ambient.now
        guard try find(connection, project: domain, isDomain: true) != nil else {
            throw Identity.missing("domain", domain)
        }
        var row = Identity.users.new(id, body, beside: Identity.userSecrets)
        row.set("domain_id", domain)
        row.newOptions(body)
        row.set("password_hash", hash)
        row.set("password_set_at", hash == nil ? nil : now)
        try storing("user", body["name"]?.stringValue) { try connection.execute(row.insertion("users", at: now)) }
    }

    func update(
        _ connection: Connection, user decision: Authorized<Found>, _ body: JSONObject, hash: String?
    ) throws {
        let id = try decision.value(for: "identity:update_user").id
        let now = ambient.now
        var changes = Identity.users.changes(body, beside: Identity.userSecrets)
        changes.options(body)
        if body["password"] != nil { Identity.setPassword(&changes, hash: hash, now: now) }
        if body["enabled"]?.boolValue == false, body["password"] == nil { changes.set("tokens_valid_from", now) }
        try storing("user", body["name"]?.stringValue) {
            _ = try changes.apply(connection, "users", id, at: now, isCounted: true, touching: true)
        }
        if body["default_project_id"] != nil { try cloudProjects.mark(connection) }
    }

    /// A new password revokes all tokens that were issued for the old one.
    private static func setPassword(_ changes: inout Changes, hash: String?, now: Timestamp) {
        changes.set("password_hash", hash)
        changes.set("password_set_at", now)
        changes.set("password_expires_at = NULL")
        changes.set("tokens_valid_from", now)
        changes.set("failed_attempts = 0")
        changes.set("failed_at = NULL")
    }

    /// Replaces a password after its owner has proved to know it.
    ///
    /// - Returns: false if the stored hash has changed since it was verified.
    func replacePassword(
        _ connection: Connection, user id: String, provedHash: String, hash: String, requestID: String
    ) throws -> Bool {
        let now = ambient.now
        var changes = Changes()
        Identity.setPassword(&changes, hash: hash, now: now)
        let changed = try changes.apply(
            connection, "users", where: "id = \(id) AND password_hash = \(provedHash)", at: now, isCounted: true)
        guard changed == 1 else { return false }
        try connection.execute(
            """
            INSERT INTO audit_records (at, request_id, user_id, action, resource_type, resource_id)
            VALUES (\(now), \(requestID), \(id), 'identity:change_password', 'user', \(id))
            """)
        return true
    }

    func delete(_ connection: Connection, user decision: Authorized<Found>) throws {
        let id = try decision.value(for: "identity:delete_user").id
        try connection.execute("DELETE FROM users WHERE id = \(id)")
    }
}
