import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// The statements that change projects and domains.
extension Identity {
    static let projectMembers: Set<String> = [
        "id", "name", "domain_id", "parent_id", "is_domain", "description", "enabled", "tags", "options",
    ]

    /// Projects below one another, the domain not counted.
    static let projectDepthMax = 5

    /// Where a new project is to stand.
    struct ProjectPlace: Sendable {
        let domainID: String?
        let parentID: String?
        var isDomain: Bool { domainID == nil }
    }

    /// Works out domain and parent of a new project from its body and the token.
    ///
    /// - Throws: 400 where they do not fit together or do not exist; 403 below a disabled project or too deep.
    func place(_ connection: Connection, _ body: JSONObject, fallback: String) throws -> ProjectPlace {
        if body["is_domain"]?.boolValue == true {
            guard body["parent_id"]?.stringValue == nil, body["domain_id"]?.stringValue == nil else {
                throw ResourceError.badRequest("A project that acts as a domain has neither domain_id nor parent_id.")
            }
            return ProjectPlace(domainID: nil, parentID: nil)
        }
        let named = body["parent_id"]?.stringValue ?? body["domain_id"]?.stringValue ?? fallback
        let rows = try connection.query("SELECT id, coalesce(domain_id, id) AS domain_id FROM projects WHERE id = \(named) FOR SHARE")
        guard let parent = rows.first else {
            throw ResourceError.badRequest("Could not find the parent project or domain: \(named.prefix(64)).")
        }
        let domain = try parent.string("domain_id")
        if let asked = body["domain_id"]?.stringValue, asked != domain {
            throw ResourceError.badRequest("The parent project \(named) is not in the domain \(asked.prefix(64)).")
        }
        let above = try connection.query(
            """
            SELECT count(*) AS depth, bool_and(p.enabled) AS enabled
            FROM project_ancestors(\(named)) a JOIN projects p ON p.id = a.id
            """)[0]
        guard try above.bool("enabled") else {
            throw ResourceError.forbidden("Cannot create a project in a branch that contains a disabled project: \(named).")
        }
        guard try above.int("depth") <= Identity.projectDepthMax else {
            throw ResourceError.forbidden("Max hierarchy depth reached for the branch of \(named): at most \(Identity.projectDepthMax).")
        }
        return ProjectPlace(domainID: domain, parentID: named)
    }

    func insert(
        _ connection: Connection, project decision: Authorized<JSONObject>, id: String, _ place: ProjectPlace
    ) throws {
        let body = try decision.value(for: "identity:create_project", "identity:create_domain")
        let now = ambient.now
        let name = body["name"]?.stringValue
        let options = JSONObject(
            (body["options"]?.objectValue ?? JSONObject()).members.filter { !$0.value.isNull }.map { ($0.name, $0.value) })
        let kind = place.isDomain ? "domain" : "project"
        try storing(kind, name) {
            try connection.execute(
                """
                INSERT INTO projects (id, name, domain_id, parent_id, is_domain, description, enabled, options, extra,
                    created_at, updated_at)
                VALUES (\(id), \(name), \(place.domainID), \(place.parentID), \(place.isDomain),
                    \(body["description"]?.stringValue ?? ""), \(body["enabled"]?.boolValue ?? true), \(options)::jsonb,
                    \(body.extra(beside: Identity.projectMembers))::jsonb, \(now), \(now))
                """)
        }
        if let tags = body["tags"]?.arrayValue { try setTags(connection, id, tags.compactMap(\.stringValue)) }
    }

    func update(_ connection: Connection, project decision: Authorized<Found>, _ body: JSONObject, isDomain: Bool) throws {
        let id = try decision.value(for: "identity:update_project", "identity:update_domain").id
        let now = ambient.now
        var changes = Changes()
        if body["name"] != nil { changes.text(body, "name") }
        changes.text(body, "description")
        changes.flag(body, "enabled")
        changes.options(body)
        changes.extra(body, beside: Identity.projectMembers)
        if let enabled = body["enabled"]?.boolValue {
            try checkSwitch(connection, id, enabled: enabled, isDomain: isDomain)
            if !enabled { changes.set("tokens_valid_from", now) }
        }
        try storing(isDomain ? "domain" : "project", body["name"]?.stringValue) {
            _ = try changes.apply(connection, "projects", id, at: now, isCounted: true, touching: true)
        }
        if let tags = body["tags"]?.arrayValue { try setTags(connection, id, tags.compactMap(\.stringValue)) }
    }

    /// Keystone's rules: no enabled project below a disabled one. A domain may be disabled with all that it has.
    private func checkSwitch(_ connection: Connection, _ id: String, enabled: Bool, isDomain: Bool) throws {
        if isDomain { return }
        if enabled {
            let disabled = try connection.query(
                """
                SELECT p.id FROM project_ancestors(\(id)) a JOIN projects p ON p.id = a.id
                WHERE p.id <> \(id) AND NOT p.enabled AND NOT p.is_domain
                """)
            guard disabled.isEmpty else {
                throw ResourceError.forbidden("Cannot enable project \(id) since it has disabled parents.")
            }
            return
        }
        let below = try connection.query(
            """
            WITH RECURSIVE down AS (
                SELECT p.id, p.enabled FROM projects p WHERE p.parent_id = \(id)
                UNION ALL SELECT p.id, p.enabled FROM projects p JOIN down d ON p.parent_id = d.id)
            SELECT id FROM down WHERE enabled LIMIT 1
            """)
        guard below.isEmpty else {
            throw ResourceError.forbidden("Cannot disable project \(id) since its subtree contains enabled projects.")
        }
    }

    func setTags(_ connection: Connection, _ project: String, _ tags: [String]) throws {
        try connection.execute("DELETE FROM project_tags WHERE project_id = \(project)")
        try connection.execute(
            "INSERT INTO project_tags (project_id, tag) SELECT \(project), t FROM unnest(\(tags)::text[]) AS t ON CONFLICT DO NOTHING")
    }

    /// Deletes a project that has none below it. What other services keep for the project stays there, as in OpenStack.
    func delete(_ connection: Connection, project decision: Authorized<Found>) throws {
        let id = try decision.value(for: "identity:delete_project").id
        // Prevents a child project from being created concurrently.
        try connection.query("SELECT id FROM projects WHERE id = \(id) FOR UPDATE")
        guard try connection.query("SELECT id FROM projects WHERE parent_id = \(id) LIMIT 1").isEmpty else {
            throw ResourceError.forbidden("Cannot delete the project \(id) since it is not a leaf in the hierarchy.")
        }
        try connection.execute("DELETE FROM projects WHERE id = \(id) AND NOT is_domain")
    }

    /// Deletes a disabled domain with its users, groups, roles and projects.
    func delete(_ connection: Connection, domain decision: Authorized<Found>) throws {
        // A domain is also deleted as the project that it is.
        let id = try decision.value(for: "identity:delete_domain", "identity:delete_project").id
        let rows = try connection.query("SELECT enabled FROM projects WHERE id = \(id) FOR UPDATE")
        guard try rows.first?.bool("enabled") == false else {
            throw ResourceError.forbidden("Cannot delete a domain that is enabled, please disable it first.")
        }
        guard id != "default" else { throw ResourceError.forbidden("The domain 'default' cannot be deleted.") }
        try connection.execute("DELETE FROM users WHERE domain_id = \(id)")
        try connection.execute("DELETE FROM groups WHERE domain_id = \(id)")
        // A single statement, because references among the rows are checked at its end.
        try connection.execute("DELETE FROM projects WHERE id = \(id) OR domain_id = \(id)")
    }
}
