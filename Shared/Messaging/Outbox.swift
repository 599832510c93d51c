package import Contracts
package import Database
import JSON
package import Kernel
package import Logging
package import Telemetry

/// Messages written in a transaction and relayed to the bus after its commit (transactional outbox).
package enum Outbox {
    /// Adds a message to the transaction: it is sent if and only if the transaction commits.
    ///
    /// - Parameter relayedElsewhere: true if this process has no relay, so that other processes are notified.
    /// - Throws: `EncodingError` if the body has no JSON form, `DatabaseError`.
    package static func add(
        _ connection: Connection, _ body: some MessageBody, to queue: MessageQueue, ambient: Ambient, relayedElsewhere: Bool = false
    ) throws {
        let message = try Message(body, id: ambient.newUUID(), requestID: RequestScope.current)
        try add(connection, message, to: queue, ambient: ambient, relayedElsewhere: relayedElsewhere)
    }

    /// Like the above, for a complete message.
    package static func add(
        _ connection: Connection, _ message: Message, to queue: MessageQueue, ambient: Ambient, relayedElsewhere: Bool = false
    ) throws {
        try connection.query(
            """
            INSERT INTO outbox (message_id, queue, type, body, request_id, created_at)
            VALUES (\(message.id), \(queue.name), \(message.type), \(message.body), \(message.requestID), \(ambient.databaseNow))
            """)
        // A process with a relay notifies itself; a process without one notifies all services.
        connection.announce(.outbox, everywhere: relayedElsewhere)
    }
}

/// Sends outbox rows to the bus. Every process may run a relay; a row is leased by one at a time.
///
/// The process that wrote a row relays it at once. Rows of a process that died are found by a periodic check.
package struct OutboxRelay: Sendable {
    private let database: Database
    private let bus: any MessageBus
    private let ambient: Ambient
    private let logger: Logger
    private let metrics: Metrics?

    /// How long a relay may take for a batch before another one takes the batch over (and sends it twice).
    private static let lease: Duration = .seconds(15)
    /// Younger rows are left to the process that wrote them.
    private static let foreignAge: Duration = .seconds(2)
    private static let scanInterval: Duration = .seconds(2)

    package init(
        database: Database, bus: any MessageBus, ambient: Ambient = Ambient(), logger: Logger = Logger(label: "outbox"),
        metrics: Metrics? = nil
    ) {
        self.database = database
        self.bus = bus
        self.ambient = ambient
        self.logger = logger
        self.metrics = metrics
    }

    /// Relays until the task is cancelled; retries during outages of the database or the broker.
    package func run() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                for await _ in self.database.notifications(.outbox) { await self.relayAll(olderThan: .zero) }
            }
            group.addTask {
                while true {
                    try await self.ambient.time.sleep(for: OutboxRelay.scanInterval)
                    await self.relayAll(olderThan: OutboxRelay.foreignAge)
                }
            }
            try await group.waitForAll()
        }
    }

    private func relayAll(olderThan age: Duration) async {
        do {
            while try await relay(olderThan: age) == MessagingLimits.outboxBatchMax { try Task.checkCancellation() }
        } catch is CancellationError {
            return
        } catch {
            logger.warning("messages could not be relayed yet", metadata: ["error": "\(error)"])
        }
    }

    /// Relays one batch.
    ///
    /// - Returns: the number of sent messages.
    /// - Throws: the first error; unconfirmed messages stay and are sent again.
    @discardableResult
    package func relay(olderThan age: Duration = .zero) async throws -> Int {
        let batch = try await lease(olderThan: age)
        guard !batch.isEmpty else { return 0 }
        var sent: [Int] = []
        var failure: (any Error)?
        await withTaskGroup(of: (Int, (any Error)?).self) { group in
            for row in batch {
                group.addTask {
                    do {
                        try await self.bus.publish(row.message, to: row.queue)
                        return (row.id, nil)
                    } catch { return (row.id, error) }
                }
            }
            for await (id, error) in group {
                if let error { failure = failure ?? error } else { sent.append(id) }
            }
        }
        try await settle(sent: sent, unsent: batch.map(\.id).filter { !sent.contains($0) })
        metrics?.increment("wolke_outbox_relayed_total", by: Double(sent.count), help: "Outbox messages sent.")
        if let failure { throw failure }
        return sent.count
    }

    private struct OutboxRow: Sendable {
        let id: Int
        let queue: MessageQueue
        let message: Message
    }

    private func lease(olderThan age: Duration) async throws -> [OutboxRow] {
        let now = ambient.databaseNow
        return try await database.write { connection in
            // An empty outbox, the usual case, costs one index look-up.
            let rows = try connection.query(
                """
                WITH batch AS (
                    SELECT id FROM outbox
                    WHERE (leased_until IS NULL OR leased_until < \(now)) AND created_at <= \(now) - \(age)::interval
                    ORDER BY id LIMIT \(MessagingLimits.outboxBatchMax) FOR UPDATE SKIP LOCKED)
                UPDATE outbox SET leased_until = \(now) + \(OutboxRelay.lease)::interval FROM batch WHERE outbox.id = batch.id
                RETURNING outbox.id, message_id, queue, type, body, request_id
                """)
            return try rows.map { row in
                OutboxRow(
                    id: try row.int("id"), queue: MessageQueue(try row.string("queue")),
                    message: Message(
                        id: try row.uuid("message_id"), type: try row.string("type"), body: try row.json("body"),
                        requestID: try row.optionalString("request_id")))
            }.sorted { $0.id < $1.id }
        }
    }

    private func settle(sent: [Int], unsent: [Int]) async throws {
        try await database.write { connection in
            if !sent.isEmpty { try connection.execute("DELETE FROM outbox WHERE id = ANY(\(sent)::bigint[])") }
            if !unsent.isEmpty {
                try connection.execute(
                    "UPDATE outbox SET leased_until = NULL WHERE id = ANY(\(unsent)::bigint[])")
            }
        }
    }
}
