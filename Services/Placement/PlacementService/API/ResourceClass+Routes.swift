import Authorization
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
                    .get, "/resource_classes", action: prefix + "list", rule: Placement.rule, versions: since,
                    answer: .form(PlacementForms.resourceClasses), "List resource classes", handler: listClasses),
                Route(
                    .post, "/resource_classes", action: prefix + "create", rule: Placement.rule, versions: since, body: .json(named),
                    status: 201, "Create a custom resource class", handler: createClass),
                Route(
                    .get, path, action: prefix + "show", rule: Placement.rule, versions: since,
                    answer: .form(PlacementForms.resourceClass), "Show a resource class", handler: showClass),
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
                """
                The resource class name '\(name.prefix(64))' is invalid: it must start with CUSTOM_ and have only \
                A-Z, 0-9 and _, at most 255 characters.
                """
            )
        }
    }

    private func listClasses(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        return try await database.read { connection in
            let documents = try ResourceClassStore.names(connection).map(Placement.document)
            return context.dated(.json(200, ["resource_classes": .array(documents)]))
        }
    }

    private func showClass(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let name = context.parameter("name")
        return try await database.read { connection in
            guard try ResourceClassStore.exists(connection, name) else { throw ResourceError.notFound("No such resource class: \(name).") }
            return context.dated(.json(200, Placement.document(name)))
        }
    }

    private func createClass(_ context: RequestContext) async throws -> Response {
        let new = try context.authorize(context.body["name"]?.stringValue ?? "", target: .none)
        let name = new.value
        try Placement.requireCustom(name)
        return try await context.write(database) { connection in
            guard try ResourceClassStore.insert(connection, new, at: ambient.now) else {
                throw ResourceError.conflict("Conflicting resource class already exists: \(name)")
            }
            return Change(.empty(201, headers: ["location": "\(context.publicURL)/resource_classes/\(name)"]), "resource_class", name)
        }
    }

    private func ensureClass(_ context: RequestContext) async throws -> Response {
        let new = try context.authorize(context.parameter("name"), target: .none)
        let name = new.value
        try Placement.requireCustom(name)
        return try await context.write(database) { connection in
            let created = try ResourceClassStore.insert(connection, new, at: ambient.now)
            return Change(
                .empty(created ? 201 : 204, headers: ["location": "\(context.publicURL)/resource_classes/\(name)"]), "resource_class", name)
        }
    }

    private func renameClass(_ context: RequestContext) async throws -> Response {
        let old = try context.authorize(context.parameter("name"), target: .none)
        let new = try context.authorize(context.body["name"]?.stringValue ?? "", target: .none)
        let name = new.value
        try Placement.requireCustom(name)
        return try await context.write(database) { connection in
            try ResourceClassStore.lockUnused(connection, old.value)
            if name != old.value {
                guard try ResourceClassStore.insert(connection, new, at: ambient.now) else {
                    throw ResourceError.conflict("Resource class already exists: \(name)")
                }
                try ResourceClassStore.delete(connection, old)
            }
            return Change(.json(200, Placement.document(name)), "resource_class", name)
        }
    }

    private func deleteClass(_ context: RequestContext) async throws -> Response {
        let old = try context.authorize(context.parameter("name"), target: .none)
        let name = old.value
        return try await context.write(database) { connection in
            try ResourceClassStore.lockUnused(connection, name)
            try ResourceClassStore.delete(connection, old)
            return Change(.empty(), "resource_class", name)
        }
    }
}
