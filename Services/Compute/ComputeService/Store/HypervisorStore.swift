import Database
import JSON

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

    /// Whether the name of any hypervisor contains `pattern`.
    static func isMatched(_ connection: Connection, by pattern: String) throws -> Bool {
        try !connection.query("SELECT 1 AS one FROM hypervisors WHERE strpos(host, \(pattern)) > 0 LIMIT 1").isEmpty
    }

    /// The number of hypervisors, and the sums of their numbers.
    static func statistics(_ connection: Connection) throws -> JSONValue {
        let sums = numbers.map { ", '\($0.name)', coalesce(sum(\($0.expression)), 0)" }.joined()
        return try connection.query("SELECT json_build_object('count', count(*)\(raw: sums)) AS sums FROM \(raw: source)")[0].json("sums")
    }
}
