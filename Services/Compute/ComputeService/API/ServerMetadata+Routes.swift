import ComputeCore
import Database
import JSON
import Kernel
import WebAPI

/// A server's metadata: what its owner writes to it, for itself and for the guest.
struct ServerMetadataRoutes: Sendable {
    let compute: Compute

    private static let all = "/v2.1/servers/{server_id}/metadata"
    private static let one = "/v2.1/servers/{server_id}/metadata/{key}"

    var resource: Resource {
        let all = ServerMetadataRoutes.all
        let one = ServerMetadataRoutes.one
        let schema = BodySchema.wrapped("metadata", ServerSchema.metadata)
        return Resource(
            "server-metadata",
            routes: [
                Route(
                    .get, all, action: "os_compute_api:server-metadata:index", rule: Rule.reader,
                    answer: .form(.wrapped("metadata", .textMap)), "List metadata"
                ) { context in
                    .json(200, ["metadata": .object(try await read(context))])
                },
                Route(
                    .post, all, action: "os_compute_api:server-metadata:create", rule: Rule.member, body: .json(schema),
                    answer: .form(.wrapped("metadata", .textMap)), "Add metadata"
                ) {
                    context in
                    let added = context.body["metadata"]?.objectValue ?? [:]
                    return try await change(context, for: "os_compute_api:server-metadata:create") { metadata in
                        for member in added.members { metadata[member.name] = member.value }
                        return .json(200, ["metadata": .object(metadata)])
                    }
                },
                Route(
                    .put, all, action: "os_compute_api:server-metadata:update_all", rule: Rule.member, body: .json(schema),
                    answer: .form(.wrapped("metadata", .textMap)), "Replace metadata"
                ) { context in
                    let new = context.body["metadata"]?.objectValue ?? [:]
                    return try await change(context, for: "os_compute_api:server-metadata:update_all") { metadata in
                        metadata = new
                        return .json(200, ["metadata": .object(metadata)])
                    }
                },
                Route(
                    .get, one, action: "os_compute_api:server-metadata:show", rule: Rule.reader, answer: .form(.wrapped("meta", .textMap)),
                    "Show a metadata item"
                ) { context in
                    let key = context.parameter("key")
                    guard let value = try await read(context)[key] else { throw ServerMetadataRoutes.missing }
                    return .json(200, ["meta": .object([key: value])])
                },
                Route(
                    .put, one, action: "os_compute_api:server-metadata:update", rule: Rule.member,
                    body: .json(.wrapped("meta", ServerSchema.metadata)), answer: .form(.wrapped("meta", .textMap)), "Set a metadata item",
                    handler: setOne),
                Route(
                    .delete, one, action: "os_compute_api:server-metadata:delete", rule: Rule.member, status: 204, "Remove a metadata item"
                ) { context in
                    let key = context.parameter("key")
                    return try await change(context, for: "os_compute_api:server-metadata:delete") { metadata in
                        guard metadata[key] != nil else { throw ServerMetadataRoutes.missing }
                        metadata[key] = nil
                        return .empty(204)
                    }
                },
            ])
    }

    private static let missing = ResourceError.notFound("Metadata item was not found")

    private func read(_ context: RequestContext) async throws -> JSONObject {
        let server = try await compute.authorizedServer(context).value
        return try await compute.database.read { connection in
            try connection.query("SELECT metadata FROM servers WHERE id = \(server.id)")[0].object("metadata")
        }
    }

    private func setOne(_ context: RequestContext) async throws -> Response {
        let key = context.parameter("key")
        guard let meta = context.body["meta"]?.objectValue, meta.count == 1, let value = meta[key] else {
            throw ResourceError.badRequest("Request body and URI mismatch: meta must contain exactly the member '\(key.prefix(64))'.")
        }
        return try await change(context, for: "os_compute_api:server-metadata:update") { metadata in
            metadata[key] = value
            return .json(200, ["meta": .object([key: value])])
        }
    }

    private func change(
        _ context: RequestContext, for action: String, _ body: @escaping @Sendable (inout JSONObject) throws -> Response
    ) async throws -> Response {
        let server = try await compute.authorizedServer(context).value(for: action)
        let ambient = compute.ambient
        return try await context.write(compute.database) { connection in
            let current = try ServerRecord.find(connection, server.id, lock: true)
            try current.requireUnlocked(context)
            var metadata = try connection.query("SELECT metadata FROM servers WHERE id = \(server.id)")[0].object("metadata")
            let response = try body(&metadata)
            let limit = try compute.quota.state(connection, project: server.project, ComputeQuotas.metadataItems).limit
            if limit >= 0, metadata.count > limit {
                throw ResourceError.forbidden("Maximum number of metadata items exceeds \(limit)")
            }
            try connection.execute(
                "UPDATE servers SET metadata = \(metadata)::jsonb, updated_at = \(ambient.now) WHERE id = \(server.id)")
            try DesiredState.change(connection, server: server.id)
            try DesiredState.publish(connection, server: server.id, ambient: ambient)
            return Change(response, "server", server.id, content: ["metadata": .object(metadata)])
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
        return try await compute.database.read { connection in
            try connection.query("SELECT to_json(tags) AS tags FROM servers WHERE id = \(server.id)")[0].strings("tags")
        }
    }

    private func change(
        _ context: RequestContext, for action: String, _ body: @escaping @Sendable (inout [String]) throws -> Response
    ) async throws -> Response {
        let server = try await compute.authorizedServer(context).value(for: action)
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            _ = try ServerRecord.find(connection, server.id, lock: true)
            var tags = try connection.query("SELECT to_json(tags) AS tags FROM servers WHERE id = \(server.id)")[0].strings("tags")
            let response = try body(&tags)
            guard tags.count <= ServerTagRoutes.tagsMax else {
                throw ResourceError.badRequest("The number of tags exceeded the per-server limit \(ServerTagRoutes.tagsMax)")
            }
            try connection.execute("UPDATE servers SET tags = \(tags)::text[], updated_at = \(now) WHERE id = \(server.id)")
            return Change(response, "server", server.id, content: ["tags": JSONValue(tags)])
        }
    }
}
