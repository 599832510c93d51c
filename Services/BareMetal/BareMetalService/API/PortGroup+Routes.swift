import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI

/// Bonded network interfaces of nodes.
extension ResourceKind {
    static let portGroups = ResourceKind(
        "portgroup",
        table: Table(
            "bare_metal_portgroups t JOIN bare_metal_nodes n ON n.id = t.node_id", defaultSort: [("created_at", false)],
            fields: [
                Field("uuid", .text, "t.id", sortable: true), Field("name", sortable: true, isSettable: true), .mac("address"),
                Field("node_uuid", .text, "t.node_id"), Field("extra", .json, isSettable: true),
                Field("internal_info", .json), Field("standalone_ports_supported", .boolean, sortable: true, isSettable: true),
                Field("mode", sortable: true, versions: .minor(26), isSettable: true),
                Field("properties", .json, versions: .minor(26), isSettable: true),
                Field("created_at", .timestampMicroseconds, sortable: true), Field("updated_at", .timestampMicroseconds, sortable: true),
                Field("links", .links([.absolute("self", "/v1/portgroups"), .absolute("bookmark", "/portgroups")])),
                Field(
                    "ports",
                    .links([
                        Link("self", after: "/ports") { "\($0.publicURL)/v1/portgroups/" },
                        Link("bookmark", after: "/ports") { "\($0.publicURL)/portgroups/" },
                    ]), versions: .minor(24)),
                .filter("node") { UUID128($0).map { "t.node_id = \($0)" } ?? "n.name = \($0)" },
            ]),
        relation: "bare_metal_portgroups", envelope: .bare, visibility: .nodes("n"), grammar: .bareMetal, pages: .bareMetal,
        bytesPerRow: 1024
    ) { .notFound("Portgroup \($0.prefix(64)) could not be found.") }

    static let portGroupSummaries = portGroups.showing(["uuid", "name", "address", "links"])
}

struct PortGroupRoutes: Sendable {
    let bareMetal: BareMetal
    private var database: Database { bareMetal.database }

    private static let since = VersionRange.minor(23)
    static let one = "/v1/portgroups/{portgroup}"

    var resource: Resource {
        let (all, one, ofNode) = ("/v1/portgroups", PortGroupRoutes.one, NodeRoutes.one + "/portgroups")
        let (list, get) = ("baremetal:portgroup:list", "baremetal:portgroup:get")
        let body = BodySchema.object(
            [.init("node_uuid", .uuid, required: true), .init("uuid", .nullable(.uuid))] + PortGroupRoutes.settable)
        return Resource(
            "portgroup",
            routes: [
                Route(
                    .get, all, action: list, rule: NodePolicy.reader, versions: PortGroupRoutes.since,
                    answer: .list(.portGroupSummaries), "List port groups"
                ) { try await self.list($0, isDetailed: false) },
                Route(
                    .get, all + "/detail", action: list, rule: NodePolicy.reader, versions: PortGroupRoutes.since,
                    answer: .list(.portGroups), "List port groups in detail"
                ) { try await self.list($0, isDetailed: true) },
                Route(
                    .get, ofNode, action: get, rule: NodePolicy.nodeReader, versions: .minor(24), answer: .list(.portGroupSummaries),
                    "List a node's port groups"
                ) { try await self.listOfNode($0, isDetailed: false) },
                Route(
                    .get, ofNode + "/detail", action: get, rule: NodePolicy.nodeReader, versions: .minor(24),
                    answer: .list(.portGroups), "List a node's port groups in detail"
                ) { try await self.listOfNode($0, isDetailed: true) },
                Route(
                    .post, all, action: "baremetal:portgroup:create", rule: NodePolicy.ownersManager, versions: PortGroupRoutes.since,
                    body: .json(body), status: 201, answer: .one(.portGroups), "Create a port group", handler: create),
                Route(
                    .get, one, action: get, rule: NodePolicy.nodeReader, versions: PortGroupRoutes.since, answer: .one(.portGroups),
                    "Show a port group"
                ) { context in
                    let fields = try ListRequest.shownFields(context, of: .portGroups)
                    return try await database.read { connection in
                        let id = try bareMetal.portGroup(connection, context).value.id
                        return try ResourceKind.portGroups.one(connection, context, where: "t.id = \(id)", id: "\(id)", only: fields)
                    }
                },
                Route(
                    .patch, one, action: "baremetal:portgroup:update", rule: NodePolicy.ownersManager, versions: PortGroupRoutes.since,
                    body: .json(.any), answer: .one(.portGroups), "Change a port group", handler: update),
                Route(
                    .delete, one, action: "baremetal:portgroup:delete", rule: NodePolicy.ownersManager, versions: PortGroupRoutes.since,
                    status: 204, "Remove a port group without ports", handler: delete),
            ])
    }

    private static let address = BodySchema.Property("address", .nullable(.string(min: 12, max: 17, format: .mac)))

    private static let settable: [BodySchema.Property] = [
        .init("name", .nullable(.text)), address, .init("extra", .nullable(.object([], additional: .allowed))),
        .init("standalone_ports_supported", .nullable(.boolean)),
        .init("mode", .nullable(.enumeration(BondMode.allCases.map(\.rawValue))), versions: .minor(26)),
        .init("properties", .nullable(.object([], additional: .allowed)), versions: .minor(26)),
    ]

    // MARK: reading

    private static func kind(_ context: RequestContext, isDetailed: Bool) throws -> ResourceKind {
        try context.query.wantsDetails(isDetailed) ? .portGroups : .portGroupSummaries
    }

    private func list(_ context: RequestContext, isDetailed: Bool) async throws -> Response {
        try await PortGroupRoutes.kind(context, isDetailed: isDetailed).list(database, context)
    }

    private func listOfNode(_ context: RequestContext, isDetailed: Bool) async throws -> Response {
        let kind = try PortGroupRoutes.kind(context, isDetailed: isDetailed)
        return try await database.read { connection in
            let node = try bareMetal.node(connection, context)
            return try kind.list(connection, context, where: ["t.node_id = \(node.value.id)"])
        }
    }

    // MARK: writing

    /// The columns that a body sets.
    private static func changes(_ body: JSONObject) throws -> Changes {
        var body = body
        for name in ["extra", "properties"] {
            if let value = body[name] { body[name] = .object(try NodeRules.document(value, name)) }
        }
        try NodeRules.normalizeName(&body, of: "portgroup")
        var changes = Changes(ResourceKind.portGroups.settings(body))
        if let address = body["address"] { changes.set("address", address.stringValue.flatMap { MACAddress($0)?.description }) }
        return changes
    }

    private func create(_ context: RequestContext) async throws -> Response {
        let body = context.body.objectValue ?? [:]
        let id = body["uuid"]?.stringValue.flatMap { UUID128($0) } ?? context.ambient.newUUID()
        let changes = try PortGroupRoutes.changes(body)
        let parent = body["node_uuid"]?.stringValue ?? ""
        return try await context.write(database) { connection in
            let node = try bareMetal.parent(connection, context, parent)
            let draft = PortGroupStore.Draft(id: id, nodeID: node.id, changes: changes)
            try PortGroupStore.insert(connection, try context.authorize(draft, target: BareMetal.target(node)), at: context.ambient.now)
            var response = try ResourceKind.portGroups.one(connection, context, where: "t.id = \(id)", id: "\(id)", status: 201)
            response.headers["location"] = "\(context.publicURL)/v1/portgroups/\(id)"
            return Change(answer: response, "portgroup", id.description)
        }
    }

    private func update(_ context: RequestContext) async throws -> Response {
        let patch = try JSONPatch(context.body)
        let known = Set(ResourceKind.portGroups.table.visible(context).map(\.name))
        return try await context.write(database) { connection in
            let group = try bareMetal.portGroup(connection, context, isLocked: true)
            let old = group.value.document
            let new = try patch.applied(to: old, members: Set(PortGroupRoutes.settable.map(\.name)).intersection(known))
            let changed = JSONObject(new.members.filter { old[$0.name] != $0.value }.map { ($0.name, $0.value) })
            let checked =
                try BodySchema.object(PortGroupRoutes.settable).validate(.object(changed), version: context.version).objectValue ?? [:]
            let id = group.value.id
            if checked["standalone_ports_supported"] == false, try PortGroupStore.hasBootingPort(connection, id) {
                throw ResourceError.conflict(
                    "Portgroup \(id) must support standalone ports while one of its ports has pxe_enabled; change the port first.")
            }
            try PortGroupStore.update(connection, group, try PortGroupRoutes.changes(checked), at: context.ambient.now)
            let response = try ResourceKind.portGroups.one(connection, context, where: "t.id = \(id)", id: "\(id)")
            return Change(answer: response, "portgroup", id.description)
        }
    }

    private func delete(_ context: RequestContext) async throws -> Response {
        try await context.write(database) { connection in
            let group = try bareMetal.portGroup(connection, context, isLocked: true)
            if let node = try NodeStore.node(connection, group.value.nodeID.description, isLocked: true) {
                try bareMetal.requireIdle(connection, node)
            }
            try PortGroupStore.delete(connection, group)
            return Change(.empty(204), "portgroup", group.value.id.description)
        }
    }
}

extension BareMetal {
    /// The port group that a path names, after the decision about its node.
    func portGroup(_ connection: Connection, _ context: RequestContext, isLocked: Bool = false) throws -> Authorized<PortGroup> {
        let ident = context.parameter("portgroup")
        let missing = ResourceKind.portGroups.notFound(ident)
        guard let group = try PortGroupStore.find(connection, ident, isLocked: isLocked),
            let node = try NodeStore.node(connection, group.nodeID.description)
        else { throw try BareMetal.absence(context, listedBy: "baremetal:portgroup:list", missing) }
        return try context.authorizeVisible(group, target: BareMetal.target(node), visibleBy: "baremetal:node:get", notFound: missing)
    }

    /// The node that a body names for a new port or port group, locked.
    ///
    /// - Throws: 400 if the caller may see no such node; 403 if the caller may not create such a resource at all.
    func parent(_ connection: Connection, _ context: RequestContext, _ ident: String) throws -> Node {
        guard let node = try NodeStore.node(connection, ident, isLocked: true),
            context.allows("baremetal:node:get", target: BareMetal.target(node))
        else {
            try context.authorize(target: .none)
            throw ResourceError.badRequest("Invalid input for node_uuid. Value: '\(ident.prefix(64))'. There is no such node.")
        }
        return node
    }
}
