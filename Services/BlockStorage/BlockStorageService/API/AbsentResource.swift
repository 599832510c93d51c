import Authorization
import BlockStorageCore
import Database
import JSON
import Kernel
import WebAPI

/// A kind of resource of Cinder's API that this cloud does not have: its list is empty, every id is unknown, and creating
/// one is refused with the reason.
///
/// Clients such as Horizon list all kinds before they show a page or clean up a project, and treat a 404 as a broken
/// service. Requests are validated as for any other list. Paths, policy actions and microversions are those of Cinder's
/// API.
package struct AbsentResource: Sendable {
    /// A request to one of the resources, or to the kind as a whole, beyond list, show, create, change and delete.
    package struct Extra: Sendable {
        let method: WebAPI.Method
        /// Below the kind's path: `/{absent_id}/restore`.
        let path: String
        let action: String
        var isAdmin = false
        /// Whether the request would create a resource, rather than act on an existing one.
        var creates = false
        var versions: VersionRange?
    }

    /// `Backups`: begins the reason of a refusal.
    let plural: String
    /// `backups`
    package let path: String
    /// The member of the list's answer.
    let collection: String
    /// Policy actions; nil where clients have no such request.
    let listAction: String
    let showAction: String
    var createAction: String?
    var updateAction: String?
    var deleteAction: String?
    /// Whether only administrators may read, as operators' resources.
    var isOperators = false
    /// Whether everyone may read the list, and only administrators may change resources.
    var isShared = false
    var versions = VersionRange.all
    var hasDetail = true
    /// Filters of the list, which can be sorted by them too.
    var filters: [String] = []
    var extras: [Extra] = []
    /// The error for an id: `Backup ID could not be found.`
    let missing: @Sendable (String) -> String

    func notFound(_ id: String) -> ResourceError { .notFound(missing(String(id.prefix(255)))) }

    var refusal: String { "\(plural) are not available in this cloud." }

    /// A list without rows that has the declared filters and sort keys, so that requests are checked like any other.
    var kind: ResourceKind {
        let texts = filters.filter { $0 != "id" && $0 != "created_at" }
        let columns = (["NULL::uuid AS id", "NULL::timestamptz AS created_at"] + texts.map { "NULL::text AS \"\($0)\"" })
            .joined(separator: ", ")
        return .blockStorage(
            collection, plural: collection,
            Table(
                "(SELECT \(columns) WHERE false) t", defaultSort: [("created_at", true)], missingMarker: .notFound,
                fields: [
                    Field("id", filter: .uuid("t.id"), sortable: true), Field("created_at", .timestampMicroseconds, sortable: true),
                ] + texts.map { Field($0, .text, "t.\"\($0)\"", filter: .equals, sortable: true) })
        ) { notFound($0) }
    }

    private static func since(_ minor: Int) -> VersionRange { VersionRange(from: Microversion(3, minor)) }

    private static func transfers(_ path: String, versions: VersionRange = .all) -> AbsentResource {
        AbsentResource(
            plural: "Volume transfers", path: path, collection: "transfers", listAction: "volume:get_all_transfers",
            showAction: "volume:get_transfer", createAction: "volume:create_transfer", deleteAction: "volume:delete_transfer",
            versions: versions, filters: ["name", "volume_id"],
            extras: [Extra(method: .post, path: "/{absent_id}/accept", action: "volume:accept_transfer")],
            missing: { "Transfer \($0) could not be found." })
    }

    /// All kinds that are declared absent.
    package static let all: [AbsentResource] = [
        AbsentResource(
            plural: "Backups", path: "backups", collection: "backups", listAction: "backup:get_all", showAction: "backup:get",
            createAction: "backup:create", updateAction: "backup:update", deleteAction: "backup:delete",
            filters: ["name", "status", "volume_id"],
            extras: [
                Extra(method: .post, path: "/import_record", action: "backup:backup-import", isAdmin: true, creates: true),
                Extra(method: .get, path: "/{absent_id}/export_record", action: "backup:export-import", isAdmin: true),
                Extra(method: .post, path: "/{absent_id}/restore", action: "backup:restore"),
                Extra(
                    method: .post, path: "/{absent_id}/action", action: "volume_extension:backup_admin_actions:reset_status",
                    isAdmin: true),
            ],
            missing: { "Backup \($0) could not be found." }),
        transfers("os-volume-transfer"),
        // Cinder has this path at every version; 3.55 added snapshots to it.
        transfers("volume-transfers"),
        AbsentResource(
            plural: "Volume groups", path: "groups", collection: "groups", listAction: "group:get_all", showAction: "group:get",
            createAction: "group:create", updateAction: "group:update", versions: since(13), filters: ["name"],
            extras: [
                Extra(method: .post, path: "/action", action: "group:create", creates: true, versions: since(14)),
                Extra(method: .post, path: "/{absent_id}/action", action: "group:delete"),
            ],
            missing: { "Group \($0) could not be found." }),
        AbsentResource(
            plural: "Group snapshots", path: "group_snapshots", collection: "group_snapshots",
            listAction: "group:get_all_group_snapshots", showAction: "group:get_group_snapshot",
            createAction: "group:create_group_snapshot", deleteAction: "group:delete_group_snapshot", versions: since(14),
            filters: ["name", "status", "group_id"],
            extras: [
                Extra(
                    method: .post, path: "/{absent_id}/action", action: "group:reset_group_snapshot_status", isAdmin: true,
                    versions: since(19))
            ],
            missing: { "GroupSnapshot \($0) could not be found." }),
        AbsentResource(
            plural: "Group types", path: "group_types", collection: "group_types", listAction: "group:group_types:get_all",
            showAction: "group:group_types:get", createAction: "group:group_types:create",
            updateAction: "group:group_types:update", deleteAction: "group:group_types:delete", isShared: true,
            versions: since(11), hasDetail: false, filters: ["name", "is_public"],
            extras: [
                Extra(method: .get, path: "/{absent_id}/group_specs", action: "group:group_types_specs:get_all", isAdmin: true),
                Extra(method: .post, path: "/{absent_id}/group_specs", action: "group:group_types_specs:create", isAdmin: true),
            ],
            missing: { "Group type \($0) could not be found." }),
        AbsentResource(
            plural: "Consistency groups", path: "consistencygroups", collection: "consistencygroups", listAction: "group:get_all",
            showAction: "group:get", createAction: "group:create", filters: ["name", "status"],
            extras: [
                Extra(method: .post, path: "/create_from_src", action: "group:create", creates: true),
                Extra(method: .post, path: "/{absent_id}/delete", action: "group:delete"),
                Extra(method: .put, path: "/{absent_id}/update", action: "group:update"),
            ],
            missing: { "ConsistencyGroup \($0) could not be found." }),
        AbsentResource(
            plural: "Snapshots of consistency groups", path: "cgsnapshots", collection: "cgsnapshots",
            listAction: "group:get_all_group_snapshots", showAction: "group:get_group_snapshot",
            createAction: "group:create_group_snapshot", deleteAction: "group:delete_group_snapshot",
            filters: ["name", "status", "consistencygroup_id"], missing: { "CgSnapshot \($0) could not be found." }),
        AbsentResource(
            plural: "QoS specifications", path: "qos-specs", collection: "qos_specs",
            listAction: "volume_extension:qos_specs_manage:get_all", showAction: "volume_extension:qos_specs_manage:get",
            createAction: "volume_extension:qos_specs_manage:create", updateAction: "volume_extension:qos_specs_manage:update",
            deleteAction: "volume_extension:qos_specs_manage:delete", isOperators: true, hasDetail: false,
            filters: ["name", "consumer"],
            extras: [
                Extra(method: .get, path: "/{absent_id}/associations", action: "volume_extension:qos_specs_manage:get_all", isAdmin: true),
                Extra(method: .get, path: "/{absent_id}/associate", action: "volume_extension:qos_specs_manage:update", isAdmin: true),
                Extra(method: .get, path: "/{absent_id}/disassociate", action: "volume_extension:qos_specs_manage:update", isAdmin: true),
                Extra(
                    method: .get, path: "/{absent_id}/disassociate_all", action: "volume_extension:qos_specs_manage:update", isAdmin: true),
                Extra(method: .put, path: "/{absent_id}/delete_keys", action: "volume_extension:qos_specs_manage:delete", isAdmin: true),
            ],
            missing: { "No such QoS spec \($0)." }),
        AbsentResource(
            plural: "User messages", path: "messages", collection: "messages", listAction: "message:get_all",
            showAction: "message:get", deleteAction: "message:delete", versions: since(3), hasDetail: false,
            filters: ["resource_uuid", "resource_type", "event_id", "request_id", "message_level"],
            missing: { "Message \($0) could not be found." }),
        AbsentResource(
            plural: "Clusters", path: "clusters", collection: "clusters", listAction: "clusters:get_all",
            showAction: "clusters:get", isOperators: true, versions: since(7),
            filters: [
                "name", "binary", "is_up", "disabled", "num_hosts", "num_down_hosts", "replication_status", "frozen", "active_backend_id",
            ],
            extras: ["/enable", "/disable"].map { Extra(method: .put, path: $0, action: "clusters:update", isAdmin: true, creates: true) },
            missing: { "Cluster \($0) could not be found." }),
        AbsentResource(
            plural: "Default volume types of projects", path: "default-types", collection: "default_types",
            listAction: "volume_extension:default_get_all", showAction: "volume_extension:default_get",
            deleteAction: "volume_extension:default_unset", isOperators: true, versions: since(62), hasDetail: false,
            extras: [
                Extra(method: .put, path: "/{absent_id}", action: "volume_extension:default_set_or_update", isAdmin: true, creates: true)
            ],
            missing: { "Default type for project \($0) not found." }),
        AbsentResource(
            plural: "Disks to take over as volumes", path: "manageable_volumes", collection: "manageable-volumes",
            listAction: "volume_extension:list_manageable", showAction: "volume_extension:list_manageable",
            createAction: "volume_extension:volume_manage", isOperators: true, versions: since(8),
            filters: ["host", "cluster", "reference", "size"], missing: { "Volume \($0) could not be found." }),
        AbsentResource(
            plural: "Disks to take over as snapshots", path: "manageable_snapshots",
            collection: "manageable-snapshots", listAction: "snapshot_extension:list_manageable",
            showAction: "snapshot_extension:list_manageable", createAction: "snapshot_extension:snapshot_manage",
            isOperators: true, versions: since(8), filters: ["host", "cluster", "reference", "size"],
            missing: { "Snapshot \($0) could not be found." }),
    ]
}

extension BlockStorageHandlers {
    /// The routes of everything that is declared absent.
    var absentResources: [Resource] {
        AbsentResource.all.map { kind in Resource(kind.path.replacing("-", with: " "), routes: bothPaths(routes(kind))) }
    }

    private func routes(_ kind: AbsentResource) -> [Route] {
        let admin = BlockStorageHandlers.admin
        let list = "/" + kind.path
        let one = list + "/{absent_id}"
        let read = kind.isOperators ? admin : kind.isShared ? "rule:admin_required or role:reader" : BlockStorageHandlers.read
        let write = kind.isOperators || kind.isShared ? admin : BlockStorageHandlers.write
        func body(_ method: WebAPI.Method) -> RouteBody { method == .get || method == .delete ? .none : .optionalJSON(.any) }
        func route(
            _ method: WebAPI.Method, _ path: String, _ action: String, _ rule: String, versions: VersionRange? = nil,
            answer: RouteAnswer = .undeclared, _ summary: String,
            _ handler: @escaping @Sendable (RequestContext) async throws -> Response
        ) -> Route {
            Route(
                method, path, action: action, rule: rule, versions: versions ?? kind.versions, body: body(method), answer: answer, summary,
                handler: handler)
        }
        func refused(_ method: WebAPI.Method, _ path: String, _ action: String, _ rule: String, versions: VersionRange? = nil) -> Route {
            .unavailable(
                method, path, action: action, rule: rule, versions: versions ?? kind.versions, body: body(method), kind.refusal
            ) { try $0.authorize(target: .project(try $0.project())) }
        }
        let noSuch: @Sendable (RequestContext) async throws -> Response = { context in
            try context.authorize(target: .project(try context.project()))
            throw kind.notFound(context.parameter("absent_id"))
        }
        var routes = [
            route(.get, list, kind.listAction, read, answer: .list(kind.kind), "Not available; always empty") {
                try await listAbsent($0, kind)
            },
            route(.get, one, kind.showAction, read, "Not available; always 404", noSuch),
        ]
        if kind.hasDetail {
            routes.append(
                route(.get, list + "/detail", kind.listAction, read, answer: .list(kind.kind), "Not available; always empty") {
                    try await listAbsent($0, kind)
                })
        }
        if let action = kind.createAction { routes.append(refused(.post, list, action, write)) }
        if let action = kind.updateAction { routes.append(route(.put, one, action, write, "Not available; always 404", noSuch)) }
        if let action = kind.deleteAction { routes.append(route(.delete, one, action, write, "Not available; always 404", noSuch)) }
        for extra in kind.extras {
            let (path, rule) = (list + extra.path, extra.isAdmin ? admin : write)
            routes.append(
                extra.creates
                    ? refused(extra.method, path, extra.action, rule, versions: extra.versions)
                    : route(
                        extra.method, path, extra.action, rule, versions: extra.versions, "Not available; always 404", noSuch))
        }
        return routes
    }

    private func listAbsent(_ context: RequestContext, _ kind: AbsentResource) async throws -> Response {
        let project = try context.project()
        try context.authorize(target: .project(project))
        let request = try kind.kind.listRequest(context)
        if let marker = request.marker { throw kind.notFound(marker) }
        return try await database.read { try kind.kind.countedList($0, context, request, scope: "TRUE") }
    }
}
