package import Contracts
package import Database
import Kernel
package import ServiceCatalog

/// Compares the ledger of one quota's usage with the counted resources.
package struct Ledger: Sendable {
    private let resource: String
    /// Selects `project_id` and `amount`.
    private let counted: String

    /// - Returns: nil for a quota without a ledger.
    package init?(_ quota: QuotaDeclaration) {
        guard let counting = quota.counting else { return nil }
        resource = quota.resource
        counted = counting
    }

    package var inspection: Inspection {
        Inspection(
            "I4", "quota usage equals the counted resources",
            """
            SELECT coalesce(u.project_id, c.project_id) || ' \(resource)' AS subject, 'project ' ||
                coalesce(u.project_id, c.project_id) || ': the ledger has ' || coalesce(u.used, 0) || ' \(resource), there are ' ||
                coalesce(c.amount, 0) AS words
            FROM (SELECT project_id, used FROM quota_usages WHERE resource = '\(resource)') u
            FULL JOIN (\(counted)) c ON c.project_id = u.project_id
            WHERE coalesce(u.used, 0) <> coalesce(c.amount, 0)
            """)
    }

    /// Recounts the entries that are wrong. It locks the ledger's rows, so that concurrent reservations and releases wait.
    ///
    /// - Returns: the findings before the repair.
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
}
