import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI

/// Nodes: the machines that this service manages.
struct NodeRoutes: Sendable {
    let bareMetal: BareMetal
    private var database: Database { bareMetal.database }

    static let one = "/v1/nodes/{node}"

    var resource: Resource {
        let (all, one) = ("/v1/nodes", NodeRoutes.one)
        return Resource(
            "node",
            routes: [
                Route(
                    .get, all, action: "baremetal:node:list", rule: NodePolicy.reader, answer: .list(.nodeSummaries), "List nodes"
                ) { try await list($0, isDetailed: false) },
                Route(
                    .get, all + "/detail", action: "baremetal:node:list", rule: NodePolicy.reader, answer: .list(.nodes),
                    "List nodes in detail"
                ) { try await list($0, isDetailed: true) },
                Route(
                    .post, all, action: "baremetal:node:create", rule: NodePolicy.admin, body: .json(NodeBodies.new), status: 201,
                    answer: .one(.nodes), "Enroll a node", handler: create),
                Route(
                    .get, one, action: "baremetal:node:get", rule: NodePolicy.nodeReader, answer: .one(.nodes), "Show a node", handler: show
                ),
                Route(
                    .patch, one, action: "baremetal:node:update", rule: NodePolicy.nodeMember, body: .json(.any), answer: .one(.nodes),
                    "Change a node", handler: update),
                Route(
                    .delete, one, action: "baremetal:node:delete", rule: NodePolicy.admin, status: 204, "Remove a node", handler: delete),
                Route(
                    .get, one + "/validate", action: "baremetal:node:validate", rule: NodePolicy.owner,
                    answer: .form(NodeBodies.validation),
                    "Check a node's settings", handler: validate),
                Route(
                    .put, one + "/maintenance", action: "baremetal:node:set_maintenance", rule: NodePolicy.owner,
                    body: .optionalJSON(NodeBodies.maintenance), status: 202, "Put a node into maintenance"
                ) { try await setMaintenance($0, true, action: "baremetal:node:set_maintenance") },
                Route(
                    .delete, one + "/maintenance", action: "baremetal:node:clear_maintenance", rule: NodePolicy.owner, status: 202,
                    "Take a node out of maintenance"
                ) { try await setMaintenance($0, false, action: "baremetal:node:clear_maintenance") },
                Route(
                    .get, one + "/history", action: "baremetal:node:history:get", rule: NodePolicy.owner, versions: .minor(78),
                    answer: .list(.nodeHistory), "List the events of a node", handler: history),
            ])
    }

    // MARK: reading

    private func list(_ context: RequestContext, isDetailed: Bool) async throws -> Response {
        try context.authorize(target: .none)
        let kind = try NodeRoutes.kind(context, isDetailed: isDetailed)
        let request = try kind.listRequest(context)
        // Child nodes are listed only on request.
        let names = Set(context.query.items.map(\.name))
        let withParts = try context.query.flag("include_children") ?? false
        let scope = SQL.joined(
            [try kind.visibility.rows(context), withParts || names.contains("parent_node") ? "TRUE" : "t.parent_node IS NULL"],
            separator: " AND ")
        return try await database.read { try kind.list($0, context, request, scope: scope).response }
    }

    /// The kind for a list: with details or named fields, or a summary.
    private static func kind(_ context: RequestContext, isDetailed: Bool) throws -> ResourceKind {
        let detail = try context.query.flag("detail")
        guard detail == nil || context.version(atLeast: 1, 43) else { throw notAcceptable(43, "the parameter detail") }
        let fields = context.query.fields
        if fields != nil, isDetailed || detail == true {
            throw ResourceError.badRequest("Can't fetch a subset of fields with 'detail' set.")
        }
        return isDetailed || detail == true || fields != nil ? .nodes : .nodeSummaries
    }

    static func notAcceptable(_ minor: Int, _ what: String) -> ResourceError {
        ResourceError(.notAcceptable, "Request not acceptable. The minimal required API version for \(what) is 1.\(minor).")
    }

    private func show(_ context: RequestContext) async throws -> Response {
        let fields = try ListRequest.shownFields(context, of: .nodes)
        return try await database.read { connection in
            let node = try bareMetal.node(connection, context)
            let id = node.value.id
            return try ResourceKind.nodes.one(connection, context, where: "t.id = \(id)", id: "\(id)", only: fields)
        }
    }

    private func history(_ context: RequestContext) async throws -> Response {
        try await database.read { connection in
            let node = try bareMetal.node(connection, context)
            return try ResourceKind.nodeHistory.list(connection, context, where: ["t.node_id = \(node.value.id)"])
        }
    }

    private func validate(_ context: RequestContext) async throws -> Response {
        let node = try await database.read { try bareMetal.node($0, context).value }
        var problems = try bareMetal.hardware.driver(of: node).problems(of: node)
        if node.usesAgent || node.isInspectedByAgent {
            problems.merge(try await bareMetal.ramdiskProblems(of: node)) { first, _ in first }
        }
        return .json(
            200,
            .object(
                JSONObject(
                    HardwareInterface.allCases.map { interface -> (String, JSONValue) in
                        if node.interfaces[interface]?.hasPrefix("no-") == true {
                            return (interface.rawValue, ["result": nil, "reason": "not supported"])
                        }
                        guard let problem = problems[interface] else { return (interface.rawValue, ["result": true]) }
                        return (interface.rawValue, ["result": false, "reason": .string(problem)])
                    })))
    }

    // MARK: writing

    private func create(_ context: RequestContext) async throws -> Response {
        let body = context.body.objectValue ?? [:]
        let id = body["uuid"]?.stringValue.flatMap { UUID128($0) } ?? context.ambient.newUUID()
        let type = try bareMetal.hardware.type(named: body["driver"]?.stringValue ?? "")
        var changes = Changes(try NodeBodies.settings(body, context) + NodeUpdate.settings(type.complete(NodeBodies.interfaces(body))))
        changes.merge(
            try bareMetal.secrets.settings(
                try NodeRules.document(body["driver_info"] ?? .null, "driver_info"), type, node: id, old: (nil, [:])))
        try NodeRules.requireKnownConfigDrive(body["instance_info"]?.objectValue ?? [:], old: [:])
        let draft = NodeStore.Draft(
            id: id, changes: changes,
            // Before 1.11 a new node was available at once.
            state: context.version(atLeast: 1, 11) ? .enroll : .available)
        let decision = try context.authorize(draft, target: .none)
        return try await context.write(database) { connection in
            try NodeStore.insert(connection, decision, at: context.ambient.now)
            var response = try ResourceKind.nodes.one(connection, context, where: "t.id = \(id)", id: "\(id)", status: 201)
            response.headers["location"] = "\(context.publicURL)/v1/nodes/\(id)"
            return Change(answer: response, "node", id.description)
        }
    }

    private func update(_ context: RequestContext) async throws -> Response {
        let patch = try JSONPatch(context.body)
        return try await context.write(database) { connection in
            let node = try bareMetal.node(connection, context, isLocked: true)
            try bareMetal.requireIdle(connection, node.value)
            let changes = try NodeUpdate(bareMetal: bareMetal, context: context, node: node.value).changes(connection, patch)
            try NodeStore.update(connection, node, changes, for: "baremetal:node:update", at: context.ambient.now)
            try ConfigDriveStore.forgetRemoved(connection, node)
            if node.value.instanceID != nil { try NodeClaimStore.forgetWithoutInstance(connection, node) }
            let id = node.value.id
            let response = try ResourceKind.nodes.one(connection, context, where: "t.id = \(id)", id: "\(id)")
            return Change(answer: response, "node", id.description)
        }
    }

    private func delete(_ context: RequestContext) async throws -> Response {
        try await context.write(database) { connection in
            let node = try bareMetal.node(connection, context, isLocked: true)
            let (id, state) = (node.value.id, node.value.state)
            try bareMetal.requireIdle(connection, node.value)
            if node.value.instanceID != nil {
                throw ResourceError.conflict("Node \(id) is associated with instance \(node.value.instanceID?.description ?? "").")
            }
            if node.value.isProtected { throw ResourceError.forbidden("Node \(id) is protected and cannot be removed.") }
            guard state.isRemovable || node.value.isInMaintenance && !state.isOccupied else {
                throw ResourceError.conflict(
                    """
                    Can not delete node "\(id)" while it is in provision state "\(state.rawValue)". Valid provision states to perform \
                    deletion are: \(ProvisionState.allCases.filter(\.isRemovable).map(\.rawValue).joined(separator: ", ")).
                    """)
            }
            try NodeStore.delete(connection, node)
            return Change(.empty(204), "node", id.description)
        }
    }

    private func setMaintenance(_ context: RequestContext, _ isOn: Bool, action: String) async throws -> Response {
        let reason = isOn ? context.body["reason"]?.stringValue : nil
        return try await context.write(database) { connection in
            let node = try bareMetal.node(connection, context, isLocked: true)
            var changes = Changes()
            changes.set("maintenance", isOn)
            changes.set("maintenance_reason", reason)
            if !isOn { changes.set("fault", nil as String?) }
            try NodeStore.update(connection, node, changes, for: action, at: context.ambient.now)
            return Change(
                .empty(202), "node", node.value.id.description, content: ["maintenance": .bool(isOn), "reason": JSONValue(reason)])
        }
    }
}

extension ListRequest {
    /// The fields that a request for one resource names: `fields=uuid,name`.
    ///
    /// - Throws: 406 before 1.8, 400 for a field that the resource does not have in this version.
    static func shownFields(_ context: RequestContext, of kind: ResourceKind) throws -> Set<String>? {
        guard let fields = context.query.fields else { return nil }
        guard context.version(atLeast: 1, 8) else { throw NodeRoutes.notAcceptable(8, "the parameter fields") }
        let known = Set(kind.table.visible(context).map(\.name))
        if let unknown = fields.subtracting(known).sorted().first {
            throw ResourceError.badRequest(
                "Invalid input for query parameter fields. There is no field '\(unknown.prefix(64))' in this version.")
        }
        return fields
    }
}

extension ResourceKind {
    static let nodeHistory = ResourceKind(
        "history", plural: "history",
        table: Table(
            "bare_metal_node_history t", defaultSort: [("created_at", false)],
            fields: [
                Field("uuid", .text, "t.id"), Field("created_at", .timestampMicroseconds, sortable: true), Field("severity"),
                Field("event"), Field("event_type"), Field("conductor"), Field("user", .text, "t.user_id"),
            ]), envelope: .bare, visibility: .everything, grammar: .bareMetal, pages: .bareMetal)
}
