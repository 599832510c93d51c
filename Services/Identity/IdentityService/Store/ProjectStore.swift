import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// The statements that change projects and domains.
extension Identity {
    /// The maximum number of tags of a project.
    static let tagsMax = 80

    /// The maximum depth of nested projects, not counting the domain.
    static let projectDepthMax = 5

    /// The place of a new project in the hierarchy.
    struct ProjectPlace: Sendable {
        let domainID: String?
        let parentID: String?
        var isDomain: Bool { domainID == nil }
    }

    /// Determines domain and parent of a new project from its body and the token.
    ///
    /// - Throws: 400 if they contradict each other or do not exist; 403 below a disabled project or too deep in the hierarchy.
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

    /// Creates a project or domain. Marks a project that inherits an operators' role.
    func insert(
        _ connection: Connection, project decision: Authorized<JSONObject>, id: String, _ place: ProjectPlace
    ) throws {
        let body = try decision.value(for: "identity:create_project", "identity:create_domain")
        var row = Identity.projects.new(id, body)
        row.set("domain_id", place.domainID)
        row.set("parent_id", place.parentID)
        row.set("is_domain", place.isDomain)
        row.newOptions(body)
        let statement = row.insertion("projects", at: ambient.now)
        try storing(place.isDomain ? "domain" : "project", body["name"]?.stringValue) { try connection.execute(statement) }
        try setTags(connection, id, body)
        if !place.isDomain { try cloudProjects.mark(connection) }
    }

    /// Sets or removes the mark of an operators' project.
    ///
    /// - Throws: 409 if the project is an operators' project even without the mark.
    func set(_ connection: Connection, cloudProject decision: Authorized<Bool>, of id: String) throws {
        if try decision.value(for: "identity:set_cloud_project") {
            try cloudProjects.mark(connection, also: "p.id = \(id)")
        } else {
            try cloudProjects.unmark(connection, id)
        }
    }

    func update(_ connection: Connection, project decision: Authorized<Found>, _ body: JSONObject, isDomain: Bool) throws {
        let id = try decision.value(for: "identity:update_project", "identity:update_domain").id
        let now = ambient.now
        var changes = Identity.projects.changes(body)
        changes.options(body)
        if let enabled = body["enabled"]?.boolValue {
            try checkSwitch(connection, id, enabled: enabled, isDomain: isDomain)
            if !enabled { changes.set("tokens_valid_from", now) }
        }
        try storing(isDomain ? "domain" : "project", body["name"]?.stringValue) {
            _ = try changes.apply(connection, "projects", id, at: now, isCounted: true, touching: true)
        }
        try setTags(connection, id, body)
    }

    /// The attributes of a project that never change: its place in the hierarchy.
    ///
    /// - Throws: 404 if it was deleted; 400 and 403 for a body with another place.
    func requireSamePlace(_ connection: Connection, project id: String, _ body: JSONObject) throws -> ProjectPlace {
        let rows = try connection.query("SELECT domain_id, parent_id, is_domain FROM projects WHERE id = \(id) FOR UPDATE")
        guard let row = rows.first else { throw Identity.missing("project", id) }
        for (name, code) in [("domain_id", ResourceError.Code.badRequest), ("parent_id", .forbidden)] {
            if let asked = body[name]?.stringValue, try asked != row.optionalString(name) {
                throw ResourceError(
                    code, "Invalid input for field/attribute \(name). Value: \(asked.prefix(64)). It cannot be changed.")
            }
        }
        if let asked = body["is_domain"]?.boolValue, try asked != row.bool("is_domain") {
            throw ResourceError.badRequest("Invalid input for field/attribute is_domain. It cannot be changed.")
        }
        return ProjectPlace(domainID: try row.optionalString("domain_id"), parentID: try row.optionalString("parent_id"))
    }

    /// The ancestors of a project, each nested in its child, as in Keystone.
    func parents(_ connection: Connection, of id: String) throws -> JSONValue {
        var chain = JSONValue.null
        let rows = try connection.query(
            """
            WITH RECURSIVE up AS (
                SELECT p.parent_id AS id, 1 AS depth FROM projects p WHERE p.id = \(id)
                UNION ALL SELECT p.parent_id, u.depth + 1 FROM projects p JOIN up u ON p.id = u.id)
            SELECT id FROM up WHERE id IS NOT NULL ORDER BY depth DESC
            """)
        for row in rows { chain = .object([try row.string("id"): chain]) }
        return chain
    }

    /// The descendants of a project, in the same form.
    func subtree(_ connection: Connection, of id: String, depth: Int = 0) throws -> JSONValue {
        guard depth <= Identity.projectDepthMax else { return .null }
        let children = try connection.query("SELECT id FROM projects WHERE parent_id = \(id) ORDER BY id").map { try $0.string("id") }
        if children.isEmpty { return .null }
        var object = JSONObject()
        for child in children { object[child] = try subtree(connection, of: child, depth: depth + 1) }
        return .object(object)
    }

    /// Keystone's rules: no enabled project below a disabled one. A domain may be disabled together with its content.
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

    /// The project's tags in order.
    ///
    /// - Parameter lock: whether the project is locked, because two changes of its tags would otherwise not see one another.
    /// - Throws: 404 if the project is locked and was deleted.
    func tags(_ connection: Connection, of project: String, lock: Bool = false) throws -> [String] {
        if lock, try connection.query("SELECT 1 AS one FROM projects WHERE id = \(project) FOR NO KEY UPDATE").isEmpty {
            throw Identity.missing("project", project)
        }
        return try connection.query("SELECT tag FROM project_tags WHERE project_id = \(project) ORDER BY tag").map { try $0.string("tag") }
    }

    /// - Throws: 400 for a tag that cannot be used in filters or paths.
    static func check(tags: [String]) throws {
        for tag in tags where !(1...255).contains(tag.unicodeScalars.count) || tag.contains(",") || tag.contains("/") {
            throw ResourceError.badRequest(
                """
                Invalid input for field/attribute tag. Value: \(tag.prefix(64)). It must have 1 to 255 characters without commas \
                and slashes.
                """
            )
        }
    }

    /// Sets the tags of a project's body, if it has any.
    private func setTags(_ connection: Connection, _ project: String, _ body: JSONObject) throws {
        guard let tags = body["tags"]?.arrayValue?.compactMap(\.stringValue) else { return }
        try Identity.check(tags: tags)
        try setTags(connection, project, tags)
    }

    func setTags(_ connection: Connection, of project: Authorized<Found>, _ tags: [String], for action: String) throws {
        let id = try project.value(for: action).id
        try setTags(connection, id, tags)
    }

    private func setTags(_ connection: Connection, _ project: String, _ tags: [String]) throws {
        try connection.execute("DELETE FROM project_tags WHERE project_id = \(project) AND tag <> ALL (\(tags)::text[])")
        try connection.execute(
            "INSERT INTO project_tags (project_id, tag) SELECT \(project), t FROM unnest(\(tags)::text[]) AS t ON CONFLICT DO NOTHING")
    }

    /// Deletes a project without child projects. Its resources in other services remain, as in OpenStack.
    func delete(_ connection: Connection, project decision: Authorized<Found>) throws {
        let id = try decision.value(for: "identity:delete_project").id
        // Prevents a child project from being created concurrently.
        try connection.query("SELECT id FROM projects WHERE id = \(id) FOR UPDATE")
        guard try connection.query("SELECT id FROM projects WHERE parent_id = \(id) LIMIT 1").isEmpty else {
            throw ResourceError.forbidden("Cannot delete the project \(id) since it is not a leaf in the hierarchy.")
        }
        try connection.execute("DELETE FROM projects WHERE id = \(id) AND NOT is_domain")
        try cloudProjects.mark(connection)
    }

    /// Deletes a disabled domain with its users, groups, roles and projects.
    func delete(_ connection: Connection, domain decision: Authorized<Found>) throws {
        // A domain is also a project, so it is deleted as one too.
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
