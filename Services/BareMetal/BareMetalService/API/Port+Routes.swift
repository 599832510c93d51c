import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI

/// The network interfaces of nodes.
extension ResourceKind {
    static let bareMetalPorts = ResourceKind(
        "port",
        table: Table(
            "bare_metal_ports t JOIN bare_metal_nodes n ON n.id = t.node_id", defaultSort: [("created_at", false)],
            fields: [
                Field("uuid", .text, "t.id", sortable: true), .mac("address"), Field("node_uuid", .text, "t.node_id"),
                Field("extra", .json, isSettable: true), Field("internal_info", .json, versions: .minor(18)),
                Field("local_link_connection", .json, versions: .minor(19), isSettable: true),
                Field("pxe_enabled", .boolean, sortable: true, versions: .minor(19), isSettable: true),
                Field("portgroup_uuid", .text, "t.portgroup_id", versions: .minor(24)),
                Field("physical_network", sortable: true, versions: .minor(34), isSettable: true),
                Field("is_smartnic", .boolean, versions: .minor(53)),
                Field("name", sortable: true, versions: .minor(88), isSettable: true),
                Field("created_at", .timestampMicroseconds, sortable: true), Field("updated_at", .timestampMicroseconds, sortable: true),
                Field("links", .links([.absolute("self", "/v1/ports"), .absolute("bookmark", "/ports")])),
                .filter("node") { UUID128($0).map { "t.node_id = \($0)" } ?? "n.name = \($0)" },
                .filter("node_uuid", .uuid("t.node_id")),
                .filter(
                    "portgroup",
                    .custom { PortGroupStore.isGroup("t.portgroup_id", $0) }.from(Microversion(1, 24))),
                .filter(
                    "shard", .custom { "n.shard = ANY(\($0.split(separator: ",").map(String.init))::text[])" }.from(Microversion(1, 82))),
            ]),
        relation: "bare_metal_ports", envelope: .bare,
        visibility: .nodes("n"), grammar: .bareMetal, pages: .bareMetal, bytesPerRow: 1024
    ) { .notFound("Port \($0.prefix(64)) could not be found.") }

    static let bareMetalPortSummaries = bareMetalPorts.showing(["uuid", "address", "links"])
}

struct PortRoutes: Sendable {
    let bareMetal: BareMetal
    private var database: Database { bareMetal.database }

    private static let create = "baremetal:port:create"
    private static let update = "baremetal:port:update"
    private static let delete = "baremetal:port:delete"

    var resource: Resource {
        let (all, one, ofNode, ofGroup) = (
            "/v1/ports", "/v1/ports/{port}", NodeRoutes.one + "/ports", PortGroupRoutes.one + "/ports"
        )
        let list = "baremetal:port:list"
        return Resource(
            "port",
            routes: [
                Route(.get, all, action: list, rule: NodePolicy.reader, answer: .list(.bareMetalPortSummaries), "List ports") {
                    try await self.list($0, isDetailed: false)
                },
                Route(.get, all + "/detail", action: list, rule: NodePolicy.reader, answer: .list(.bareMetalPorts), "List ports in detail")
                {
                    try await self.list($0, isDetailed: true)
                },
                Route(
                    .get, ofNode, action: "baremetal:port:get", rule: NodePolicy.nodeReader, answer: .list(.bareMetalPortSummaries),
                    "List a node's ports"
                ) { try await self.listOfNode($0, isDetailed: false) },
                Route(
                    .get, ofNode + "/detail", action: "baremetal:port:get", rule: NodePolicy.nodeReader, answer: .list(.bareMetalPorts),
                    "List a node's ports in detail"
                ) { try await self.listOfNode($0, isDetailed: true) },
                Route(
                    .get, ofGroup, action: "baremetal:port:get", rule: NodePolicy.nodeReader, versions: .minor(24),
                    answer: .list(.bareMetalPortSummaries), "List the ports of a port group"
                ) { try await self.listOfGroup($0, isDetailed: false) },
                Route(
                    .get, ofGroup + "/detail", action: "baremetal:port:get", rule: NodePolicy.nodeReader, versions: .minor(24),
                    answer: .list(.bareMetalPorts), "List the ports of a port group in detail"
                ) { try await self.listOfGroup($0, isDetailed: true) },
                Route(
                    .post, all, action: PortRoutes.create, rule: NodePolicy.ownersManager, body: .json(PortRoutes.new), status: 201,
                    answer: .one(.bareMetalPorts), "Create a port", handler: createPort),
                Route(
                    .get, one, action: "baremetal:port:get", rule: NodePolicy.nodeReader, answer: .one(.bareMetalPorts), "Show a port",
                    handler: show),
                Route(
                    .patch, one, action: PortRoutes.update, rule: NodePolicy.ownersManager, body: .json(.any),
                    answer: .one(.bareMetalPorts),
                    "Change a port", handler: updatePort),
                Route(
                    .delete, one, action: PortRoutes.delete, rule: NodePolicy.ownersManager, status: 204, "Remove a port",
                    handler: deletePort),
            ])
    }

    private static let settable: [BodySchema.Property] = [
        .init("extra", .nullable(.object([], additional: .allowed))),
        .init("local_link_connection", .nullable(.object([], additional: .allowed)), versions: .minor(19)),
        .init("pxe_enabled", .nullable(.boolean), versions: .minor(19)),
        .init("portgroup_uuid", .nullable(.uuid), versions: .minor(24)),
        .init("physical_network", .nullable(.text(64)), versions: .minor(34)), .init("name", .nullable(.text), versions: .minor(88)),
    ]

    private static let new = BodySchema.object(
        [
            .init("address", .string(min: 12, max: 17, format: .mac), required: true), .init("node_uuid", .uuid, required: true),
            .init("uuid", .nullable(.uuid)),
        ] + settable)

    // MARK: reading

    private static func kind(_ context: RequestContext, isDetailed: Bool) throws -> ResourceKind {
        try context.query.wantsDetails(isDetailed) ? .bareMetalPorts : .bareMetalPortSummaries
    }

    private func list(_ context: RequestContext, isDetailed: Bool) async throws -> Response {
        let kind = try PortRoutes.kind(context, isDetailed: isDetailed)
        try context.authorize(target: .none)
        let request = try kind.listRequest(context)
        let scope = try kind.visibility.rows(context)
        return try await database.read { try kind.list($0, context, request, scope: scope).response }
    }

    private func listOfNode(_ context: RequestContext, isDetailed: Bool) async throws -> Response {
        let kind = try PortRoutes.kind(context, isDetailed: isDetailed)
        return try await database.read { connection in
            let node = try bareMetal.node(connection, context)
            return try kind.list(connection, context, where: ["t.node_id = \(node.value.id)"])
        }
    }

    private func listOfGroup(_ context: RequestContext, isDetailed: Bool) async throws -> Response {
        let kind = try PortRoutes.kind(context, isDetailed: isDetailed)
        return try await database.read { connection in
            let group = try bareMetal.portGroup(connection, context)
            return try kind.list(connection, context, where: ["t.portgroup_id = \(group.value.id)"])
        }
    }

    /// The port that a path names, after the decision about its node.
    private func port(_ connection: Connection, _ context: RequestContext, isLocked: Bool = false) throws -> Authorized<NodePort> {
        let text = context.parameter("port")
        let missing = ResourceKind.bareMetalPorts.notFound(text)
        guard let id = UUID128(text), let port = try PortStore.port(connection, id, isLocked: isLocked),
            let node = try NodeStore.node(connection, port.nodeID.description)
        else {
            throw try BareMetal.absence(context, listedBy: "baremetal:port:list", missing)
        }
        return try context.authorizeVisible(
            port, target: BareMetal.target(node), visibleBy: "baremetal:node:get", notFound: missing)
    }

    private func show(_ context: RequestContext) async throws -> Response {
        try await database.read { connection in
            let id = try port(connection, context).value.id
            return try ResourceKind.bareMetalPorts.one(connection, context, where: "t.id = \(id)", id: "\(id)")
        }
    }

    // MARK: writing

    private func createPort(_ context: RequestContext) async throws -> Response {
        let body = context.body.objectValue ?? [:]
        let id = body["uuid"]?.stringValue.flatMap { UUID128($0) } ?? context.ambient.newUUID()
        guard let address = body["address"]?.stringValue.flatMap({ MACAddress($0) }) else {
            throw ResourceError.badRequest("The request needs an address.")
        }
        let settings = try PortRoutes.settings(body)
        let parent = body["node_uuid"]?.stringValue ?? ""
        return try await context.write(database) { connection in
            let node = try bareMetal.parent(connection, context, parent)
            var changes = Changes(settings)
            try PortRoutes.join(connection, body, &changes, node: node.id, boots: body["pxe_enabled"]?.boolValue ?? true)
            let draft = PortStore.Draft(id: id, nodeID: node.id, address: address.description, changes: changes)
            try PortStore.insert(connection, try context.authorize(draft, target: BareMetal.target(node)), at: context.ambient.now)
            var response = try ResourceKind.bareMetalPorts.one(connection, context, where: "t.id = \(id)", id: "\(id)", status: 201)
            response.headers["location"] = "\(context.publicURL)/v1/ports/\(id)"
            return Change(answer: response, "port", id.description)
        }
    }

    /// Puts a port into the group that a body names.
    ///
    /// - Parameter boots: whether the port boots from the network standalone.
    /// - Throws: 400 for a group that the node does not have; 409 if the port boots standalone and the group has no standalone ports.
    private static func join(_ connection: Connection, _ body: JSONObject, _ changes: inout Changes, node: UUID128, boots: Bool) throws {
        guard let value = body["portgroup_uuid"] else { return }
        guard let text = value.stringValue else {
            changes.set("portgroup_id", nil as UUID128?)
            return
        }
        guard let group = try PortGroupStore.find(connection, text, isLocked: true), group.nodeID == node else {
            throw ResourceError.badRequest(
                "Invalid input for portgroup_uuid. Value: '\(text.prefix(64))'. The node has no such portgroup.")
        }
        guard group.supportsStandalonePorts || !boots else {
            throw ResourceError.conflict(
                "A port with pxe_enabled cannot be in portgroup \(group.id), which does not support standalone ports.")
        }
        changes.set("portgroup_id", group.id)
    }

    /// The columns that a body sets.
    private static func settings(_ body: JSONObject) throws -> [Setting] {
        var body = body
        if let value = body["extra"] { body["extra"] = .object(try NodeRules.document(value, "extra")) }
        if let value = body["local_link_connection"] { body["local_link_connection"] = .object(try NodeRules.localLink(value)) }
        try NodeRules.normalizeName(&body, of: "port")
        return ResourceKind.bareMetalPorts.settings(body)
    }

    private func updatePort(_ context: RequestContext) async throws -> Response {
        let patch = try JSONPatch(context.body)
        let known = Set(ResourceKind.bareMetalPorts.table.visible(context).map(\.name))
        return try await context.write(database) { connection in
            let port = try port(connection, context, isLocked: true)
            let members = Set(PortRoutes.settable.map(\.name) + ["address"]).intersection(known)
            let old = port.value.document
            let new = try patch.applied(to: old, members: members)
            let changed = JSONObject(new.members.filter { old[$0.name] != $0.value }.map { ($0.name, $0.value) })
            let checked =
                try BodySchema.object(PortRoutes.settable + [.init("address", .string(min: 12, max: 17, format: .mac))])
                .validate(.object(changed), version: context.version).objectValue ?? [:]
            var changes = Changes(try PortRoutes.settings(checked))
            if let address = checked["address"]?.stringValue.flatMap({ MACAddress($0) }) { changes.set("address", address.description) }
            var member = checked
            // Setting `pxe_enabled` on a port of a group requires the same check as joining the group.
            if checked["pxe_enabled"] == true, member["portgroup_uuid"] == nil { member["portgroup_uuid"] = old["portgroup_uuid"] }
            try PortRoutes.join(connection, member, &changes, node: port.value.nodeID, boots: new["pxe_enabled"]?.boolValue ?? true)
            try PortStore.update(connection, port, changes, at: context.ambient.now)
            let id = port.value.id
            let response = try ResourceKind.bareMetalPorts.one(connection, context, where: "t.id = \(id)", id: "\(id)")
            return Change(answer: response, "port", id.description)
        }
    }

    private func deletePort(_ context: RequestContext) async throws -> Response {
        try await context.write(database) { connection in
            let port = try port(connection, context, isLocked: true)
            if let node = try NodeStore.node(connection, port.value.nodeID.description, isLocked: true) {
                try bareMetal.requireIdle(connection, node)
                guard !node.state.isOccupied || node.isInMaintenance else {
                    throw ResourceError.conflict(
                        "Cannot delete port \(port.value.id) while node \(node.id) is \(node.state.rawValue) and not in maintenance.")
                }
            }
            try PortStore.delete(connection, port)
            return Change(.empty(204), "port", port.value.id.description)
        }
    }
}
