import Contracts
import Database
import Inspections
import Kernel
package import Logging
import PlacementCore
package import ServiceCatalog

/// Periodic tasks: repair allocations that do not match the servers, and delete old scheduling explanations.
extension Placement {
    static let periodicTaskInterval: Duration = .seconds(20)
    private static let service = "placement"
    private static let answersKept: Duration = .seconds(14 * 86_400)
    private static let batch = 500

    /// Runs all periodic tasks once.
    package func runPeriodicTasks(_ log: Logger) async throws {
        try await PeriodicTask.all([
            { try await toTheEnd(removeOrphans, log) }, { try await toTheEnd(restoreAllocations, log) }, { try await removeOldAnswers() },
        ])
    }

    private func toTheEnd(_ repair: @Sendable () async throws -> [Finding], _ log: Logger) async throws -> Int {
        var findings: [Finding]
        var done = 0
        repeat {
            findings = try await repair()
            done += findings.count
            Repairs.log(log, findings)
        } while findings.count == Placement.batch
        return done
    }

    /// Removes allocations of servers that are deleted or were never created.
    ///
    /// - Returns: the repaired findings; subjects are the consumers.
    @discardableResult
    package func removeOrphans() async throws -> [Finding] {
        try await repair(PlacementInspections.orphanedAllocations) { connection, consumers, now in
            var providers: Set<String> = []
            for consumer in consumers {
                providers.formUnion(try AllocationStore.remove(connection, consumer: consumer, at: now) ?? [])
            }
            return providers
        }
    }

    /// Rewrites the allocations of servers from their flavors and current hosts. This may allocate more than a host's capacity,
    /// because the servers do run there.
    ///
    /// - Returns: the repaired findings; subjects are the servers.
    @discardableResult
    package func restoreAllocations() async throws -> [Finding] {
        try await repair(PlacementInspections.allocationsOfServers) { connection, servers, now in
            try connection.execute(
                """
                INSERT INTO consumers (\(AllocationStore.consumerColumns))
                SELECT id, project_id, user_id, 'INSTANCE', 0, true, \(now), \(now) FROM published_servers
                WHERE id = ANY(\(servers)::uuid[])
                ORDER BY id ON CONFLICT (id) DO UPDATE SET generation = consumers.generation + 1, updated_at = EXCLUDED.updated_at
                """)
            let providers = try connection.query(
                """
                SELECT resource_provider_id AS id FROM allocations WHERE consumer_id = ANY(\(servers)::uuid[])
                UNION SELECT p.id FROM published_servers s JOIN resource_providers p ON p.host = s.host
                WHERE s.id = ANY(\(servers)::uuid[]) ORDER BY 1
                """
            ).map { try $0.string("id") }
            for provider in providers { _ = try ProviderStore.touch(connection, provider: provider, expected: nil, at: now) }
            try connection.execute("DELETE FROM allocations WHERE consumer_id = ANY(\(servers)::uuid[])")
            try connection.execute(
                """
                INSERT INTO allocations (\(AllocationStore.columns))
                SELECT s.id, p.id, n.resource_class, n.amount, \(now), \(now)
                FROM published_servers s JOIN resource_providers p ON p.host = s.host
                    CROSS JOIN LATERAL (\(raw: ServerNeeds.resourcesSQL("s"))) n
                WHERE s.id = ANY(\(servers)::uuid[])
                """)
            return Set(providers)
        }
    }

    /// Runs the inspection, locks the consumers found against the scheduler, runs it again, and repairs what is still wrong.
    private func repair(
        _ inspection: Inspection,
        _ body: @escaping @Sendable (Connection, _ consumers: [String], _ now: Timestamp) throws -> Set<String>
    ) async throws -> [Finding] {
        guard try await !database.read({ try inspection.findings($0, ambient, limit: 1) }).isEmpty else { return [] }
        let now = ambient.now
        return try await database.write { connection in
            let first = try inspection.findings(connection, ambient, limit: Placement.batch).map(\.subject)
            try connection.query(
                """
                SELECT pg_advisory_xact_lock(hashtextextended(c, 11)) FROM (
                    SELECT c FROM unnest(\(first)::text[]) c ORDER BY c) ordered
                """)
            let candidates = Set(first)
            let findings = try inspection.findings(connection, ambient, limit: 2 * Placement.batch).filter {
                candidates.contains($0.subject)
            }
            guard !findings.isEmpty else { return [] }
            let providers = try body(connection, findings.map(\.subject).sorted(), now)
            try Repairs.record(connection, service: Placement.service, findings, at: now)
            try Placement.announce(connection, providers)
            return findings
        }
    }

    private func removeOldAnswers() async throws -> Int {
        let before = Timestamp(microseconds: ambient.now.microseconds - Placement.answersKept.microseconds)
        return try await database.write {
            try $0.execute(
                """
                DELETE FROM scheduling_explanations WHERE ctid IN (
                    SELECT ctid FROM scheduling_explanations WHERE created_at < \(before) LIMIT 5000)
                """)
        }
    }
}
