import Authorization
import Database
import IdentityCore
import JSON
import Kernel
import WebAPI

/// Access rules belong to a user; application credentials use them, and rules stay when a credential is deleted.
extension Identity {
    private static let accessRules = ResourceKind.identity(
        "access_rule",
        Table(
            "access_rules t",
            fields: [Field("id"), Field("service", sortable: true), Field("path", sortable: true), Field("method", sortable: true)])
    ) { "/v3/users/\(Query.encode($0.parameter("user_id")))/access_rules" }

    private static func show(_ row: Row) throws -> JSONValue {
        [
            "id": .string(try row.string("id")), "service": .string(try row.string("service")),
            "path": .string(try row.string("path")), "method": .string(try row.string("method")),
        ]
    }

    func listRules(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context).value.id
        let conditions = try context.conditions(texts: ["service": "t.service", "path": "t.path", "method": "t.method"])
        return try await database.read { try Identity.accessRules.list($0, context, where: conditions + ["t.user_id = \(user)"]) }
    }

    func showRule(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context).value.id
        let id = context.parameter("rule_id")
        return try await database.read {
            try Identity.accessRules.one($0, context, where: "t.id = \(id) AND t.user_id = \(user)", id: id)
        }
    }

    func deleteRule(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context).value(for: "identity:delete_access_rule").id
        try await requireMayManage(try context.caller)
        let id = context.parameter("rule_id")
        return try await context.write(database) { connection in
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
            return Change(.empty(), "access_rule", id)
        }
    }

    /// Locks the user's rules, so that a rule is not deleted while a new credential starts to use it, or created twice.
    private func lockRules(_ connection: Connection, of user: String) throws {
        try connection.query("SELECT id FROM users WHERE id = \(user) FOR NO KEY UPDATE")
    }

    /// The access rules of a new credential, stored for its user: those asked for, or those of the credential that
    /// makes it; nil for none.
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
                    "Invalid input for field/attribute access_rules. Each rule needs service, path and method, or the id of an existing rule alone."
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
        try connection.execute(
            """
            INSERT INTO access_rules (id, user_id, service, method, path, created_at)
            VALUES (\(id), \(user), \(rule.service), \(rule.method), \(rule.path), \(ambient.now))
            """)
        return ["id": .string(id), "service": .string(rule.service), "path": .string(rule.path), "method": .string(rule.method)]
    }
}
