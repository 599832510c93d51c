import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import WebAPI

/// Quotas, limits and usage reports.
struct QuotaRoutes: Sendable {
    let compute: Compute

    private static let path = "/v2.1/os-quota-sets/{project_id}"

    private static let quotas = ComputeQuotas.all.map { (declaration: $0, versions: $0.lastMinor.map(VersionRange.through) ?? .all) }

    private static let schema: BodySchema = .wrapped(
        "quota_set",
        .object(
            quotas.map { .init($0.declaration.name, .integer(min: -1, max: Int(Int32.max)), versions: $0.versions) } + [
                .init("force", .boolean), .init("tenant_id", .text),
            ]))

    private static let usageShape = BodySchema.object([
        .required("limit", .limit), .required("in_use", .count), .required("reserved", .count),
    ])

    /// - Parameter value: the value of each quota in the response.
    private static func answer(_ value: BodySchema) -> BodySchema {
        .wrapped(
            "quota_set", .object([.init("id", .anyText)] + quotas.map { .required($0.declaration.name, value, versions: $0.versions) }))
    }

    private static let classAnswer = BodySchema.wrapped(
        "quota_class_set", .object([.init("id", .anyText)] + quotas.map { .init($0.declaration.name, .limit, versions: $0.versions) }))

    private static let limitsSchema = BodySchema.wrapped(
        "limits",
        .object([
            .required("rate", .array(.any, min: 0, max: 0)), .required("absolute", .object([], additional: .values(.limit))),
        ]))

    var resource: Resource {
        let path = QuotaRoutes.path
        return Resource(
            "quota-set",
            routes: [
                Route(
                    .get, path, action: "os_compute_api:os-quota-sets:show", rule: Rule.reader, answer: .form(QuotaRoutes.answer(.limit)),
                    "Show a project's quota"
                ) {
                    try await show($0, isDetailed: false)
                },
                Route(
                    .get, path + "/detail", action: "os_compute_api:os-quota-sets:detail", rule: Rule.reader,
                    answer: .form(QuotaRoutes.answer(QuotaRoutes.usageShape)), "Show a project's quota and usage"
                ) {
                    try await show($0, isDetailed: true)
                },
                Route(
                    .get, path + "/defaults", action: "os_compute_api:os-quota-sets:defaults", rule: Rule.anybody,
                    answer: .form(QuotaRoutes.answer(.limit)), "Show the default quota"
                ) { context in
                    try context.authorize(target: .none)
                    let project = context.parameter("project_id")
                    let values = try await defaults()
                    return .json(200, ["quota_set": .object(QuotaRoutes.object(values, context, id: project, isDetailed: false))])
                },
                Route(
                    .put, path, action: "os_compute_api:os-quota-sets:update", rule: Rule.admin, body: .json(QuotaRoutes.schema),
                    answer: .form(QuotaRoutes.answer(.limit)), "Change a project's quota", handler: update),
                Route(
                    .delete, path, action: "os_compute_api:os-quota-sets:delete", rule: Rule.admin, status: 202,
                    "Reset a project's quota to the default", handler: reset),
                Route(
                    .get, "/v2.1/os-quota-class-sets/{class}", action: "os_compute_api:os-quota-class-sets:show", rule: Rule.admin,
                    answer: .form(QuotaRoutes.classAnswer), "Show the default quota"
                ) { context in
                    try context.authorize(target: .none)
                    return .json(
                        200,
                        ["quota_class_set": .object(QuotaRoutes.classObject(try await defaults(), context, id: context.parameter("class")))]
                    )
                },
                Route(
                    .put, "/v2.1/os-quota-class-sets/{class}", action: "os_compute_api:os-quota-class-sets:update", rule: Rule.admin,
                    body: .json(QuotaRoutes.classSchema), answer: .form(QuotaRoutes.classAnswer), "Change the default quota",
                    handler: updateDefaults),
                Route(
                    .get, "/v2.1/limits", action: "os_compute_api:limits", rule: Rule.anybody, answer: .form(QuotaRoutes.limitsSchema),
                    "Show limits and usage", handler: limits),
                Route(
                    .get, "/v2.1/os-simple-tenant-usage", action: "os_compute_api:os-simple-tenant-usage:list", rule: Rule.admin,
                    answer: .form(UsageReport.listSchema), "Usage of all projects"
                ) {
                    try await usage($0, project: nil)
                },
                Route(
                    .get, "/v2.1/os-simple-tenant-usage/{project_id}", action: "os_compute_api:os-simple-tenant-usage:show",
                    rule: Rule.reader, answer: .form(UsageReport.schema), "Usage of a project"
                ) {
                    try await usage($0, project: $0.parameter("project_id"))
                },
            ])
    }

    // MARK: the default class

    /// The names in a quota class. 2.50 removed the limits on networks, 2.57 those on injected files.
    private static let classQuotas = quotas.map { quota in
        (declaration: quota.declaration, versions: quota.declaration.lastMinor == 35 ? VersionRange.through(49) : quota.versions)
    }

    private static let classSchema: BodySchema = .wrapped(
        "quota_class_set",
        .object(classQuotas.map { .init($0.declaration.name, .integer(min: -1, max: Int(Int32.max)), versions: $0.versions) }))

    private static func classObject(
        _ values: [String: (limit: Int, used: Int)], _ context: RequestContext, id: String?
    ) -> JSONObject {
        var object: JSONObject = [:]
        if let id { object["id"] = .string(id) }
        for (declaration, versions) in classQuotas where versions.contains(context.version) {
            let name = declaration.name
            // Nova shows these two from 2.50 on.
            if ["server_groups", "server_group_members"].contains(name), !context.version(atLeast: 2, 50) { continue }
            object[name] = JSONValue(values[name]?.limit ?? 0)
        }
        return object
    }

    private func defaults() async throws -> [String: (limit: Int, used: Int)] {
        try await compute.database.read { try compute.quota.currentDefaults($0).mapValues { (limit: $0, used: 0) } }
    }

    private func updateDefaults(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "os_compute_api:os-quota-class-sets:update")
        let name = context.parameter("class")
        // Refuse other classes: they would have no effect, because all projects are in this class.
        guard name == "default" else {
            throw ResourceError.badRequest("Invalid quota class '\(name.prefix(64))': the only one is 'default'.")
        }
        let set = context.body["quota_class_set"]?.objectValue ?? [:]
        return try await context.write(compute.database) { connection in
            for declaration in ComputeQuotas.all {
                guard let limit = set[declaration.name]?.intValue else { continue }
                try compute.quota.setDefault(connection, declaration, limit: limit)
            }
            let values = try compute.quota.currentDefaults(connection).mapValues { (limit: $0, used: 0) }
            let written = JSONValue.object(QuotaRoutes.classObject(values, context, id: nil))
            return Change(.json(200, ["quota_class_set": written]), "quota-class-set", name, content: written)
        }
    }

    // MARK: quota sets

    private static func object(
        _ values: [String: (limit: Int, used: Int)], _ context: RequestContext, id: String, isDetailed: Bool
    ) -> JSONObject {
        var object: JSONObject = ["id": .string(id)]
        for (declaration, versions) in quotas where versions.contains(context.version) {
            let name = declaration.name
            let value = values[name] ?? (limit: 0, used: 0)
            object[name] =
                isDetailed
                ? ["limit": JSONValue(value.limit), "in_use": JSONValue(value.used), "reserved": 0] : JSONValue(value.limit)
        }
        return object
    }

    private func show(_ context: RequestContext, isDetailed: Bool) async throws -> Response {
        let project = context.parameter("project_id")
        try context.authorize(target: .project(project))
        let values = try await compute.database.read { connection in
            try ProjectCheck.require(connection, project: project)
            return try compute.quota.all(connection, project: project)
        }
        return .json(200, ["quota_set": .object(QuotaRoutes.object(values, context, id: project, isDetailed: isDetailed))])
    }

    /// - Throws: 400, because limits are those of a project: its own would change instead of the user's.
    private static func refuseUser(_ context: RequestContext) throws {
        guard let user = context.query["user_id"] else { return }
        throw ResourceError.badRequest(
            "Invalid input for query parameters user_id. Value: '\(user.prefix(64))'. This cloud has no quotas of single users.")
    }

    private func update(_ context: RequestContext) async throws -> Response {
        let project = context.parameter("project_id")
        try QuotaRoutes.refuseUser(context)
        try context.authorize(target: .project(project)).value(for: "os_compute_api:os-quota-sets:update")
        let set = context.body["quota_set"]?.objectValue ?? [:]
        try set.requireRepeated(project, in: ["tenant_id"], of: "quota_set")
        let isForced = set["force"]?.boolValue ?? false
        return try await context.write(compute.database) { connection in
            try ProjectCheck.require(connection, project: project)
            for declaration in ComputeQuotas.all {
                let name = declaration.name
                guard let limit = set[name]?.intValue else { continue }
                let used = try compute.quota.state(connection, project: project, declaration).used
                if limit >= 0, limit < used, !isForced {
                    throw ResourceError.badRequest(
                        "Quota limit \(limit) for \(name) must be greater than or equal to already used and reserved \(used).")
                }
                try compute.quota.set(connection, project: project, declaration, limit: limit)
            }
            var object = QuotaRoutes.object(
                try compute.quota.all(connection, project: project), context, id: project, isDetailed: false)
            object["id"] = nil
            return Change(.json(200, ["quota_set": .object(object)]), "quota-set", project, content: .object(object))
        }
    }

    private func reset(_ context: RequestContext) async throws -> Response {
        let project = context.parameter("project_id")
        try QuotaRoutes.refuseUser(context)
        try context.authorize(target: .project(project)).value(for: "os_compute_api:os-quota-sets:delete")
        return try await context.write(compute.database) { connection in
            try compute.quota.reset(connection, project: project)
            return Change(.empty(202), "quota-set", project)
        }
    }

    // MARK: limits

    private func limits(_ context: RequestContext) async throws -> Response {
        let asked = context.query["tenant_id"]
        try context.authorize(target: .none)
        let own = try context.caller.projectID
        if let asked, asked != own, !context.allows("os_compute_api:os-used-limits:other_project") {
            throw ResourceError.forbidden("Policy doesn't allow os_compute_api:os-used-limits:other_project to be performed.")
        }
        let project = try asked ?? context.caller.requireProject()
        let values = try await compute.database.read { connection in try compute.quota.all(connection, project: project) }
        var absolute = compute.quota.absolute(values, minor: context.version.minor)
        if !context.version(atLeast: 2, 39) { absolute["maxImageMeta"] = absolute["maxServerMeta"] }
        return .json(200, ["limits": ["rate": [], "absolute": .object(absolute)]])
    }
}
