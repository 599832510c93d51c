import BlockStorageCore
import Database
import JSON
import Kernel
import WebAPI

/// Volumes, snapshots, attachments and types as clients see them.
extension ResourceKind {
    private static func since(_ minor: Int) -> VersionRange { VersionRange(from: Microversion(3, minor)) }
    private static let admin = "volume:see_operator_fields"

    /// Lists with the conventions of Cinder's clients: descending by default, with a next link after every full page.
    private static let grammar = ListGrammar {
        $0.ignoring = ["fields", "with_count", "all_tenants", "all_projects", "project_id", "tenant_id"]
        // From 3.31 on Cinder refuses filters that a list does not have; operators' are ignored.
        $0.unknown = .decided { context, name in
            guard context.version(atLeast: 3, 31), !context.allows(admin) else { return nil }
            return .badRequest("Invalid filters \(name.prefix(64)) are found in query options.")
        }
        $0.directions = .descending
        $0.hasFields = false
        $0.hasSort = true
        $0.hasOffset = true
        $0.allowsEmptyPage = true
        $0.limitMax = Int(Int32.max)
    }

    /// A resource kind of Block Storage. Requests decide on rows before they are shown.
    static func blockStorage(
        _ name: String, plural: String? = nil, _ table: Table, notFound: (@Sendable (String) -> ResourceError)? = nil
    ) -> ResourceKind {
        ResourceKind(
            name, plural: plural, table: table, visibility: .everything, grammar: grammar, pages: .nextWhenFull, notFound: notFound)
    }

    // MARK: volumes

    private static func attachments(hosts: Bool) -> String {
        """
        coalesce((SELECT json_agg(json_build_object('id', a.volume_id, 'attachment_id', a.id, 'volume_id', a.volume_id,
            'server_id', a.server_id, 'host_name', \(hosts ? "a.host" : "NULL::text"), 'device', a.device, 'attached_at',
            to_char(a.attached_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')) ORDER BY a.created_at)
            FROM volume_attachments a WHERE a.volume_id = t.id AND a.status = 'attached'), '[]')
        """
    }

    /// As in Cinder, a volume whose read-only flag was ever set shows it in its metadata.
    private static let shownMetadata = """
        CASE WHEN t.read_only IS NULL THEN t.metadata
        ELSE t.metadata || jsonb_build_object('readonly', CASE WHEN t.read_only THEN 'True' ELSE 'False' END) END
        """

    private static let links = Field(
        "links",
        .links(
            [("self", "/v3"), ("bookmark", "")].map { rel, prefix in
                Link(rel) { "\($0.publicURL)\(prefix)/\($0.urlProject)/volumes/" }
            }))

    private static func volumes(hosts: Bool) -> ResourceKind {
        .blockStorage(
            "volume",
            Table(
                "volumes t JOIN volume_types y ON y.id = t.volume_type_id",
                defaultSort: [("created_at", true)], missingMarker: .notFound,
                fields: [
                    Field("id", filter: .uuid("t.id"), sortable: true),
                    // Volumes without a name have a defined place in the order too.
                    Field("name", filter: .equals, sortedBy: "coalesce(t.name, '')"),
                    Field("status", filter: .equals, sortable: true), Field("size", .number, filter: .equals, sortable: true),
                    Field("availability_zone", filter: .equals, sortable: true),
                    Field("created_at", .timestampMicroseconds, filter: .time("t.created_at").from(Microversion(3, 60)), sortable: true),
                    Field("updated_at", .timestampMicroseconds, filter: .time("t.updated_at").from(Microversion(3, 60)), sortable: true),
                    Field("attachments", .json, attachments(hosts: hosts)), Field("description"),
                    Field("volume_type", .text, "y.name", filter: .equals),
                    Field("snapshot_id", .text, "t.source_snapshot_id"), Field("source_volid", .text, "t.source_volume_id"),
                    Field("metadata", .json, shownMetadata, filter: .metadata), Field("user_id", filter: .equals),
                    Field(
                        "bootable", .text, "CASE WHEN t.bootable THEN 'true' ELSE 'false' END", filter: .flag("bootable", "t.bootable"),
                        sortable: true),
                    Field("encrypted", .boolean, "false"), Field("replication_status", .text, "NULL::text"),
                    Field("consistencygroup_id", .text, "NULL::text"), Field("multiattach", .boolean),
                    Field("migration_status", .text, "NULL::text", filter: .equals),
                    Field("os-vol-tenant-attr:tenant_id", .text, "t.project_id"),
                    Field("os-vol-host-attr:host", .text, "t.service_host || '#file'", visibleBy: admin),
                    Field("os-vol-mig-status-attr:migstat", .text, "NULL::text", visibleBy: admin),
                    Field("os-vol-mig-status-attr:name_id", .text, "NULL::text", visibleBy: admin),
                    Field("group_id", .text, "NULL::text", filter: .equals, versions: since(13)),
                    Field("provider_id", .text, "NULL::text", versions: since(21), visibleBy: admin),
                    Field("service_uuid", .text, "NULL::text", versions: since(48)),
                    Field("shared_targets", .boolean, "false", versions: since(48)),
                    Field("cluster_name", .text, "NULL::text", versions: since(61), visibleBy: admin),
                    Field("volume_type_id", versions: since(63)),
                    Field("consumes_quota", .boolean, "true", filter: .boolean, versions: since(65)),
                    Field("volume_image_metadata", .json, "t.image_metadata", presence: .whenSet), links,
                    .sortKey("display_name", "coalesce(t.name, '')"), .filter("name~", .part("t.name")),
                ])
        ) { .notFound("Volume \($0.prefix(64)) could not be found.") }
    }

    static let volumes = volumes(hosts: false)
    static let operatorsVolumes = volumes(hosts: true)
    static let volumeSummaries = volumes.showing(["id", "name", "links"])

    /// Fields that are omitted in responses to creating and changing volumes.
    private static let shownLater: Set<String> = [
        "volume_image_metadata", "os-vol-tenant-attr:tenant_id", "os-vol-host-attr:host", "os-vol-mig-status-attr:migstat",
        "os-vol-mig-status-attr:name_id",
    ]
    static let changedVolumes = volumes.hiding(shownLater)
    private static let operatorsChangedVolumes = operatorsVolumes.hiding(shownLater)

    /// Volumes with the fields that the caller may see.
    static func volumes(_ context: RequestContext) -> ResourceKind { context.allows(admin) ? operatorsVolumes : volumes }
    static func changedVolumes(_ context: RequestContext) -> ResourceKind {
        context.allows(admin) ? operatorsChangedVolumes : changedVolumes
    }

    // MARK: snapshots

    static let snapshots = ResourceKind.blockStorage(
        "snapshot",
        Table(
            "volume_snapshots t", defaultSort: [("created_at", true)], missingMarker: .notFound,
            fields: [
                Field("id", filter: .uuid("t.id"), sortable: true), Field("name", filter: .equals, sortedBy: "coalesce(t.name, '')"),
                Field("description"), Field("volume_id", filter: .uuid("t.volume_id"), sortable: true),
                Field("status", filter: .equals, sortable: true), Field("size", .number, sortable: true),
                Field("created_at", .timestampMicroseconds, sortable: true),
                Field("updated_at", .timestampMicroseconds, sortable: true), Field("metadata", .json, filter: .metadata),
                Field(
                    "os-extended-snapshot-attributes:progress", .text,
                    "CASE WHEN t.status = 'available' THEN 100 ELSE t.progress END || '%'"),
                Field("os-extended-snapshot-attributes:project_id", .text, "t.project_id"),
                Field("group_snapshot_id", .text, "NULL::text", versions: since(14)),
                Field("user_id", versions: since(41)), Field("consumes_quota", .boolean, "true", filter: .boolean, versions: since(65)),
                .sortKey("display_name", "coalesce(t.name, '')"), .filter("availability_zone", .volumesZone),
            ])
    ) { .notFound("Snapshot \($0.prefix(64)) could not be found.") }

    static let snapshotSummaries = snapshots.showing([
        "id", "name", "description", "volume_id", "status", "size", "created_at", "updated_at", "metadata",
    ])
    static let changedSnapshots = snapshots.hiding([
        "os-extended-snapshot-attributes:progress", "os-extended-snapshot-attributes:project_id",
    ])

    // MARK: attachments

    static let attachments = ResourceKind.blockStorage(
        "attachment",
        Table(
            "volume_attachments t", defaultSort: [("created_at", true)], missingMarker: .notFound,
            fields: [
                Field("id", filter: .uuid("t.id"), sortable: true), Field("status", filter: .equals, sortable: true),
                Field("instance", .text, "t.server_id", filter: .uuid("t.server_id")), Field("volume_id", filter: .uuid("t.volume_id")),
                Field(
                    "attached_at", .text, "coalesce(to_char(t.attached_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '')"),
                Field("detached_at", .text, "''"), Field("attach_mode", .text, "t.mode"),
                Field("connection_info", .json, "coalesce(t.connection, '{}')", visibleBy: "volume:see_connections"),
                Field("attach_status", .text, "t.status", presence: .never, filter: .equals),
                Field("instance_id", .text, "t.server_id", presence: .never, filter: .uuid("t.server_id")), .sortKey("created_at"),
            ])
    ) { .notFound("Volume attachment could not be found with filter: attachment_id = \($0.prefix(64)).") }

    static let attachmentSummaries = attachments.showing(["id", "status", "instance", "volume_id"])

    // MARK: types

    private static let sensitive = "volume_extension:types_extra_specs:read_sensitive"

    /// The extra specs that the caller sees, as SQL. Users see the user-visible ones.
    private static func specs(all: Bool) -> String {
        if all { return "t.extra_specs" }
        let visible = TypeRequirements.visibleToUsers.map { "'\($0)'" }.joined(separator: ", ")
        return """
            (SELECT coalesce(jsonb_object_agg(s.key, s.value), '{}') FROM jsonb_each(t.extra_specs) s WHERE s.key IN (\(visible)))
            """
    }

    private static func volumeTypes(allSpecs: Bool) -> ResourceKind {
        .blockStorage(
            "volume_type",
            Table(
                "volume_types t", defaultSort: [("created_at", true)], missingMarker: .notFound,
                fields: [
                    Field("id", sortable: true), Field("name", filter: .equals, sortable: true), Field("description"),
                    Field("is_public", .boolean, filter: .visibility), Field("os-volume-type-access:is_public", .boolean, "t.is_public"),
                    Field(
                        "extra_specs", .json, specs(all: allSpecs),
                        filter: .all { request in
                            // Before 3.52 the parameter has no effect.
                            guard request.context.version(atLeast: 3, 52), let text = request.values.first else { return "TRUE" }
                            let wanted = try MetadataFilter.parse(text, name: "extra_specs")
                            return "\(raw: specs(all: request.context.allows(sensitive))) @> \(wanted)::jsonb"
                        }), Field("qos_specs_id", .text, "NULL::text", visibleBy: sensitive),
                    .sortKey("created_at"), .sortKey("display_name", "t.name"),
                ])
        ) { .notFound("Volume type \($0.prefix(255)) could not be found.") }
    }

    static let volumeTypes = volumeTypes(allSpecs: false)
    private static let operatorsVolumeTypes = volumeTypes(allSpecs: true)

    /// Types with the fields that the caller may see.
    static func volumeTypes(_ context: RequestContext) -> ResourceKind {
        context.allows(sensitive) ? operatorsVolumeTypes : volumeTypes
    }

    /// Fields that are omitted in responses to creating and changing types.
    static let createdVolumeTypes = volumeTypes.hiding(["qos_specs_id"])
    static let changedVolumeTypes = volumeTypes.hiding(["qos_specs_id", "os-volume-type-access:is_public"])
    private static let operatorsCreatedVolumeTypes = operatorsVolumeTypes.hiding(["qos_specs_id"])
    private static let operatorsChangedVolumeTypes = operatorsVolumeTypes.hiding(["qos_specs_id", "os-volume-type-access:is_public"])

    static func createdVolumeTypes(_ context: RequestContext) -> ResourceKind {
        context.allows(sensitive) ? operatorsCreatedVolumeTypes : createdVolumeTypes
    }
    static func changedVolumeTypes(_ context: RequestContext) -> ResourceKind {
        context.allows(sensitive) ? operatorsChangedVolumeTypes : changedVolumeTypes
    }
}
