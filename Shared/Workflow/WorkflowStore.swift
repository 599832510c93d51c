import Database
import JSON
import Kernel

/// A workflow as leased.
struct LeasedWorkflow: Sendable {
    var id: WorkflowID
    var kind: String
    var subjectID: String
    var isUnwinding: Bool
    var step: String
    var frame: JSONObject
    var startedSteps: [String]
    var epoch: Int
    var attempts: Int
    /// By the process's monotonic clock, in nanoseconds.
    var deadline: UInt64
    var requestID: String?
    /// An intent that is waiting for the subject.
    var intents: [String]

    init(_ row: Row, _ ambient: Ambient) throws {
        id = try row.id("id")
        kind = try row.string("kind")
        subjectID = try row.string("subject_id")
        isUnwinding = try row.string("state") == "unwinding"
        step = try row.string("step")
        frame = try row.object("frame")
        startedSteps = try row.strings("started")
        epoch = try row.int("epoch")
        attempts = try row.int("attempts")
        deadline = ambient.deadline(in: .microseconds(try row.int("left_microseconds")))
        requestID = try row.optionalString("request_id")
        intents = try row.strings("pending_intents")
    }
}

/// What becomes of a workflow after a step.
enum StepOutcome: Sendable {
    /// Forward to `step`: still leased, or, with a time to wait, with the lease given back.
    case advance(to: String, deadline: Duration, after: Duration?)
    /// Same step later, lease given back. `attempts` counts failures since the step was reached.
    case pause(Duration, attempts: Int, error: String?)
    /// Backwards: `step` is the one to undo next.
    case unwind(from: String, error: String)
    case finish(succeeded: Bool, error: String?)
}

/// The SQL of the engine. Every write names the epoch: whoever lost the lease changes nothing. All times are the
/// database's: processes whose clocks differ neither take each other's leases nor end each other's steps.
struct WorkflowStore: Sendable {
    let database: Database
    let service: String
    let holder: String
    let ambient: Ambient

    static let lease: Duration = .seconds(60)

    private static let intents: SQL =
        "(SELECT json_agg(i.kind) FROM intents i WHERE i.subject_id = w.subject_id) AS pending_intents"

    /// Until when what is leased or renewed now is held.
    private var leaseEnd: SQL { "\(ambient.databaseNow) + \(WorkflowStore.lease)::interval" }

    /// Leases up to `limit` ready workflows. `run_at` moves to the lease's end, so that one index finds both what is
    /// ready and what was left behind.
    func lease(limit: Int) async throws -> [LeasedWorkflow] {
        let now = ambient.databaseNow
        let until = leaseEnd
        return try await database.autocommit { [service, holder, ambient] connection in
            try connection.query(
                """
                WITH ready AS (
                    SELECT id FROM workflows
                    WHERE service = \(service) AND finished_at IS NULL AND run_at <= \(now)
                    ORDER BY run_at, id LIMIT \(limit) FOR UPDATE SKIP LOCKED)
                UPDATE workflows w SET lease_holder = \(holder), lease_until = \(until), run_at = \(until),
                    epoch = epoch + 1, attempts = attempts + 1
                FROM ready WHERE w.id = ready.id
                RETURNING w.id, w.kind, w.subject_id, w.state, w.step, w.frame, to_json(w.started_steps) AS started, w.epoch,
                    w.attempts, w.request_id, (extract(epoch FROM w.deadline - \(now)) * 1000000)::bigint AS left_microseconds,
                    \(WorkflowStore.intents)
                """
            ).map { try LeasedWorkflow($0, ambient) }
        }
    }

    /// Until the next workflow becomes ready; nil when none waits.
    func nextRun() async throws -> Duration? {
        let now = ambient.databaseNow
        return try await database.read { [service] connection in
            try connection.query(
                """
                SELECT (extract(epoch FROM run_at - \(now)) * 1000000)::bigint AS microseconds FROM workflows
                WHERE service = \(service) AND finished_at IS NULL ORDER BY run_at, id LIMIT 1
                """
            ).first.map { .microseconds(try $0.int("microseconds")) }
        }
    }

    /// Makes waiting workflows of `subjects` ready.
    func wake(subjects: [String]) async throws {
        let now = ambient.databaseNow
        _ = try await database.autocommit { [service] connection in
            try connection.execute(
                """
                UPDATE workflows SET run_at = \(now) WHERE service = \(service) AND finished_at IS NULL
                AND lease_holder IS NULL AND run_at > \(now) AND subject_id = ANY(\(subjects)::uuid[])
                """)
        }
    }

    /// Writes the outcome of a step, and does what belongs to it in the same transaction.
    ///
    /// - Returns: the intents pending now, or nil when the lease was lost.
    func record(
        _ workflow: LeasedWorkflow, frame: JSONObject, outcome: StepOutcome,
        commits: [@Sendable (Connection) throws -> Void] = []
    ) async throws -> [String]? {
        let now = ambient.databaseNow
        let until = leaseEnd
        let assignments: SQL
        switch outcome {
        case .advance(let step, let deadline, nil):
            assignments = """
                step = \(step), started_steps = started_steps || \(workflow.step)::text, attempts = 1, last_error = NULL,
                deadline = \(now) + \(deadline)::interval, lease_until = \(until), run_at = \(until)
                """
        case .advance(let step, let deadline, let delay?):
            // The next lease counts the first attempt.
            assignments = """
                step = \(step), started_steps = started_steps || \(workflow.step)::text, attempts = 0, last_error = NULL,
                deadline = \(now) + \(deadline)::interval, lease_holder = NULL, lease_until = NULL, run_at = \(now) + \(delay)::interval
                """
        case .pause(let delay, let attempts, let error):
            assignments = """
                attempts = \(attempts), last_error = coalesce(\(error), last_error), lease_holder = NULL,
                lease_until = NULL, run_at = \(now) + \(delay)::interval
                """
        case .unwind(let step, let error):
            assignments = """
                state = 'unwinding', step = \(step), attempts = 1, last_error = \(error), lease_until = \(until),
                run_at = \(until), started_steps = array_remove(started_steps, \(step)::text)
                """
        case .finish(let succeeded, let error):
            assignments = """
                state = \(succeeded ? "done" : "failed"), last_error = coalesce(\(error), last_error),
                lease_holder = NULL, lease_until = NULL, finished_at = \(now)
                """
        }
        return try await database.write { connection in
            if case .finish = outcome { try Workflows.lock(connection, subject: workflow.subjectID) }
            let rows = try connection.query(
                """
                UPDATE workflows w SET \(assignments), frame = \(frame)::jsonb, updated_at = \(now)
                WHERE w.id = \(workflow.id) AND w.epoch = \(workflow.epoch) AND w.finished_at IS NULL
                RETURNING \(WorkflowStore.intents)
                """)
            guard let row = rows.first else { return nil }
            for effect in commits { try effect(connection) }
            return try row.strings("pending_intents")
        }
    }

    /// Starts what intents ask for on subjects where no work is under way (any more).
    func startIntended(_ definitions: [String: WorkflowDefinition], subject: String?, limit: Int) async throws -> Int {
        try await database.write { [service, ambient] connection in
            let rows = try connection.query(
                """
                SELECT i.subject_id, i.kind, i.body FROM intents i
                WHERE i.service = \(service) AND (\(subject)::uuid IS NULL OR i.subject_id = \(subject)::uuid)
                AND NOT EXISTS (SELECT 1 FROM workflows w WHERE w.subject_id = i.subject_id AND w.finished_at IS NULL)
                ORDER BY i.created_at LIMIT \(limit) FOR UPDATE OF i SKIP LOCKED
                """)
            for row in rows {
                let kind = try row.string("kind")
                let subject = try row.string("subject_id")
                guard let definition = definitions[kind] else { continue }
                try Workflows.lock(connection, subject: subject)
                // Somebody may have started work on the subject before the lock was ours.
                guard try !Workflows.isActive(connection, subject: subject) else { continue }
                try connection.execute("DELETE FROM intents WHERE subject_id = \(subject)::uuid AND kind = \(kind)")
                try Workflows.start(
                    connection, definition, subject: subject, frame: try row.object("body"), requestID: nil,
                    ambient: ambient)
            }
            return rows.count
        }
    }

    /// Frees at once what processes left behind that are gone: their session lock is gone too.
    func releaseOrphans() async throws -> Int {
        let now = ambient.databaseNow
        return try await database.autocommit { [service] connection in
            try connection.execute(
                """
                UPDATE workflows SET run_at = \(now), lease_holder = NULL
                WHERE service = \(service) AND finished_at IS NULL AND lease_holder IS NOT NULL
                AND NOT EXISTS (
                    SELECT 1 FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                    AND ((l.classid::bigint << 32) | l.objid::bigint)::text = lease_holder)
                """)
        }
    }

    /// Forgets what ended before `age` ago.
    func prune(olderThan age: Duration, limit: Int) async throws -> Int {
        let before: SQL = "\(ambient.databaseNow) - \(age)::interval"
        return try await database.autocommit { [service] connection in
            try connection.execute(
                """
                DELETE FROM workflows WHERE id IN (
                    SELECT id FROM workflows WHERE service = \(service) AND finished_at < \(before)
                    ORDER BY finished_at LIMIT \(limit))
                """)
        }
    }
}
