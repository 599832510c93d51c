import Authorization
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
                    answer: .list(.providers), "List resource providers", handler: listProviders),
                Route(
                    .post, "/resource_providers", action: "placement:resource_providers:create", rule: Placement.rule, body: .json(created),
                    "Create a resource provider", handler: createProvider),
                Route(
                    .get, "/resource_providers/{uuid}", action: "placement:resource_providers:show", rule: Placement.rule,
                    answer: .one(.providers), "Show a resource provider", handler: showProvider),
                Route(
                    .put, "/resource_providers/{uuid}", action: "placement:resource_providers:update", rule: Placement.rule,
                    body: .json(.object([Placement.name(true), Placement.parent])), answer: .one(.providers),
                    "Rename or move a resource provider", handler: updateProvider),
                Route(
                    .delete, "/resource_providers/{uuid}", action: "placement:resource_providers:delete", rule: Placement.rule, status: 204,
                    "Delete a resource provider", handler: deleteProvider),
            ])
    }

    // MARK: reading

    private func listProviders(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let request = try ResourceKind.providers.listRequest(context)
        return try await database.read { context.dated(try ResourceKind.providers.list($0, context, request, scope: "TRUE")) }
    }

    private func showProvider(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = try context.providerID
        return try await database.read {
            context.dated(try ResourceKind.providers.dated($0, context, where: "t.id = \(id)::uuid", id: id))
        }
    }

    private static func response(_ connection: Connection, _ context: RequestContext, _ id: String) throws -> Response {
        try ResourceKind.providers.one(connection, context, where: "t.id = \(id)::uuid", id: id)
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
                response = try Placement.response(connection, context, id)
            } else {
                response = .empty(201)
            }
            response.headers["location"] = "\(context.publicURL)/resource_providers/\(id)"
            return Change(
                response, "resource_provider", id,
                content: ["uuid": .string(id), "name": .string(name), "parent_provider_uuid": JSONValue(parent)])
        }
    }

    private func updateProvider(_ context: RequestContext) async throws -> Response {
        let provider = try context.authorizedProvider()
        let id = try provider.value(for: "placement:resource_providers:update")
        let name = context.body["name"]?.stringValue ?? ""
        return try await context.write(database) { connection in
            try ProviderStore.touch(connection, provider, for: "placement:resource_providers:update", at: context.ambient.now)
            try ProviderStore.rename(connection, provider, name: name)
            var written: JSONObject = ["uuid": .string(id), "name": .string(name)]
            if let value = context.body["parent_provider_uuid"] {
                let parent = value.stringValue.flatMap { UUID128($0) }?.description
                try ProviderStore.move(connection, provider, parent: parent, freely: context.version(atLeast: 1, 37))
                written["parent_provider_uuid"] = JSONValue(parent)
            }
            try Placement.announce(connection, [id])
            let response = try Placement.response(connection, context, id)
            return Change(response, "resource_provider", id, content: .object(written))
        }
    }

    private func deleteProvider(_ context: RequestContext) async throws -> Response {
        let provider = try context.authorizedProvider()
        let id = provider.value
        return try await context.write(database) { connection in
            try ProviderStore.delete(connection, provider, at: context.ambient.now)
            try Placement.announce(connection, [""])
            return Change(.empty(), "resource_provider", id)
        }
    }
}
