import BlockStorageCore
import Database
import JSON
import Kernel
import WebAPI

/// Volumes, snapshots, attachments and types as clients see them.
enum Views {
    private static func since(_ minor: Int) -> VersionRange { VersionRange(from: Microversion(3, minor)) }
    private static let admin = "volume:see_operator_fields"

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

    private static func volume(hosts: Bool) -> ResourceView {
        ResourceView(
            "volume",
            Table(
                "volumes t JOIN volume_types y ON y.id = t.volume_type_id",
                defaultSort: [("created_at", true)], missingMarker: .notFound,
                fields: [
                    Field("id", filter: .equals, sortable: true),
                    Field("name", .text, "t.name", filter: .equals, sortable: false),
                    Field("status", filter: .equals, sortable: true), Field("size", .number, filter: .equals, sortable: true),
                    Field("availability_zone", filter: .equals, sortable: true),
                    Field("created_at", .timestampMicroseconds, filter: TimeFilter.of("t.created_at"), sortable: true),
                    Field("updated_at", .timestampMicroseconds, filter: TimeFilter.of("t.updated_at"), sortable: true),
                    Field("attachments", .json, attachments(hosts: hosts)), Field("description"),
                    Field("volume_type", .text, "y.name", filter: .equals),
                    Field("snapshot_id", .text, "t.source_snapshot_id"), Field("source_volid", .text, "t.source_volume_id"),
                    Field("metadata", .json, shownMetadata, filter: .custom { "t.metadata @> \(try MetadataFilter.parse($0))::jsonb" }),
                    Field("user_id", filter: .equals),
                    Field(
                        "bootable", .text, "CASE WHEN t.bootable THEN 'true' ELSE 'false' END",
                        filter: .custom { value in
                            guard let wanted = BodySchema.boolean(value) else {
                                throw ResourceError.badRequest(
                                    "Invalid input for query parameter bootable. Value: '\(value.prefix(64))'. It must be true or false.")
                            }
                            return "t.bootable = \(wanted)"
                        }, sortable: true),
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
                    .sortKey("display_order", "coalesce(t.name, '')"),
                ]),
            summary: ["id", "name", "links"],
            shownOnly: [
                "volume_image_metadata",
                "os-vol-tenant-attr:tenant_id", "os-vol-host-attr:host", "os-vol-mig-status-attr:migstat",
                "os-vol-mig-status-attr:name_id",
            ])
    }

    static let volumes = volume(hosts: false)
    static let volumesForOperators = volume(hosts: true)

    static func volumes(_ context: RequestContext) -> ResourceView {
        context.allows(admin) ? volumesForOperators : volumes
    }

    static let snapshots = ResourceView(
        "snapshot",
        Table(
            "volume_snapshots t", defaultSort: [("created_at", true)], missingMarker: .notFound,
            fields: [
                Field("id", filter: .equals, sortable: true), Field("name", .text, "t.name", filter: .equals),
                Field("description"), Field("volume_id", filter: .equals, sortable: true),
                Field("status", filter: .equals, sortable: true), Field("size", .number, sortable: true),
                Field("created_at", .timestampMicroseconds, sortable: true),
                Field("updated_at", .timestampMicroseconds, sortable: true),
                Field("metadata", .json, filter: .custom { "t.metadata @> \(try MetadataFilter.parse($0))::jsonb" }),
                Field(
                    "os-extended-snapshot-attributes:progress", .text,
                    "CASE WHEN t.status = 'available' THEN 100 ELSE t.progress END || '%'"),
                Field("os-extended-snapshot-attributes:project_id", .text, "t.project_id"),
                Field("group_snapshot_id", .text, "NULL::text", versions: since(14)),
                Field("user_id", versions: since(41)), Field("consumes_quota", .boolean, "true", filter: .boolean, versions: since(65)),
                .sortKey("display_order", "coalesce(t.name, '')"),
            ]),
        summary: ["id", "name", "description", "volume_id", "status", "size", "created_at", "updated_at", "metadata"],
        shownOnly: ["os-extended-snapshot-attributes:progress", "os-extended-snapshot-attributes:project_id"])

    private static func time(_ column: String) -> String {
        "to_char(t.\(column) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
    }

    static let attachments = ResourceView(
        "attachment",
        Table(
            "volume_attachments t", defaultSort: [("created_at", true)], missingMarker: .notFound,
            fields: [
                Field("id", filter: .equals, sortable: true), Field("status", filter: .equals, sortable: true),
                Field("instance", .text, "t.server_id", filter: .equals), Field("volume_id", filter: .equals),
                Field("attached_at", .text, "coalesce(\(time("attached_at")), '')"), Field("detached_at", .text, "''"),
                Field("attach_mode", .text, "t.mode"),
                Field("connection_info", .json, "coalesce(t.connection, '{}')", visibleBy: "volume:see_connections"),
                Field("instance_id", .text, "t.server_id", presence: .never, filter: .equals), .sortKey("created_at"),
            ]),
        summary: ["id", "status", "instance", "volume_id"])

    /// Users only see user-visible extra specs.
    private static let userSpecs = """
        (SELECT coalesce(jsonb_object_agg(s.key, s.value), '{}') FROM jsonb_each(t.extra_specs) s
            WHERE s.key IN (\(TypeRequirements.visibleToUsers.map { "'\($0)'" }.joined(separator: ", "))))
        """
    private static let sensitive = "volume_extension:types_extra_specs:read_sensitive"

    static let types = types(specs: userSpecs)
    static let typesForOperators = types(specs: "t.extra_specs")

    static func types(_ context: RequestContext) -> ResourceView { context.allows(sensitive) ? typesForOperators : types }

    /// The extra specs that the caller sees, as SQL.
    static func specs(_ context: RequestContext) -> String { context.allows(sensitive) ? "t.extra_specs" : userSpecs }

    private static func types(specs: String) -> ResourceView {
        ResourceView(
            "volume_type",
            Table(
                "volume_types t", defaultSort: [("created_at", true)], missingMarker: .notFound,
                fields: [
                    Field("id", sortable: true), Field("name", filter: .equals), Field("description"),
                    .sortKey("display_order", "t.name"),
                    Field("is_public", .boolean), Field("os-volume-type-access:is_public", .boolean, "t.is_public"),
                    Field("extra_specs", .json, specs), Field("qos_specs_id", .text, "NULL::text", visibleBy: sensitive),
                    .sortKey("created_at"),
                ]),
            summary: [], shownOnly: ["qos_specs_id"])
    }

    /// A type in the answer to changing it.
    static let changedTypes = {
        var view = typesForOperators
        view.shownOnly.insert("os-volume-type-access:is_public")
        return view
    }()
}

/// `created_at=gt:2026-01-31T12:00:00,lt:2026-02-01T00:00:00` of a list (3.60).
enum TimeFilter {
    private static let operators = ["gt": ">", "gte": ">=", "eq": "=", "neq": "<>", "lt": "<", "lte": "<="]

    /// - Parameter column: a column of type `timestamptz`.
    static func of(_ column: String) -> Field.Filter {
        .custom { text in
            let terms = try text.split(separator: ",", omittingEmptySubsequences: false).map { try term(String($0), column) }
            return SQL.joined(terms, separator: " AND ")
        }
    }

    private static func term(_ text: String, _ column: String) throws -> SQL {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        let (comparison, time) = parts.count == 2 && operators[parts[0]] != nil ? (parts[0], parts[1]) : ("eq", text)
        guard let moment = Timestamp(time) else {
            throw ResourceError.badRequest(
                "Invalid timestamp '\(text.prefix(64))': expected OPERATOR:TIME with one of \(operators.keys.sorted().joined(separator: ", ")) and an ISO 8601 time, for example gt:2026-01-31T12:00:00."
            )
        }
        return "\(raw: column) \(raw: operators[comparison] ?? "=") \(moment)"
    }
}

/// `metadata={"k": "v"}` of a list; clients also write it as a Python dictionary.
enum MetadataFilter {
    /// - Throws: 400 if the value is not a map of strings.
    static func parse(_ text: String, name: String = "metadata") throws -> String {
        for candidate in [text, text.replacing("'", with: "\"")] {
            if let value = parsed(candidate) { return value }
        }
        throw ResourceError.badRequest("The filter '\(name)' must be an object of texts, not '\(text.prefix(64))'.")
    }

    private static func parsed(_ text: String) -> String? {
        do {
            let value = try JSONValue.parse(Array(text.utf8))
            guard let object = value.objectValue, object.members.allSatisfy({ $0.value.stringValue != nil }) else { return nil }
            return value.description
        } catch {
            return nil
        }
    }
}
