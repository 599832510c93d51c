import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

extension ResourceKind {
    private static let fixedIPs = """
        array_to_json(ARRAY(SELECT json_build_object('subnet_id', f.subnet_id, 'ip_address', f.ip_address)
            FROM port_fixed_ips f WHERE f.port_id = t.id ORDER BY f.position, f.ip_address))
        """
    private static let groups = """
        array_to_json(ARRAY(SELECT g.security_group_id FROM port_security_groups g WHERE g.port_id = t.id ORDER BY 1))
        """
    /// The datapath type is the one that the host's agent reported to Compute; omitted until it has reported.
    private static let details = """
        CASE WHEN t.host_id = '' THEN '{}' ELSE json_strip_nulls(json_build_object(
            'port_filter', true, 'connectivity', 'l2',
            'datapath_type', (SELECT h.datapath_type FROM published_hosts h WHERE h.host = t.host_id),
            'bound_drivers', json_build_object('0', 'ovn')))::text END
        """

    /// `fixed_ips=ip_address=10.0.0.3`: the values of one key are alternatives, different keys must all match.
    private static let fixedIPFilter: @Sendable (Field.Filter.Request) throws -> SQL = { request in
        var terms: [String: [SQL]] = [:]
        for value in request.values {
            let parts = value.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2, let term = fixedIPTerm(parts[0], parts[1]) else {
                throw ResourceError.badRequest(
                    "Invalid value for the filter fixed_ips: '\(value.prefix(64))'. It must be ip_address=… or subnet_id=….")
            }
            terms[parts[0], default: []].append(term)
        }
        let groups = terms.sorted { $0.key < $1.key }.map { key, terms -> SQL in
            "EXISTS (SELECT 1 FROM port_fixed_ips f WHERE f.port_id = t.id AND (\(SQL.joined(terms, separator: " OR "))))"
        }
        return SQL.joined(groups, separator: " AND ")
    }

    private static func fixedIPTerm(_ key: String, _ text: String) -> SQL? {
        switch key {
        case "ip_address": IPAddress(text).map { "f.ip_address = \($0)" } ?? "FALSE"
        case "subnet_id": UUID128(text).map { "f.subnet_id = \($0)" } ?? "FALSE"
        case "ip_address_substr": "strpos(f.ip_address, \(text)) > 0"
        default: nil
        }
    }

    static let ports = ResourceKind.network(
        "port",
        table: Table(
            "ports t JOIN networks n ON n.id = t.network_id",
            fields: Field.standard + Field.history + Field.tags + [
                .uuid("network_id"), .text("status"), .flag("admin_state_up", isSettable: true), .mac("mac_address"), .text("device_id"),
                .text("device_owner"), .flag("port_security_enabled"),
                Field("fixed_ips", .json, fixedIPs, filter: .all(fixedIPFilter)),
                Field(
                    "security_groups", .json, groups,
                    filter: .custom { text in
                        guard let id = UUID128(text) else { return "FALSE" }
                        return "EXISTS (SELECT 1 FROM port_security_groups g WHERE g.port_id = t.id AND g.security_group_id = \(id))"
                    }),
                Field("allowed_address_pairs", .json), Field("extra_dhcp_opts", .json),
                .text("binding:vnic_type", "t.vnic_type"),
                .text("binding:host_id", "t.host_id", visibleBy: "get_port:binding:host_id"),
                Field("binding:profile", .json, "t.binding_profile", visibleBy: "get_port:binding:profile"),
                .text(
                    "binding:vif_type", "CASE WHEN t.host_id = '' THEN 'unbound' ELSE 'ovs' END",
                    visibleBy: "get_port:binding:vif_type"),
                Field("binding:vif_details", .json, details, visibleBy: "get_port:binding:vif_details"),
            ]),
        targets: [("network:project_id", "n.project_id")],
        // The subqueries use the indexes of both tables. The owner of a network can see its ports.
        shared: { "t.network_id IN (SELECT id FROM networks WHERE project_id = \($0))" },
        visible: { project in
            """
            t.id IN (SELECT id FROM ports WHERE project_id = \(project) UNION
                SELECT o.id FROM ports o JOIN networks m ON m.id = o.network_id WHERE m.project_id = \(project))
            """
        }
    ) { .notFound("Port \($0) could not be found.", type: "PortNotFound") }
}

extension NetworkAPI {
    private static let fixedIP = BodySchema.object([
        .uuid("subnet_id", nullable: true), .init("ip_address", .nullable(.string(min: 1, max: 64, format: .ip))),
    ])
    private static let pair = BodySchema.object([
        .init("ip_address", .string(min: 1, max: 64, format: nil), required: true),
        .init("mac_address", .nullable(.string(min: 1, max: 32, format: .mac))),
    ])

    private static let common: [BodySchema.Property] = [
        .resourceName, .description, .adminStateUp, .init("device_id", .nullable(.text)), .init("device_owner", .nullable(.text)),
        .init("fixed_ips", .nullable(.array(fixedIP, min: 0, max: 64))),
        .init("security_groups", .nullable(.array(.uuid, min: 0, max: NetworkLimits.securityGroupsPerPortMax))),
        .init("allowed_address_pairs", .nullable(.array(pair, min: 0, max: NetworkLimits.addressPairsMax))),
        .init("port_security_enabled", .nullable(.boolean)), .init("binding:host_id", .nullable(.text)),
        .init("binding:vnic_type", .nullable(.enumeration(["normal"]))),
        .init("binding:profile", .nullable(.object([], additional: .allowed))),
        .init("mac_address", .nullable(.string(min: 1, max: 32, format: .mac))),
        .init("extra_dhcp_opts", .nullable(.array(DHCPOptions.schema, min: 0, max: DHCPOptions.countMax))),
    ]

    private static let create: [BodySchema.Property] =
        common + [.projectID, .tenantID, .tags, .uuid("network_id", required: true)]

    var ports: Resource {
        Resource(
            "port",
            routes: routes(
                .ports, create: NetworkAPI.create, update: NetworkAPI.common, creating: createPorts,
                updating: updatePort, deleting: deletePort))
    }

    private func createPorts(_ context: RequestContext) async throws -> Response {
        let (items, isBulk) = context.items("port", plural: "ports")
        let networks = try await networkSubjects(context, items)
        let seesAll = context.allows("get_security_group")
        let drafts = try items.map { item in
            let owner = try context.authorizeCreate(item, "port")
            let network = try NetworkAPI.network(of: item, among: networks)
            var target = PolicyTarget.project(owner.value)
            target.attributes["network:project_id"] = network.projectID
            try authorizePortAttributes(context, item, "create_port", target)
            let draft = try PortDraft(item, id: ambient.newUUID(), owner: owner, network: network.id, anyGroup: seesAll)
            if try NetworkAPI.isForeignExternal(network, context) {
                try context.authorize(target: target, action: "create_port:external")
            }
            return draft
        }
        @Sendable func create(_ connection: Connection, trusting: Bool) throws -> Change {
            try createPorts(connection, drafts, trusting: trusting)
            let created = try ResourceKind.ports.created(connection, context, drafts.map(\.id), isBulk: isBulk)
            // Reserve quota last, because the project's usage row stays locked until the end of the transaction.
            try reserve(connection, drafts)
            return created
        }
        do { return try await context.write(database) { try create($0, trusting: true) } } catch let error as DatabaseError
            where error.isTakenMAC
        { return try await context.write(database) { try create($0, trusting: false) } }
    }

    /// Whether a tenant can see the network only because it is external; its addresses can then only be used through routers.
    private static func isForeignExternal(_ network: Subject, _ context: RequestContext) throws -> Bool {
        try context.caller.projectID != network.projectID && network.target.attributes["shared"] != "true"
    }

    /// Decides about attributes that not every tenant may set.
    private func authorizePortAttributes(
        _ context: RequestContext, _ item: JSONObject, _ action: String, _ target: PolicyTarget
    ) throws {
        func isSet(_ name: String) -> Bool {
            guard let value = item[name], !value.isNull else { return false }
            return true
        }
        for name in ["mac_address", "port_security_enabled", "allowed_address_pairs"] where isSet(name) {
            try context.authorize(target: target, action: "\(action):\(name)")
        }
        if let host = item.text("binding:host_id"), !(host.isEmpty && action == "create_port") {
            try context.authorize(target: target, action: "\(action):binding:host_id")
        }
        if let profile = item["binding:profile"]?.objectValue, !profile.isEmpty {
            try context.authorize(target: target, action: "\(action):binding:profile")
            let names = profile.members.map(\.name).sorted().joined(separator: ", ")
            throw ResourceError.badRequest(
                """
                Invalid input for binding:profile. Reason: '\(names.prefix(128))' would have no effect: ports are \
                bound to virtual switches alone.
                """,
                type: "InvalidInput")
        }
        if item.list("fixed_ips")?.contains(where: { $0["ip_address"]?.stringValue != nil }) ?? false {
            try context.authorize(target: target, action: "\(action):fixed_ips")
        }
        guard let owner = item.text("device_owner"), owner.hasPrefix(DeviceOwner.networkPrefix) else { return }
        try context.authorize(target: target, action: "\(action):device_owner:network")
        guard !DeviceOwner.reserved.contains(owner) else {
            throw NetworkFault.badRequest("port", "device_owner \(owner) is set by the service itself.")
        }
    }

    private func updatePort(_ context: RequestContext) async throws -> Response {
        let port = try await ResourceKind.ports.find(database, context)
        guard let body = context.body["port"]?.objectValue else { return .empty() }
        try authorizePortAttributes(context, body, "update_port", port.value.target)
        let seesAll = context.allows("get_security_group")
        let change = try PortChange(body, anyGroup: seesAll)
        return try await context.write(database) { connection in
            try updatePort(connection, port, change)
            return try ResourceKind.ports.changed(connection, context, port.value.id)
        }
    }

    private func deletePort(_ context: RequestContext) async throws -> Response {
        let port = try await ResourceKind.ports.find(database, context)
        return try await context.write(database) { connection in
            try deletePort(connection, port)
            return ResourceKind.ports.deleted(port.value.id)
        }
    }
}

extension DeviceOwner {
    /// Owners that only the service itself may set.
    static let reserved: Set<String> = [routerInterface, routerGateway, floatingIP, metadata]
}
