import Authorization
import Database
import Kernel

/// Statements for the aggregates of providers.
enum AggregateStore {
    /// A provider's aggregates, including those of Compute, which need not be copied.
    static func ids(_ connection: Connection, provider id: String) throws -> [String] {
        try connection.query(
            """
            SELECT aggregate_id AS id FROM provider_aggregates WHERE resource_provider_id = \(id)::uuid
            UNION SELECT a.uuid FROM published_aggregates a JOIN published_aggregate_hosts h ON h.aggregate_id = a.id
                JOIN resource_providers r ON r.host = h.host WHERE r.id = \(id)::uuid
            ORDER BY id
            """
        ).map { try $0.string("id") }
    }

    static func replace(_ connection: Connection, _ provider: Authorized<String>, _ ids: [UUID128]) throws {
        let id = try provider.value(for: "placement:resource_providers:aggregates:update")
        try connection.execute(
            "DELETE FROM provider_aggregates WHERE resource_provider_id = \(id)::uuid AND NOT aggregate_id = ANY(\(ids)::uuid[])")
        try connection.execute(
            """
            INSERT INTO provider_aggregates (resource_provider_id, aggregate_id)
            SELECT \(id)::uuid, a FROM unnest(\(ids)::uuid[]) AS a ON CONFLICT DO NOTHING
            """)
    }
}
