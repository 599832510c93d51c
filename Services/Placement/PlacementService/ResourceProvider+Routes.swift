import Database
import JSON
import Kernel
import PlacementCore
import WebAPI

extension Placement {
    static let rule = "rule:admin_or_service"

    private static func name(_ required: Bool) -> BodySchema.Property {
        .init("name", .string(min: 1, max: 200, format: .name), required: required)
    }

    private static let parent = BodySchema.Property(
        "parent_provider_uuid", .nullable(.uuid), versions: VersionRange(from: Microversion(1, 14)))

    var resourceProviderResource: Resource {
        let created = BodySchema.object([Placement.name(true), .init("uuid", .uuid), Placement.parent])
        return Resource(
            "resource_provider",
            routes: [
                Route(
                    .get, "/resource_providers", action: "placement:resource_providers:list", rule: Placement.rule,
                    "List resource providers", handler: listProviders),
                Route(
                    .post, "/resource_providers", action: "placement:resource_providers:create", rule: Placement.rule, body: .json(created),
                    "Create a resource provider", handler: createProvider),
                Route(
                    .get, "/resource_providers/{uuid}", action: "placement:resource_providers:show", rule: Placement.rule,
                    "Show a resource provider", handler: showProvider),
                Route(
                    .put, "/resource_providers/{uuid}", action: "placement:resource_providers:update", rule: Placement.rule,
                    body: .json(.object([Placement.name(true), Placement.parent])), "Rename or move a resource provider",
                    handler: updateProvider),
                Route(
                    .delete, "/resource_providers/{uuid}", action: "placement:resource_providers:delete", rule: Placement.rule, status: 204,
                    "Delete a resource provider", handler: deleteProvider),
            ])
    }

    // MARK: reading

    private func listProviders(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        var allowed: Set<String> = ["name", "uuid"]
        if context.version(atLeast: 1, 3) { allowed.insert("member_of") }
        if context.version(atLeast: 1, 4) { allowed.insert("resources") }
        if context.version(atLeast: 1, 14) { allowed.insert("in_tree") }
        if context.version(atLeast: 1, 18) { allowed.insert("required") }
        var repeatable: Set<String> = []
        if context.version(atLeast: 1, 24) { repeatable.insert("member_of") }
        if context.version(atLeast: 1, 39) { repeatable.insert("required") }
        try context.checkQuery(allowed, repeatable: repeatable)
        let query = try context.providerQuery()
        let conditions = try Placement.identity(context)
        return try await database.read { connection in
            try Placement.requireClasses(connection, query.resources.map(\.resourceClass), using: false)
            try Placement.requireTraits(connection, query.traitNames, using: false)
            let condition = SQL.joined(conditions + ProviderStore.conditions(query), separator: " AND ")
            let rows = try ProviderStore.rows(connection, where: condition)
            let response = Response.object(capacity: 256 + rows.count * 700) { writer in
                writer.arrayField("resource_providers") { list in
                    for provider in rows { list.object { provider.write(&$0, context.version) } }
                }
            }
            return context.dated(response, rows.map(\.updatedAt).max())
        }
    }

    private static func identity(_ context: RequestContext) throws -> [SQL] {
        var conditions: [SQL] = ["true"]
        if let name = context.query["name"] { conditions.append("t.name = \(name)") }
        if let text = context.query["uuid"] {
            guard let id = UUID128(text) else {
                throw ProviderQuery.bad("Invalid query string parameters: '\(text.prefix(64))' is not a 'uuid'")
            }
            conditions.append("t.id = \(id)")
        }
        return conditions
    }

    private func showProvider(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = try context.providerID
        return try await database.read { connection in
            context.dated(
                try Placement.providerResponse(connection, context, id),
                try ProviderStore.rows(connection, where: "t.id = \(id)::uuid").first?.updatedAt)
        }
    }

    static func providerResponse(_ connection: Connection, _ context: RequestContext, _ id: String) throws -> Response {
        guard let provider = try ProviderStore.rows(connection, where: "t.id = \(id)::uuid").first else { throw noProvider(id) }
        return .object { provider.write(&$0, context.version) }
    }

    // MARK: writing

    private func createProvider(_ context: RequestContext) async throws -> Response {
        let id = (context.body["uuid"]?.stringValue.flatMap { UUID128($0) } ?? ambient.newUUID()).description
        let provider = try context.authorize(id, target: .none)
        let name = context.body["name"]?.stringValue ?? ""
        let parent = context.body["parent_provider_uuid"]?.stringValue.flatMap { UUID128($0) }?.description
        return try await context.write(database) { connection in
            try ProviderStore.insert(connection, provider, name: name, parent: parent, at: context.ambient.now)
            var response: Response
            if context.version(atLeast: 1, 20) {
                response = try Placement.providerResponse(connection, context, id)
            } else {
                response = .empty(201)
            }
            response.headers["location"] = "\(context.publicURL)/resource_providers/\(id)"
            return Change(response, "resource_provider", id, content: ["name": .string(name)])
        }
    }

    private func updateProvider(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "placement:resource_providers:update")
        let id = try context.providerID
        let name = context.body["name"]?.stringValue ?? ""
        return try await context.write(database) { connection in
            _ = try Placement.touch(connection, provider: id, expected: nil, at: context.ambient.now)
            try ProviderStore.rename(connection, id: id, name: name)
            if let value = context.body["parent_provider_uuid"] {
                try ProviderStore.move(
                    connection, id: id, parent: value.stringValue.flatMap { UUID128($0) }?.description,
                    freely: context.version(atLeast: 1, 37))
            }
            try Placement.announce(connection, [id])
            let response = try Placement.providerResponse(connection, context, id)
            return Change(response, "resource_provider", id, content: ["name": .string(name)])
        }
    }

    private func deleteProvider(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = try context.providerID
        let provider = try context.authorize(id, target: .none)
        return try await context.write(database) { connection in
            try ProviderStore.delete(connection, provider, at: context.ambient.now)
            try Placement.announce(connection, [""])
            return Change(.empty(), "resource_provider", id)
        }
    }
}
