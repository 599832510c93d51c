package import Database
package import Kernel

/// Records the messages that a consumer has processed, in the transaction of their effects.
package enum Inbox {
    /// How long records are kept: longer than a message can be redelivered.
    package static let retention: Duration = .seconds(7 * 86_400)

    /// Whether `consumer` processes this message for the first time; records it in the transaction.
    ///
    /// - Throws: `DatabaseError`.
    package static func isFirst(
        _ connection: Connection, consumer: String, message: UUID128, at now: Timestamp
    ) throws -> Bool {
        try connection.execute(
            """
            INSERT INTO inbox (consumer, message_id, received_at) VALUES (\(consumer), \(message), \(now))
            ON CONFLICT DO NOTHING
            """) == 1
    }

    /// Deletes old records.
    ///
    /// - Returns: the number of deleted records.
    /// - Throws: `DatabaseError`.
    @discardableResult
    package static func prune(_ connection: Connection, at now: Timestamp) throws -> Int {
        let before = Timestamp(microseconds: now.microseconds - retention.microseconds)
        return try connection.execute("DELETE FROM inbox WHERE received_at < \(before)")
    }
}
