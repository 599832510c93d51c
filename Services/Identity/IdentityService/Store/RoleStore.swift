import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// The statements about roles and implied roles.
extension Identity {
    /// - Throws: 400 for a domain that does not exist; 409 for a name that is taken.
    func insert(_ connection: Connection, role decision: Authorized<JSONObject>, id: String) throws {
        let body = try decision.value(for: "identity:create_role")
        let domain = body["domain_id"]?.stringValue
        if let domain, try find(connection, project: domain, isDomain: true) == nil {
            throw ResourceError.badRequest("Could not find domain: \(domain.prefix(64)).")
        }
        var row = Identity.roles.new(id, body)
        row.set("domain_id", domain)
        row.newOptions(body)
        try storing("role", body["name"]?.stringValue) { try connection.execute(row.insertion("roles", at: ambient.now)) }
    }

    func update(_ connection: Connection, role decision: Authorized<Found>, _ body: JSONObject) throws {
        let id = try decision.value(for: "identity:update_role").id
        var changes = Identity.roles.changes(body)
        changes.options(body)
        try storing("role", body["name"]?.stringValue) {
            try changes.apply(connection, "roles", id, at: ambient.now, touching: true)
        }
        // The role's new name may be that of an operators' role.
        try cloudProjects.mark(connection)
    }

    func delete(_ connection: Connection, role decision: Authorized<Found>) throws {
        let id = try decision.value(for: "identity:delete_role").id
        try connection.execute("DELETE FROM roles WHERE id = \(id)")
    }

    // MARK: implied roles

    /// Pairs of prior and implied roles. The condition is on `p` and `i`.
    static func inferences(_ connection: Connection, where condition: SQL) throws -> Rows {
        try connection.query(
            """
            SELECT p.id AS prior_id, p.name AS prior_name, i.id AS implied_id, i.name AS implied_name
            FROM implied_roles r JOIN roles p ON p.id = r.prior_role_id JOIN roles i ON i.id = r.implied_role_id
            WHERE \(condition) ORDER BY p.id, i.id
            """)
    }

    /// - Throws: 404, 403 or 400 if the one role cannot imply the other.
    func imply(_ connection: Connection, prior decision: Authorized<Found>, implied id: String) throws {
        let role = try decision.value(for: "identity:create_implied_role").id
        guard let implied = try find(connection, role: id) else { throw Identity.missing("role", id) }
        let prior = try find(connection, role: role)
        guard implied.domainID == nil || prior?.domainID != nil else {
            throw ResourceError.forbidden("The role \(role) is global and cannot imply the domain specific role \(id).")
        }
        guard implied.name != "admin" else { throw ResourceError.forbidden("The role admin cannot be implied.") }
        guard implied.id != role else { throw ResourceError.badRequest("A role cannot imply itself.") }
        try storing("implied role", id) {
            try connection.execute(
                "INSERT INTO implied_roles (prior_role_id, implied_role_id) VALUES (\(role), \(id)) ON CONFLICT DO NOTHING")
        }
        try cloudProjects.mark(connection)
    }

    /// - Returns: whether the one implied the other.
    func unimply(_ connection: Connection, prior decision: Authorized<Found>, implied id: String) throws -> Bool {
        let role = try decision.value(for: "identity:delete_implied_role").id
        return try connection.execute("DELETE FROM implied_roles WHERE prior_role_id = \(role) AND implied_role_id = \(id)") == 1
    }
}
