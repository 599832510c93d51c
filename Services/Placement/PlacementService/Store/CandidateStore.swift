import Database
import JSON
import Kernel
import PlacementCore

/// Statements that find provider trees with enough capacity for a request.
enum CandidateStore {
    /// Whether such a row exists, evaluated per tree: PostgreSQL would turn an EXISTS into a join over all trees, although a few
    /// trees are sufficient for the limit.
    private static func whole(_ rest: SQL) -> SQL { "coalesce((SELECT true \(rest) LIMIT 1), false)" }

    /// Complete trees whose providers together have enough capacity of each class; at most `limit` trees.
    static func trees(_ connection: Connection, _ query: ProviderQuery, limit: Int) throws -> [[CandidateProvider]] {
        var conditions: [SQL] = ["t.parent_id IS NULL"]
        for need in query.resources {
            conditions.append(
                whole("FROM resource_providers p WHERE p.root_id = t.id AND \(ProviderStore.hasCapacity(for: need, provider: "p"))"))
        }
        for group in query.required {
            conditions.append(
                whole(
                    """
                    FROM resource_providers p JOIN provider_traits x ON x.resource_provider_id = p.id
                    WHERE p.root_id = t.id AND x.trait = ANY(\(group)::text[])
                    """))
        }
        if !query.forbidden.isEmpty {
            conditions.append(
                """
                NOT EXISTS (SELECT 1 FROM provider_traits x WHERE x.resource_provider_id = t.id AND x.trait = \
                ANY(\(query.forbidden)::text[]))
                """
            )
        }
        conditions += query.rootRequired.map {
            "EXISTS (SELECT 1 FROM provider_traits x WHERE x.resource_provider_id = t.id AND x.trait = \($0))"
        }
        if !query.rootForbidden.isEmpty {
            conditions.append(
                """
                NOT EXISTS (SELECT 1 FROM provider_traits x WHERE x.resource_provider_id = t.id AND x.trait = \
                ANY(\(query.rootForbidden)::text[]))
                """
            )
        }
        conditions += ProviderStore.memberships(query) + ProviderStore.tree(query)
        let rows = try connection.query(
            """
            WITH roots AS (SELECT t.id FROM resource_providers t WHERE \(SQL.joined(conditions, separator: " AND ")) LIMIT \(limit))
            SELECT p.id, p.parent_id, p.root_id,
                (SELECT json_agg(x.trait) FROM provider_traits x WHERE x.resource_provider_id = p.id) AS traits
            FROM roots JOIN resource_providers p ON p.root_id = roots.id ORDER BY p.root_id, p.parent_id NULLS FIRST, p.id
            """)
        let ids = try rows.map { try $0.string("id") }
        let inventories = try InventoryStore.load(connection, providers: ids)
        let used = try InventoryStore.usages(connection, providers: ids)
        var trees: [[CandidateProvider]] = []
        for row in rows {
            let text = try row.string("id")
            let provider = CandidateProvider(
                id: try row.uuid("id"), parentID: try row.optionalUUID("parent_id"), rootID: try row.uuid("root_id"),
                inventories: inventories[text] ?? [:], used: used[text] ?? [:], traits: Set(try row.strings("traits")))
            if trees.last?.first?.rootID == provider.rootID { trees[trees.count - 1].append(provider) } else { trees.append([provider]) }
        }
        return trees
    }
}
