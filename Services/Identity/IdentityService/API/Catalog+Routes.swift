import Authorization
import Database
import IdentityCore
import JSON
import Kernel
import WebAPI

/// Regions, services and endpoints, which form the catalogs in tokens.
extension Identity {
    /// The routes of one of the three kinds. All work alike: anyone with access to the catalog may read, only admins may write.
    private func routes(_ collection: CatalogCollection, _ members: (_ required: Bool) -> [BodySchema.Property]) -> [Route] {
        let kind = collection.kind
        let name = kind.name
        let base = "/v3/\(kind.plural)"
        return [
            Route(
                .get, base, action: "identity:list_\(kind.plural)", rule: collectionRule(name), answer: .list(kind), "List \(kind.plural)"
            ) { context in
                try context.authorize(target: .none)
                return try await database.read { try kind.list($0, context, where: []) }
            },
            Route(
                .post, base, action: "identity:create_\(name)", rule: "rule:admin_required",
                body: Bodies.entity(name, members(true)), status: 201, answer: .one(kind), "Create a \(name)"
            ) { try await create($0, collection, id: nil) },
            Route(
                .get, "\(base)/{id}", action: "identity:get_\(name)", rule: collectionRule(name), answer: .one(kind), "Show a \(name)"
            ) { context in
                try context.authorize(target: .none)
                let id = context.parameter("id")
                return try await database.read { try kind.one($0, context, where: "t.id = \(id)", id: id) }
            },
            Route(
                .patch, "\(base)/{id}", action: "identity:update_\(name)", rule: "rule:admin_required",
                body: Bodies.entity(name, members(false)), answer: .one(kind), "Change a \(name)"
            ) { try await update($0, collection) },
            Route(
                .delete, "\(base)/{id}", action: "identity:delete_\(name)", rule: "rule:admin_required", status: 204,
                "Delete a \(name)"
            ) { try await remove($0, collection) },
        ]
    }

    /// Regions are public, as in Keystone.
    private func collectionRule(_ name: String) -> String { name == "region" ? "@" : "rule:cloud_reader or role:service" }

    var catalogResources: [Resource] {
        [
            Resource(
                "region",
                routes: routes(.regions, Identity.regionMembers) + [
                    Route(
                        .put, "/v3/regions/{id}", action: "identity:create_region", rule: "rule:admin_required",
                        body: Bodies.entity("region", Identity.regionMembers(required: true)), status: 201, answer: .one(Identity.regions),
                        "Create a region with a given id"
                    ) { try await create($0, .regions, id: $0.parameter("id")) }
                ]),
            Resource("service", routes: routes(.services, Identity.serviceMembers)),
            Resource("endpoint", routes: routes(.endpoints, Identity.endpointMembers)),
        ]
    }

    private static func regionMembers(required: Bool) -> [BodySchema.Property] {
        [
            .init("id", .nullable(.string(min: 1, max: 255, format: .name))), Bodies.description,
            .init("parent_region_id", .nullable(.string(min: 1, max: 255, format: nil))),
        ]
    }

    private static func serviceMembers(required: Bool) -> [BodySchema.Property] {
        [
            .init("type", .string(min: 1, max: 255, format: .name), required: required), .init("name", .nullable(.text)),
            Bodies.description, Bodies.enabled,
        ]
    }

    private static func endpointMembers(required: Bool) -> [BodySchema.Property] {
        [
            .init("interface", .enumeration(["public", "internal", "admin"]), required: required),
            .init("service_id", .string(min: 1, max: 64, format: nil), required: required),
            .init("url", .string(min: 1, max: 2048, format: nil), required: required), Bodies.enabled,
            .init("region", .nullable(.string(min: 1, max: 255, format: nil))),
            .init("region_id", .nullable(.string(min: 1, max: 255, format: nil))),
        ]
    }

    // MARK: changes

    private func create(_ context: RequestContext, _ collection: CatalogCollection, id: String?) async throws -> Response {
        let name = collection.kind.name
        let body = context.entity(name)
        let decision = try context.authorize(body, target: .none)
        let fresh = newID()
        return try await changeAccess(context) { connection in
            // Clients can choose ids only for regions.
            if let id { try body.requireRepeated(id, in: ["id"], of: name) }
            let id = id ?? (name == "region" ? body["id"]?.stringValue : nil) ?? fresh
            guard (1...255).contains(id.unicodeScalars.count) else {
                throw ResourceError.badRequest("Invalid input for field/attribute id. It must have 1 to 255 characters.")
            }
            try insert(connection, collection, decision, id: id)
            return try collection.kind.change(connection, context, status: 201, id: id)
        }
    }

    private func update(_ context: RequestContext, _ collection: CatalogCollection) async throws -> Response {
        let kind = collection.kind
        let decision = try context.authorize(context.parameter("id"), target: .none)
        let id = decision.value
        let body = try context.entity(kind.name, of: id)
        return try await changeAccess(context) { connection in
            try update(connection, collection, decision, body)
            return try kind.change(connection, context, status: 200, id: id)
        }
    }

    private func remove(_ context: RequestContext, _ collection: CatalogCollection) async throws -> Response {
        let name = collection.kind.name
        let decision = try context.authorize(context.parameter("id"), target: .none)
        return try await changeAccess(context) { connection in
            try delete(connection, collection, decision)
            return Change(.empty(), name, decision.value)
        }
    }
}
