import Authorization
import ComputeCore
import Database
import JSON
import Kernel
import WebAPI

/// Extra specs of flavors, and the projects that may use private ones.
struct FlavorDetailRoutes: Sendable {
    let compute: Compute

    private static let specsPath = "/v2.1/flavors/{flavor_id}/os-extra_specs"

    private static let accessSchema = BodySchema.wrapped(
        "flavor_access", .many(.object([.required("flavor_id", .anyText), .required("tenant_id", .anyText)])))

    var resource: Resource {
        let specs = FlavorDetailRoutes.specsPath
        return Resource(
            "flavor-extra-spec",
            routes: [
                Route(
                    .get, specs, action: "os_compute_api:os-flavor-extra-specs:index", rule: Rule.anybody,
                    answer: .form(.wrapped("extra_specs", .textMap)), "List extra specs", handler: list
                ),
                Route(
                    .post, specs, action: "os_compute_api:os-flavor-extra-specs:create", rule: Rule.admin,
                    body: .json(.wrapped("extra_specs", .object([], additional: .values(.oneOf([.text, .integer, .number]))))),
                    answer: .form(.wrapped("extra_specs", .textMap)), "Set extra specs", handler: create),
                Route(
                    .get, specs + "/{key}", action: "os_compute_api:os-flavor-extra-specs:show", rule: Rule.anybody,
                    answer: .form(.textMap), "Show an extra spec",
                    handler: show),
                Route(
                    .put, specs + "/{key}", action: "os_compute_api:os-flavor-extra-specs:update", rule: Rule.admin,
                    body: .json(.object([], additional: .values(.oneOf([.text, .integer, .number])))), answer: .form(.textMap),
                    "Change an extra spec",
                    handler: update),
                Route(
                    .delete, specs + "/{key}", action: "os_compute_api:os-flavor-extra-specs:delete", rule: Rule.admin,
                    "Remove an extra spec", handler: delete),
                Route(
                    .get, "/v2.1/flavors/{flavor_id}/os-flavor-access", action: "os_compute_api:os-flavor-access", rule: Rule.admin,
                    answer: .form(FlavorDetailRoutes.accessSchema), "List the projects of a private flavor", handler: access),
                Route(
                    .post, "/v2.1/flavors/{flavor_id}/action", key: "addTenantAccess",
                    action: "os_compute_api:os-flavor-access:add_tenant_access", rule: Rule.admin,
                    body: .json(.wrapped("addTenantAccess", .object([.init("tenant", .identifier, required: true)]))),
                    answer: .form(FlavorDetailRoutes.accessSchema), "Let a project use a flavor", handler: addAccess),
                Route(
                    .post, "/v2.1/flavors/{flavor_id}/action", key: "removeTenantAccess",
                    action: "os_compute_api:os-flavor-access:remove_tenant_access", rule: Rule.admin,
                    body: .json(.wrapped("removeTenantAccess", .object([.init("tenant", .identifier, required: true)]))),
                    answer: .form(FlavorDetailRoutes.accessSchema), "Take a flavor from a project", handler: removeAccess),
            ])
    }

    // MARK: extra specs

    private static func specs(_ connection: Connection, _ id: String, scope: SQL, lock: Bool = false) throws -> JSONObject {
        let rows = try connection.query(
            "SELECT t.extra_specs FROM flavors t WHERE t.flavorid = \(id) AND \(scope) \(raw: lock ? "FOR UPDATE" : "")")
        guard let row = rows.first else { throw ResourceKind.flavors.notFound(id) }
        return try row.object("extra_specs")
    }

    private func list(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = context.parameter("flavor_id")
        let scope = try FlavorScope.rows(context)
        let specs = try await compute.database.read { try FlavorDetailRoutes.specs($0, id, scope: scope) }
        return .json(200, ["extra_specs": .object(specs)])
    }

    private func show(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = context.parameter("flavor_id")
        let key = context.parameter("key")
        let scope = try FlavorScope.rows(context)
        let specs = try await compute.database.read { try FlavorDetailRoutes.specs($0, id, scope: scope) }
        guard let value = specs[key] else { throw FlavorDetailRoutes.missing(id, key) }
        return .json(200, .object([key: value]))
    }

    private static func missing(_ id: String, _ key: String) -> ResourceError {
        .notFound("Flavor \(id.prefix(255)) has no extra specs with key \(key.prefix(255)).")
    }

    private static func text(_ value: JSONValue) -> JSONValue {
        value.stringValue == nil ? .string(value.description) : value
    }

    private static func check(_ context: RequestContext, _ key: String, _ value: JSONValue) throws {
        let fine =
            !key.isEmpty
            && key.utf8.allSatisfy {
                $0 >= 48 && $0 <= 58 || $0 >= 65 && $0 <= 90 || $0 >= 97 && $0 <= 122 || [45, 46, 95, 32].contains($0)
            }
        guard fine else {
            throw ResourceError.badRequest(
                "Invalid input for extra spec name '\(key.prefix(64))': it may have letters, digits, '.', '-', '_', ':' and spaces.")
        }
        // As in Nova. A server with a value that means nothing is refused in any version.
        if context.version(atLeast: 2, 86) { try GuestKey.checkSpec(key, text(value).stringValue ?? "") }
    }

    private func create(_ context: RequestContext) async throws -> Response {
        let flavor = try context.authorize(context.parameter("flavor_id"), target: .none)
        let members = context.body["extra_specs"]?.objectValue?.members ?? []
        for member in members { try FlavorDetailRoutes.check(context, member.name, member.value) }
        return try await change(context, flavor, for: "os_compute_api:os-flavor-extra-specs:create") { specs in
            for member in members { specs[member.name] = FlavorDetailRoutes.text(member.value) }
            return .json(200, ["extra_specs": .object(specs)])
        }
    }

    private func update(_ context: RequestContext) async throws -> Response {
        let flavor = try context.authorize(context.parameter("flavor_id"), target: .none)
        let key = context.parameter("key")
        guard let object = context.body.objectValue, object.count == 1, let value = object[key] else {
            throw ResourceError.badRequest("Request body and URI mismatch: the body must contain exactly the member '\(key.prefix(64))'.")
        }
        try FlavorDetailRoutes.check(context, key, value)
        return try await change(context, flavor, for: "os_compute_api:os-flavor-extra-specs:update") { specs in
            specs[key] = FlavorDetailRoutes.text(value)
            return .json(200, .object([key: FlavorDetailRoutes.text(value)]))
        }
    }

    private func delete(_ context: RequestContext) async throws -> Response {
        let flavor = try context.authorize(context.parameter("flavor_id"), target: .none)
        let key = context.parameter("key")
        return try await change(context, flavor, for: "os_compute_api:os-flavor-extra-specs:delete") { specs in
            guard specs[key] != nil else { throw FlavorDetailRoutes.missing(flavor.value, key) }
            specs[key] = nil
            return .empty(200)
        }
    }

    private func change(
        _ context: RequestContext, _ flavor: Authorized<String>, for action: String,
        _ body: @escaping @Sendable (inout JSONObject) throws -> Response
    ) async throws -> Response {
        let id = try flavor.value(for: action)
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            var specs = try FlavorDetailRoutes.specs(connection, id, scope: "true", lock: true)
            let response = try body(&specs)
            guard specs.count <= 128 else { throw ResourceError.badRequest("A flavor has at most 128 extra specs.") }
            try connection.execute(
                "UPDATE flavors SET extra_specs = \(specs)::jsonb, generation = generation + 1, updated_at = \(now) WHERE flavorid = \(id)")
            return Change(response, "flavor", id, content: ["extra_specs": .object(specs)])
        }
    }

    // MARK: access

    private static func accessList(_ connection: Connection, _ id: String) throws -> Response {
        let rows = try connection.query(
            """
            SELECT f.is_public, a.project_id FROM flavors f LEFT JOIN flavor_access a ON a.flavor_id = f.id
            WHERE f.flavorid = \(id) ORDER BY a.project_id
            """)
        guard let first = rows.first else { throw ResourceKind.flavors.notFound(id) }
        if try first.bool("is_public") {
            throw ResourceError.notFound("Access list not available for public flavors.")
        }
        let entries = try rows.compactMap { try $0.optionalString("project_id") }.map { project -> JSONValue in
            ["flavor_id": .string(id), "tenant_id": .string(project)]
        }
        return .json(200, ["flavor_access": .array(entries)])
    }

    private func access(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = context.parameter("flavor_id")
        return try await compute.database.read { try FlavorDetailRoutes.accessList($0, id) }
    }

    private func addAccess(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "os_compute_api:os-flavor-access:add_tenant_access")
        let id = context.parameter("flavor_id")
        let project = context.body["addTenantAccess"]?["tenant"]?.stringValue ?? ""
        return try await context.write(compute.database) { connection in
            let known = try connection.query("SELECT 1 AS one FROM published_projects WHERE id = \(project)")
            if known.isEmpty { throw ResourceError.badRequest("Project ID \(project.prefix(64)) is not a valid project.") }
            let row = try connection.query("SELECT id, is_public FROM flavors WHERE flavorid = \(id)").first
            guard let row else { throw ResourceKind.flavors.notFound(id) }
            if try row.bool("is_public") { throw ResourceError.conflict("Can not add access to a public flavor.") }
            let added = try connection.execute(
                "INSERT INTO flavor_access (flavor_id, project_id) VALUES (\(try row.string("id")), \(project)) ON CONFLICT DO NOTHING")
            if added == 0 {
                throw ResourceError.conflict("Flavor access already exists for flavor \(id) and project \(project) combination.")
            }
            return Change(try FlavorDetailRoutes.accessList(connection, id), "flavor", id, content: ["add_access": .string(project)])
        }
    }

    private func removeAccess(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "os_compute_api:os-flavor-access:remove_tenant_access")
        let id = context.parameter("flavor_id")
        let project = context.body["removeTenantAccess"]?["tenant"]?.stringValue ?? ""
        return try await context.write(compute.database) { connection in
            let removed = try connection.execute(
                """
                DELETE FROM flavor_access a USING flavors f
                WHERE f.id = a.flavor_id AND f.flavorid = \(id) AND a.project_id = \(project)
                """)
            if removed == 0 {
                throw ResourceError.notFound("Flavor access not found for \(id.prefix(255)) / \(project.prefix(64)) combination.")
            }
            return Change(try FlavorDetailRoutes.accessList(connection, id), "flavor", id, content: ["remove_access": .string(project)])
        }
    }
}
