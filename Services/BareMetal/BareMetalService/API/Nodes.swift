import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI
import Workflow

extension VersionRange {
    /// All versions of the Bare Metal API from this minor version on.
    static func minor(_ minor: Int) -> VersionRange { VersionRange(from: Microversion(1, minor)) }
}

extension ListGrammar {
    /// Lists with the conventions of Ironic's clients: `fields` is a list with commas, and unknown parameters are refused.
    static let bareMetal = ListGrammar {
        $0.ignoring = ["detail", "include_children"]
        $0.unknown = .refused
    }
}

extension PageLinks {
    /// `"next": "http://…/v1/nodes?marker=…"`, as in Ironic.
    static let bareMetal = PageLinks { writer, page, context in
        guard page.hasNext, let last = page.last else { return }
        writer.field("next", context.nextLink(marker: last))
    }
}

/// Nodes as clients see them.
extension ResourceKind {
    /// The policy action for reading nodes of any owner.
    static let allNodes = "baremetal:node:list_all"

    private static func states(_ name: String) -> Field {
        // Before 1.2 an available node had no state, and before 1.39 the state `inspect wait` did not exist.
        Field(name, .text, "t.\(name)", filter: .equals.from(Microversion(1, 9)), sortable: true, versions: .minor(39))
    }

    private static func interfaces() -> [Field] {
        HardwareInterface.allCases.map {
            Field($0.member, .text, filter: nil, sortable: true, versions: VersionRange(from: $0.since), isSettable: true)
        }
    }

    private static func links(_ path: String) -> [Link] { [.absolute("self", "/v1/\(path)"), .absolute("bookmark", "/\(path)")] }

    private static func children(_ name: String, from minor: Int = 1) -> Field {
        Field(
            name,
            .links([
                Link("self", after: "/\(name)") { "\($0.publicURL)/v1/nodes/" },
                Link("bookmark", after: "/\(name)") { "\($0.publicURL)/nodes/" },
            ]), versions: .minor(minor))
    }

    /// `driver_info` without the values of its secrets.
    private static let shownDriverInfo = """
        (SELECT coalesce(json_object_agg(e.key, CASE WHEN \(secretNames) THEN '"******"'::jsonb ELSE e.value END), '{}')
            FROM jsonb_each(t.driver_info) e)
        """
    private static let secretNames =
        NodeRules.secretWords.map { "position('\($0)' IN lower(e.key)) > 0" }.joined(separator: " OR ")

    /// `instance_info` without the config drive, which may contain secrets of the instance.
    private static let shownInstanceInfo = """
        (CASE WHEN t.instance_info ? 'configdrive' THEN jsonb_set(t.instance_info, '{configdrive}', '"******"') ELSE t.instance_info END)
        """

    static let nodes = ResourceKind(
        "node",
        table: Table(
            "bare_metal_nodes t", defaultSort: [("created_at", false)],
            fields: [
                Field("uuid", .text, "t.id", sortable: true),
                Field("name", filter: nil, sortable: true, versions: .minor(5), isSettable: true),
                Field("instance_uuid", filter: .uuid("t.instance_uuid"), sortable: true, isSettable: true),
                Field("maintenance", .boolean, filter: .boolean, sortable: true, isSettable: true),
                Field("power_state", sortable: true),
                Field(
                    "provision_state", .text, "CASE t.provision_state WHEN 'inspect wait' THEN 'inspecting' ELSE t.provision_state END",
                    versions: VersionRange(from: Microversion(1, 2), through: Microversion(1, 38))),
                Field(
                    "provision_state", .text,
                    "CASE t.provision_state WHEN 'available' THEN NULL WHEN 'inspect wait' THEN 'inspecting' ELSE t.provision_state END",
                    versions: VersionRange(through: Microversion(1, 1))),
                states("provision_state"),
                Field("target_provision_state"), Field("target_power_state"), Field("provision_updated_at", .timestampMicroseconds),
                Field("driver", filter: .equals.from(Microversion(1, 16)), sortable: true, isSettable: true),
                Field("driver_info", .json, shownDriverInfo, isSettable: true),
                Field("driver_internal_info", .json, versions: .minor(3)),
                Field("properties", .json, isSettable: true), Field("instance_info", .json, shownInstanceInfo, isSettable: true),
                Field("extra", .json, isSettable: true),
                Field("chassis_uuid", filter: .uuid("t.chassis_uuid"), isSettable: true),
                Field("clean_step", .json, versions: .minor(7)), Field("deploy_step", .json, versions: .minor(44)),
                Field("service_step", .json, versions: .minor(87)),
                Field("raid_config", .json, versions: .minor(12)), Field("target_raid_config", .json, versions: .minor(12)),
                Field("inspection_started_at", .timestampMicroseconds, versions: .minor(6)),
                Field("inspection_finished_at", .timestampMicroseconds, versions: .minor(6)),
                Field(
                    "resource_class", filter: .equals.from(Microversion(1, 21)), sortable: true, versions: .minor(21), isSettable: true),
                Field(
                    "traits", .json,
                    "(SELECT coalesce(json_agg(n.trait ORDER BY n.trait), '[]') FROM bare_metal_node_traits n WHERE n.node_id = t.id)",
                    versions: .minor(37), shape: .many(.anyText)),
                Field("fault", filter: .equals.from(Microversion(1, 42)), sortable: true, versions: .minor(42)),
                Field(
                    "conductor_group", filter: .equals.from(Microversion(1, 46)), sortable: true, versions: .minor(46), isSettable: true),
                Field("automated_clean", .boolean, versions: .minor(47), isSettable: true),
                Field("protected", .boolean, sortable: true, versions: .minor(48), isSettable: true),
                Field("protected_reason", versions: .minor(48), isSettable: true),
                Field("conductor", .text, conductor, versions: .minor(49)),
                Field("owner", filter: .equals.from(Microversion(1, 50)), sortable: true, versions: .minor(50), isSettable: true),
                Field("description", sortable: true, versions: .minor(51), isSettable: true),
                Field(
                    "allocation_uuid", .text, "(SELECT a.id FROM bare_metal_allocations a WHERE a.node_id = t.id)", versions: .minor(52)),
                Field("retired", .boolean, filter: .boolean.from(Microversion(1, 61)), versions: .minor(61), isSettable: true),
                Field("retired_reason", versions: .minor(61), isSettable: true),
                Field("lessee", filter: .equals.from(Microversion(1, 65)), sortable: true, versions: .minor(65), isSettable: true),
                Field("network_data", .json, versions: .minor(66), isSettable: true),
                Field("boot_mode", versions: .minor(75)), Field("secure_boot", .boolean, versions: .minor(75)),
                Field("shard", filter: .shards, sortable: true, versions: .minor(82), isSettable: true),
                Field("parent_node", filter: .uuid("t.parent_node").from(Microversion(1, 83)), versions: .minor(83), isSettable: true),
                Field("disable_power_off", .boolean, versions: .minor(95), isSettable: true),
                Field("maintenance_reason"), Field("last_error"), Field("console_enabled", .boolean),
                Field("reservation", .text, reservation),
                Field("created_at", .timestampMicroseconds, sortable: true), Field("updated_at", .timestampMicroseconds, sortable: true),
                Field("links", .links(links("nodes"))), children("ports"), children("portgroups", from: 24), children("states", from: 14),
                .filter("associated") {
                    try Query.flag("associated", $0) ? "t.instance_uuid IS NOT NULL" : "t.instance_uuid IS NULL"
                },
                .filter("project") { "(t.owner = \($0) OR t.lessee = \($0))" },
                .filter("description_contains") { "position(lower(\($0)) IN lower(t.description)) > 0" },
            ] + interfaces()),
        relation: "bare_metal_nodes", envelope: .bare,
        visibility: .nodes("t"), grammar: .bareMetal, pages: .bareMetal, bytesPerRow: 3072
    ) { .notFound("Node \($0.prefix(64)) could not be found.") }

    /// The name of the only conductor while a workflow of the node is active.
    private static let reservation = "CASE WHEN \(Workflows.idleExpression("t.id")) THEN NULL ELSE 'wolke-bare-metal' END"
    /// Every replica works on all nodes, so there is one conductor.
    private static let conductor = "'wolke-bare-metal'"

    /// Nodes as lists without details show them.
    static let nodeSummaries = nodes.showing(["uuid", "name", "instance_uuid", "maintenance", "power_state", "provision_state", "links"])

    /// `GET …/states`
    static let nodeStates = nodes.showing([
        "console_enabled", "last_error", "power_state", "provision_state", "target_power_state", "target_provision_state",
        "provision_updated_at", "raid_config", "target_raid_config", "boot_mode", "secure_boot",
    ])
}

extension ResourceKind.Visibility {
    /// The nodes that the caller may see: all, or those that its project owns or leases.
    ///
    /// - Parameter alias: of the nodes' table.
    static func nodes(_ alias: String) -> ResourceKind.Visibility {
        ResourceKind.Visibility { context in
            if context.allows(ResourceKind.allNodes) { return "TRUE" }
            guard let project = try context.caller.projectID else { return "FALSE" }
            return "(\(raw: alias).owner = \(project) OR \(raw: alias).lessee = \(project))"
        }
    }
}

extension Query {
    /// A parameter that is true or false; nil if it is absent.
    ///
    /// - Throws: 400 for other words.
    func flag(_ name: String) throws -> Bool? { try self[name].map { try Query.flag(name, $0) } }

    /// Whether a list shows more than a summary: because of its path, `detail=true` or named fields.
    ///
    /// - Throws: 400 for another value of `detail`.
    func wantsDetails(_ isDetailed: Bool = false) throws -> Bool {
        let isAsked = try flag("detail") ?? false
        return isDetailed || isAsked || fields != nil
    }

    static func flag(_ name: String, _ text: String) throws -> Bool {
        guard let value = BodySchema.boolean(text) else {
            throw ResourceError.badRequest(
                "Invalid input for query parameter \(name). Value: '\(text.prefix(64))'. It must be true or false.")
        }
        return value
    }
}

extension Field.Filter {
    /// `shard=a,b`
    fileprivate static let shards = Field.Filter.custom { text in
        "t.shard = ANY(\(text.split(separator: ",").map(String.init))::text[])"
    }.from(Microversion(1, 82))
}
