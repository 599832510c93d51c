package import Contracts
package import Database
package import Kernel
package import Logging
package import ServiceCatalog

/// Records of automatic repairs, shown by `osctl doctor`.
package enum Repairs {
    private static let kept: Duration = .seconds(90 * 86_400)

    /// One repair.
    package struct Entry: Sendable {
        package let at: Timestamp
        package let service: String
        package let words: String
    }

    /// Records the findings, in the transaction of the repair.
    package static func record(
        _ connection: Connection, service: String, _ findings: [Finding], at now: Timestamp
    ) throws {
        guard !findings.isEmpty else { return }
        try connection.execute(
            """
            INSERT INTO repairs (at, service, invariant, subject, words)
            SELECT \(now), \(service), i, s, w
            FROM unnest(\(findings.map(\.invariant))::text[], \(findings.map(\.subject))::text[],
                \(findings.map(\.words))::text[]) AS finding (i, s, w)
            """)
        let before = Timestamp(microseconds: now.microseconds - kept.microseconds)
        try connection.execute("DELETE FROM repairs WHERE at < \(before)")
    }

    /// Logs the findings after the commit; the counterpart of `record`.
    package static func log(_ log: Logger, _ findings: [Finding]) {
        for finding in findings {
            log.warning(
                "repaired: \(finding.words)",
                metadata: ["event": "repair", "invariant": "\(finding.invariant)", "subject": "\(finding.subject)"])
        }
    }

    /// Corrects the usage of a service's quotas.
    ///
    /// - Returns: the number of wrong entries.
    package static func recount(
        _ quotas: [QuotaDeclaration], service: String, _ database: Database, at now: Timestamp, _ log: Logger
    ) async throws -> Int {
        var count = 0
        for ledger in quotas.compactMap(Ledger.init) {
            let findings = try await database.write { connection in
                let findings = try ledger.repair(connection)
                try record(connection, service: service, findings, at: now)
                return findings
            }
            Repairs.log(log, findings)
            count += findings.count
        }
        return count
    }

    /// The newest repairs since `time`, oldest first.
    package static func entries(_ connection: Connection, since time: Timestamp, limit: Int = 200) throws -> [Entry] {
        try connection.query(
            "SELECT at, service, words FROM repairs WHERE at >= \(time) ORDER BY id DESC LIMIT \(limit)"
        ).map {
            Entry(at: try $0.timestamp("at"), service: try $0.string("service"), words: try $0.string("words"))
        }.reversed()
    }
}
