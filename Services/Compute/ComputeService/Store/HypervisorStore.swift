import Database
import JSON
import WebAPI

/// The statements about hypervisors.
enum HypervisorStore {
    /// The rows `t` of hypervisors, with their services `c` and sums `u` over their servers.
    static let source = """
        hypervisors t JOIN compute_services c ON c.host = t.host
        LEFT JOIN LATERAL (SELECT count(*) AS servers, coalesce(sum((s.flavor->>'vcpus')::int), 0) AS vcpus,
            coalesce(sum((s.flavor->>'ram')::int), 0) AS ram,
            coalesce(sum((s.flavor->>'disk')::int + (s.flavor->>'ephemeral')::int), 0) AS disk,
            count(*) FILTER (WHERE s.task_state IS NOT NULL) AS building,
            coalesce(json_agg(json_build_object('uuid', s.id, 'name', s.name) ORDER BY s.created_at, s.id), '[]') AS list
            FROM servers s WHERE s.host = t.host AND NOT s.deleted) u ON true
        """

    /// The capacity and usage of a hypervisor: names through 2.87, and SQL.
    static let numbers: [(name: String, expression: String)] = [
        ("vcpus", "t.vcpus"), ("vcpus_used", "u.vcpus"), ("memory_mb", "t.memory_mb"), ("memory_mb_used", "u.ram"),
        ("free_ram_mb", "t.memory_mb - u.ram"), ("local_gb", "t.disk_gb"), ("local_gb_used", "u.disk"),
        ("free_disk_gb", "t.disk_gb - u.disk"), ("disk_available_least", "t.disk_gb - u.disk"), ("running_vms", "u.servers"),
        ("current_workload", "u.building"),
    ]

    /// A hypervisor's names and state.
    struct Place {
        let id: String
        let number: Int
        let name: String
        let isUp: Bool
        let isEnabled: Bool
    }

    /// The condition for the hypervisor that `id` names: a number, as before 2.53, or a UUID.
    static func condition(_ id: String) -> SQL { Int(id).map { "t.number = \($0)::bigint" } ?? Field.Filter.uuid("t.id", id) }

    /// - Returns: nil for an unknown hypervisor.
    static func place(_ connection: Connection, _ id: String, _ compute: Compute) throws -> Place? {
        let rows = try connection.query(
            """
            SELECT t.id, t.number, t.host, c.enabled, \(Hosts.isUp("c", compute)) AS up
            FROM hypervisors t JOIN compute_services c ON c.host = t.host WHERE \(condition(id))
            """)
        return try rows.first.map { row in
            Place(
                id: try row.string("id"), number: try row.int("number"), name: try row.string("host"), isUp: try row.bool("up"),
                isEnabled: try row.bool("enabled"))
        }
    }

    /// Whether the name of any hypervisor contains `pattern`.
    static func isMatched(_ connection: Connection, by pattern: String) throws -> Bool {
        try !connection.query("SELECT 1 AS one FROM hypervisors WHERE strpos(host, \(pattern)) > 0 LIMIT 1").isEmpty
    }

    /// The number of hypervisors, and the sums of their figures.
    static func statistics(_ connection: Connection) throws -> JSONValue {
        let sums = numbers.map { ", '\($0.name)', coalesce(sum(\($0.expression)), 0)" }.joined()
        return try connection.query("SELECT json_build_object('count', count(*)\(raw: sums)) AS sums FROM \(raw: source)")[0].json("sums")
    }
}
