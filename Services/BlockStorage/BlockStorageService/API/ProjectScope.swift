import Database
import JSON
import Kernel
import WebAPI

/// A kind of resource with its two short forms.
struct ResourceView: Sendable {
    let kind: ResourceKind
    /// Names of the fields of a summary list.
    let summary: Set<String>
    /// Names of the fields that answers to creating and changing leave out.
    var shownOnly: Set<String> = []

    var table: Table { kind.table }

    init(_ name: String, plural: String? = nil, _ table: Table, summary: Set<String>, shownOnly: Set<String> = []) {
        kind = ResourceKind(name, plural: plural, table: table, visibility: .everything, pages: .nextWhenFull) {
            .notFound("\(name) \($0.prefix(64)) could not be found.")
        }
        self.summary = summary
        self.shownOnly = shownOnly
    }

    /// `{"volume": {…}}`, or nil where no row fits.
    ///
    /// - Parameter brief: as answers to creating and changing are.
    func response(
        _ connection: Connection, _ context: RequestContext, status: Int = 200, brief: Bool = false, where condition: SQL
    ) throws -> Response? {
        let names = brief ? Set(table.fields.map(\.name)).subtracting(shownOnly) : nil
        return try kind.oneOrNone(connection, context, where: condition, status: status, only: names)?.response
    }

    /// The caller's project's, or with `all_tenants` those of all.
    ///
    /// - Throws: what a list refuses.
    func list(
        _ database: Database, _ context: RequestContext, filters: Set<String>, detail: Bool
    ) async throws -> Response {
        let project = try context.project()
        try context.authorize(target: .project(project))
        let request = try context.volumeListRequest(filters: filters)
        let scope = try context.listScope(project, allProjects: "volume:get_all_tenants")
        return try await database.read { try list($0, context, request, scope: scope, detail: detail) }
    }

    /// `{"volumes": […], "volumes_links": […]}`
    func list(
        _ connection: Connection, _ context: RequestContext, _ request: ListRequest, scope: SQL, detail: Bool
    ) throws -> Response {
        var request = request
        request.fields = detail ? nil : summary
        let isCounted = context.version(atLeast: 3, 45) && context.query["with_count"].flatMap { BodySchema.boolean($0) } ?? false
        return try kind.list(
            connection, context, request, scope: scope,
            tail: { if isCounted { $0.field("count", try table.count(connection, context, request, scope: scope)) } }
        ).response
    }
}

extension RequestContext {
    /// The project in links: that of the path, or the caller's.
    var urlProject: String {
        let inPath = parameter("project_id")
        if !inPath.isEmpty { return Query.encode(inPath) }
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

    /// Query parameters that every list knows beside its filters.
    private static let listParameters: Set<String> = [
        "limit", "marker", "offset", "sort", "sort_key", "sort_dir", "fields", "with_count", "all_tenants", "all_projects",
        "project_id", "tenant_id",
    ]

    /// Paging, sorting and filters, as Block Storage's clients write them.
    ///
    /// - Parameter also: further parameters of the list, which the caller looks at.
    /// - Throws: 400, from 3.31 on also for filters that the list does not have; operators' are ignored, as by Cinder.
    func volumeListRequest(filters: Set<String>, also: Set<String> = []) throws -> ListRequest {
        if version(atLeast: 3, 31), !allows("volume:see_operator_fields") {
            let known = filters.union(also).union(RequestContext.listParameters)
            let unknown = query.items.map(\.name).filter { !known.contains($0) }
            guard unknown.isEmpty else {
                throw ResourceError.badRequest(
                    "Invalid filters \(unknown.map { String($0.prefix(64)) }.joined(separator: ",")) are found in query options.")
            }
        }
        var request = try listRequest(filters: filters, hasOffset: true)
        if query["sort_dir"] == nil { request.sort = request.sort.map { ($0.name, true) } }
        if let text = query["sort"] {
            guard query["sort_key"] == nil, query["sort_dir"] == nil else {
                throw ResourceError.badRequest(
                    "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with the 'sort' parameter.")
            }
            request.sort = try text.split(separator: ",").map { item in
                let parts = item.split(separator: ":", omittingEmptySubsequences: false)
                let direction = parts.count == 2 ? parts[1] : "desc"
                guard parts.count <= 2, direction == "asc" || direction == "desc" else {
                    throw ResourceError.badRequest("Unknown sort direction '\(direction.prefix(64))'; it must be asc or desc.")
                }
                return (String(parts[0]), direction == "desc")
            }
        }
        // Rows without a name need a defined place in the order too.
        request.sort = request.sort.map { $0.name == "name" || $0.name == "display_name" ? ("display_order", $0.descending) : $0 }
        return request
    }

    /// A query parameter that is a boolean; false without it.
    ///
    /// - Throws: 400 for what is none.
    func flag(_ name: String) throws -> Bool {
        guard let text = query[name] else { return false }
        guard let flag = BodySchema.boolean(text) else {
            throw ResourceError.badRequest("Invalid value for '\(name)': '\(text.prefix(64))'. It must be a boolean.")
        }
        return flag
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

/// Both forms of every path: with the project and, from 3.67 on, without it.
func bothPaths(_ routes: [Route]) -> [Route] {
    routes.flatMap { route in
        ["/v3/{project_id}", "/v3"].map { prefix in route.under(prefix + route.path) { try $0.requirePathProject() } }
    }
}
