import Database
import Kernel

/// The total usage of a project's consumers.
struct ProjectUsage: Sendable {
    /// Amounts by consumer type (or `all`) and class, ordered by name.
    private(set) var amounts: [String: [(resourceClass: String, used: Int)]] = [:]
    /// Number of consumers by type.
    private(set) var consumers: [String: Int] = [:]

    /// - Parameters:
    ///   - type: the consumer type; nil or `all` for every type.
    ///   - byType: whether each type is added up separately.
    init(_ connection: Connection, project: String, user: String?, type: String?, byType: Bool) throws {
        var conditions: [SQL] = ["c.project_id = \(project)"]
        if let user { conditions.append("c.user_id = \(user)") }
        if let type, type != "all" {
            conditions.append(type == "unknown" ? "c.consumer_type IS NULL" : "c.consumer_type = \(type)")
        }
        let group = byType && type != "all" ? "coalesce(c.consumer_type, 'unknown')" : "'all'"
        let rows = try connection.query(
            """
            SELECT \(raw: group) AS type, a.resource_class, sum(a.used)::bigint AS used, count(DISTINCT c.id) AS consumers
            FROM consumers c JOIN allocations a ON a.consumer_id = c.id
            WHERE \(SQL.joined(conditions, separator: " AND ")) GROUP BY 1, 2 ORDER BY 1, 2
            """)
        for row in rows {
            let name = try row.string("type")
            amounts[name, default: []].append((try row.string("resource_class"), try row.int("used")))
            consumers[name] = max(consumers[name] ?? 0, try row.int("consumers"))
        }
    }
}
