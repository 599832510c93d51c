import Contracts
package import Database
import JSON
package import Kernel

/// Starting workflows and sending intents; all inside the transaction that accepts the request.
package enum Workflows {
    /// Wakes the service's workflow on a subject when the transaction commits, if it is waiting.
    package static func wake(_ connection: Connection, service: String, subject: String) {
        connection.announce(.wake, Wake(service: service, subject: subject))
    }

    /// Adds a workflow to the transaction: it will run if and only if that commits.
    ///
    /// - Throws: `EncodingError` if `frame` has no JSON form.
    @discardableResult
    package static func start<Frame>(
        _ connection: Connection, _ workflow: Workflow<Frame>, subject: String, frame: Frame, requestID: String?,
        ambient: Ambient
    ) throws -> WorkflowID {
        let start = try WorkflowStart(workflow, subject: subject, frame: frame)
        let id: WorkflowID = ambient.newID()
        try start.insert(connection, id, requestID: requestID, ambient: ambient)
        return id
    }

    /// Like `start`, for a workflow without parameters.
    @discardableResult
    package static func start(
        _ connection: Connection, _ workflow: Workflow<NoFrame>, subject: String, requestID: String?, ambient: Ambient
    ) throws -> WorkflowID {
        try start(connection, workflow, subject: subject, frame: NoFrame(), requestID: requestID, ambient: ambient)
    }

    /// Starts `workflow` now, or as soon as the workflow in progress on the subject has ended. A workflow that lists
    /// `intent` in `interruptedBy` is ended early.
    ///
    /// - Returns: whether it started at once.
    @discardableResult
    package static func startOrIntend<Frame>(
        _ connection: Connection, _ workflow: Workflow<Frame>, intent: String, subject: String, frame: Frame,
        requestID: String?, ambient: Ambient
    ) throws -> Bool {
        try lock(connection, subject: subject)
        guard try isActive(connection, subject: subject) else {
            try start(connection, workflow, subject: subject, frame: frame, requestID: requestID, ambient: ambient)
            return true
        }
        let start = try WorkflowStart(workflow, subject: subject, frame: frame)
        try connection.execute(
            """
            INSERT INTO intents (subject_id, service, kind, version, body, created_at)
            VALUES (\(subject)::uuid, \(start.definition.service), \(intent), \(start.definition.version),
                \(start.frame)::jsonb, \(ambient.databaseNow))
            ON CONFLICT (subject_id, kind) DO NOTHING
            """)
        wake(connection, service: start.definition.service, subject: subject)
        return false
    }

    /// Like `startOrIntend`, for a workflow without parameters.
    @discardableResult
    package static func startOrIntend(
        _ connection: Connection, _ workflow: Workflow<NoFrame>, intent: String, subject: String, requestID: String?,
        ambient: Ambient
    ) throws -> Bool {
        try startOrIntend(
            connection, workflow, intent: intent, subject: subject, frame: NoFrame(), requestID: requestID, ambient: ambient)
    }

    /// Whether work is under way on the subject.
    package static func isActive(_ connection: Connection, subject: String, otherThan id: WorkflowID? = nil) throws -> Bool {
        try !connection.query(
            """
            SELECT 1 AS one FROM workflows WHERE subject_id = \(subject)::uuid AND finished_at IS NULL
            AND id IS DISTINCT FROM \(id)::uuid LIMIT 1
            """
        ).isEmpty
    }

    /// The subjects on which a workflow is in progress or requested.
    package static func active(among subjects: [String], _ connection: Connection) throws -> Set<String> {
        Set(
            try connection.query(
                """
                SELECT subject_id FROM workflows WHERE subject_id = ANY(\(subjects)::uuid[]) AND finished_at IS NULL
                UNION SELECT subject_id FROM intents WHERE subject_id = ANY(\(subjects)::uuid[])
                """
            ).map { try $0.string("subject_id") })
    }

    /// Whether a workflow of this kind is in progress on the subject.
    package static func isActive(_ connection: Connection, subject: String, kind: String) throws -> Bool {
        try active(connection, subject: subject, kinds: [kind]) != nil
    }

    /// The first of these kinds of which a workflow is in progress on the subject.
    package static func active(_ connection: Connection, subject: String, kinds: [String]) throws -> String? {
        try connection.query(
            """
            SELECT kind FROM workflows WHERE subject_id = \(subject)::uuid AND finished_at IS NULL AND kind = ANY(\(kinds)::text[])
            ORDER BY id LIMIT 1
            """
        ).first?.string("kind")
    }

    /// The condition that no workflow is in progress on the subject in a column of type uuid: `s.id`.
    package static func isIdle(_ column: String) -> SQL { "\(raw: idleExpression(column))" }

    /// The text of `isIdle`, for the expression of a field.
    package static func idleExpression(_ column: String) -> String {
        "NOT EXISTS (SELECT 1 FROM workflows w WHERE w.subject_id = \(column) AND w.finished_at IS NULL)"
    }

    /// The state of a workflow; nil if it was deleted.
    package static func progress(_ connection: Connection, _ id: WorkflowID) throws -> WorkflowProgress? {
        try connection.query(
            "SELECT state, step, frame->\(WorkflowEngine.failureKey)->>'message' AS failure FROM workflows WHERE id = \(id)"
        ).first.map(WorkflowProgress.init)
    }

    /// A workflow's stored frame; nil if it was deleted.
    ///
    /// - Throws: `WorkflowMismatch` if it cannot be decoded.
    package static func frame<Frame>(_ connection: Connection, _ id: WorkflowID, of workflow: Workflow<Frame>) throws -> Frame? {
        let row = try connection.query("SELECT frame FROM workflows WHERE id = \(id) AND kind = \(workflow.definition.kind)").first
        return try row.map { try WorkflowDefinition.decode(try $0.object("frame")) }
    }

    /// Serializes the check for a workflow in progress with the end of workflows on the subject, until the transaction
    /// ends.
    static func lock(_ connection: Connection, subject: String) throws {
        try connection.query("SELECT pg_advisory_xact_lock(hashtextextended(\(subject)::text, 7))")
    }
}

/// The state of a workflow.
package struct WorkflowProgress: Sendable {
    package let step: String
    /// The workflow has ended.
    package let isDone: Bool
    /// Why it unwinds or has failed; nil while it runs forward.
    package let failure: String?

    init(_ row: Row) throws {
        let state = try row.string("state")
        step = try row.string("step")
        isDone = state == "done"
        failure = ["failed", "unwinding"].contains(state) ? try row.optionalString("failure") ?? "The operation failed." : nil
    }
}

/// A workflow to start.
package struct WorkflowStart: Sendable {
    let definition: WorkflowDefinition
    package let subject: String
    let version: Int
    let frame: JSONObject

    /// - Throws: `EncodingError` if `frame` has no JSON form.
    package init<Frame>(_ workflow: Workflow<Frame>, subject: String, frame: Frame) throws {
        definition = workflow.definition
        version = workflow.definition.version
        self.subject = subject
        self.frame = try JSONValue(encoding: frame).objectValue ?? [:]
    }

    /// The workflow that an intent requests, with the stored frame.
    init(_ definition: WorkflowDefinition, version: Int, subject: String, frame: JSONObject) {
        self.definition = definition
        self.version = version
        self.subject = subject
        self.frame = frame
    }

    /// Inserts the workflow; does nothing if the id exists.
    func insert(
        _ connection: Connection, _ id: WorkflowID, parent: ParentStep? = nil, requestID: String?, ambient: Ambient
    ) throws {
        let now = ambient.databaseNow
        let step = definition.steps[0]
        try connection.execute(
            """
            INSERT INTO workflows (
                id, service, kind, version, subject_id, parent_id, parent_step, parent_ordinal, step, frame, run_at, deadline,
                request_id, created_at, updated_at)
            VALUES (
                \(id), \(definition.service), \(definition.kind), \(version), \(subject)::uuid, \(parent?.id)::uuid, \(parent?.step),
                \(parent?.ordinal), \(step.name), \(frame)::jsonb, \(now), \(now) + \(step.deadline)::interval, \(requestID),
                \(now), \(now))
            ON CONFLICT (id) DO NOTHING
            """)
        connection.announce(.wake, Wake(service: definition.service))
    }
}

/// The parent workflow and step that started a child, and the child's index.
struct ParentStep {
    let id: String
    let step: String
    let ordinal: Int
}
