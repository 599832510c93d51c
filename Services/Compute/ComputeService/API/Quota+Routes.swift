import Database
import JSON
import Kernel
import WebAPI

/// Quotas, limits and usage reports.
struct QuotaRoutes: Sendable {
    let compute: Compute

    private static let path = "/v2.1/os-quota-sets/{project_id}"

    /// Names in Compute's API, and those of the quota. The last ones are kept, but there is nothing that they count.
    private static let names: [(name: String, quota: String, versions: VersionRange)] = [
        ("instances", "compute:instances", .all), ("cores", "compute:cores", .all), ("ram", "compute:ram", .all),
        ("metadata_items", "compute:metadata_items", .all), ("key_pairs", "compute:key_pairs", .all),
        ("server_groups", "compute:server_groups", .all), ("server_group_members", "compute:server_group_members", .all),
        ("injected_files", "compute:injected_files", .through(56)),
        ("injected_file_content_bytes", "compute:injected_file_content_bytes", .through(56)),
        ("injected_file_path_bytes", "compute:injected_file_path_bytes", .through(56)),
        ("floating_ips", "compute:floating_ips", .through(35)), ("fixed_ips", "compute:fixed_ips", .through(35)),
        ("security_groups", "compute:security_groups", .through(35)),
        ("security_group_rules", "compute:security_group_rules", .through(35)),
    ]

    private static let schema: BodySchema = .wrapped(
        "quota_set",
        .object(
            names.map { .init($0.name, .integer(min: -1, max: Int(Int32.max)), versions: $0.versions) } + [
                .init("force", .boolean), .init("tenant_id", .text),
            ]))

    var resource: Resource {
        let path = QuotaRoutes.path
        return Resource(
            "quota-set",
            routes: [
                Route(.get, path, action: "os_compute_api:os-quota-sets:show", rule: Rule.reader, "Show a project's quota") {
                    try await show($0, isDetailed: false)
                },
                Route(
                    .get, path + "/detail", action: "os_compute_api:os-quota-sets:detail", rule: Rule.reader,
                    "Show a project's quota and usage"
                ) {
                    try await show($0, isDetailed: true)
                },
                Route(
                    .get, path + "/defaults", action: "os_compute_api:os-quota-sets:defaults", rule: Rule.anybody, "Show the default quota"
                ) { context in
                    try context.authorize(target: .none)
                    let project = context.parameter("project_id")
                    let values = try await defaults()
                    return .json(200, ["quota_set": .object(QuotaRoutes.object(values, context, id: project, isDetailed: false))])
                },
                Route(
                    .put, path, action: "os_compute_api:os-quota-sets:update", rule: Rule.admin, body: .json(QuotaRoutes.schema),
                    "Change a project's quota", handler: update),
                Route(
                    .delete, path, action: "os_compute_api:os-quota-sets:delete", rule: Rule.admin, status: 202,
                    "Give a project the default quota", handler: reset),
                Route(
                    .get, "/v2.1/os-quota-class-sets/{class}", action: "os_compute_api:os-quota-class-sets:show", rule: Rule.admin,
                    "Show the default quota"
                ) { context in
                    try context.authorize(target: .none)
                    return .json(
                        200,
                        ["quota_class_set": .object(QuotaRoutes.classObject(try await defaults(), context, id: context.parameter("class")))]
                    )
                },
                Route(
                    .put, "/v2.1/os-quota-class-sets/{class}", action: "os_compute_api:os-quota-class-sets:update", rule: Rule.admin,
                    body: .json(QuotaRoutes.classSchema), "Change the default quota", handler: updateDefaults),
                Route(.get, "/v2.1/limits", action: "os_compute_api:limits", rule: Rule.anybody, "Show limits and usage", handler: limits),
                Route(
                    .get, "/v2.1/os-simple-tenant-usage", action: "os_compute_api:os-simple-tenant-usage:list", rule: Rule.admin,
                    "Usage of all projects"
                ) {
                    try await usage($0, project: nil)
                },
                Route(
                    .get, "/v2.1/os-simple-tenant-usage/{project_id}", action: "os_compute_api:os-simple-tenant-usage:show",
                    rule: Rule.reader, "Usage of a project"
                ) {
                    try await usage($0, project: $0.parameter("project_id"))
                },
            ])
    }

    // MARK: the default class

    /// What a quota class may name; the limits on networks ended with 2.50, those on injected files with 2.57.
    private static let classNames = names.map { name in
        let isNetworks = ["floating_ips", "fixed_ips", "security_groups", "security_group_rules"].contains(name.name)
        return (name: name.name, quota: name.quota, versions: isNetworks ? VersionRange.through(49) : name.versions)
    }

    private static let classSchema: BodySchema = .wrapped(
        "quota_class_set",
        .object(classNames.map { .init($0.name, .integer(min: -1, max: Int(Int32.max)), versions: $0.versions) }))

    private static func classObject(
        _ values: [String: (limit: Int, used: Int)], _ context: RequestContext, id: String?
    ) -> JSONObject {
        var object: JSONObject = [:]
        if let id { object["id"] = .string(id) }
        for (name, quota, versions) in classNames where versions.contains(context.version) {
            // Nova shows these two from 2.50 on.
            if ["server_groups", "server_group_members"].contains(name), !context.version(atLeast: 2, 50) { continue }
            object[name] = JSONValue(values[quota]?.limit ?? 0)
        }
        return object
    }

    private func defaults() async throws -> [String: (limit: Int, used: Int)] {
        try await compute.database.read { try compute.quota.currentDefaults($0).mapValues { (limit: $0, used: 0) } }
    }

    private func updateDefaults(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "os_compute_api:os-quota-class-sets:update")
        let name = context.parameter("class")
        // Other classes would be kept and limit nobody: projects are in no class but this one.
        guard name == "default" else {
            throw ResourceError.badRequest("Invalid quota class '\(name.prefix(64))': the only one is 'default'.")
        }
        let set = context.body["quota_class_set"]?.objectValue ?? [:]
        return try await context.write(compute.database) { connection in
            for (name, quota, _) in QuotaRoutes.classNames {
                guard let limit = set[name]?.intValue else { continue }
                try compute.quota.setDefault(connection, resource: quota, limit: limit)
            }
            let values = try compute.quota.currentDefaults(connection).mapValues { (limit: $0, used: 0) }
            return Change(
                .json(200, ["quota_class_set": .object(QuotaRoutes.classObject(values, context, id: nil))]),
                "quota-class-set", name, content: .object(set))
        }
    }

    // MARK: quota sets

    private static func object(
        _ values: [String: (limit: Int, used: Int)], _ context: RequestContext, id: String, isDetailed: Bool
    ) -> JSONObject {
        var object: JSONObject = ["id": .string(id)]
        for (name, quota, versions) in names where versions.contains(context.version) {
            let value = values[quota] ?? (limit: 0, used: 0)
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
            try QuotaRoutes.check(connection, project: project)
            return try compute.quota.all(connection, project: project)
        }
        return .json(200, ["quota_set": .object(QuotaRoutes.object(values, context, id: project, isDetailed: isDetailed))])
    }

    private static func check(_ connection: Connection, project: String) throws {
        if try connection.query("SELECT 1 AS one FROM published_projects WHERE id = \(project)").isEmpty {
            throw ResourceError.badRequest("Project ID \(project.prefix(64)) is not a valid project.")
        }
    }

    private func update(_ context: RequestContext) async throws -> Response {
        let project = context.parameter("project_id")
        try context.authorize(target: .project(project)).value(for: "os_compute_api:os-quota-sets:update")
        let set = context.body["quota_set"]?.objectValue ?? [:]
        let isForced = set["force"]?.boolValue ?? false
        return try await context.write(compute.database) { connection in
            try QuotaRoutes.check(connection, project: project)
            for (name, quota, _) in QuotaRoutes.names {
                guard let limit = set[name]?.intValue else { continue }
                let used = try compute.quota.state(connection, project: project, resource: quota).used
                if limit >= 0, limit < used, !isForced {
                    throw ResourceError.badRequest(
                        "Quota limit \(limit) for \(name) must be greater than or equal to already used and reserved \(used).")
                }
                try compute.quota.set(connection, project: project, resource: quota, limit: limit)
            }
            var object = QuotaRoutes.object(
                try compute.quota.all(connection, project: project), context, id: project, isDetailed: false)
            object["id"] = nil
            return Change(.json(200, ["quota_set": .object(object)]), "quota-set", project, content: .object(set))
        }
    }

    private func reset(_ context: RequestContext) async throws -> Response {
        let project = context.parameter("project_id")
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
        func limit(_ name: String) -> JSONValue { JSONValue(values["compute:\(name)"]?.limit ?? 0) }
        func used(_ name: String) -> JSONValue { JSONValue(values["compute:\(name)"]?.used ?? 0) }
        var absolute: JSONObject = [
            "maxTotalInstances": limit("instances"), "maxTotalCores": limit("cores"), "maxTotalRAMSize": limit("ram"),
            "maxServerMeta": limit("metadata_items"), "maxTotalKeypairs": limit("key_pairs"),
            "maxServerGroups": limit("server_groups"), "maxServerGroupMembers": limit("server_group_members"),
            "totalInstancesUsed": used("instances"), "totalCoresUsed": used("cores"), "totalRAMUsed": used("ram"),
            "totalServerGroupsUsed": used("server_groups"),
        ]
        if !context.version(atLeast: 2, 39) { absolute["maxImageMeta"] = limit("metadata_items") }
        if !context.version(atLeast: 2, 57) {
            absolute["maxPersonality"] = limit("injected_files")
            absolute["maxPersonalitySize"] = limit("injected_file_content_bytes")
        }
        if !context.version(atLeast: 2, 36) {
            for name in ["maxTotalFloatingIps", "maxSecurityGroups", "maxSecurityGroupRules"] { absolute[name] = -1 }
            absolute["totalFloatingIpsUsed"] = 0
            absolute["totalSecurityGroupsUsed"] = 0
        }
        return .json(200, ["limits": ["rate": [], "absolute": .object(absolute)]])
    }
}
