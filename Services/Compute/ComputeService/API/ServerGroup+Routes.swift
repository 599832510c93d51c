import Authorization
import ComputeCore
import Database
import JSON
import Kernel
import WebAPI

extension ResourceKind {
    static let serverGroups = ResourceKind(
        "server_group", path: "os-server-groups",
        table: Table(
            "server_groups t", defaultSort: [("id", false)],
            fields: [
                Field("id", sortable: true), Field("name"),
                Field("policies", .json, "json_build_array(t.policy)", versions: .through(63), shape: .many(.anyText)),
                Field("policy", versions: .from(64)),
                Field("rules", .json, versions: .from(64), shape: .object([.init("max_server_per_host", .count)])),
                Field(
                    "members", .json,
                    """
                    (SELECT coalesce(json_agg(s.id ORDER BY s.created_at, s.id), '[]') FROM servers s
                        WHERE s.group_id = t.id AND NOT s.deleted)
                    """, shape: .many(.anyText)),
                Field("metadata", .json, "'{}'", versions: .through(63), shape: .object([])),
                Field("project_id", versions: .from(13)), Field("user_id", versions: .from(13)),
            ]),
        visibility: Visibility { context in
            let project = try context.caller.requireProject()
            let asksAll = context.query["all_projects"] != nil && context.allows("os_compute_api:os-server-groups:index:all_projects")
            return asksAll ? "true" : "t.project_id = \(project)"
        }, grammar: .compute(ignoring: ["all_projects"], hasOffset: true)
    ) { .notFound("Instance group \($0.prefix(64)) could not be found.") }
}

/// Server groups: servers with an affinity policy.
struct ServerGroupRoutes: Sendable {
    let compute: Compute

    private static let path = "/v2.1/os-server-groups"

    var resource: Resource {
        let path = ServerGroupRoutes.path
        return Resource(
            "server-group",
            routes: [
                Route(
                    .get, path, action: "os_compute_api:os-server-groups:index", rule: Rule.reader, answer: .list(.serverGroups),
                    "List server groups", handler: list),
                Route(
                    .post, path, action: "os_compute_api:os-server-groups:create", rule: Rule.member, versions: .through(63),
                    body: .json(ServerGroupRoutes.old), answer: .one(.serverGroups), "Create a server group", handler: create),
                Route(
                    .post, path, action: "os_compute_api:os-server-groups:create", rule: Rule.member, versions: .from(64),
                    body: .json(ServerGroupRoutes.new), answer: .one(.serverGroups), "Create a server group", handler: create),
                Route(
                    .get, path + "/{group_id}", action: "os_compute_api:os-server-groups:show", rule: Rule.reader,
                    answer: .one(.serverGroups), "Show a server group", handler: show),
                Route(
                    .delete, path + "/{group_id}", action: "os_compute_api:os-server-groups:delete", rule: Rule.member, status: 204,
                    "Delete a server group", handler: delete),
            ])
    }

    private static let policies = ["anti-affinity", "affinity", "soft-anti-affinity", "soft-affinity"]

    private static let old = BodySchema.wrapped(
        "server_group",
        .object([
            .init("name", .trimmedName, required: true),
            .init("policies", .array(.enumeration(["anti-affinity", "affinity"]), min: 1, max: 1), required: true, versions: .through(14)),
            .init("policies", .array(.enumeration(policies), min: 1, max: 1), required: true, versions: .from(15)),
        ]))

    private static let new = BodySchema.wrapped(
        "server_group",
        .object([
            .init("name", .trimmedName, required: true), .init("policy", .enumeration(policies), required: true),
            .init("rules", .object([.init("max_server_per_host", .integer(min: 1, max: 1000))])),
        ]))

    private func list(_ context: RequestContext) async throws -> Response {
        // A caller without a project gets this error first.
        _ = try context.caller.requireProject()
        return try await ResourceKind.serverGroups.list(compute.database, context)
    }

    private func group(_ context: RequestContext) async throws -> Authorized<String> {
        let id = context.parameter("group_id")
        let missing = ResourceKind.serverGroups.notFound(id)
        let uuid = UUID128(id)?.description
        let project = try await compute.database.read { try ServerGroupStore.project($0, of: uuid) }
        guard let project, let uuid else {
            try context.authorize(target: .project(try context.caller.projectID))
            throw missing
        }
        return try context.authorizeVisible(
            uuid, target: .project(project), visibleBy: "os_compute_api:os-server-groups:show", notFound: missing)
    }

    private static func response(_ connection: Connection, _ context: RequestContext, _ id: String) throws -> Response {
        try ResourceKind.serverGroups.one(connection, context, where: "t.id = \(id)", id: id)
    }

    private func show(_ context: RequestContext) async throws -> Response {
        let id = try await group(context).value
        return try await compute.database.read { try ServerGroupRoutes.response($0, context, id) }
    }

    private func create(_ context: RequestContext) async throws -> Response {
        let project = try context.caller.requireProject()
        try context.authorize(target: .project(project))
        let group = context.body["server_group"] ?? [:]
        let policy = group["policy"]?.stringValue ?? group["policies"]?.arrayValue?.first?.stringValue ?? ""
        let rules = group["rules"]?.objectValue ?? [:]
        if !rules.isEmpty, policy != "anti-affinity" {
            throw ResourceError.badRequest("Only anti-affinity policy supports rules.")
        }
        let id = compute.ambient.newUUID().description
        let draft = ServerGroupStore.Draft(
            id: id, project: project, user: try context.caller.userID, name: group["name"]?.stringValue ?? "", policy: policy, rules: rules)
        let decision = try context.authorize(draft, target: .project(project))
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            try ServerGroupStore.insert(connection, decision, quota: compute.quota, at: now)
            return Change(answer: try ServerGroupRoutes.response(connection, context, id), "server-group", id, member: "server_group")
        }
    }

    private func delete(_ context: RequestContext) async throws -> Response {
        let group = try await group(context)
        return try await context.write(compute.database) { connection in
            try ServerGroupStore.delete(connection, group)
            return Change(.empty(204), "server-group", group.value)
        }
    }
}
