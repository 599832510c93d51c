import Database
import JSON
import Kernel
import PlacementCore
import WebAPI

extension ResourceKind {
    private static func since(_ minor: Int, through: Int? = nil) -> VersionRange {
        VersionRange(from: Microversion(1, minor), through: through.map { Microversion(1, $0) })
    }

    private static func link(_ rel: String, _ versions: VersionRange = .all) -> Link {
        .path(rel, "/resource_providers", after: "/" + rel, versions: versions)
    }

    static let providers = ResourceKind(
        "resource_provider",
        table: Table(
            "resource_providers t", defaultSort: [("name", false)], modified: "t.updated_at",
            fields: [
                Field(
                    "uuid", .text, "t.id",
                    filter: .custom { text in
                        guard let id = UUID128(text) else {
                            throw ProviderQuery.bad("Invalid query string parameters: '\(text.prefix(64))' is not a 'uuid'")
                        }
                        return "t.id = \(id)"
                    }.once), Field("name", filter: .equals.once, sortable: true), Field("generation", .number),
                Field("parent_provider_uuid", .text, "t.parent_id", versions: since(14)),
                Field("root_provider_uuid", .text, "t.root_id", versions: since(14)),
                Field(
                    "links",
                    .links([
                        .path("self", "/resource_providers"), link("inventories"), link("usages"), link("aggregates", since(1)),
                        link("traits", since(6)), link("allocations", since(11)),
                    ])),
                .filter("member_of", .query { try $0.add(memberOf: $1, $2) }.from(Microversion(1, 3), repeatableFrom: Microversion(1, 24))),
                .filter("resources", .query { query, text, _ in query.resources = try ProviderQuery.resources(text) }.once(from: 4)),
                .filter("in_tree", .query { query, text, _ in try query.set(inTree: text) }.once(from: 14)),
                .filter("required", .query { try $0.add(required: $1, $2) }.from(Microversion(1, 18), repeatableFrom: Microversion(1, 39))),
            ]), envelope: .bare, visibility: .everything, grammar: grammar
    ) { Placement.noProvider($0) }

    /// Lists have no pages, and parameters that the version does not have are refused.
    private static let grammar = ListGrammar {
        $0.isPaged = false
        $0.unknown = .decided { _, name in ProviderQuery.unexpected(name) }
        $0.repetition = { ProviderQuery.repeated($0) }
    }

    /// A provider's inventories, by class.
    static let inventories = ResourceKind(
        "inventory", plural: "inventories",
        table: Table(
            "inventories t JOIN resource_providers p ON p.id = t.resource_provider_id", key: "t.resource_class", keyType: .text,
            fields: [
                Field("total", .number), Field("reserved", .number), Field("min_unit", .number), Field("max_unit", .number),
                Field("step_size", .number), Field("allocation_ratio", .decimal),
            ]), envelope: .keyed, visibility: .everything)

    /// A single inventory, which also shows the provider's generation.
    static let inventory = inventories.adding([Field("resource_provider_generation", .number, "p.generation")])

    /// The allocations of a consumer, by provider.
    static let allocations = ResourceKind(
        "allocation",
        table: Table(
            """
            (SELECT a.consumer_id, r.id, r.generation, json_object_agg(a.resource_class, a.used) AS resources
                FROM allocations a JOIN resource_providers r ON r.id = a.resource_provider_id GROUP BY a.consumer_id, r.id) t
            """, fields: [Field("generation", .number), Field("resources", .json)]), envelope: .keyed, visibility: .everything)

    /// The allocations on a provider, by consumer.
    static let providerAllocations = ResourceKind(
        "allocation",
        table: Table(
            """
            (SELECT a.resource_provider_id, c.id, c.generation, json_object_agg(a.resource_class, a.used) AS resources
                FROM allocations a JOIN consumers c ON c.id = a.consumer_id GROUP BY a.resource_provider_id, c.id) t
            """,
            fields: [Field("resources", .json), Field("consumer_generation", .number, "t.generation", versions: since(28))]),
        envelope: .keyed, visibility: .everything)

    /// The members at the end of a response about a consumer's allocations.
    static let consumers = ResourceKind(
        "consumer",
        table: Table(
            "consumers t", modified: "t.updated_at",
            fields: [
                Field("project_id", versions: since(12)), Field("user_id", versions: since(12)),
                Field("consumer_generation", .number, "t.generation", versions: since(28)),
                Field("consumer_type", .text, "coalesce(t.consumer_type, 'unknown')", versions: since(38)),
            ]), envelope: .bare, visibility: .everything)
}

extension Field.Filter {
    /// A condition on the provider `t`, from a `ProviderQuery`.
    fileprivate static func query(
        _ read: @escaping @Sendable (inout ProviderQuery, String, ProviderQuery.Grammar) throws -> Void
    ) -> Field.Filter {
        .all { request in
            var query = ProviderQuery()
            for value in request.values { try read(&query, value, request.context.queryGrammar) }
            try Placement.requireClasses(request.connection, query.resources.map(\.resourceClass), using: false)
            try Placement.requireTraits(request.connection, query.traitNames, using: false)
            return SQL.joined(ProviderStore.conditions(query), separator: " AND ")
        }
    }

    fileprivate func once(from minor: Int) -> Field.Filter { from(Microversion(1, minor)).once }
}

extension ResourceKind {
    /// All rows of a provider or consumer, of which there are never many.
    func all(
        _ connection: Connection, _ context: RequestContext, where condition: SQL,
        head: (inout JSONWriter) throws -> Void = { _ in }, tail: (inout JSONWriter) throws -> Void = { _ in }
    ) throws -> Response {
        var request = ListRequest()
        request.isWhole = true
        return try list(connection, context, request, scope: condition, head: head, tail: tail).response
    }
}
