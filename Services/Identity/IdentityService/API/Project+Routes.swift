import Authorization
import Database
import JSON
import Kernel
import WebAPI

extension Identity {
    private static func projectBody(required: Bool) -> RouteBody {
        Bodies.entity(
            "project",
            [
                Bodies.name(64, required: required), Bodies.domain, Bodies.enabled, Bodies.description, Bodies.tags,
                Bodies.options, .init("parent_id", .nullable(.string(min: 1, max: 64, format: nil))),
                .init("is_domain", .strictBoolean), .init(Identity.cloudProjectMember, cloudProjectFlag),
            ])
    }

    /// The standard client sends properties as strings: `openstack project set --property cloud_project=true`.
    private static let cloudProjectFlag = BodySchema.boolean
    private static let cloudProjectMember = "cloud_project"
    static let cloudProjectAction = "identity:set_cloud_project"

    /// The requested value of the mark for operators' projects; nil if the body does not contain it.
    ///
    /// - Throws: 403 if the caller may not set it; 400 for a domain.
    private func decideMark(_ context: RequestContext, isDomain: Bool) throws -> Authorized<Bool>? {
        guard let value = context.entity("project")[Identity.cloudProjectMember].flatMap(BodySchema.boolean) else { return nil }
        let decision = try context.authorize(value, target: .none, action: Identity.cloudProjectAction)
        guard !isDomain else {
            throw ResourceError.badRequest("Invalid input for field/attribute cloud_project. A domain cannot be a cloud project.")
        }
        return decision
    }

    var projectResource: Resource {
        let write = "rule:admin_required or rule:domain_manager"
        let read = "rule:cloud_reader or rule:domain_reader or project_id:%(target.project.id)s"
        let tagWrite = "rule:admin_required or rule:domain_manager or (role:manager and project_id:%(target.project.id)s)"
        return Resource(
            "project",
            routes: [
                Route(
                    .get, "/v3/projects", action: "identity:list_projects",
                    rule: "rule:cloud_reader or rule:domain_reader", answer: .list(Identity.projects), "List projects",
                    handler: listProjects),
                Route(
                    .post, "/v3/projects", action: "identity:create_project", rule: write,
                    body: Identity.projectBody(required: true), status: 201, answer: .one(Identity.projects), "Create a project",
                    handler: createProject),
                Route(
                    .get, "/v3/projects/{project_id}", action: "identity:get_project", rule: read, answer: .one(Identity.projects),
                    "Show a project",
                    handler: showProject),
                Route(
                    .patch, "/v3/projects/{project_id}", action: "identity:update_project", rule: write,
                    body: Identity.projectBody(required: false), answer: .one(Identity.projects), "Change a project", handler: updateProject
                ),
                Route(
                    .delete, "/v3/projects/{project_id}", action: "identity:delete_project", rule: write, status: 204,
                    "Delete a project without projects below it", handler: deleteProject),
            ] + ProjectTagRoutes(identity: self, readRule: read, writeRule: tagWrite).routes)
    }

    // MARK: projects

    private func listProjects(_ context: RequestContext) async throws -> Response {
        var conditions = try decideList(context, column: "coalesce(t.domain_id, t.id)")
        if context.query["is_domain"] == nil { conditions.append("NOT t.is_domain") }
        let all = conditions
        return try await database.read { try Identity.projects.list($0, context, where: all) }
    }

    private func createProject(_ context: RequestContext) async throws -> Response {
        let body = context.entity("project")
        let fallback = try domain(context, body)
        // A project that acts as a domain has no domain yet, so only the cloud's admins may create it.
        let domain = body["is_domain"]?.boolValue == true ? nil : try await targetDomain(body, fallback)
        let decision = try context.authorize(body, target: ["target.domain_id": domain])
        let mark = try decideMark(context, isDomain: body["is_domain"]?.boolValue == true)
        let id = newID()
        return try await context.write(database) { connection in
            try cloudProjects.lock(connection)
            let place = try place(connection, body, fallback: fallback)
            try insert(connection, project: decision, id: id, place)
            if let mark { try set(connection, cloudProject: mark, of: id) }
            return try Identity.projects.change(connection, context, status: 201, id: id)
        }
    }

    /// The domain of a new project, for the decision: its parent's domain.
    private func targetDomain(_ body: JSONObject, _ fallback: String) async throws -> String? {
        guard let parent = body["parent_id"]?.stringValue else { return fallback }
        return try await database.read { try find($0, project: parent)?.domainID }
    }

    private func showProject(_ context: RequestContext) async throws -> Response {
        let project = try await decideProject(context).value
        if let name = ["parents_as_list", "subtree_as_list", "include_limits"].first(where: { context.query[$0] != nil }) {
            throw ResourceError.badRequest("The query parameter '\(name)' is not available: parents_as_ids and subtree_as_ids are.")
        }
        return try await database.read { connection in
            let response = try Identity.projects.one(connection, context, where: "t.id = \(project.id)", id: project.id)
            return try withRelatives(connection, context, project.id, response)
        }
    }

    /// Adds `parents` and `subtree` if the query requests ids: nested objects, as in Keystone.
    private func withRelatives(
        _ connection: Connection, _ context: RequestContext, _ id: String, _ response: Response
    ) throws -> Response {
        let parents = context.query["parents_as_ids"] != nil
        let subtree = context.query["subtree_as_ids"] != nil
        guard parents || subtree, var project = try JSONValue.parse(response.bytes ?? [])["project"]?.objectValue else {
            return response
        }
        if parents { project["parents"] = try self.parents(connection, of: id) }
        if subtree { project["subtree"] = try self.subtree(connection, of: id) }
        return .json(200, ["project": .object(project)])
    }

    private func updateProject(_ context: RequestContext) async throws -> Response {
        let decision = try await decideProjectChange(context)
        let body = try context.entity("project", of: decision.value.id)
        try decision.value.requireMutable("project", body)
        let mark = try decideMark(context, isDomain: decision.value.domainID == decision.value.id)
        return try await reduceAccess(context) { connection in
            let id = decision.value.id
            let place = try requireSamePlace(connection, project: id, body)
            try update(connection, project: decision, body, isDomain: place.isDomain)
            if let mark { try set(connection, cloudProject: mark, of: id) }
            return try Identity.projects.change(connection, context, status: 200, id: id)
        }
    }

    private func deleteProject(_ context: RequestContext) async throws -> Response {
        let decision = try await decideProjectChange(context)
        try decision.value.requireMutable("project")
        return try await reduceAccess(context) { connection in
            if decision.value.domainID == decision.value.id {
                try delete(connection, domain: decision)
            } else {
                try delete(connection, project: decision)
            }
            return Change(.empty(), "project", decision.value.id)
        }
    }
}

/// A project's tags, sorted.
private struct ProjectTagRoutes: TagRoutes {
    let identity: Identity
    var database: Database { identity.database }
    let readRule: String
    let writeRule: String

    let path = "/v3/projects/{project_id}/tags"
    let tag = Bodies.tag
    let countMax = Identity.tagsMax
    let answer = Forms.list("tags", Bodies.tag)

    func action(_ operation: TagOperation) -> String? {
        switch operation {
        case .list: "identity:list_project_tags"
        case .replace: "identity:update_project_tags"
        case .clear: "identity:delete_project_tags"
        case .show: "identity:get_project_tag"
        case .set: "identity:create_project_tag"
        case .remove: "identity:delete_project_tag"
        case .add: nil
        }
    }

    var tooMany: ResourceError { .badRequest("A project has at most \(countMax) tags.") }

    func check(_ tags: [String]) throws { try Identity.check(tags: tags) }

    /// In PostgreSQL's sort order, as in lists of projects.
    func ordered(_ tags: [String]) -> [String] { Set(tags).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) } }

    func shown(_ context: RequestContext, _ tags: [String]) -> JSONObject {
        ["tags": JSONValue(tags), "links": context.wholeListLinks]
    }

    func missing(_ context: RequestContext, _ tag: String) -> ResourceError { Identity.missing("project tag", tag) }

    func find(_ context: RequestContext, isChange: Bool) async throws -> Authorized<Identity.Found> {
        isChange ? try await identity.decideProjectChange(context) : try await identity.decideProject(context)
    }

    func load(_ connection: Connection, _ project: Identity.Found, isChange: Bool) throws -> [String] {
        try identity.tags(connection, of: project.id, lock: isChange)
    }

    func store(_ connection: Connection, _ tags: [String], of project: Authorized<Identity.Found>, for action: String) throws {
        try identity.setTags(connection, of: project, tags, for: action)
    }

    func subject(_ project: Identity.Found) -> (name: String, id: String) { ("project_tags", project.id) }
}
