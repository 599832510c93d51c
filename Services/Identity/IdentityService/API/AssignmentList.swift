import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// `GET /v3/role_assignments`
extension Identity {
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

    func listAssignments(_ context: RequestContext) async throws -> Response {
        let own = try context.caller.domainID
        try context.authorize(target: ["target.domain_id": own])
        let query = context.query
        let effective = Identity.isSet(query, "effective")
        let names = Identity.isSet(query, "include_names")
        if effective, query["group.id"] != nil {
            throw ResourceError.badRequest("Combining effective and group filter will always result in an empty list.")
        }
        var conditions = try Identity.assignmentConditions(query)
        if let own {
            conditions.append("(x.domain_id = \(own) OR x.project_id IN (SELECT p.id FROM projects p WHERE p.domain_id = \(own)))")
        }
        let source = effective ? Identity.effectiveAssignments : Identity.storedAssignments
        let condition = SQL.joined(conditions.isEmpty ? ["true"] : conditions, separator: " AND ")
        return try await database.read { connection in
            let rows = try connection.query(
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
            let list = try rows.map { try Identity.assignment($0, names: names, context) }
            return .json(
                200,
                [
                    "role_assignments": .array(list),
                    "links": ["self": .string(context.selfLink), "next": nil, "previous": nil],
                ])
        }
    }

    /// `?effective` counts as true, `?effective=0` does not.
    private static func isSet(_ query: Query, _ name: String) -> Bool {
        query[name].map { $0.isEmpty || BodySchema.boolean($0) != false } ?? false
    }

    private static func assignmentConditions(_ query: Query) throws -> [SQL] {
        var conditions: [SQL] = []
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

    private static func assignment(_ row: Row, names: Bool, _ context: RequestContext) throws -> JSONValue {
        func entity(_ kind: String) throws -> JSONValue? {
            guard let id = try row.optionalString(kind + "_id") else { return nil }
            var object: JSONObject = ["id": .string(id)]
            if names {
                object["name"] = JSONValue(try row.optionalString(kind + "_name"))
                if kind != "domain" {
                    let domain = try row.optionalString(kind + "_domain_id")
                    object["domain"] =
                        try domain.map {
                            ["id": .string($0), "name": JSONValue(try row.optionalString(kind + "_domain_name"))]
                        } ?? (kind == "role" ? nil : .null)
                }
            }
            return .object(object)
        }
        var scope = JSONObject()
        var path = "/v3"
        let inherited = try row.bool("inherited")
        if inherited {
            scope["OS-INHERIT:inherited_to"] = "projects"
            path += "/OS-INHERIT"
        }
        if let project = try entity("project") {
            scope["project"] = project
            path += "/projects/\(try row.string("project_id"))"
        } else if let domain = try entity("domain") {
            scope["domain"] = domain
            path += "/domains/\(try row.string("domain_id"))"
        } else {
            scope["system"] = ["all": true]
            path += "/system"
        }
        var object: JSONObject = ["scope": .object(scope), "role": try entity("role") ?? .null]
        if let user = try entity("user") {
            object["user"] = user
            path += "/users/\(try row.string("user_id"))"
        } else if let group = try entity("group") {
            object["group"] = group
            path += "/groups/\(try row.string("group_id"))"
        }
        path += "/roles/\(try row.string("role_id"))" + (inherited ? "/inherited_to_projects" : "")
        object["links"] = ["assignment": .string(context.publicURL + path)]
        return .object(object)
    }
}
