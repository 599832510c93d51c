import Authorization
import Database
import JSON
import Kernel
import WebAPI

extension ResourceKind {
    /// One page of the rows of the caller's project or, with `all_tenants`, of all projects.
    ///
    /// - Throws: 400 for invalid parameters of the list.
    func projectList(_ database: Database, _ context: RequestContext) async throws -> Response {
        let project = try context.project()
        try context.authorize(target: .project(project))
        let request = try listRequest(context)
        let scope = try context.listScope(project, allProjects: "volume:get_all_tenants")
        return try await database.read { try countedList($0, context, request, scope: scope) }
    }

    /// `{"volumes": […], "volumes_links": […]}`; with `with_count` also how many rows all pages have (3.45).
    func countedList(_ connection: Connection, _ context: RequestContext, _ request: ListRequest, scope: SQL) throws -> Response {
        let isCounted = try context.version(atLeast: 3, 45) && context.flag("with_count")
        return try list(
            connection, context, request, scope: scope,
            tail: { if isCounted { $0.field("count", try table.count(connection, context, request, scope: scope)) } }
        ).response
    }

    /// The row with this id.
    ///
    /// - Parameter id: a UUID.
    /// - Throws: the kind's 404.
    func one(_ connection: Connection, _ context: RequestContext, _ id: String) throws -> Response {
        try one(connection, context, where: "t.id = \(id)::uuid", id: id)
    }

    /// The answer to a change of the row with this id, which is also what the audit records.
    func changed(_ connection: Connection, _ context: RequestContext, _ id: String, status: Int = 200) throws -> Change {
        Change(answer: try one(connection, context, where: "t.id = \(id)::uuid", id: id, status: status), name, id)
    }
}

extension RequestContext {
    /// The project in links: that of the path, or the caller's.
    var urlProject: String {
        let inPath = parameter("project_id")
        if !inPath.isEmpty { return PercentEncoding.encode(inPath) }
        do { return try caller.projectID ?? "" } catch { return "" }
    }

    /// The project that the request is about: the token's, or that of the subject for which a service acts.
    ///
    /// - Throws: 400 where a path names another project, 403 without a project.
    func project() throws -> String {
        try requirePathProject()
        let inPath = parameter("project_id")
        return try inPath.isEmpty ? caller.requireProject() : inPath
    }

    /// - Throws: 400 where the path names a project that is not the token's.
    func requirePathProject() throws {
        let caller = try caller
        let inPath = parameter("project_id")
        guard inPath.isEmpty || inPath == caller.projectID else {
            throw ResourceError.badRequest("Malformed request url: the project '\(inPath.prefix(64))' is not the token's.")
        }
    }

    /// A UUID of the path.
    ///
    /// - Throws: 404 for an invalid id.
    func identifier(_ name: String, of resource: String) throws -> String {
        try uuidParameter(name, of: resource)
    }

    /// The rows of a list that the caller sees: those of its project, or all of them if requested and allowed.
    func listScope(_ project: String, allProjects action: String) throws -> SQL {
        let wanted = query["all_tenants"] ?? query["all_projects"]
        guard let wanted else { return "t.project_id = \(project)" }
        guard let all = BodySchema.boolean(wanted) else {
            throw ResourceError.badRequest("all_tenants must be a boolean, got '\(wanted.prefix(64))'.")
        }
        guard all, allows(action) else { return "t.project_id = \(project)" }
        if let only = query["project_id"] ?? query["tenant_id"] { return "t.project_id = \(only)" }
        return "true"
    }
}

extension JSONObject {
    /// The name and the description of a new volume or snapshot, each of which has two names.
    ///
    /// - Throws: 400 if both names of one have different values.
    func descriptions(of path: String) throws -> (name: String?, description: String?) {
        (
            try value(named: ["name", "display_name"], of: path)?.stringValue,
            try value(named: ["description", "display_description"], of: path)?.stringValue
        )
    }
}

/// Both forms of every path: with the project and, from 3.67 on, without it.
func bothPaths(_ routes: [Route]) -> [Route] {
    routes.flatMap { route in
        ["/v3/{project_id}", "/v3"].map { prefix in route.under(prefix + route.path) { try $0.requirePathProject() } }
    }
}
