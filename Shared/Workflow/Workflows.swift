import Database
import JSON
import Kernel

/// Starting workflows and sending intents; all inside the transaction that accepts the request.
package enum Workflows {
    /// Channel on which work is announced: `Wake` says how.
    package static let wakeChannel = "wolke_wake"

    /// A payload of the channel: a service with something new to run, with the id of a subject that shall go on, or a
    /// subject alone, which concerns every service.
    struct Wake {
        /// Nil where nobody waits for this.
        let subject: String?

        /// Nil for what concerns other services only.
        init?(_ payload: String, for service: String) {
            let words = payload.split(separator: " ", maxSplits: 1).map(String.init)
            let isSubject = words.last.map { UUID128($0) != nil } ?? false
            let named = words.count == 2 || !isSubject ? words.first : nil
            guard (named ?? service) == service else { return nil }
            subject = isSubject ? words.last : nil
        }
    }

    /// Lets the service's workflow on a subject go on, if it waits, when the transaction commits.
    package static func wake(_ connection: Connection, service: String, subject: String) {
        connection.announce(wakeChannel, "\(service) \(subject)")
    }

    /// Adds a workflow to the transaction: it will run if and only if that commits.
    @discardableResult
    package static func start(
        _ connection: Connection, _ definition: WorkflowDefinition, subject: String, frame: JSONObject = [:],
        requestID: String?, ambient: Ambient
    ) throws -> WorkflowID {
        let id: WorkflowID = ambient.newID()
        let now = ambient.databaseNow
        let step = definition.steps[0]
        try connection.query(
            """
            INSERT INTO workflows (
                id, service, kind, subject_id, step, frame, run_at, deadline, request_id, created_at, updated_at)
            VALUES (
                \(id), \(definition.service), \(definition.kind), \(subject)::uuid, \(step.name), \(frame)::jsonb,
                \(now), \(now) + \(step.deadline)::interval, \(requestID), \(now), \(now))
            """)
        connection.announce(wakeChannel, definition.service)
        return id
    }

    /// Starts `definition` now, or, while other work on the subject is under way, as soon as that has ended.
    /// Work that names `intent` in `interruptedBy` ends early for it.
    ///
    /// - Returns: whether it started at once.
    @discardableResult
    package static func startOrIntend(
        _ connection: Connection, _ definition: WorkflowDefinition, intent: String, subject: String,
        frame: JSONObject = [:], requestID: String?, ambient: Ambient
    ) throws -> Bool {
        try lock(connection, subject: subject)
        guard try isActive(connection, subject: subject) else {
            try start(connection, definition, subject: subject, frame: frame, requestID: requestID, ambient: ambient)
            return true
        }
        try connection.execute(
            """
            INSERT INTO intents (subject_id, service, kind, body, created_at)
            VALUES (\(subject)::uuid, \(definition.service), \(intent), \(frame)::jsonb, \(ambient.databaseNow))
            ON CONFLICT (subject_id, kind) DO NOTHING
            """)
        wake(connection, service: definition.service, subject: subject)
        return false
    }

    /// Whether work is under way on the subject.
    package static func isActive(_ connection: Connection, subject: String) throws -> Bool {
        try !connection.query(
            "SELECT 1 AS one FROM workflows WHERE subject_id = \(subject)::uuid AND finished_at IS NULL LIMIT 1"
        ).isEmpty
    }

    /// Serialises "is work under way?" with the end of work on the subject, until the transaction ends.
    static func lock(_ connection: Connection, subject: String) throws {
        try connection.query("SELECT pg_advisory_xact_lock(hashtextextended(\(subject)::text, 7))")
    }
}
