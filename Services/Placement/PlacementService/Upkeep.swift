import Database
import Kernel
import Logging

/// What nobody asks for: allocations of servers that are no more, and old answers.
extension Placement {
    private static let interval: Duration = .seconds(20)
    /// Younger consumers may belong to a server whose row is not written yet.
    private static let grace: Duration = .seconds(120)
    private static let answersKept: Duration = .seconds(14 * 86_400)
    private static let batch = 500

    /// Removes leftovers until the task is cancelled.
    package func upkeep(_ log: Logger) async throws {
        while true {
            try await ambient.time.sleep(for: Placement.interval)
            do {
                let removed = try await removeOrphans()
                for consumer in removed { log.warning("removed allocations of a server that is no more", metadata: ["consumer": "\(consumer)"]) }
                try await removeOldAnswers()
            } catch {
                log.warning("upkeep failed", metadata: ["error": "\(error)"])
            }
        }
    }

    /// Gives back what the scheduler took for servers that are deleted or never came to be.
    ///
    /// - Returns: the consumers.
    @discardableResult
    package func removeOrphans() async throws -> [String] {
        let now = ambient.now
        let before = Timestamp(microseconds: now.microseconds - Placement.grace.microseconds)
        return try await database.write { connection in
            let orphans = try connection.query(
                """
                SELECT c.id FROM consumers c LEFT JOIN servers s ON s.id = c.id
                WHERE c.scheduled AND c.created_at < \(before) AND (s.id IS NULL OR s.deleted)
                ORDER BY c.id LIMIT \(Placement.batch) FOR UPDATE OF c SKIP LOCKED
                """
            ).map { try $0.string("id") }
            var providers: Set<String> = []
            for consumer in orphans {
                providers.formUnion(try AllocationStore.remove(connection, consumer: consumer, at: now) ?? [])
            }
            try Placement.announce(connection, providers)
            return orphans
        }
    }

    private func removeOldAnswers() async throws {
        let before = Timestamp(microseconds: ambient.now.microseconds - Placement.answersKept.microseconds)
        try await database.write {
            _ = try $0.execute(
                """
                DELETE FROM scheduling_explanations WHERE ctid IN (
                    SELECT ctid FROM scheduling_explanations WHERE created_at < \(before) LIMIT 5000)
                """)
        }
    }
}
