import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI

/// Claims on nodes.
extension ResourceKind {
    /// The policy action for reading allocations of any owner.
    static let allAllocations = "baremetal:allocation:list_all"

    static let allocations = ResourceKind(
        "allocation",
        table: Table(
            "bare_metal_allocations t", defaultSort: [("created_at", false)],
            fields: [
                Field("uuid", .text, "t.id", sortable: true), Field("name", sortable: true, isSettable: true),
                Field("node_uuid", .text, "t.node_id", sortable: true), Field("resource_class", filter: .equals, sortable: true),
                Field("state", filter: .equals, sortable: true), Field("last_error", sortable: true),
                Field("traits", .json, shape: .many(.anyText)), Field("candidate_nodes", .json, shape: .many(.anyText)),
                Field("extra", .json, isSettable: true),
                Field("owner", filter: .equals.from(Microversion(1, 60)), sortable: true, versions: .minor(60)),
                Field("created_at", .timestampMicroseconds, sortable: true), Field("updated_at", .timestampMicroseconds, sortable: true),
                Field("links", .links([.absolute("self", "/v1/allocations"), .absolute("bookmark", "/allocations")])),
                .filter("node") { NodeStore.isNode("t.node_id", $0) },
            ]),
        relation: "bare_metal_allocations", envelope: .bare,
        visibility: Visibility { context in
            if context.allows(allAllocations) { return "TRUE" }
            guard let project = try context.caller.projectID else { return "FALSE" }
            return "t.owner = \(project)"
        }, grammar: .bareMetal, pages: .bareMetal, bytesPerRow: 1024
    ) { .notFound("Allocation \($0.prefix(64)) could not be found.") }
}

struct AllocationRoutes: Sendable {
    let bareMetal: BareMetal
    private var database: Database { bareMetal.database }

    private static let delete = "baremetal:allocation:delete"
    /// The policy action for creating allocations for another project, or without an owner.
    static let forOthers = "baremetal:allocation:create_restricted"
    private static let reader = "rule:admin_required or (role:reader and project_id:%(allocation.owner)s)"
    private static let member = "rule:admin_required or (role:member and project_id:%(allocation.owner)s)"

    private static let new = BodySchema.object([
        .init("uuid", .nullable(.uuid)), .init("name", .nullable(.text)),
        .init("resource_class", .nullable(.string(min: 1, max: 80, format: nil))),
        .init("traits", .nullable(.array(.text, min: 0, max: BareMetalLimits.traitsMax))),
        .init("candidate_nodes", .nullable(.array(.identifier, min: 0, max: 1000))),
        .init("extra", .nullable(.object([], additional: .allowed))), .init("node", .nullable(.identifier), versions: .minor(58)),
        .init("owner", .nullable(.text), versions: .minor(60)),
    ])
    private static let settable: [BodySchema.Property] = [
        .init("name", .nullable(.text)), .init("extra", .nullable(.object([], additional: .allowed))),
    ]

    var resource: Resource {
        let (all, one, ofNode) = ("/v1/allocations", "/v1/allocations/{allocation}", NodeRoutes.one + "/allocation")
        let (since, get) = (VersionRange.minor(52), "baremetal:allocation:get")
        return Resource(
            "allocation",
            routes: [
                Route(
                    .get, all, action: "baremetal:allocation:list", rule: NodePolicy.reader, versions: since, answer: .list(.allocations),
                    "List allocations"
                ) { try await ResourceKind.allocations.list(database, $0) },
                Route(
                    .post, all, action: "baremetal:allocation:create", rule: AllocationRoutes.member, versions: since,
                    body: .json(AllocationRoutes.new), status: 201, answer: .one(.allocations), "Claim a node", handler: create),
                Route(
                    .get, one, action: get, rule: AllocationRoutes.reader, versions: since, answer: .one(.allocations), "Show an allocation"
                ) { try await show($0, allocation) },
                Route(
                    .patch, one, action: "baremetal:allocation:update", rule: AllocationRoutes.member, versions: .minor(57),
                    body: .json(.any), answer: .one(.allocations), "Change the name or extra data of an allocation", handler: update),
                Route(
                    .delete, one, action: AllocationRoutes.delete, rule: AllocationRoutes.member, versions: since, status: 204,
                    "Free the node of an allocation"
                ) { try await remove($0, allocation) },
                Route(
                    .get, ofNode, action: get, rule: AllocationRoutes.reader, versions: since, answer: .one(.allocations),
                    "Show a node's allocation"
                ) { try await show($0, allocationOfNode) },
                Route(
                    .delete, ofNode, action: AllocationRoutes.delete, rule: AllocationRoutes.member, versions: since, status: 204,
                    "Remove a node's allocation"
                ) { try await remove($0, allocationOfNode) },
            ])
    }

    // MARK: looking up

    private typealias Look = @Sendable (Connection, RequestContext, _ isLocked: Bool) throws -> Authorized<Allocation>

    private func decide(_ context: RequestContext, _ found: Allocation?, _ missing: ResourceError) throws -> Authorized<Allocation> {
        guard let found else { throw try BareMetal.absence(context, listedBy: "baremetal:allocation:list", missing) }
        return try context.authorizeVisible(found, target: found.target, visibleBy: "baremetal:allocation:get", notFound: missing)
    }

    /// The allocation that a path names, by its id or name.
    @Sendable private func allocation(
        _ connection: Connection, _ context: RequestContext, _ isLocked: Bool
    ) throws -> Authorized<Allocation> {
        let ident = context.parameter("allocation")
        let found = try NodeClaimStore.find(connection, UUID128(ident).map { "id = \($0)" } ?? "name = \(ident)", isLocked: isLocked)
        return try decide(context, found, ResourceKind.allocations.notFound(ident))
    }

    /// The allocation of the node that a path names.
    @Sendable private func allocationOfNode(
        _ connection: Connection, _ context: RequestContext, _ isLocked: Bool
    ) throws -> Authorized<Allocation> {
        let ident = context.parameter("node")
        let missing = ResourceError.notFound("Allocation for node \(ident.prefix(64)) could not be found.")
        let node = try NodeStore.node(connection, ident, isLocked: isLocked)
        return try decide(
            context, try node.flatMap { try NodeClaimStore.find(connection, "node_id = \($0.id)", isLocked: isLocked) }, missing)
    }

    private func show(_ context: RequestContext, _ look: @escaping Look) async throws -> Response {
        let fields = try ListRequest.shownFields(context, of: .allocations)
        return try await database.read { connection in
            let id = try look(connection, context, false).value.id
            return try ResourceKind.allocations.one(connection, context, where: "t.id = \(id)", id: "\(id)", only: fields)
        }
    }

    // MARK: writing

    private func create(_ context: RequestContext) async throws -> Response {
        let body = context.body.objectValue ?? [:]
        @Sendable func texts(_ name: String) -> [String] { body[name]?.arrayValue?.compactMap(\.stringValue) ?? [] }
        let name = body["name"]?.stringValue.flatMap { $0.isEmpty ? nil : $0 }
        if let name { try NodeRules.requireName(name, of: "allocation") }
        for trait in texts("traits") { try NodeRules.requireTrait(trait) }
        let extra = try NodeRules.document(body["extra"] ?? .null, "extra")
        let owner = try owner(context, body["owner"]?.stringValue)
        let (wanted, asked) = (body["node"]?.stringValue, body["resource_class"]?.stringValue)
        return try await context.write(database) { connection in
            let node = try wanted.map { try candidate(connection, context, $0, "node", isLocked: true) }
            guard let resourceClass = asked ?? node?.resourceClass else {
                throw ResourceError.badRequest("Invalid input for resource_class. It is required unless 'node' names a node that has one.")
            }
            let allocation = Allocation(
                id: body["uuid"]?.stringValue.flatMap { UUID128($0) } ?? node?.instanceID ?? context.ambient.newUUID(), name: name,
                owner: owner, resourceClass: resourceClass, traits: texts("traits"),
                candidates: try texts("candidate_nodes").map { try candidate(connection, context, $0, "candidate_nodes").id }, extra: extra,
                nodeID: nil)
            let decision = try context.authorize(allocation, target: allocation.target)
            if let node {
                try NodeClaimStore.insert(connection, decision, for: node, at: context.ambient.now)
            } else {
                try NodeClaimStore.insert(connection, decision, at: context.ambient.now)
            }
            let id = allocation.id
            var response = try ResourceKind.allocations.one(connection, context, where: "t.id = \(id)", id: "\(id)", status: 201)
            response.headers["location"] = "\(context.publicURL)/v1/allocations/\(id)"
            return Change(answer: response, "allocation", id.description)
        }
    }

    /// The owner of a new allocation: the caller's project, unless policy allows others.
    private func owner(_ context: RequestContext, _ asked: String?) throws -> String? {
        let asked = asked.flatMap { $0.isEmpty ? nil : $0 }
        if context.allows(AllocationRoutes.forOthers) { return asked }
        let own = try context.caller.projectID
        guard asked == nil || asked == own else {
            throw ResourceError.forbidden("Policy doesn't allow \(AllocationRoutes.forOthers) to be performed.")
        }
        return own
    }

    /// A node that a body names, if the caller may see it.
    private func candidate(
        _ connection: Connection, _ context: RequestContext, _ ident: String, _ member: String, isLocked: Bool = false
    ) throws -> Node {
        guard let node = try NodeStore.node(connection, ident, isLocked: isLocked),
            context.allows("baremetal:node:get", target: BareMetal.target(node))
        else {
            throw ResourceError.badRequest("Invalid input for \(member). Value: '\(ident.prefix(64))'. There is no such node.")
        }
        return node
    }

    private func update(_ context: RequestContext) async throws -> Response {
        let patch = try JSONPatch(context.body)
        return try await context.write(database) { connection in
            let decision = try allocation(connection, context, true)
            let old: JSONObject = ["name": JSONValue(decision.value.name), "extra": .object(decision.value.extra)]
            let new = try patch.applied(to: old, members: Set(AllocationRoutes.settable.map(\.name)))
            var body = try BodySchema.object(AllocationRoutes.settable).validate(.object(new), version: context.version).objectValue ?? [:]
            try NodeRules.normalizeName(&body, of: "allocation")
            body["name"] = body["name"] ?? .null
            body["extra"] = .object(try NodeRules.document(body["extra"] ?? .null, "extra"))
            let changes = Changes(ResourceKind.allocations.settings(body))
            try NodeClaimStore.update(connection, decision, changes, at: context.ambient.now)
            let id = decision.value.id
            let response = try ResourceKind.allocations.one(connection, context, where: "t.id = \(id)", id: "\(id)")
            return Change(answer: response, "allocation", id.description)
        }
    }

    private func remove(_ context: RequestContext, _ look: @escaping Look) async throws -> Response {
        try await context.write(database) { connection in
            let decision = try look(connection, context, true)
            try NodeClaimStore.delete(connection, decision, at: context.ambient.now)
            return Change(.empty(204), "allocation", decision.value.id.description)
        }
    }
}
