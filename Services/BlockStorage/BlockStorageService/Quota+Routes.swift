import BlockStorageCore
import Database
import JSON
import Kernel
import WebAPI

/// Quotas and limits.
extension BlockStorageHandlers {
    private static let names = [
        "volumes", "snapshots", "gigabytes", "per_volume_gigabytes", "backups", "backup_gigabytes", "groups",
    ]

    var quotaResource: Resource {
        let admin = BlockStorageHandlers.admin
        let limit = BodySchema.nullable(.integer(min: -1, max: Int(Int32.max)))
        let body = BodySchema.wrapped("quota_set", .object([], additional: .values(.oneOf([limit, .text]))))
        let show = "rule:admin_required or (role:reader and project_id:%(project_id)s)"
        let one = "/os-quota-sets/{target_id}"
        return Resource(
            "quota",
            routes: bothPaths([
                Route(.get, one, action: "volume_extension:quotas:show", rule: show, "Show quotas", handler: showQuota),
                Route(.get, one + "/defaults", action: "volume_extension:quotas:show_defaults", rule: show, "Show the defaults") { context in
                    let target = context.parameter("target_id")
                    try context.authorize(target: .project(target))
                    return quotaResponse(target) { quota.quota.defaults[VolumeQuota.prefix + $0] ?? -1 }
                },
                Route(.put, one, action: "volume_extension:quotas:update", rule: admin, body: .json(body), "Set quotas", handler: updateQuota),
                Route(.delete, one, action: "volume_extension:quotas:delete", rule: admin, "Back to the defaults") { context in
                    let target = context.parameter("target_id")
                    try context.authorize(target: .project(target))
                    return try await context.write(database) { connection in
                        try quota.quota.reset(connection, project: target)
                        return Change(.empty(200), "quota", target)
                    }
                },
                Route(.get, "/os-quota-class-sets/{class}", action: "volume_extension:quota_classes:get", rule: admin, "Show the defaults") { context in
                    try context.authorize(target: .none)
                    let name = context.parameter("class")
                    var set: JSONObject = ["id": .string(name)]
                    for resource in BlockStorageHandlers.names {
                        set[resource] = JSONValue(quota.quota.defaults[VolumeQuota.prefix + resource] ?? -1)
                    }
                    return .json(200, ["quota_class_set": .object(set)])
                },
                Route(.get, "/limits", action: "limits_extension:used_limits", rule: BlockStorageHandlers.read, "Show limits and what is used", handler: limits),
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
        let withUsage = context.query["usage"].flatMap { BodySchema.boolean($0) } ?? false
        let all = try await database.read { try quota.quota.all($0, project: target) }
        guard withUsage else { return quotaResponse(target) { all[VolumeQuota.prefix + $0]?.limit ?? -1 } }
        func entry(_ limit: Int, _ used: Int) -> JSONValue {
            ["limit": JSONValue(limit), "in_use": JSONValue(used), "reserved": 0]
        }
        var set: JSONObject = ["id": .string(target)]
        for name in BlockStorageHandlers.names {
            let state = all[VolumeQuota.prefix + name]
            set[name] = entry(state?.limit ?? -1, state?.used ?? 0)
        }
        return .json(200, ["quota_set": .object(set)])
    }

    private func updateQuota(_ context: RequestContext) async throws -> Response {
        let target = context.parameter("target_id")
        try context.authorize(target: .project(target))
        let body = context.body["quota_set"]?.objectValue ?? [:]
        return try await context.write(database) { connection in
            let before = try quota.quota.all(connection, project: target)
            for member in body.members where !["tenant_id", "id", "project_id", "force"].contains(member.name) {
                guard BlockStorageHandlers.names.contains(member.name) else {
                    throw ResourceError.badRequest("Invalid input for field/attribute quota_set. Bad key(s) in quota set: \(member.name.prefix(64))")
                }
                if member.value.isNull { continue }
                guard let limit = member.value.intValue ?? member.value.stringValue.flatMap({ Int($0) }), limit >= -1 else {
                    throw ResourceError.badRequest("Invalid input for field/attribute quota_set.\(member.name). Value: \(member.value.description.prefix(64)). It must be a whole number from -1 on.")
                }
                let used = before[VolumeQuota.prefix + member.name]?.used ?? 0
                guard limit < 0 || limit >= used else {
                    throw ResourceError.badRequest("Quota \(member.name) limit must be equal or greater than existing resources. Current usage is \(used) and the requested limit is \(limit).")
                }
                try quota.quota.set(connection, project: target, resource: VolumeQuota.prefix + member.name, limit: limit)
            }
            let all = try quota.quota.all(connection, project: target)
            let response = quotaResponse(target, id: false) { all[VolumeQuota.prefix + $0]?.limit ?? -1 }
            return change(response, "quota", target)
        }
    }

    private func limits(_ context: RequestContext) async throws -> Response {
        let project = try context.project()
        try context.authorize(target: .project(project))
        var wanted = project
        if let other = context.query["project_id"] ?? context.query["tenant_id"], other != project {
            try context.authorize(target: .project(other))
            guard context.allows("volume:get_all_tenants") else { throw ResourceError.forbidden("Policy doesn't allow limits_extension:used_limits to be performed.") }
            wanted = other
        }
        let target = wanted
        let all = try await database.read { try quota.quota.all($0, project: target) }
        func limit(_ name: String) -> JSONValue { JSONValue(all[name]?.limit ?? -1) }
        func used(_ name: String) -> JSONValue { JSONValue(all[name]?.used ?? 0) }
        return .json(200, [
            "limits": [
                "rate": [],
                "absolute": [
                    "maxTotalVolumes": limit(VolumeQuota.volumes), "totalVolumesUsed": used(VolumeQuota.volumes),
                    "maxTotalVolumeGigabytes": limit(VolumeQuota.gigabytes), "totalGigabytesUsed": used(VolumeQuota.gigabytes),
                    "maxTotalSnapshots": limit(VolumeQuota.snapshots), "totalSnapshotsUsed": used(VolumeQuota.snapshots),
                    "maxTotalBackups": 0, "totalBackupsUsed": 0, "maxTotalBackupGigabytes": 0, "totalBackupGigabytesUsed": 0,
                ],
            ]
        ])
    }
}
