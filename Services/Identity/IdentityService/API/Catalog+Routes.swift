import Authorization
import Database
import IdentityCore
import JSON
import Kernel
import WebAPI

/// Regions, services and endpoints: what tokens' catalogs are made of.
extension Identity {
    static let regions = ResourceKind.identity(
        "region",
        Table(
            "catalog_regions t",
            fields: [Field("id"), Field("description"), Field("parent_region_id"), Field("extra", .members)]))

    static let services = ResourceKind.identity(
        "service",
        Table(
            "catalog_services t",
            fields: [
                Field("id"), Field("name", sortable: true), Field("type", sortable: true), Field("description"),
                Field("enabled", .boolean), Field("extra", .members),
            ]))

    static let endpoints = ResourceKind.identity(
        "endpoint",
        Table(
            "catalog_endpoints t",
            fields: [
                Field("id"), Field("interface"), Field("region_id"), Field("region", .text, "t.region_id"),
                Field("service_id"), Field("url"), Field("enabled", .boolean), Field("extra", .members),
            ]))

    private static let regionMembers: Set<String> = ["id", "description", "parent_region_id"]
    private static let serviceMembers: Set<String> = ["id", "name", "type", "description", "enabled"]
    private static let endpointMembers: Set<String> = ["id", "interface", "region", "region_id", "service_id", "url", "enabled"]

    private struct Collection: Sendable {
        let listing: ResourceKind
        /// `catalog_regions`
        let table: String
        let body: @Sendable (Bool) -> [BodySchema.Property]
        let texts: [String: String]
        let insert: @Sendable (Connection, Authorized<JSONObject>, String) throws -> Void
        let changes: @Sendable (Connection, JSONObject, String) throws -> Changes
    }

    /// Routes of one of the three, all alike: anyone who may see the cloud reads, only admins write.
    private func routes(_ collection: Collection) -> [Route] {
        let listing = collection.listing
        let name = listing.name
        let base = "/v3/\(listing.plural)"
        return [
            Route(.get, base, action: "identity:list_\(listing.plural)", rule: collectionRule(name), "List \(listing.plural)") {
                context in
                try context.authorize(target: .none)
                let conditions = try context.conditions(texts: collection.texts, flags: name == "region" ? [:] : ["enabled": "t.enabled"])
                return try await database.read { try listing.list($0, context, where: conditions) }
            },
            Route(
                .post, base, action: "identity:create_\(name)", rule: "rule:admin_required",
                body: Bodies.entity(name, collection.body(true)), status: 201, "Create a \(name)"
            ) { try await create($0, collection, id: nil) },
            Route(.get, "\(base)/{id}", action: "identity:get_\(name)", rule: collectionRule(name), "Show a \(name)") { context in
                try context.authorize(target: .none)
                let id = context.parameter("id")
                return try await database.read { try listing.one($0, context, where: "t.id = \(id)", id: id) }
            },
            Route(
                .patch, "\(base)/{id}", action: "identity:update_\(name)", rule: "rule:admin_required",
                body: Bodies.entity(name, collection.body(false)), "Change a \(name)"
            ) { try await update($0, collection) },
            Route(
                .delete, "\(base)/{id}", action: "identity:delete_\(name)", rule: "rule:admin_required", status: 204,
                "Delete a \(name)"
            ) { try await remove($0, collection) },
        ]
    }

    /// Regions are no secret, as in Keystone.
    private func collectionRule(_ name: String) -> String { name == "region" ? "@" : "rule:cloud_reader or role:service" }

    var catalogResources: [Resource] {
        [
            Resource(
                "region",
                routes: routes(regionCollection) + [
                    Route(
                        .put, "/v3/regions/{id}", action: "identity:create_region", rule: "rule:admin_required",
                        body: Bodies.entity("region", regionCollection.body(true)), status: 201,
                        "Create a region with an id of one's own"
                    ) { try await create($0, regionCollection, id: $0.parameter("id")) }
                ]),
            Resource("service", routes: routes(serviceCollection)),
            Resource("endpoint", routes: routes(endpointCollection)),
        ]
    }

    // MARK: changes

    private func create(_ context: RequestContext, _ collection: Collection, id: String?) async throws -> Response {
        let name = collection.listing.name
        let body = context.entity(name)
        let decision = try context.authorize(body, target: .none)
        let fresh = newID()
        let response = try await context.write(database) { connection in
            // Only regions have ids that clients choose.
            let id = id ?? (name == "region" ? body["id"]?.stringValue : nil) ?? fresh
            guard (1...255).contains(id.unicodeScalars.count) else {
                throw ResourceError.badRequest("Invalid input for field/attribute id. It must have 1 to 255 characters.")
            }
            try storing(name, body["name"]?.stringValue ?? id) { try collection.insert(connection, decision, id) }
            return try collection.listing.change(connection, context, status: 201, id: id)
        }
        await authenticator.refresh()
        return response
    }

    private func update(_ context: RequestContext, _ collection: Collection) async throws -> Response {
        let listing = collection.listing
        let body = context.entity(listing.name)
        let id = try context.authorize(context.parameter("id"), target: .none).value(for: "identity:update_\(listing.name)")
        let response = try await context.write(database) { connection in
            guard try !connection.query("SELECT id FROM \(raw: collection.table) WHERE id = \(id) FOR UPDATE").isEmpty else {
                throw Identity.missing(listing.name, id)
            }
            let changes = try collection.changes(connection, body, id)
            try storing(listing.name, body["name"]?.stringValue ?? id) {
                _ = try changes.apply(connection, collection.table, id, at: ambient.now, touching: true)
            }
            return try listing.change(connection, context, status: 200, id: id)
        }
        await authenticator.refresh()
        return response
    }

    private func remove(_ context: RequestContext, _ collection: Collection) async throws -> Response {
        let name = collection.listing.name
        let id = try context.authorize(context.parameter("id"), target: .none).value(for: "identity:delete_\(name)")
        let response = try await context.write(database) { connection in
            let removed: Int
            do {
                removed = try connection.execute("DELETE FROM \(raw: collection.table) WHERE id = \(id)")
            } catch let error as DatabaseError where error.isForeignKeyViolation {
                throw ResourceError.forbidden(
                    "Unable to delete \(name) \(id) because it or its children have associated endpoints or regions.")
            }
            guard removed == 1 else { throw Identity.missing(name, id) }
            return Change(.empty(), name, id)
        }
        await authenticator.refresh()
        return response
    }

    // MARK: the three

    private var regionCollection: Collection {
        let ambient = ambient
        return Collection(
            listing: Identity.regions, table: "catalog_regions",
            body: { _ in
                [
                    .init("id", .nullable(.string(min: 1, max: 255, format: .name))), Bodies.description,
                    .init("parent_region_id", .nullable(.string(min: 1, max: 255, format: nil))),
                ]
            }, texts: ["parent_region_id": "t.parent_region_id"],
            insert: { connection, body, id in
                let body = try body.value(for: "identity:create_region")
                try connection.execute(
                    """
                    INSERT INTO catalog_regions (id, parent_region_id, description, extra, created_at, updated_at)
                    VALUES (\(id), \(body["parent_region_id"]?.stringValue), \(body["description"]?.stringValue ?? ""),
                        \(body.extra(beside: Identity.regionMembers))::jsonb, \(ambient.now), \(ambient.now))
                    """)
            },
            changes: { connection, body, id in
                if let parent = body["parent_region_id"]?.stringValue {
                    try Identity.requireNoCircle(connection, region: id, parent: parent)
                }
                var changes = Changes()
                changes.text(body, "parent_region_id", absent: nil)
                changes.text(body, "description")
                changes.extra(body, beside: Identity.regionMembers)
                return changes
            })
    }

    private static func requireNoCircle(_ connection: Connection, region: String, parent: String) throws {
        let circle = try connection.query(
            """
            WITH RECURSIVE up AS (
                SELECT r.id, r.parent_region_id FROM catalog_regions r WHERE r.id = \(parent)
                UNION SELECT r.id, r.parent_region_id FROM catalog_regions r JOIN up ON r.id = up.parent_region_id)
            SELECT id FROM up WHERE id = \(region)
            """)
        guard circle.isEmpty else {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute parent_region_id. Value: \(parent). It is the region itself or below it.")
        }
    }

    private var serviceCollection: Collection {
        let ambient = ambient
        return Collection(
            listing: Identity.services, table: "catalog_services",
            body: { required in
                [
                    .init("type", .string(min: 1, max: 255, format: .name), required: required),
                    .init("name", .nullable(.text)), Bodies.description, Bodies.enabled,
                ]
            }, texts: ["name": "t.name", "type": "t.type"],
            insert: { connection, body, id in
                let body = try body.value(for: "identity:create_service")
                try connection.execute(
                    """
                    INSERT INTO catalog_services (id, type, name, description, enabled, extra, created_at, updated_at)
                    VALUES (\(id), \(body["type"]?.stringValue), \(body["name"]?.stringValue ?? ""),
                        \(body["description"]?.stringValue), \(body["enabled"]?.boolValue ?? true),
                        \(body.extra(beside: Identity.serviceMembers))::jsonb, \(ambient.now), \(ambient.now))
                    """)
            },
            changes: { _, body, _ in
                var changes = Changes()
                if body["type"] != nil { changes.text(body, "type") }
                changes.text(body, "name")
                changes.text(body, "description", absent: nil)
                changes.flag(body, "enabled")
                changes.extra(body, beside: Identity.serviceMembers)
                return changes
            })
    }

    private var endpointCollection: Collection {
        let ambient = ambient
        return Collection(
            listing: Identity.endpoints, table: "catalog_endpoints",
            body: { required in
                [
                    .init("interface", .enumeration(["public", "internal", "admin"]), required: required),
                    .init("service_id", .string(min: 1, max: 64, format: nil), required: required),
                    .init("url", .string(min: 1, max: 2048, format: nil), required: required), Bodies.enabled,
                    .init("region", .nullable(.string(min: 1, max: 255, format: nil))),
                    .init("region_id", .nullable(.string(min: 1, max: 255, format: nil))),
                ]
            }, texts: ["interface": "t.interface", "service_id": "t.service_id", "region_id": "t.region_id", "region": "t.region_id"],
            insert: { connection, body, id in
                let body = try body.value(for: "identity:create_endpoint")
                try Identity.checkEndpoint(connection, body)
                let region = body["region_id"]?.stringValue ?? body["region"]?.stringValue
                try connection.execute(
                    """
                    INSERT INTO catalog_endpoints
                        (id, service_id, region_id, interface, url, enabled, extra, created_at, updated_at)
                    VALUES (\(id), \(body["service_id"]?.stringValue), \(region), \(body["interface"]?.stringValue),
                        \(body["url"]?.stringValue), \(body["enabled"]?.boolValue ?? true),
                        \(body.extra(beside: Identity.endpointMembers))::jsonb, \(ambient.now), \(ambient.now))
                    """)
            },
            changes: { connection, body, _ in
                try Identity.checkEndpoint(connection, body)
                var changes = Changes()
                changes.text(body, "interface")
                changes.text(body, "service_id")
                changes.text(body, "url")
                if let region = body["region_id"] ?? body["region"] { changes.set("region_id", region.stringValue) }
                changes.flag(body, "enabled")
                changes.extra(body, beside: Identity.endpointMembers)
                return changes
            })
    }

    private static func checkEndpoint(_ connection: Connection, _ body: JSONObject) throws {
        if let url = body["url"]?.stringValue, !CatalogURL.isUsable(url) {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute url. Value: \(url.prefix(120)). It must be an http or https URL; $(project_id)s, $(tenant_id)s and $(user_id)s are the only places in it."
            )
        }
        if let service = body["service_id"]?.stringValue,
            try connection.query("SELECT id FROM catalog_services WHERE id = \(service)").isEmpty
        {
            throw ResourceError.badRequest("Could not find service: \(service).")
        }
        if let region = body["region_id"]?.stringValue ?? body["region"]?.stringValue,
            try connection.query("SELECT id FROM catalog_regions WHERE id = \(region)").isEmpty
        {
            // The old attribute `region` makes the region, as in Keystone.
            guard body["region_id"]?.stringValue == nil else { throw ResourceError.badRequest("Could not find region: \(region).") }
            try connection.execute(
                "INSERT INTO catalog_regions (id, created_at, updated_at) VALUES (\(region), now(), now()) ON CONFLICT DO NOTHING")
        }
    }
}
