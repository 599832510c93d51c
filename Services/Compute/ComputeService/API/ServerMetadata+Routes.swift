import Authorization
import ComputeCore
import Database
import JSON
import Kernel
import WebAPI

/// A server's metadata: what its owner writes to it, for itself and for the guest.
struct ServerMetadataRoutes: Sendable {
    let compute: Compute

    var resource: Resource {
        let action = "os_compute_api:server-metadata:"
        let map = MapRoutes(
            "/v2.1/servers/{server_id}/metadata", name: "metadata", item: "meta",
            actions: .init(
                list: action + "index", add: action + "create", replace: action + "update_all", show: action + "show",
                set: action + "update", remove: action + "delete", readRule: Rule.reader, writeRule: Rule.member),
            body: ServerSchema.metadata, answer: .textMap, removedStatus: 204,
            missing: { _, _ in .notFound("Metadata item was not found") }, read: read, change: change)
        return Resource("server-metadata", routes: map.routes)
    }

    @Sendable private func read(_ context: RequestContext) async throws -> JSONObject {
        let server = try await compute.authorizedServer(context).value
        return try await compute.database.read { try ServerStore.metadata($0, of: server.id) }
    }

    @Sendable private func change(
        _ context: RequestContext, for action: String, _ change: @escaping MapRoutes.Mutation
    ) async throws -> Response {
        let server = try await compute.authorizedServer(context)
        let id = server.value.id
        return try await context.write(compute.database) { connection in
            try ServerRecord.find(connection, id, lock: true).requireUnlocked(context)
            var response = Response.empty()
            let metadata = try ServerStore.changeMetadata(connection, of: server, for: action, compute) { response = try change(&$0) }
            return Change(response, "server", id, content: ["metadata": .object(metadata)])
        }
    }
}

/// A server's tags (from 2.26).
struct ServerTagRoutes: Sendable {
    let compute: Compute

    private static let all = "/v2.1/servers/{server_id}/tags"
    private static let one = "/v2.1/servers/{server_id}/tags/{tag}"
    private static let tagsMax = 50

    var resource: Resource {
        let all = ServerTagRoutes.all
        let one = ServerTagRoutes.one
        return Resource(
            "server-tag",
            routes: [
                Route(
                    .get, all, action: "os_compute_api:os-server-tags:index", rule: Rule.reader, versions: .from(26),
                    answer: .form(.wrapped("tags", .many(.anyText))), "List tags"
                ) {
                    context in
                    .json(200, ["tags": JSONValue(try await read(context))])
                },
                Route(
                    .put, all, action: "os_compute_api:os-server-tags:update_all", rule: Rule.member, versions: .from(26),
                    body: .json(.wrapped("tags", ServerSchema.tags)), answer: .form(.wrapped("tags", .many(.anyText))), "Replace tags"
                ) { context in
                    let tags = (context.body["tags"]?.arrayValue ?? []).compactMap(\.stringValue).uniqued
                    for tag in tags { try ServerTagRoutes.check(tag) }
                    return try await change(context, for: "os_compute_api:os-server-tags:update_all") { current in
                        current = tags
                        return .json(200, ["tags": JSONValue(tags)])
                    }
                },
                Route(
                    .delete, all, action: "os_compute_api:os-server-tags:delete_all", rule: Rule.member, versions: .from(26), status: 204,
                    "Remove all tags"
                ) { context in
                    try await change(context, for: "os_compute_api:os-server-tags:delete_all") { tags in
                        tags = []
                        return .empty(204)
                    }
                },
                Route(
                    .get, one, action: "os_compute_api:os-server-tags:show", rule: Rule.reader, versions: .from(26), status: 204,
                    "Check for a tag"
                ) { context in
                    let tag = context.parameter("tag")
                    guard try await read(context).contains(tag) else { throw ServerTagRoutes.missing(context) }
                    return .empty(204)
                },
                Route(
                    .put, one, action: "os_compute_api:os-server-tags:update", rule: Rule.member, versions: .from(26), status: 201,
                    "Add a tag"
                ) { context in
                    let tag = context.parameter("tag")
                    try ServerTagRoutes.check(tag)
                    let location = "\(context.publicURL)\(context.path)"
                    return try await change(context, for: "os_compute_api:os-server-tags:update") { tags in
                        if tags.contains(tag) { return .empty(204) }
                        tags.append(tag)
                        return .empty(201, headers: ["location": location])
                    }
                },
                Route(
                    .delete, one, action: "os_compute_api:os-server-tags:delete", rule: Rule.member, versions: .from(26), status: 204,
                    "Remove a tag"
                ) { context in
                    let tag = context.parameter("tag")
                    return try await change(context, for: "os_compute_api:os-server-tags:delete") { tags in
                        guard tags.contains(tag) else { throw ServerTagRoutes.missing(context) }
                        tags.removeAll { $0 == tag }
                        return .empty(204)
                    }
                },
            ])
    }

    private static func missing(_ context: RequestContext) -> ResourceError {
        .notFound("Server \(context.parameter("server_id")) has no tag '\(context.parameter("tag").prefix(64))'")
    }

    private static func check(_ tag: String) throws {
        guard (1...60).contains(tag.unicodeScalars.count), !tag.contains("/"), !tag.contains(",") else {
            throw ResourceError.badRequest(
                "Tag '\(tag.prefix(64))' is invalid. It must be a string without characters '/' and ',' of 1 to 60 characters.")
        }
    }

    private func read(_ context: RequestContext) async throws -> [String] {
        let server = try await compute.authorizedServer(context).value
        return try await compute.database.read { try ServerStore.tags($0, of: server.id) }
    }

    private func change(
        _ context: RequestContext, for action: String, _ body: @escaping @Sendable (inout [String]) throws -> Response
    ) async throws -> Response {
        let server = try await compute.authorizedServer(context)
        let id = server.value.id
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            _ = try ServerRecord.find(connection, id, lock: true)
            var tags = try ServerStore.tags(connection, of: id)
            let response = try body(&tags)
            guard tags.count <= ServerTagRoutes.tagsMax else {
                throw ResourceError.badRequest("The number of tags exceeded the per-server limit \(ServerTagRoutes.tagsMax)")
            }
            try ServerStore.setTags(connection, of: server, tags, for: action, at: now)
            return Change(response, "server", id, content: ["tags": JSONValue(tags)])
        }
    }
}
