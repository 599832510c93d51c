import Authorization
import Database
import JSON
import Kernel
import PlacementCore
import WebAPI

extension Placement {
    var candidateResource: Resource {
        Resource(
            "allocation_candidate",
            routes: [
                Route(
                    .get, "/allocation_candidates", action: "placement:allocation_candidates:list", rule: Placement.rule,
                    versions: VersionRange(from: Microversion(1, 10)), answer: .form(PlacementForms.candidates),
                    "List allocation candidates", handler: listCandidates)
            ])
    }

    private static let candidatesMax = 1000

    private func listCandidates(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let query = try candidateQuery(context)
        guard !query.resources.isEmpty else {
            throw ResourceError.badRequest(
                "At least one group of `resources` is required: the query parameter resources is missing.",
                type: "placement.query.missing_value")
        }
        let limit = try context.query["limit"].map(Placement.limit) ?? Placement.candidatesMax
        return try await database.snapshot { connection in
            try Placement.requireClasses(connection, query.resources.map(\.resourceClass), using: false)
            try Placement.requireTraits(connection, query.traitNames, using: false)
            let providers = try CandidateStore.trees(connection, query, limit: limit)
            return context.dated(Placement.render(context, query, providers, limit: limit))
        }
    }

    private static func limit(_ text: String) throws -> Int {
        guard let value = Int(text), value >= 1 else {
            throw ProviderQuery.bad("Invalid query string parameters: limit '\(text.prefix(64))' is not a positive whole number")
        }
        return min(value, candidatesMax)
    }

    /// - Throws: 400 for granular groups, which are not supported, and for parameters that the version does not have.
    private func candidateQuery(_ context: RequestContext) throws -> ProviderQuery {
        for (name, _) in context.query.items {
            for prefix in ["resources", "required", "member_of", "in_tree"] where name.hasPrefix(prefix) && name != prefix {
                throw ResourceError.badRequest(
                    "The query parameter '\(name.prefix(64))' is refused: groups of resources with a suffix are not supported.")
            }
            if ["group_policy", "same_subtree"].contains(name) {
                throw ResourceError.badRequest("The query parameter '\(name)' is not supported.")
            }
        }
        var allowed: Set<String> = ["resources"]
        if context.version(atLeast: 1, 16) { allowed.insert("limit") }
        if context.version(atLeast: 1, 17) { allowed.insert("required") }
        if context.version(atLeast: 1, 21) { allowed.insert("member_of") }
        if context.version(atLeast: 1, 31) { allowed.insert("in_tree") }
        if context.version(atLeast: 1, 35) { allowed.insert("root_required") }
        var repeatable: Set<String> = []
        if context.version(atLeast: 1, 24) { repeatable.insert("member_of") }
        if context.version(atLeast: 1, 39) { repeatable.insert("required") }
        try context.checkQuery(allowed, repeatable: repeatable)
        return try context.providerQuery()
    }

    // MARK: rendering

    private static func render(
        _ context: RequestContext, _ query: ProviderQuery, _ trees: [[CandidateProvider]], limit: Int
    ) -> Response {
        var shown: [CandidateProvider] = []
        var left = limit
        return .object(capacity: 1024 + trees.count * 1200) { writer in
            writer.arrayField("allocation_requests") { list in
                for tree in trees where left > 0 {
                    let ways = Candidates.ways(tree, query).prefix(left)
                    left -= ways.count
                    for way in ways { list.object { write(way, &$0, context) } }
                    let taking = Set(ways.joined().map(\.provider))
                    // Since 1.29, whole trees are shown.
                    shown += ways.isEmpty ? [] : tree.filter { context.version(atLeast: 1, 29) || taking.contains($0.id) }
                }
            }
            writer.objectField("provider_summaries") { list in
                for provider in shown { list.objectField(provider.id.description) { write(provider, &$0, context, query) } }
            }
        }
    }

    private static func write(
        _ way: [(provider: UUID128, resources: [ResourceAmount])], _ writer: inout JSONWriter, _ context: RequestContext
    ) {
        func resources(_ amounts: [ResourceAmount], _ item: inout JSONWriter) {
            item.objectField("resources") { for need in amounts { $0.field(need.resourceClass, need.amount) } }
        }
        guard context.version(atLeast: 1, 12) else {
            writer.arrayField("allocations") { list in
                for part in way {
                    list.object { item in
                        item.objectField("resource_provider") { $0.field("uuid", part.provider.description) }
                        resources(part.resources, &item)
                    }
                }
            }
            return
        }
        writer.objectField("allocations") { list in
            for part in way { list.objectField(part.provider.description) { resources(part.resources, &$0) } }
        }
        if context.version(atLeast: 1, 34) {
            writer.objectField("mappings") { $0.field("", way.map(\.provider.description)) }
        }
    }

    private static func write(
        _ provider: CandidateProvider, _ writer: inout JSONWriter, _ context: RequestContext, _ query: ProviderQuery
    ) {
        let asked = Set(query.resources.map(\.resourceClass))
        writer.objectField("resources") { list in
            for (name, inventory) in provider.inventories.sorted(by: { $0.key < $1.key })
            where context.version(atLeast: 1, 27) || asked.contains(name) {
                list.objectField(name) {
                    $0.field("capacity", inventory.capacity)
                    $0.field("used", provider.used[name] ?? 0)
                }
            }
        }
        if context.version(atLeast: 1, 17) { writer.field("traits", provider.traits.sorted()) }
        if context.version(atLeast: 1, 29) {
            writer.field("parent_provider_uuid", provider.parentID?.description)
            writer.field("root_provider_uuid", provider.rootID.description)
        }
    }
}
