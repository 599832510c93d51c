import Authorization
import BlockStorageCore
import Contracts
import Database
import JSON
import Kernel
import WebAPI

/// Quotas and limits.
extension BlockStorageHandlers {
    private static let names = BlockStorageQuotas.all.map(\.name)

    /// Limits by the quotas' names.
    ///
    /// - Parameter value: a limit, or the limit together with its use.
    private static func form(_ name: String, _ value: BodySchema = .integer) -> BodySchema {
        .wrapped(name, .object([.init("id", .text)] + names.map { .init($0, value, required: true) }))
    }

    private static let usage = BodySchema.object(["limit", "in_use", "reserved"].map { .init($0, .integer, required: true) })

    private static let limitsForm: BodySchema = {
        let names = BlockStorageQuotas.all.compactMap(\.absolute).flatMap { [$0.maximum] + ($0.used.map { [$0] } ?? []) }
        return .wrapped(
            "limits",
            .object([
                .init("rate", .list(.any), required: true),
                .init("absolute", .object(names.map { .init($0, .integer, required: true) }), required: true),
            ]))
    }()

    var quotaResource: Resource {
        let admin = BlockStorageHandlers.admin
        let limit = BodySchema.nullable(.integer(min: -1, max: Int(Int32.max)))
        let body = BodySchema.wrapped("quota_set", .object([], additional: .values(.oneOf([limit, .text]))))
        let show = "rule:admin_required or (role:reader and project_id:%(project_id)s)"
        let one = "/os-quota-sets/{target_id}"
        return Resource(
            "quota",
            routes: bothPaths([
                Route(
                    .get, one, action: "volume_extension:quotas:show", rule: show,
                    answer: .form(Self.form("quota_set", .oneOf([.integer, Self.usage]))), "Show quotas", handler: showQuota),
                Route(
                    .get, one + "/defaults", action: "volume_extension:quotas:show_defaults", rule: show,
                    answer: .form(Self.form("quota_set")), "Show the defaults"
                ) { context in
                    let target = context.parameter("target_id")
                    try context.authorize(target: .project(target))
                    let defaults = try await database.read { try quota.quota.currentDefaults($0) }
                    return quotaResponse(target) { defaults[$0] ?? -1 }
                },
                Route(
                    .put, one, action: "volume_extension:quotas:update", rule: admin, body: .json(body),
                    answer: .form(Self.form("quota_set")), "Set quotas", handler: updateQuota),
                Route(
                    .delete, one, action: "volume_extension:quotas:delete", rule: admin, "Reset quotas to the defaults",
                    handler: resetQuota),
                Route(
                    .get, "/os-quota-class-sets/{class}", action: "volume_extension:quota_classes:get", rule: admin,
                    answer: .form(Self.form("quota_class_set")), "Show the defaults"
                ) { context in
                    try context.authorize(target: .none)
                    let defaults = try await database.read { try quota.quota.currentDefaults($0) }
                    return BlockStorageHandlers.classResponse(defaults, id: context.parameter("class"))
                },
                Route(
                    .put, "/os-quota-class-sets/{class}", action: "volume_extension:quota_classes:update", rule: admin,
                    body: .json(.wrapped("quota_class_set", .object([], additional: .values(.oneOf([limit, .text]))))),
                    answer: .form(Self.form("quota_class_set")), "Change the defaults", handler: updateDefaults),
                Route(
                    .get, "/limits", action: "limits_extension:used_limits", rule: BlockStorageHandlers.read,
                    answer: .form(Self.limitsForm), "Show limits and what is used", handler: limits),
            ]))
    }

    private func quotaResponse(_ target: String, id: Bool = true, _ value: (String) -> Int) -> Response {
        var set: JSONObject = id ? ["id": .string(target)] : [:]
        for name in BlockStorageHandlers.names { set[name] = JSONValue(value(name)) }
        return .json(200, ["quota_set": .object(set)])
    }

    private func showQuota(_ context: RequestContext) async throws -> Response {
        let target = context.parameter("target_id")
        try context.authorize(target: .project(target))
        let withUsage = try context.flag("usage")
        let all = try await database.read { try quota.quota.all($0, project: target) }
        guard withUsage else { return quotaResponse(target) { all[$0]?.limit ?? -1 } }
        func entry(_ limit: Int, _ used: Int) -> JSONValue {
            ["limit": JSONValue(limit), "in_use": JSONValue(used), "reserved": 0]
        }
        var set: JSONObject = ["id": .string(target)]
        for name in BlockStorageHandlers.names {
            let state = all[name]
            set[name] = entry(state?.limit ?? -1, state?.used ?? 0)
        }
        return .json(200, ["quota_set": .object(set)])
    }

    private func resetQuota(_ context: RequestContext) async throws -> Response {
        let target = context.parameter("target_id")
        try context.authorize(target: .project(target)).value(for: "volume_extension:quotas:delete")
        return try await context.write(database) { connection in
            try quota.quota.reset(connection, project: target)
            return Change(.empty(200), "quota", target)
        }
    }

    private func updateQuota(_ context: RequestContext) async throws -> Response {
        let target = context.parameter("target_id")
        try context.authorize(target: .project(target)).value(for: "volume_extension:quotas:update")
        let body = context.body["quota_set"]?.objectValue ?? [:]
        let limits = try BlockStorageHandlers.limits(body, of: "quota_set", repeating: target, in: ["tenant_id", "project_id", "id"])
        return try await context.write(database) { connection in
            let before = try quota.quota.all(connection, project: target)
            for (declaration, limit) in limits {
                let name = declaration.name
                let used = before[name]?.used ?? 0
                guard limit < 0 || limit >= used else {
                    throw ResourceError.badRequest(
                        """
                        Quota \(name) limit must be equal or greater than existing resources. Current usage is \(used) and the requested \
                        limit is \(limit).
                        """)
                }
                try quota.quota.set(connection, project: target, declaration, limit: limit)
            }
            let all = try quota.quota.all(connection, project: target)
            let response = quotaResponse(target, id: false) { all[$0]?.limit ?? -1 }
            return Change(answer: response, "quota", target)
        }
    }

    /// The limits that a body names; a null leaves a limit as it is.
    ///
    /// - Parameters:
    ///   - subject: the project or class of the path.
    ///   - subjectNames: the members that may repeat it.
    /// - Throws: 400 for an unknown quota, for an invalid limit, and for another subject than the path's.
    private static func limits(
        _ body: JSONObject, of set: String, repeating subject: String, in subjectNames: [String]
    ) throws -> [(quota: QuotaDeclaration, limit: Int)] {
        try body.requireRepeated(subject, in: subjectNames, of: set)
        return try body.members.compactMap { member in
            if subjectNames.contains(member.name) { return nil }
            guard !["volumes_", "gigabytes_", "snapshots_"].contains(where: member.name.hasPrefix) else {
                throw ResourceError.badRequest(
                    """
                    Invalid input for field/attribute \(set). Bad key(s) in quota set: \(member.name.prefix(64)). Quotas of single volume \
                    types are not available in this cloud; give a project access to the type instead.
                    """)
            }
            guard let quota = BlockStorageQuotas.all.first(where: { $0.name == member.name }) else {
                throw ResourceError.badRequest(
                    "Invalid input for field/attribute \(set). Bad key(s) in quota set: \(member.name.prefix(64))")
            }
            if member.value.isNull { return nil }
            guard let limit = member.value.intValue ?? member.value.stringValue.flatMap({ Int($0) }),
                (-1...Int(Int32.max)).contains(limit)
            else {
                throw ResourceError.badRequest(
                    """
                    Invalid input for field/attribute \(set).\(member.name). Value: \(member.value.description.prefix(64)). \
                    It must be a whole number from -1 to \(Int32.max).
                    """)
            }
            return (quota, limit)
        }
    }

    private static func classResponse(_ values: [String: Int], id: String?) -> Response {
        var set: JSONObject = [:]
        if let id { set["id"] = .string(id) }
        for name in names { set[name] = JSONValue(values[name] ?? -1) }
        return .json(200, ["quota_class_set": .object(set)])
    }

    private func updateDefaults(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "volume_extension:quota_classes:update")
        let name = context.parameter("class")
        // Refuse other classes: they would have no effect, because all projects are in this class.
        guard name == "default" else {
            throw ResourceError.badRequest("Invalid quota class '\(name.prefix(64))': the only one is 'default'.")
        }
        let limits = try BlockStorageHandlers.limits(
            context.body["quota_class_set"]?.objectValue ?? [:], of: "quota_class_set", repeating: name, in: ["class_name", "id"])
        return try await context.write(database) { connection in
            for (declaration, limit) in limits {
                try quota.quota.setDefault(connection, declaration, limit: limit)
            }
            return Change(
                answer: BlockStorageHandlers.classResponse(try quota.quota.currentDefaults(connection), id: nil), "quota-class", name)
        }
    }

    private func limits(_ context: RequestContext) async throws -> Response {
        let project = try context.project()
        try context.authorize(target: .project(project))
        var wanted = project
        if let other = context.query["project_id"] ?? context.query["tenant_id"], other != project {
            try context.authorize(target: .project(other))
            guard context.allows("volume:get_all_tenants") else {
                throw ResourceError.forbidden("Policy doesn't allow limits_extension:used_limits to be performed.")
            }
            wanted = other
        }
        let target = wanted
        let all = try await database.read { try quota.quota.all($0, project: target) }
        return .json(200, ["limits": ["rate": [], "absolute": .object(quota.quota.absolute(all))]])
    }
}
