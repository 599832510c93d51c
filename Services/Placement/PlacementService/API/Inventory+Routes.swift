import Authorization
import Database
import JSON
import Kernel
import PlacementCore
import WebAPI

extension Placement {
    private static let int32 = Int(Int32.max)

    private static func inventoryProperties(_ more: [BodySchema.Property]) -> [BodySchema.Property] {
        more + [
            .init("total", .integer(min: 1, max: int32), required: true), .init("reserved", .integer(min: 0, max: int32)),
            .init("min_unit", .integer(min: 1, max: int32)), .init("max_unit", .integer(min: 1, max: int32)),
            .init("step_size", .integer(min: 1, max: int32)), .init("allocation_ratio", .number),
        ]
    }

    static let generationProperty = BodySchema.Property(
        "resource_provider_generation", .integer(min: 0, max: Int.max), required: true)

    private static let className = BodySchema.string(min: 1, max: 255, format: nil)

    var inventoryResource: Resource {
        let single = BodySchema.object(Placement.inventoryProperties([Placement.generationProperty]))
        let created = BodySchema.object(
            Placement.inventoryProperties([
                .init("resource_provider_generation", .integer(min: 0, max: Int.max)),
                .init("resource_class", Placement.className, required: true),
            ]))
        let all = BodySchema.object([
            Placement.generationProperty,
            .init("inventories", .object([], additional: .values(.object(Placement.inventoryProperties([])))), required: true),
        ])
        let base = "/resource_providers/{uuid}/inventories"
        let prefix = "placement:resource_providers:inventories:"
        return Resource(
            "inventory",
            routes: [
                Route(
                    .get, base, action: prefix + "list", rule: Placement.rule, answer: .list(.inventories), "List inventories",
                    handler: listInventories),
                Route(
                    .put, base, action: prefix + "update", rule: Placement.rule, body: .json(all), answer: .list(.inventories),
                    "Replace all inventories",
                    handler: replaceInventories),
                Route(
                    .post, base, action: prefix + "create", rule: Placement.rule, body: .json(created), status: 201,
                    answer: .one(.inventory), "Add an inventory",
                    handler: createInventory),
                Route(
                    .delete, base, action: prefix + "delete", rule: Placement.rule, versions: VersionRange(from: Microversion(1, 5)),
                    status: 204, "Delete all inventories", handler: deleteInventories),
                Route(
                    .get, base + "/{class}", action: prefix + "show", rule: Placement.rule, answer: .one(.inventory),
                    "Show an inventory", handler: showInventory),
                Route(
                    .put, base + "/{class}", action: prefix + "update", rule: Placement.rule, body: .json(single),
                    answer: .one(.inventory), "Change an inventory",
                    handler: updateInventory),
                Route(
                    .delete, base + "/{class}", action: prefix + "delete", rule: Placement.rule, status: 204, "Delete an inventory",
                    handler: deleteInventory),
            ])
    }

    // MARK: reading

    private func listInventories(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = try context.providerID
        return try await database.read { context.dated(try Placement.inventories($0, context, id)) }
    }

    private static func inventories(_ connection: Connection, _ context: RequestContext, _ id: String) throws -> Response {
        let generation = try generation(connection, provider: id)
        return try ResourceKind.inventories.all(
            connection, context, where: "t.resource_provider_id = \(id)::uuid",
            head: { $0.field("resource_provider_generation", generation) })
    }

    private func showInventory(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = try context.providerID
        let name = context.parameter("class")
        return try await database.read { context.dated(try Placement.inventory($0, context, id, name)) }
    }

    private static func noInventory(_ id: String, _ name: String) -> ResourceError {
        .notFound("No inventory of class \(name) for \(id)")
    }

    private static func inventory(
        _ connection: Connection, _ context: RequestContext, _ id: String, _ name: String, status: Int = 200
    ) throws -> Response {
        let condition: SQL = "t.resource_provider_id = \(id)::uuid AND t.resource_class = \(name)"
        if let found = try ResourceKind.inventory.oneOrNone(connection, context, where: condition, status: status) {
            return found.response
        }
        _ = try generation(connection, provider: id)
        throw noInventory(id, name)
    }

    // MARK: writing

    private func replaceInventories(_ context: RequestContext) async throws -> Response {
        let provider = try context.authorizedProvider()
        let id = try provider.value(for: "placement:resource_providers:inventories:update")
        let mayReserveAll = context.version(atLeast: 1, 26)
        let wanted = try (context.body["inventories"]?.objectValue ?? [:]).members.map { member in
            (member.name, try Inventory(member.value, resourceClass: member.name, mayReserveAll: mayReserveAll))
        }
        let expected = context.body["resource_provider_generation"]?.intValue
        let now = ambient.now
        return try await context.write(database) { connection in
            try ProviderStore.touch(
                connection, provider, for: "placement:resource_providers:inventories:update", expected: expected, at: now)
            try Placement.requireClasses(connection, wanted.map(\.0))
            try InventoryStore.remove(connection, from: provider, keeping: wanted.map(\.0))
            for (name, inventory) in wanted { try InventoryStore.put(connection, on: provider, name, inventory, at: now) }
            try Placement.announce(connection, [id])
            return Change(answer: try Placement.inventories(connection, context, id), "inventory", id)
        }
    }

    private func createInventory(_ context: RequestContext) async throws -> Response {
        let provider = try context.authorizedProvider()
        let id = try provider.value(for: "placement:resource_providers:inventories:create")
        let name = context.body["resource_class"]?.stringValue ?? ""
        let inventory = try Inventory(context.body, resourceClass: name, mayReserveAll: context.version(atLeast: 1, 26))
        let expected = context.body["resource_provider_generation"]?.intValue
        let now = ambient.now
        return try await context.write(database) { connection in
            try ProviderStore.touch(
                connection, provider, for: "placement:resource_providers:inventories:create", expected: expected, at: now)
            try Placement.requireClasses(connection, [name])
            guard try InventoryStore.load(connection, providers: [id])[id]?[name] == nil else {
                throw ResourceError.conflict("Update conflict: Inventory of class \(name) for \(id) already exists.")
            }
            try InventoryStore.put(connection, on: provider, name, inventory, at: now)
            try Placement.announce(connection, [id])
            var response = try Placement.inventory(connection, context, id, name, status: 201)
            response.headers["location"] = "\(context.publicURL)/resource_providers/\(id)/inventories/\(name)"
            return Change(answer: response, "inventory", id)
        }
    }

    private func updateInventory(_ context: RequestContext) async throws -> Response {
        let provider = try context.authorizedProvider()
        let id = try provider.value(for: "placement:resource_providers:inventories:update")
        let name = context.parameter("class")
        let inventory = try Inventory(context.body, resourceClass: name, mayReserveAll: context.version(atLeast: 1, 26))
        let expected = context.body["resource_provider_generation"]?.intValue
        let now = ambient.now
        return try await context.write(database) { connection in
            try ProviderStore.touch(
                connection, provider, for: "placement:resource_providers:inventories:update", expected: expected, at: now)
            guard try InventoryStore.load(connection, providers: [id])[id]?[name] != nil else {
                throw ResourceError.badRequest(
                    """
                    Unknown inventory class \(name) for resource provider \(id): No inventory record with resource \
                    class for resource provider in inventory.
                    """
                )
            }
            try InventoryStore.put(connection, on: provider, name, inventory, at: now)
            try Placement.announce(connection, [id])
            return Change(answer: try Placement.inventory(connection, context, id, name), "inventory", id)
        }
    }

    private func deleteInventories(_ context: RequestContext) async throws -> Response {
        let provider = try context.authorizedProvider()
        let id = try provider.value(for: "placement:resource_providers:inventories:delete")
        return try await context.write(database) { connection in
            try ProviderStore.touch(connection, provider, for: "placement:resource_providers:inventories:delete", at: context.ambient.now)
            try InventoryStore.remove(connection, from: provider, keeping: [])
            try Placement.announce(connection, [id])
            return Change(.empty(), "inventory", id)
        }
    }

    private func deleteInventory(_ context: RequestContext) async throws -> Response {
        let provider = try context.authorizedProvider()
        let id = try provider.value(for: "placement:resource_providers:inventories:delete")
        let name = context.parameter("class")
        return try await context.write(database) { connection in
            try ProviderStore.touch(connection, provider, for: "placement:resource_providers:inventories:delete", at: context.ambient.now)
            let all = try InventoryStore.load(connection, providers: [id])[id] ?? [:]
            guard all[name] != nil else { throw Placement.noInventory(id, name) }
            try InventoryStore.remove(connection, from: provider, keeping: all.keys.filter { $0 != name })
            try Placement.announce(connection, [id])
            return Change(.empty(), "inventory", id)
        }
    }
}
