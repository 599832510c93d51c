import Authorization
import ComputeCore
import Database
import GuestKeys
import JSON
import Kernel
import WebAPI

extension ResourceKind {
    /// The representation of servers, by version.
    ///
    /// - Parameter hostDownAfter: a host that has not reported for this long counts as down.
    static func servers(hostDownAfter: Duration) -> ResourceKind {
        ResourceKind(
            "server",
            table: Table("servers t", defaultSort: [("created_at", true)], fields: ServerFields.all(hostDownAfter: hostDownAfter)),
            visibility: Visibility(ServerScope.rows),
            grammar: .compute(ignoring: ["all_tenants", "all_projects", "deleted"], hasFields: false), pages: .next, bytesPerRow: 2048,
            notFound: ServerRecord.missing)
    }
}

/// The servers in a list.
private enum ServerScope {
    @Sendable static func rows(_ context: RequestContext) throws -> SQL {
        var conditions: [SQL] = []
        let all = context.query["all_tenants"] ?? context.query["all_projects"]
        if let all, all.isEmpty || BodySchema.boolean(all) ?? false {
            let action = (context.route.action ?? "") + ":get_all_tenants"
            guard context.allows(action) else {
                throw ResourceError.forbidden("Policy doesn't allow \(action) to be performed.")
            }
        } else {
            if let all, BodySchema.boolean(all) == nil {
                throw ResourceError.badRequest("Invalid value '\(all.prefix(64))' for all_tenants: it must be a boolean.")
            }
            conditions.append("t.project_id = \(try context.caller.requireProject())")
        }
        if context.version(atLeast: 2, 38),
            let unknown = context.query.items.first(where: { $0.name == "status" && ServerStates.states(status: $0.value).isEmpty })
        {
            throw ResourceError.badRequest(
                "Invalid input for query parameters status. Value: '\(unknown.value.prefix(64))'. It is not a status of servers.")
        }
        if let deleted = try deleted(context) {
            conditions.append(
                deleted
                    ? "(t.deleted OR t.vm_state = 'soft-delete')"
                    : keepsSoftDeleted(context)
                        ? "NOT t.deleted" : "NOT t.deleted AND t.vm_state <> 'soft-delete'")
        }
        return conditions.isEmpty ? "true" : SQL.joined(conditions, separator: " AND ")
    }

    /// Whether the list contains deleted servers that can be restored.
    private static func keepsSoftDeleted(_ context: RequestContext) -> Bool {
        context.query.items.contains {
            $0.name == "status" && $0.value.uppercased() == "SOFT_DELETED"
                || $0.name == "vm_state" && $0.value == VMState.softDeleted.rawValue
        }
    }

    /// Whether the list contains only deleted servers, or only existing ones; nil for both.
    private static func deleted(_ context: RequestContext) throws -> Bool? {
        let isOperator = context.allows(ServerFields.allFilters)
        let asksDeleted = context.query.items.contains { $0.name == "status" && $0.value.uppercased() == "DELETED" }
        if asksDeleted, !isOperator { throw ResourceError.forbidden("Only administrators may list deleted instances") }
        if isOperator, context.query["deleted"] != nil { return try context.flag("deleted") }
        return asksDeleted || context.query["changes-since"] != nil ? nil : false
    }
}

enum ServerFields {
    private static let operators = "os_compute_api:os-extended-server-attributes"
    /// The policy action of callers who may filter by everything.
    static let allFilters = "os_compute_api:servers:allow_all_filters"

    static func all(hostDownAfter: Duration) -> [Field] { basics + extended + attributes + [hostStatus(hostDownAfter)] + filters }

    /// Fields of `/servers` without detail.
    static let short: Set<String> = ["id", "name", "links"]
    /// Whether a field is in what is shown and listed, but before 2.75 not in the answer to a change.
    static func isShownOnly(_ field: Field) -> Bool {
        ["config_drive", "key_name", "security_groups", "host_status"].contains(field.name)
            || ["OS-EXT-", "OS-SRV-USG:", "os-extended-volumes:"].contains { field.name.hasPrefix($0) }
    }

    private static let basics: [Field] = [
        Field("id"), Field("name"), Field("status", .text, ServerStates.statusSQL(alias: "t")),
        Field("tenant_id", .text, "t.project_id"), Field("user_id"), Field("metadata", .json, "t.metadata", shape: .textMap),
        Field(
            "hostId", .text, "CASE WHEN t.host IS NULL THEN '' ELSE encode(sha224(convert_to(t.project_id || t.host, 'UTF8')), 'hex') END"),
        Field("image", .reference([.absolute("bookmark", "/images")], absent: ""), "t.image_id", versions: .through(97)),
        Field("image", .extendedReference([.absolute("bookmark", "/images")], absent: ""), imageWithProperties, versions: .from(98)),
        Field("flavor", .reference([.absolute("bookmark", "/flavors")]), "t.flavor->>'flavorid'", versions: .through(46)),
        Field("flavor", .json, "t.flavor - 'flavorid' - 'hardware_checked'", versions: .from(47), shape: flavorShape),
        Field("created", .timestamp, "t.created_at"), Field("updated", .timestamp, "t.updated_at"),
        Field("addresses", .json, addresses, shape: addressesShape), Field("accessIPv4", .text, "coalesce(t.access_ip_v4, '')"),
        Field("accessIPv6", .text, "coalesce(t.access_ip_v6, '')"), .links("servers"),
        Field("OS-DCF:diskConfig", .text, "t.disk_config"),
        Field("progress", .number, "CASE WHEN t.vm_state IN ('active', 'building') THEN t.progress END", presence: .whenSet),
        Field("config_drive", .text, "CASE WHEN t.config_drive THEN 'True' ELSE '' END"), Field("key_name"),
        Field(
            "fault", .json, "CASE WHEN t.vm_state IN ('error', 'deleted') THEN t.fault - 'details' END", presence: .whenSet,
            shape: .object([
                .required("code", .count), .required("created", .anyText), .required("message", .anyText), .init("details", .anyText),
            ])),
        Field(
            "security_groups", .json, groups, presence: .whenSet, shape: .many(.object([.required("name", .anyText)]))),
    ]

    private static let extended: [Field] = [
        Field("OS-EXT-AZ:availability_zone", .text, "coalesce(t.availability_zone, '')"),
        Field("OS-EXT-STS:task_state", .text, "t.task_state"), Field("OS-EXT-STS:vm_state", .text, "t.vm_state"),
        Field("OS-EXT-STS:power_state", .number, "t.power_state"),
        Field("OS-SRV-USG:launched_at", .timestampMicroseconds, "t.launched_at"),
        Field("OS-SRV-USG:terminated_at", .timestampMicroseconds, "t.terminated_at"),
        Field(
            "os-extended-volumes:volumes_attached", .json, volumes("json_build_object('id', v.volume_id)"), versions: .through(2),
            shape: .many(.object([.required("id", .anyText)]))),
        Field(
            "os-extended-volumes:volumes_attached", .json,
            volumes("json_build_object('id', v.volume_id, 'delete_on_termination', v.delete_on_termination)"), versions: .from(3),
            shape: .many(.object([.required("id", .anyText), .required("delete_on_termination", .boolean)]))),
        Field("locked", .boolean, "t.locked_by IS NOT NULL", versions: .from(9)),
        Field("description", versions: .from(19)), Field("tags", .json, "to_json(t.tags)", versions: .from(26), shape: .many(.anyText)),
        Field("trusted_image_certificates", .json, "NULL", versions: .from(63)),
        Field(
            "server_groups", .json, "CASE WHEN t.group_id IS NULL THEN '[]'::json ELSE json_build_array(t.group_id) END",
            versions: .from(71), shape: .many(.anyText)),
        Field("locked_reason", versions: .from(73)),
        Field("pinned_availability_zone", .text, "t.pinned_zone", versions: .from(96)),
        Field(
            "scheduler_hints", .json, "t.scheduler_hints", versions: .from(100), shape: .object([], additional: .allowed)),
    ]

    private static let attributes: [Field] = [
        Field("OS-EXT-SRV-ATTR:host", .text, "t.host", visibleBy: operators),
        Field("OS-EXT-SRV-ATTR:hypervisor_hostname", .text, "t.host", visibleBy: operators),
        Field("OS-EXT-SRV-ATTR:instance_name", .text, "'instance-' || left(t.id::text, 8)", visibleBy: operators),
        Field("OS-EXT-SRV-ATTR:reservation_id", .text, "t.reservation_id", versions: .from(3), visibleBy: operators),
        Field("OS-EXT-SRV-ATTR:launch_index", .number, "t.launch_index", versions: .from(3), visibleBy: operators),
        Field("OS-EXT-SRV-ATTR:hostname", .text, "t.hostname", versions: .between(3, 89), visibleBy: operators),
        Field("OS-EXT-SRV-ATTR:hostname", .text, "t.hostname", versions: .from(90)),
        Field("OS-EXT-SRV-ATTR:kernel_id", .text, "''", versions: .from(3), visibleBy: operators),
        Field("OS-EXT-SRV-ATTR:ramdisk_id", .text, "''", versions: .from(3), visibleBy: operators),
        Field("OS-EXT-SRV-ATTR:root_device_name", .text, "t.root_device", versions: .from(3), visibleBy: operators),
        Field("OS-EXT-SRV-ATTR:user_data", .text, "t.user_data", versions: .from(3), visibleBy: operators),
    ]

    private static func hostStatus(_ hostDownAfter: Duration) -> Field {
        let silence = "interval '\(hostDownAfter.microseconds) microseconds'"
        return Field(
            "host_status", .text,
            """
            CASE WHEN t.host IS NULL THEN '' ELSE coalesce((SELECT CASE WHEN c.forced_down THEN 'DOWN'
                WHEN NOT c.enabled THEN 'MAINTENANCE' WHEN c.last_seen_at > statement_timestamp() - \(silence) THEN 'UP'
                ELSE 'DOWN' END FROM compute_services c WHERE c.host = t.host), 'UNKNOWN') END
            """, versions: .from(16), visibleBy: "os_compute_api:servers:show:host_status")
    }

    private static let flavorShape = BodySchema.object([
        .required("original_name", .anyText), .required("vcpus", .count), .required("ram", .count), .required("disk", .count),
        .required("ephemeral", .count), .required("swap", .count), .init("extra_specs", .textMap),
    ])

    private static let addressesShape = BodySchema.object(
        [],
        additional: .values(
            .many(
                .object([
                    .required("version", .count), .required("addr", .anyText), .init("OS-EXT-IPS:type", .anyText),
                    .init("OS-EXT-IPS-MAC:mac_addr", .anyText),
                ]))))

    /// The addresses in the answer to a change before 2.75.
    static let briefAddresses = Field(
        "addresses", .json,
        addresses.replacing(", 'OS-EXT-IPS:type', x.type, 'OS-EXT-IPS-MAC:mac_addr', x.mac", with: ""), shape: addressesShape)

    private static let addresses = """
        coalesce((SELECT json_object_agg(a.name, a.list) FROM (
            SELECT n.name, json_agg(json_build_object('version', CASE WHEN strpos(x.address, ':') > 0 THEN 6 ELSE 4 END,
                'addr', x.address, 'OS-EXT-IPS:type', x.type, 'OS-EXT-IPS-MAC:mac_addr', x.mac)
                ORDER BY x.place, x.type, x.rank) AS list
            FROM (
                SELECT p.network_id, f.ip_address AS address, 'fixed' AS type, p.mac_address AS mac,
                    i.position AS place, f.position AS rank
                FROM server_interfaces i JOIN published_ports p ON p.id = i.port_id JOIN published_fixed_ips f ON f.port_id = p.id
                WHERE i.server_id = t.id AND i.state <> 'attaching'
                UNION ALL
                SELECT p.network_id, l.floating_ip_address, 'floating', p.mac_address, i.position, 0
                FROM server_interfaces i JOIN published_ports p ON p.id = i.port_id JOIN published_floating_ips l ON l.port_id = p.id
                WHERE i.server_id = t.id AND i.state <> 'attaching'
            ) x JOIN published_networks n ON n.id = x.network_id GROUP BY n.name) a), '{}')
        """

    /// The image with those of its properties that Compute knows, as in Nova.
    private static let imageWithProperties: String = {
        let known = GuestKey.all.filter { $0.place == .image && !$0.name.hasSuffix("*") }.map { "'\($0.name)'" }.joined(separator: ", ")
        return """
            CASE WHEN t.image_id IS NOT NULL THEN jsonb_build_object('id', t.image_id, 'properties', coalesce((
                SELECT jsonb_object_agg(p.key, p.value) FROM jsonb_each(coalesce(t.image_properties, t.image->'properties', '{}')) p
                WHERE p.key IN (\(known)) AND p.value <> 'null'), '{}')) END
            """
    }()

    private static let groups = """
        (SELECT json_agg(json_build_object('name', g.name)) FROM (
            SELECT DISTINCT s.id, s.name FROM server_interfaces i JOIN published_port_security_groups b ON b.port_id = i.port_id
            JOIN published_security_groups s ON s.id = b.security_group_id
            WHERE i.server_id = t.id AND i.state <> 'attaching' ORDER BY s.name) g)
        """

    private static func volumes(_ object: String) -> String {
        "coalesce((SELECT json_agg(\(object) ORDER BY v.device) FROM server_volumes v WHERE v.server_id = t.id), '[]')"
    }

    // MARK: filters and sort keys

    private static func hiddenField(_ name: String, _ expression: String, _ filter: Field.Filter?, sortable: Bool = false) -> Field {
        Field(name, .text, expression, presence: .never, filter: filter, sortable: sortable)
    }

    /// A filter of operators.
    private static func operators(_ filter: Field.Filter) -> Field.Filter { filter.onlyAllowed(by: allFilters) }
    /// A filter for operators, from 2.83 on for everyone.
    private static func later(_ filter: Field.Filter) -> Field.Filter { filter.from(Microversion(2, 83)).orAllowed(by: allFilters) }

    private static func words(_ text: String) -> [String] { text.split(separator: ",").map(String.init) }

    private static let filters: [Field] = [
        hiddenField("name", "t.name", .regex, sortable: true), hiddenField("display_name", "t.name", operators(.regex), sortable: true),
        hiddenField("status", "t.vm_state", .custom(status)),
        hiddenField("image", "t.image_id", .custom { Field.Filter.uuid("t.image_id", Href.lastSegment($0)) }),
        hiddenField(
            "image_ref", "t.image_id", operators(.custom { Field.Filter.uuid("t.image_id", Href.lastSegment($0)) }), sortable: true),
        .sortKey("instance_type_id", "t.flavor_id"),
        hiddenField("display_description", "t.description", operators(.regex), sortable: true),
        hiddenField("locked_by", "t.locked_by", operators(.equals), sortable: true),
        hiddenField("auto_disk_config", "(t.disk_config = 'AUTO')", operators(.boolean), sortable: true),
        hiddenField("flavor", "t.flavor_id", .custom { "t.flavor->>'flavorid' = \(Href.lastSegment($0))" }),
        hiddenField("ip", "t.id", .custom { try address($0, parameter: "ip", isVersion6: false) }),
        hiddenField("ip6", "t.id", .custom { try address($0, parameter: "ip6", isVersion6: true) }),
        hiddenField("changes-since", "t.updated_at", .time { "t.updated_at >= \($0)" }),
        hiddenField("changes-before", "t.updated_at", .time { "t.updated_at <= \($0)" }.from(Microversion(2, 66))),
        hiddenField("tags", "t.tags", .custom { "t.tags @> \(words($0))::text[]" }.from(Microversion(2, 26))),
        hiddenField("tags-any", "t.tags", .custom { "t.tags && \(words($0))::text[]" }.from(Microversion(2, 26))),
        hiddenField("not-tags", "t.tags", .custom { "NOT t.tags @> \(words($0))::text[]" }.from(Microversion(2, 26))),
        hiddenField("not-tags-any", "t.tags", .custom { "NOT t.tags && \(words($0))::text[]" }.from(Microversion(2, 26))),
        hiddenField("locked", "(t.locked_by IS NOT NULL)", .boolean.from(Microversion(2, 73))),
        hiddenField("config_drive", "t.config_drive", later(.boolean), sortable: true),
        hiddenField("host", "t.host", operators(.equals), sortable: true),
        hiddenField("node", "t.host", operators(.equals), sortable: true),
        hiddenField("hypervisor_hostname", "t.host", operators(.equals)),
        hiddenField("project_id", "t.project_id", operators(.equals), sortable: true),
        hiddenField("tenant_id", "t.project_id", operators(.equals)), hiddenField("user_id", "t.user_id", later(.equals), sortable: true),
        hiddenField("availability_zone", "t.availability_zone", later(.equals), sortable: true),
        hiddenField("vm_state", "t.vm_state", later(.equals), sortable: true),
        hiddenField("task_state", "t.task_state", later(.equals), sortable: true),
        hiddenField("power_state", "t.power_state", later(.equals), sortable: true),
        hiddenField("key_name", "t.key_name", later(.equals), sortable: true),
        hiddenField("launch_index", "t.launch_index", operators(.equals), sortable: true),
        hiddenField("hostname", "t.hostname", operators(.regex), sortable: true),
        hiddenField("description", "t.description", operators(.regex)), hiddenField("instance_uuid", "t.id", operators(.uuid("t.id"))),
        hiddenField("uuid", "t.id", .uuid("t.id"), sortable: true), hiddenField("reservation_id", "t.reservation_id", .equals),
        hiddenField("root_device_name", "t.root_device", operators(.equals), sortable: true),
        hiddenField("progress", "t.progress", .equals.from(Microversion(2, 83)), sortable: true),
        hiddenField("access_ip_v4", "t.access_ip_v4", operators(.equals), sortable: true),
        hiddenField("access_ip_v6", "t.access_ip_v6", operators(.equals), sortable: true),
        hiddenField("created_at", "t.created_at", .time { "t.created_at >= \($0)" }.from(Microversion(2, 83)), sortable: true),
        hiddenField("updated_at", "t.updated_at", nil, sortable: true),
        hiddenField("launched_at", "t.launched_at", .time { "t.launched_at >= \($0)" }.from(Microversion(2, 83)), sortable: true),
        hiddenField("terminated_at", "t.terminated_at", .time { "t.terminated_at >= \($0)" }.from(Microversion(2, 83)), sortable: true),
    ]

    private static func address(_ value: String, parameter: String, isVersion6: Bool) throws -> SQL {
        let fits = try SearchPattern(value, parameter: parameter).condition("f.ip_address")
        return """
            EXISTS (SELECT 1 FROM server_interfaces i JOIN published_fixed_ips f ON f.port_id = i.port_id
            WHERE i.server_id = t.id AND i.state <> 'attaching' AND \(fits) AND (strpos(f.ip_address, ':') > 0) = \(isVersion6))
            """
    }

    private static func status(_ value: String) throws -> SQL {
        let states = ServerStates.states(status: value)
        // An unknown status matches no server; from 2.38 on it is refused (`ServerScope`).
        guard !states.isEmpty else { return "false" }
        let shownTasks = ServerStates.taskStatuses.map(\.task.rawValue)
        let terms = states.map { state, task -> SQL in
            task.map { "(t.vm_state = \(state.rawValue) AND t.task_state = \($0.rawValue))" }
                ?? "(t.vm_state = \(state.rawValue) AND coalesce(t.task_state, '') <> ALL(\(shownTasks)::text[]))"
        }
        return "(" + SQL.joined(terms, separator: " OR ") + ")"
    }
}
