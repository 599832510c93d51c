import Authorization
import ComputeCore
import Database
import JSON
import Kernel
import WebAPI

extension ResourceKind {
    static let flavors = ResourceKind(
        "flavor",
        table: Table(
            "flavors t", key: "t.flavorid", keyType: .text, defaultSort: [("flavorid", false)],
            fields: [
                Field("id", .text, "t.flavorid"), Field("name", filter: .regex.from(Microversion(2, 102))),
                Field("ram", .number, "t.memory_mb"),
                Field("disk", .number, "t.root_gb"),
                Field(
                    "swap", .json, "CASE WHEN t.swap_mb = 0 THEN '\"\"' ELSE t.swap_mb::text END", versions: .through(74),
                    shape: .oneOf([.enumeration([""]), .count])),
                Field("swap", .number, "t.swap_mb", versions: .from(75)),
                Field("OS-FLV-EXT-DATA:ephemeral", .number, "t.ephemeral_gb"),
                Field("OS-FLV-DISABLED:disabled", .boolean, "t.disabled", versions: .through(101)), Field("vcpus", .number),
                Field("os-flavor-access:is_public", .boolean, "t.is_public"),
                Field("rxtx_factor", .json, "to_json(t.rxtx_factor)", versions: .through(101), shape: .number), .links("flavors"),
                Field("description", versions: .from(55)),
                Field(
                    "extra_specs", .json, versions: .from(61), visibleBy: "os_compute_api:os-flavor-extra-specs:show_all", shape: .textMap),
                .filter("minRam") { value in
                    guard let number = Int(value) else { throw ResourceError.badRequest("Invalid minRam filter [\(value.prefix(64))]") }
                    return "t.memory_mb >= \(number)"
                },
                .filter("minDisk") { value in
                    guard let number = Int(value) else { throw ResourceError.badRequest("Invalid minDisk filter [\(value.prefix(64))]") }
                    return "t.root_gb >= \(number)"
                },
                .sortKey("flavorid", "t.flavorid"),
                .sortKey("name", "t.name"),
                .sortKey("memory_mb", "t.memory_mb"),
                .sortKey("root_gb", "t.root_gb"),
                .sortKey("vcpus", "t.vcpus"),
                .sortKey("created_at", "t.created_at"),
            ]),
        visibility: Visibility { try FlavorScope.rows($0, isPublic: FlavorScope.isPublic($0)) },
        grammar: .compute(ignoring: ["is_public"], hasFields: false), pages: .next
    ) { .notFound("Flavor \($0.prefix(255)) could not be found.") }

    /// `/flavors` without detail.
    static let flavorNames = flavors.showing(["id", "name", "links", "description"])
}

/// Flavors: lists and single ones, making and removing them.
struct FlavorRoutes: Sendable {
    let compute: Compute

    var resource: Resource {
        Resource(
            "flavor",
            routes: [
                Route(
                    .get, "/v2.1/flavors", action: "os_compute_api:flavors:index", rule: Rule.anybody, answer: .list(.flavorNames),
                    "List flavors"
                ) { try await list($0, .flavorNames) },
                Route(
                    .get, "/v2.1/flavors/detail", action: "os_compute_api:flavors:detail", rule: Rule.anybody, answer: .list(.flavors),
                    "List flavors with details"
                ) { try await list($0, .flavors) },
                Route(
                    .get, "/v2.1/flavors/{flavor_id}", action: "os_compute_api:flavors:show", rule: Rule.anybody, answer: .one(.flavors),
                    "Show a flavor", handler: show),
                Route(
                    .post, "/v2.1/flavors", action: "os_compute_api:os-flavor-manage:create", rule: Rule.admin,
                    body: .json(FlavorRoutes.createSchema), answer: .one(.flavors), "Create a flavor", handler: create),
                Route(
                    .put, "/v2.1/flavors/{flavor_id}", action: "os_compute_api:os-flavor-manage:update",
                    rule: Rule.admin, versions: .from(55),
                    body: .json(.wrapped("flavor", .object([.init("description", .nullable(.text(65_535)), required: true)]))),
                    answer: .one(.flavors), "Change a flavor's description", handler: update),
                Route(
                    .delete, "/v2.1/flavors/{flavor_id}", action: "os_compute_api:os-flavor-manage:delete",
                    rule: Rule.admin, status: 202, "Delete a flavor", handler: delete),
            ])
    }

    private static let createSchema = BodySchema.wrapped(
        "flavor",
        .object([
            .init("name", .trimmedName, required: true), .init("id", .nullable(.oneOf([.text, .integer]))),
            .init("ram", .integer(min: 1, max: Int(Int32.max)), required: true),
            .init("vcpus", .integer(min: 1, max: 1024), required: true),
            .init("disk", .integer(min: 0, max: 1 << 20), required: true),
            .init("OS-FLV-EXT-DATA:ephemeral", .integer(min: 0, max: 1 << 20)),
            .init("swap", .integer(min: 0, max: Int(Int32.max))),
            .init("rxtx_factor", .oneOf([.number, .text]), versions: .through(101)), .init("os-flavor-access:is_public", .boolean),
            .init("description", .nullable(.text(65_535)), versions: .from(55)),
        ]))

    // MARK: reading

    private func list(_ context: RequestContext, _ kind: ResourceKind) async throws -> Response {
        try context.authorize(target: .none)
        let request = try kind.listRequest(context)
        let scope = try kind.visibility.rows(context)
        return try await compute.database.read { try kind.list($0, context, request, scope: scope).response }
    }

    private func show(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = context.parameter("flavor_id")
        let scope = try FlavorScope.rows(context)
        return try await compute.database.read {
            try ResourceKind.flavors.one($0, context, where: "t.flavorid = \(id) AND \(scope)", id: id)
        }
    }

    // MARK: writing

    private func create(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let flavor = context.body["flavor"] ?? [:]
        let given = flavor["id"].flatMap { $0.stringValue ?? $0.intValue.map(String.init) }
        let id = given.flatMap { $0.isEmpty || $0 == "auto" ? nil : $0 } ?? compute.ambient.newUUID().description
        let name = flavor["name"]?.stringValue ?? ""
        let factor = flavor["rxtx_factor"]?.doubleValue ?? flavor["rxtx_factor"]?.stringValue.flatMap { Double($0) } ?? 1
        guard factor > 0, factor.isFinite else {
            throw ResourceError.badRequest("Invalid input for field/attribute rxtx_factor. It must be greater than 0.")
        }
        let allowed = id.utf8.allSatisfy {
            $0 >= 48 && $0 <= 57 || $0 >= 65 && $0 <= 90 || $0 >= 97 && $0 <= 122 || [45, 46, 95, 32].contains($0)
        }
        guard allowed, id == id.trimmedSpaces else {
            throw ResourceError.badRequest(
                """
                Invalid input for field/attribute id. Value: \(id.prefix(64)). It may have letters, digits, '.', \
                '-', '_' and spaces inside.
                """
            )
        }
        func number(_ name: String) -> Int { flavor[name]?.intValue ?? 0 }
        let draft = FlavorStore.Draft(
            id: compute.ambient.newUUID(), flavorID: id, name: name, description: flavor["description"]?.stringValue,
            vcpus: number("vcpus"), memory: number("ram"), root: number("disk"), ephemeral: number("OS-FLV-EXT-DATA:ephemeral"),
            swap: number("swap"), factor: factor, isPublic: flavor["os-flavor-access:is_public"]?.boolValue ?? true)
        let decision = try context.authorize(draft, target: .none)
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            try FlavorStore.insert(connection, decision, at: now)
            let response = try ResourceKind.flavors.one(connection, context, where: "t.flavorid = \(id)", id: id)
            return Change(answer: response, "flavor", id, member: "flavor")
        }
    }

    private func update(_ context: RequestContext) async throws -> Response {
        let id = context.parameter("flavor_id")
        let decision = try context.authorize(id, target: .none)
        let description = context.body["flavor"]?["description"]?.stringValue
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            try FlavorStore.setDescription(connection, of: decision, description, at: now)
            let response = try ResourceKind.flavors.one(connection, context, where: "t.flavorid = \(id)", id: id)
            return Change(response, "flavor", id, content: ["description": JSONValue(description)])
        }
    }

    private func delete(_ context: RequestContext) async throws -> Response {
        let id = context.parameter("flavor_id")
        let decision = try context.authorize(id, target: .none)
        return try await context.write(compute.database) { connection in
            try FlavorStore.delete(connection, decision)
            return Change(.empty(202), "flavor", id)
        }
    }
}
