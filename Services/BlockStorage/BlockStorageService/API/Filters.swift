import JSON
import Kernel
import WebAPI

/// Names of the filters of each list: what the lists accept and what `GET /resource_filters` answers.
enum ListFilters {
    private static let volumes: Set<String> = [
        "name", "status", "size", "availability_zone", "metadata", "bootable", "user_id", "volume_type", "id",
        "migration_status",
    ]

    static func volumes(_ context: RequestContext) -> Set<String> {
        var names = volumes
        if context.version(atLeast: 3, 13) { names.insert("group_id") }
        if context.version(atLeast: 3, 60) { names.formUnion(["created_at", "updated_at"]) }
        if context.version(atLeast: 3, 65) { names.insert("consumes_quota") }
        return names
    }

    static func snapshots(_ context: RequestContext) -> Set<String> {
        let names: Set = ["name", "status", "volume_id", "metadata", "id"]
        return context.version(atLeast: 3, 65) ? names.union(["consumes_quota"]) : names
    }

    static let types: Set<String> = ["name", "is_public", "extra_specs"]

    static let attachments: Set<String> = ["status", "volume_id", "instance_id", "instance", "id"]

    /// `{"resource_filters": […]}`, of all lists or of the one that `resource` names.
    static func answer(_ context: RequestContext) -> Response {
        let absent = [("backup", "backups"), ("group", "groups"), ("group_snapshot", "group_snapshots"), ("message", "messages")]
        let all: [(String, Set<String>)] =
            [("volume", volumes(context)), ("snapshot", snapshots(context)), ("attachment", attachments), ("volume_type", types)]
            + absent.compactMap { name, path in
                AbsentResource.all.first { $0.path == path }.map { (name, Set($0.filters)) }
            }
        let wanted = context.query["resource"]
        let shown = all.filter { wanted == nil || $0.0 == wanted }.map { name, filters -> JSONValue in
            ["resource": .string(name), "filters": .array(filters.sorted().map { .string($0) })]
        }
        return .json(200, ["resource_filters": .array(shown)])
    }
}
