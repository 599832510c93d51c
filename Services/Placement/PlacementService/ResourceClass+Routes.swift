import Database
import JSON
import Kernel
import PlacementCore
import WebAPI

extension Placement {
    var resourceClassResource: Resource {
        let since = VersionRange(from: Microversion(1, 2))
        let named = BodySchema.object([.init("name", .string(min: 1, max: 255, format: nil), required: true)])
        let path = "/resource_classes/{name}"
        let prefix = "placement:resource_classes:"
        return Resource(
            "resource_class",
            routes: [
                Route(
                    .get, "/resource_classes", action: prefix + "list", rule: Placement.rule, versions: since, "List resource classes",
                    handler: listClasses),
                Route(
                    .post, "/resource_classes", action: prefix + "create", rule: Placement.rule, versions: since, body: .json(named),
                    status: 201, "Create a custom resource class", handler: createClass),
                Route(
                    .get, path, action: prefix + "show", rule: Placement.rule, versions: since, "Show a resource class", handler: showClass),
                Route(
                    .put, path, action: prefix + "update", rule: Placement.rule,
                    versions: VersionRange(from: Microversion(1, 2), through: Microversion(1, 6)), body: .json(named),
                    "Rename a custom resource class", handler: renameClass),
                Route(
                    .put, path, action: prefix + "update", rule: Placement.rule, versions: VersionRange(from: Microversion(1, 7)),
                    status: 201, "Create a custom resource class if there is none", handler: ensureClass),
                Route(
                    .delete, path, action: prefix + "delete", rule: Placement.rule, versions: since, status: 204,
                    "Delete a custom resource class", handler: deleteClass),
            ])
    }

    private static func document(_ name: String) -> JSONValue {
        ["name": .string(name), "links": [["rel": "self", "href": .string("/resource_classes/\(name)")]]]
    }

    private static func requireCustom(_ name: String) throws {
        guard PlacementName.isCustom(name) else {
            throw ResourceError.badRequest(
                "The resource class name '\(name.prefix(64))' is invalid: it must start with CUSTOM_ and have only A-Z, 0-9 and _, at most 255 characters."
            )
        }
    }

    private func exists(_ connection: Connection, resourceClass name: String) throws -> Bool {
        if StandardResourceClasses.set.contains(name) { return true }
        return !(try connection.query("SELECT 1 AS one FROM resource_classes WHERE name = \(name)").isEmpty)
    }

    private func listClasses(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        return try await database.read { connection in
            let custom = try connection.query("SELECT name FROM resource_classes ORDER BY name").map { try $0.string("name") }
            let documents = (StandardResourceClasses.all + custom).map(Placement.document)
            return context.dated(.json(200, ["resource_classes": .array(documents)]))
        }
    }

    private func showClass(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let name = context.parameter("name")
        return try await database.read { connection in
            guard try exists(connection, resourceClass: name) else { throw ResourceError.notFound("No such resource class: \(name).") }
            return context.dated(.json(200, Placement.document(name)))
        }
    }

    private static func insert(_ connection: Connection, _ ambient: Ambient, _ name: String) throws -> Bool {
        !(try connection.query(
            """
            INSERT INTO resource_classes (name, created_at, updated_at)
            VALUES (\(name), \(ambient.now), \(ambient.now)) ON CONFLICT DO NOTHING RETURNING name
            """
        ).isEmpty)
    }

    private func createClass(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "placement:resource_classes:create")
        let name = context.body["name"]?.stringValue ?? ""
        try Placement.requireCustom(name)
        return try await context.write(database) { connection in
            guard try Placement.insert(connection, ambient, name) else {
                throw ResourceError.conflict("Conflicting resource class already exists: \(name)")
            }
            return Change(.empty(201, headers: ["location": "\(context.publicURL)/resource_classes/\(name)"]), "resource_class", name)
        }
    }

    private func ensureClass(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "placement:resource_classes:update")
        let name = context.parameter("name")
        try Placement.requireCustom(name)
        return try await context.write(database) { connection in
            let created = try Placement.insert(connection, ambient, name)
            return Change(
                .empty(created ? 201 : 204, headers: ["location": "\(context.publicURL)/resource_classes/\(name)"]), "resource_class", name)
        }
    }

    private func renameClass(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "placement:resource_classes:update")
        let old = context.parameter("name")
        let name = context.body["name"]?.stringValue ?? ""
        try Placement.requireCustom(name)
        return try await context.write(database) { connection in
            try lockUnused(connection, old)
            if name != old {
                guard try Placement.insert(connection, ambient, name) else {
                    throw ResourceError.conflict("Resource class already exists: \(name)")
                }
                try connection.execute("DELETE FROM resource_classes WHERE name = \(old)")
            }
            return Change(.json(200, Placement.document(name)), "resource_class", name)
        }
    }

    /// - Throws: 400 for a standard class, 404 for an unknown one, 409 for one that is in use.
    private func lockUnused(_ connection: Connection, _ name: String) throws {
        guard !StandardResourceClasses.set.contains(name) else {
            throw ResourceError.badRequest("Cannot update or delete standard resource class \(name).")
        }
        guard !(try connection.query("SELECT 1 AS one FROM resource_classes WHERE name = \(name) FOR UPDATE").isEmpty) else {
            throw ResourceError.notFound("No such resource class: \(name).")
        }
        guard try connection.query("SELECT 1 AS one FROM inventories WHERE resource_class = \(name) LIMIT 1").isEmpty else {
            throw ResourceError.conflict("Error in changing resource class \(name): it is in use in inventory.")
        }
    }

    private func deleteClass(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "placement:resource_classes:delete")
        let name = context.parameter("name")
        return try await context.write(database) { connection in
            try lockUnused(connection, name)
            try connection.execute("DELETE FROM resource_classes WHERE name = \(name)")
            return Change(.empty(), "resource_class", name)
        }
    }
}
