import Authorization
import Database
import IdentityCore
import JSON
import Kernel
import WebAPI

/// The statements about users' access rules.
extension Identity {
    /// - Throws: 404 if the user has no such rule; 403 while an application credential uses it.
    func delete(_ connection: Connection, accessRule id: String, of decision: Authorized<Found>) throws {
        let user = try decision.value(for: "identity:delete_access_rule").id
        try lockRules(connection, of: user)
        let used = try connection.query(
            """
            SELECT name FROM application_credentials
            WHERE user_id = \(user) AND access_rules @> jsonb_build_array(jsonb_build_object('id', \(id)::text)) LIMIT 1
            """)
        if let credential = try used.first?.string("name") {
            throw ResourceError.forbidden(
                "The access rule \(id.prefix(64)) is in use by the application credential \(credential). Delete that first.")
        }
        let removed = try connection.execute("DELETE FROM access_rules WHERE id = \(id) AND user_id = \(user)")
        guard removed == 1 else { throw Identity.missing("access rule", id) }
    }

    /// Locks the user's rules, so that a rule is not deleted while a new credential starts to use it, or created twice.
    private func lockRules(_ connection: Connection, of user: String) throws {
        try connection.query("SELECT id FROM users WHERE id = \(user) FOR NO KEY UPDATE")
    }

    /// The access rules of a new credential, stored for its user: the requested ones, or those of the credential that creates it;
    /// nil for none.
    ///
    /// - Throws: 400 for a rule that is incomplete or unknown; 403 for one that allows more than the creator's rules.
    func accessRules(
        _ connection: Connection, _ body: JSONObject, user: String, _ limits: CredentialLimits
    ) throws -> JSONValue? {
        let asked = body["access_rules"]?.arrayValue ?? []
        if !asked.isEmpty || limits.accessRules != nil { try lockRules(connection, of: user) }
        if asked.isEmpty {
            return try limits.accessRules.map { .array(try $0.map { try stored(connection, $0, user: user) }) }
        }
        let rules = try asked.map { rule -> (rule: AccessRule, json: JSONValue) in
            if let complete = AccessRule(rule) { return (complete, try stored(connection, complete, user: user)) }
            guard let id = rule["id"]?.stringValue, rule["service"] == nil, rule["path"] == nil, rule["method"] == nil else {
                throw ResourceError.badRequest(
                    """
                    Invalid input for field/attribute access_rules. Each rule needs service, path and method, or \
                    the id of an existing rule alone.
                    """
                )
            }
            let row = try connection.query(
                "SELECT id, service, path, method FROM access_rules WHERE id = \(id) AND user_id = \(user)"
            ).first
            guard let row else {
                throw ResourceError.badRequest("Invalid input for field/attribute access_rules. Could not find access rule: \(id).")
            }
            let json = try Identity.show(row)
            guard let found = AccessRule(json) else { throw ResourceError.internalError("access rule \(id) is incomplete") }
            return (found, json)
        }
        try limits.check(rules.map(\.rule))
        return .array(rules.map(\.json))
    }

    /// The user's equivalent rule, created if there is none.
    private func stored(_ connection: Connection, _ rule: AccessRule, user: String) throws -> JSONValue {
        let found = try connection.query(
            """
            SELECT id, service, path, method FROM access_rules
            WHERE user_id = \(user) AND service = \(rule.service) AND method = \(rule.method) AND path = \(rule.path)
            ORDER BY created_at, id LIMIT 1
            """)
        if let row = found.first { return try Identity.show(row) }
        let id = newID()
        let row: Changes = [
            "id": "\(id)", "user_id": "\(user)", "service": "\(rule.service)", "method": "\(rule.method)", "path": "\(rule.path)",
        ]
        try connection.execute(row.insertion("access_rules", at: ambient.now, isUpdated: false))
        return ["id": .string(id), "service": .string(rule.service), "path": .string(rule.path), "method": .string(rule.method)]
    }

    private static func show(_ row: Row) throws -> JSONValue {
        [
            "id": .string(try row.string("id")), "service": .string(try row.string("service")),
            "path": .string(try row.string("path")), "method": .string(try row.string("method")),
        ]
    }
}
