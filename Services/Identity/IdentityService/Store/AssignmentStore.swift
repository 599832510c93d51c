import Authorization
import Database
import Kernel
import WebAPI

extension Identity.Assignment {
    /// The condition on `role_assignments a`, without the role.
    var condition: SQL {
        let place: SQL =
            switch target {
            case .project: "a.project_id = \(targetID)"
            case .domain: "a.domain_id = \(targetID)"
            case .system: "a.system"
            }
        let who: SQL = actor == .user ? "a.user_id = \(actorID)" : "a.group_id = \(actorID)"
        return "\(who) AND \(place) AND a.inherited = \(inherited)"
    }
}

/// The statements about role assignments.
extension Identity {
    func exists(_ connection: Connection, _ assignment: Assignment) throws -> Bool {
        try !connection.query(
            "SELECT a.role_id FROM role_assignments a WHERE \(assignment.condition) AND a.role_id = \(assignment.roleID)"
        ).isEmpty
    }

    /// Assigns a role. Marks projects that this turns into operators' projects, and confirms an administrator's assignment there.
    func insert(_ connection: Connection, assignment decision: Authorized<Assignment>) throws {
        let assignment = try decision.value(
            for: "identity:create_grant", "identity:create_system_grant_for_user", "identity:create_system_grant_for_group")
        try storing("role assignment", assignment.roleID) {
            try connection.execute(
                """
                INSERT INTO role_assignments
                    (role_id, user_id, group_id, project_id, domain_id, system, inherited, created_at)
                VALUES (\(assignment.roleID), \(assignment.userID), \(assignment.groupID), \(assignment.projectID),
                    \(assignment.domainID), \(assignment.target == .system), \(assignment.inherited), \(ambient.now))
                ON CONFLICT DO NOTHING
                """)
        }
        try cloudProjects.mark(connection)
        guard decision.caller.isAdmin else { return }
        try cloudProjects.confirm(connection, where: "a.role_id = \(assignment.roleID) AND \(assignment.condition)")
    }

    /// - Returns: whether there was such an assignment.
    func delete(_ connection: Connection, assignment decision: Authorized<Assignment>) throws -> Bool {
        let assignment = try decision.value(
            for: "identity:revoke_grant", "identity:revoke_system_grant_for_user", "identity:revoke_system_grant_for_group")
        return try connection.execute(
            "DELETE FROM role_assignments a WHERE \(assignment.condition) AND a.role_id = \(assignment.roleID)") == 1
    }

    // MARK: lists

    /// Assignments as they are stored.
    private static let storedAssignments: SQL = """
        SELECT a.role_id, a.user_id, a.group_id, a.project_id, a.domain_id, a.system, a.inherited
        FROM role_assignments a
        """

    /// Effective assignments: groups expanded to members, inherited assignments to all projects below, and implied roles.
    /// Domain-specific roles only count through the roles that they imply, as in tokens.
    private static let effectiveAssignments: SQL = """
        WITH RECURSIVE mine AS (
            SELECT a.role_id, coalesce(a.user_id, m.user_id) AS user_id, a.project_id, a.domain_id, a.system, a.inherited
            FROM role_assignments a LEFT JOIN group_members m ON m.group_id = a.group_id
            WHERE coalesce(a.user_id, m.user_id) IS NOT NULL
        ), below AS (
            SELECT m.role_id, m.user_id, p.id AS project_id
            FROM mine m JOIN projects p ON p.parent_id = coalesce(m.project_id, m.domain_id) WHERE m.inherited
            UNION
            SELECT b.role_id, b.user_id, p.id FROM below b JOIN projects p ON p.parent_id = b.project_id
        ), effective AS (
            SELECT role_id, user_id, project_id, domain_id, system FROM mine WHERE NOT inherited
            UNION
            SELECT role_id, user_id, project_id, NULL, false FROM below
            UNION
            SELECT i.implied_role_id, e.user_id, e.project_id, e.domain_id, e.system
            FROM effective e JOIN implied_roles i ON i.prior_role_id = e.role_id)
        SELECT role_id, user_id, NULL::text AS group_id, project_id, domain_id, system, false AS inherited
        FROM effective WHERE role_id NOT IN (SELECT id FROM roles WHERE domain_id IS NOT NULL)
        """

    /// The assignments that match all of `conditions`, which are on `x`, with the names of the resources they refer to.
    static func assignments(_ connection: Connection, effective: Bool, where conditions: [SQL]) throws -> Rows {
        let source = effective ? effectiveAssignments : storedAssignments
        let condition = SQL.joined(conditions.isEmpty ? ["true"] : conditions, separator: " AND ")
        return try connection.query(
            """
            SELECT x.*, r.name AS role_name, r.domain_id AS role_domain_id, rd.name AS role_domain_name,
                u.name AS user_name, u.domain_id AS user_domain_id, ud.name AS user_domain_name,
                g.name AS group_name, g.domain_id AS group_domain_id, gd.name AS group_domain_name,
                p.name AS project_name, p.domain_id AS project_domain_id, pd.name AS project_domain_name,
                d.name AS domain_name
            FROM (\(source)) x JOIN roles r ON r.id = x.role_id LEFT JOIN projects rd ON rd.id = r.domain_id
                LEFT JOIN users u ON u.id = x.user_id LEFT JOIN projects ud ON ud.id = u.domain_id
                LEFT JOIN groups g ON g.id = x.group_id LEFT JOIN projects gd ON gd.id = g.domain_id
                LEFT JOIN projects p ON p.id = x.project_id LEFT JOIN projects pd ON pd.id = p.domain_id
                LEFT JOIN projects d ON d.id = x.domain_id
            WHERE \(condition)
            ORDER BY x.user_id, x.group_id, x.project_id, x.domain_id, x.role_id, x.inherited LIMIT 10000
            """)
    }

    /// `?effective` counts as true, `?effective=0` does not.
    static func isSet(_ query: Query, _ name: String) -> Bool {
        query[name].map { $0.isEmpty || BodySchema.boolean($0) != false } ?? false
    }

    /// - Parameter domain: the only domain whose assignments are listed, with those of its projects; nil for all.
    static func assignmentConditions(_ query: Query, domain: String?) throws -> [SQL] {
        var conditions: [SQL] = []
        if let domain {
            conditions.append("(x.domain_id = \(domain) OR x.project_id IN (SELECT p.id FROM projects p WHERE p.domain_id = \(domain)))")
        }
        for (name, value) in query.items {
            switch name {
            case "user.id": conditions.append("x.user_id = \(value)")
            case "group.id": conditions.append("x.group_id = \(value)")
            case "role.id": conditions.append("x.role_id = \(value)")
            case "scope.domain.id": conditions.append("x.domain_id = \(value)")
            case "scope.system": conditions.append("x.system")
            case "scope.OS-INHERIT:inherited_to":
                guard value == "projects" else {
                    throw ResourceError.badRequest("Invalid input for query parameter \(name). It must be projects.")
                }
                conditions.append("x.inherited")
            case "scope.project.id" where isSet(query, "include_subtree"):
                conditions.append(
                    """
                    x.project_id IN (WITH RECURSIVE down AS (
                        SELECT \(value)::text AS id
                        UNION SELECT p.id FROM projects p JOIN down ON p.parent_id = down.id) SELECT id FROM down)
                    """)
            case "scope.project.id": conditions.append("x.project_id = \(value)")
            case "limit", "marker":
                throw ResourceError.badRequest("Invalid query parameter '\(name)': this list does not come in pages; filter it.")
            default: break
            }
        }
        return conditions
    }
}
