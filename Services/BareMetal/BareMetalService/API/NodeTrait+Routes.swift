import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI

/// The traits of a node, which allocations can request.
struct NodeTraitRoutes: Sendable {
    let bareMetal: BareMetal
    private var database: Database { bareMetal.database }

    var resource: Resource {
        let all = NodeRoutes.one + "/traits"
        let (since, set, delete) = (VersionRange.minor(37), "baremetal:node:traits:set", "baremetal:node:traits:delete")
        return Resource(
            "node-trait",
            routes: [
                Route(
                    .get, all, action: "baremetal:node:traits:list", rule: NodePolicy.nodeReader, versions: since,
                    answer: .form(.object([.required("traits", .many(.anyText))])), "List a node's traits"
                ) { context in
                    try await database.read { connection in
                        let node = try bareMetal.node(connection, context)
                        return .json(200, ["traits": JSONValue(try NodeStore.traits(connection, of: node.value.id))])
                    }
                },
                Route(
                    .put, all, action: set, rule: NodePolicy.owner, versions: since, body: .json(NodeTraitRoutes.body), status: 204,
                    "Replace a node's traits"
                ) { context in
                    let traits = (context.body["traits"]?.arrayValue ?? []).compactMap(\.stringValue)
                    return try await change(context, traits, isReplaced: true)
                },
                Route(.put, all + "/{trait}", action: set, rule: NodePolicy.owner, versions: since, status: 204, "Add a trait") { context in
                    try await change(context, [context.parameter("trait")], isReplaced: false)
                },
                Route(.delete, all, action: delete, rule: NodePolicy.owner, versions: since, status: 204, "Remove all traits") {
                    try await remove($0, nil)
                },
                Route(.delete, all + "/{trait}", action: delete, rule: NodePolicy.owner, versions: since, status: 204, "Remove a trait") {
                    try await remove($0, $0.parameter("trait"))
                },
            ])
    }

    private static let body = BodySchema.object([
        .init("traits", .array(.string(min: 1, max: 255, format: nil), min: 0, max: BareMetalLimits.traitsMax), required: true)
    ])

    private func change(_ context: RequestContext, _ traits: [String], isReplaced: Bool) async throws -> Response {
        try await context.write(database) { connection in
            let node = try bareMetal.node(connection, context, isLocked: true)
            try traits.forEach(NodeRules.requireTrait)
            try bareMetal.requireIdle(connection, node.value)
            try NodeStore.setTraits(connection, node, traits, isReplaced: isReplaced, at: context.ambient.now)
            return try answer(connection, context, node.value.id)
        }
    }

    private func remove(_ context: RequestContext, _ trait: String?) async throws -> Response {
        try await context.write(database) { connection in
            let node = try bareMetal.node(connection, context, isLocked: true)
            try bareMetal.requireIdle(connection, node.value)
            try NodeStore.removeTraits(connection, node, trait, at: context.ambient.now)
            return try answer(connection, context, node.value.id)
        }
    }

    private func answer(_ connection: Connection, _ context: RequestContext, _ id: UUID128) throws -> Change {
        let traits = try NodeStore.traits(connection, of: id)
        return Change(.empty(204), "node", id.description, content: ["traits": JSONValue(traits)])
    }
}
