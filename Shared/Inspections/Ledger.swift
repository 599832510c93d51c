import Database
import Kernel
import ServiceCatalog

/// How the use of one quota is counted from what is there.
package struct Ledger: Sendable {
    /// The name in `quota_usages`: `compute:cores`.
    package let resource: String
    /// Selects `project_id` and `amount`.
    private let counted: String

    private init(_ resource: String, _ counted: String) {
        self.resource = resource
        self.counted = counted
    }

    var inspection: Inspection {
        Inspection(
            "I4", "the use of quota is what is there",
            """
            SELECT coalesce(u.project_id, c.project_id) || ' \(resource)' AS subject, 'project ' ||
                coalesce(u.project_id, c.project_id) || ': the ledger has ' || coalesce(u.used, 0) || ' \(resource), there are ' ||
                coalesce(c.amount, 0) AS words
            FROM (SELECT project_id, used FROM quota_usages WHERE resource = '\(resource)') u
            FULL JOIN (\(counted)) c ON c.project_id = u.project_id
            WHERE coalesce(u.used, 0) <> coalesce(c.amount, 0)
            """)
    }

    /// Counts again where the ledger is wrong. Whoever adds or removes waits for the ledger's row meanwhile, so what is
    /// counted is what the ledger stands for.
    ///
    /// - Returns: what was wrong.
    package func repair(_ connection: Connection) throws -> [Finding] {
        let findings = try inspection.findings(connection)
        guard !findings.isEmpty else { return [] }
        let projects = findings.compactMap { $0.subject.split(separator: " ").first.map(String.init) }
        try connection.execute(
            """
            INSERT INTO quota_usages (project_id, resource, used) SELECT p, \(resource), 0 FROM unnest(\(projects)::text[]) p
            ORDER BY p ON CONFLICT DO NOTHING
            """)
        try connection.query(
            """
            SELECT 1 AS one FROM quota_usages WHERE resource = \(resource) AND project_id = ANY(\(projects)::text[])
            ORDER BY project_id FOR UPDATE
            """)
        let wrong = Set(try inspection.findings(connection).map(\.subject))
        try connection.execute(
            """
            UPDATE quota_usages u SET used = coalesce((SELECT c.amount FROM (\(raw: counted)) c WHERE c.project_id = u.project_id), 0)
            WHERE u.resource = \(resource) AND u.project_id = ANY(\(projects)::text[])
            """)
        return findings.filter { wrong.contains($0.subject) }
    }

    private static func rows(_ table: String, _ amount: String = "count(*)", where condition: String = "true") -> String {
        "SELECT project_id, \(amount) AS amount FROM \(table) WHERE project_id <> '' AND \(condition) GROUP BY project_id"
    }

    static let all = [
        Ledger("compute:instances", rows("servers", where: "NOT deleted")),
        Ledger("compute:cores", rows("servers", "sum((flavor->>'vcpus')::bigint)", where: "NOT deleted")),
        Ledger("compute:ram", rows("servers", "sum((flavor->>'ram')::bigint)", where: "NOT deleted")),
        Ledger("network:network", rows("networks")), Ledger("network:subnet", rows("subnets")),
        Ledger("network:port", rows("ports", where: "device_owner <> 'network:distributed'")),
        Ledger("network:router", rows("routers")), Ledger("network:floatingip", rows("floating_ips")),
        Ledger("network:security_group", rows("security_groups")),
        Ledger("network:security_group_rule", rows("security_group_rules")),
    ]

    /// Those of one service.
    ///
    /// - Parameter service: as in the names: `compute`.
    package static func of(_ service: String) -> [Ledger] { all.filter { $0.resource.hasPrefix(service + ":") } }
}
