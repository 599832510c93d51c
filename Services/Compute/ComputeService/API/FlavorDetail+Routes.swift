import Authorization
import ComputeCore
import Database
import GuestKeys
import JSON
import Kernel
import WebAPI

/// Extra specs of flavors, and the projects that may use private ones.
struct FlavorDetailRoutes: Sendable {
    let compute: Compute

    private static let accessSchema = BodySchema.wrapped(
        "flavor_access", .many(.object([.required("flavor_id", .anyText), .required("tenant_id", .anyText)])))

    var resource: Resource {
        Resource(
            "flavor-extra-spec",
            routes: specs.routes + [
                Route(
                    .get, "/v2.1/flavors/{flavor_id}/os-flavor-access", action: "os_compute_api:os-flavor-access", rule: Rule.admin,
                    answer: .form(FlavorDetailRoutes.accessSchema), "List the projects of a private flavor", handler: access),
                .action(
                    "/v2.1/flavors/{flavor_id}", key: "addTenantAccess", action: "os_compute_api:os-flavor-access:add_tenant_access",
                    rule: Rule.admin, schema: .object([.init("tenant", .identifier, required: true)]), status: 200,
                    answer: .form(FlavorDetailRoutes.accessSchema), "Let a project use a flavor", handler: addAccess),
                .action(
                    "/v2.1/flavors/{flavor_id}", key: "removeTenantAccess", action: "os_compute_api:os-flavor-access:remove_tenant_access",
                    rule: Rule.admin, schema: .object([.init("tenant", .identifier, required: true)]), status: 200,
                    answer: .form(FlavorDetailRoutes.accessSchema), "Remove a project's access to a flavor", handler: removeAccess),
            ])
    }

    // MARK: extra specs

    private var specs: MapRoutes {
        let action = "os_compute_api:os-flavor-extra-specs:"
        return MapRoutes(
            "/v2.1/flavors/{flavor_id}/os-extra_specs", name: "extra_specs", item: nil,
            actions: .init(
                list: action + "index", add: action + "create", replace: nil, show: action + "show", set: action + "update",
                remove: action + "delete", readRule: Rule.anybody, writeRule: Rule.admin),
            body: .object([], additional: .values(.oneOf([.text, .integer, .number]))), answer: .textMap, removedStatus: 200,
            missing: { context, key in
                .notFound("Flavor \(context.parameter("flavor_id").prefix(255)) has no extra specs with key \(key.prefix(255)).")
            },
            stored: { context, key, value in
                try FlavorDetailRoutes.check(context, key, value)
                return FlavorDetailRoutes.text(value)
            }, read: readSpecs, change: changeSpecs)
    }

    @Sendable private func readSpecs(_ context: RequestContext) async throws -> JSONObject {
        try context.authorize(target: .none)
        let id = context.parameter("flavor_id")
        let scope = try FlavorScope.rows(context)
        return try await compute.database.read { try FlavorStore.specs($0, id, scope: scope) }
    }

    @Sendable private func changeSpecs(
        _ context: RequestContext, for action: String, _ change: @escaping MapRoutes.Mutation
    ) async throws -> Response {
        let flavor = try context.authorize(context.parameter("flavor_id"), target: .none)
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            var response = Response.empty()
            let specs = try FlavorStore.changeSpecs(connection, flavor, for: action, at: now) { response = try change(&$0) }
            return Change(response, "flavor", flavor.value, content: ["extra_specs": .object(specs)])
        }
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

    // MARK: access

    private static func accessList(_ connection: Connection, _ id: String) throws -> Response {
        let entries = try FlavorStore.projects(connection, of: id).map { project -> JSONValue in
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
        let flavor = try context.authorize(context.parameter("flavor_id"), target: .none)
        let project = context.body["addTenantAccess"]?["tenant"]?.stringValue ?? ""
        return try await context.write(compute.database) { connection in
            try FlavorStore.add(connection, project: project, to: flavor)
            let id = flavor.value
            return Change(try FlavorDetailRoutes.accessList(connection, id), "flavor", id, content: ["add_access": .string(project)])
        }
    }

    private func removeAccess(_ context: RequestContext) async throws -> Response {
        let flavor = try context.authorize(context.parameter("flavor_id"), target: .none)
        let project = context.body["removeTenantAccess"]?["tenant"]?.stringValue ?? ""
        return try await context.write(compute.database) { connection in
            try FlavorStore.remove(connection, project: project, from: flavor)
            let id = flavor.value
            return Change(try FlavorDetailRoutes.accessList(connection, id), "flavor", id, content: ["remove_access": .string(project)])
        }
    }
}
