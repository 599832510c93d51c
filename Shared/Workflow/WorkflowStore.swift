import Database
import JSON
import Kernel

/// A workflow as leased.
struct LeasedWorkflow: Sendable {
    var id: WorkflowID
    var kind: String
    var version: Int
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
    /// The intents that wait for the subject.
    var pending: PendingStop

    var key: String { "\(kind)@\(version)" }
    var lease: RunningWorkflows.Lease { .init(id: id, epoch: epoch) }

    /// The remaining time of the step; negative if it is late.
    func left(_ ambient: Ambient) -> Duration {
        .microseconds((Int64(clamping: deadline) - Int64(clamping: ambient.time.monotonicNanoseconds())) / 1000)
    }

    init(_ row: Row, _ ambient: Ambient) throws {
        id = try row.id("id")
        kind = try row.string("kind")
        version = try row.int("version")
        subjectID = try row.string("subject_id")
        isUnwinding = try row.string("state") == "unwinding"
        step = try row.string("step")
        frame = try row.object("frame")
        startedSteps = try row.strings("started")
        epoch = try row.int("epoch")
        attempts = try row.int("attempts")
        deadline = ambient.deadline(in: .microseconds(try row.int("left_microseconds")))
        requestID = try row.optionalString("request_id")
        pending = try PendingStop(row)
    }
}

/// Reasons to end a workflow early: intents on its subject, and a parent that unwinds.
struct PendingStop: Sendable {
    var intents: [String]
    var cancelReason: String?

    init(_ row: Row) throws {
        intents = try row.strings("pending_intents")
        cancelReason = try row.optionalString("cancel_reason")
    }

    /// Why a workflow of that kind must unwind; nil if it may continue.
    func reason(for definition: WorkflowDefinition) -> String? {
        // A workflow that retries forever is not cancelled either; its parent waits for its end.
        guard !definition.retriesForever else { return nil }
        if let cancelReason { return cancelReason }
        return intents.first(where: definition.interruptedBy.contains).map { "interrupted by \($0)" }
    }
}

/// A lease whose holder's session is gone.
struct OrphanedLease: Sendable, Hashable {
    let id: String
    let epoch: Int
}

/// The state of a workflow after a step.
enum StepOutcome: Sendable {
    /// Forward to `step`: still leased, or, with a time to wait, with the lease given back.
    case advance(to: String, deadline: Duration, after: Duration?)
    /// Same step later, lease given back. `attempts` counts failures since the step was reached.
    case pause(Duration, attempts: Int, error: String?)
    /// Backwards: `step` is the one to undo next.
    case unwind(from: String, deadline: Duration, error: String)
    /// Unchanged for a while, because this build cannot continue it. The time does not count against the step's deadline.
    case setAside(Duration, error: String)
    case finish(succeeded: Bool, error: String?)
}

/// The engine's SQL. Every write checks the epoch, so a process that lost the lease changes nothing. All times are the
/// database's, so clock differences between processes do not affect leases or deadlines.
struct WorkflowStore: Sendable {
    let database: Database
    let service: String
    let holder: String
    /// `KIND@VERSION` of everything that this build can continue.
    let known: [String]
    let ambient: Ambient

    static let lease: Duration = .seconds(60)

    private static let pending: SQL =
        "(SELECT json_agg(i.kind) FROM intents i WHERE i.subject_id = w.subject_id) AS pending_intents, w.cancel_reason"

    /// When a lease taken or renewed now expires.
    private var leaseEnd: SQL { "\(ambient.databaseNow) + \(WorkflowStore.lease)::interval" }

    /// Workflows of this service that have not ended and are of a kind and version that this build knows.
    private var carriedOn: SQL {
        "service = \(service) AND finished_at IS NULL AND kind || '@' || version = ANY(\(known)::text[])"
    }

    /// Finds ready workflows, in the order in which they became ready.
    func ready(limit: Int) -> SQL {
        """
        SELECT id FROM workflows WHERE \(carriedOn) AND run_at <= \(ambient.databaseNow) ORDER BY run_at, id LIMIT \
        \(limit) FOR UPDATE SKIP LOCKED
        """
    }

    /// Leases up to `limit` ready workflows. `run_at` moves to the lease's end, so that one index finds both ready and abandoned workflows.
    /// Time in which no process could run a workflow does not count against its step's deadline.
    func lease(limit: Int) async throws -> [LeasedWorkflow] {
        let now = ambient.databaseNow
        let until = leaseEnd
        let ready = ready(limit: limit)
        return try await database.autocommit { [holder, ambient] connection in
            try connection.query(
                """
                WITH ready AS (\(ready))
                UPDATE workflows w SET lease_holder = \(holder), lease_until = \(until), run_at = \(until),
                    epoch = epoch + 1, attempts = attempts + 1,
                    deadline = CASE WHEN \(now) - run_at > interval '60 seconds' THEN deadline + (\(now) - run_at) ELSE deadline END
                FROM ready WHERE w.id = ready.id
                RETURNING w.id, w.kind, w.version, w.subject_id, w.state, w.step, w.frame, to_json(w.started_steps) AS started, w.epoch,
                    w.attempts, w.request_id, (extract(epoch FROM w.deadline - \(now)) * 1000000)::bigint AS left_microseconds,
                    \(WorkflowStore.pending)
                """
            ).map { try LeasedWorkflow($0, ambient) }
        }
    }

    /// The result of a lease renewal.
    enum Renewal: Sendable {
        case renewed(PendingStop)
        /// Still held; its outcome is being written.
        case busy
    }

    /// Holds leases for another `lease` from now. Does not wait for rows that are locked.
    ///
    /// - Returns: those that are still held.
    func renew(_ leases: [RunningWorkflows.Lease]) async throws -> [RunningWorkflows.Lease: Renewal] {
        let until = leaseEnd
        let ids = leases.map(\.id.text)
        let epochs = leases.map { String($0.epoch) }
        return try await database.autocommit { [holder] connection in
            let held: SQL = """
                workflows w JOIN unnest(\(ids)::text[], \(epochs)::text[]) AS held (id, epoch)
                ON w.id = held.id::uuid AND w.epoch = held.epoch::bigint
                WHERE w.lease_holder = \(holder) AND w.finished_at IS NULL
                """
            var renewals = try connection.query(
                """
                WITH free AS (SELECT w.id FROM \(held) FOR UPDATE OF w SKIP LOCKED)
                UPDATE workflows w SET lease_until = \(until), run_at = \(until) FROM free WHERE w.id = free.id
                RETURNING w.id, w.epoch, \(WorkflowStore.pending)
                """
            ).reduce(into: [RunningWorkflows.Lease: Renewal]()) {
                $0[.init(id: try $1.id("id"), epoch: try $1.int("epoch"))] = .renewed(try PendingStop($1))
            }
            guard renewals.count < leases.count else { return renewals }
            for row in try connection.query("SELECT w.id, w.epoch FROM \(held)") {
                let lease = RunningWorkflows.Lease(id: try row.id("id"), epoch: try row.int("epoch"))
                if renewals[lease] == nil { renewals[lease] = .busy }
            }
            return renewals
        }
    }

    /// Until the next workflow becomes ready; nil when none waits.
    func nextRun() async throws -> Duration? {
        let now = ambient.databaseNow
        let carriedOn = carriedOn
        return try await database.read { connection in
            try connection.query(
                """
                SELECT (extract(epoch FROM run_at - \(now)) * 1000000)::bigint AS microseconds FROM workflows
                WHERE \(carriedOn) ORDER BY run_at, id LIMIT 1
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
    /// - Parameter result: the workflow's result for its parent; nil to keep a result that it has already stored.
    /// - Returns: the intents that wait for the subject now, or nil if the lease was lost.
    func record(
        _ workflow: LeasedWorkflow, frame: JSONObject, result: JSONValue? = nil, outcome: StepOutcome,
        commits: [@Sendable (Connection) throws -> Void] = []
    ) async throws -> PendingStop? {
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
            // The step may have been reached by `skip`, which is not recorded.
            assignments = """
                step = \(workflow.step), deadline = \(now) + \(workflow.left(ambient))::interval, attempts = \(attempts),
                last_error = coalesce(\(error), last_error), lease_holder = NULL, lease_until = NULL,
                run_at = \(now) + \(delay)::interval
                """
        case .setAside(let delay, let error):
            assignments = """
                deadline = \(now) + (deadline - updated_at), attempts = greatest(attempts - 1, 0), last_error = \(error),
                lease_holder = NULL, lease_until = NULL, run_at = \(now) + \(delay)::interval
                """
        case .unwind(let step, let deadline, let error):
            assignments = """
                state = 'unwinding', step = \(step), attempts = 1, last_error = \(error),
                deadline = \(now) + \(deadline)::interval, lease_until = \(until), run_at = \(until),
                started_steps = array_remove(started_steps, \(step)::text)
                """
        case .finish(let succeeded, let error):
            assignments = """
                state = \(succeeded ? "done" : "failed"), last_error = coalesce(\(error), last_error),
                lease_holder = NULL, lease_until = NULL, finished_at = \(now)
                """
        }
        return try await database.write { [service, holder] connection in
            if case .finish = outcome { try Workflows.lock(connection, subject: workflow.subjectID) }
            let rows = try connection.query(
                """
                UPDATE workflows w SET \(assignments), frame = \(frame)::jsonb, result = coalesce(\(result)::jsonb, result),
                    updated_at = \(now)
                WHERE w.id = \(workflow.id) AND w.epoch = \(workflow.epoch) AND w.lease_holder = \(holder) AND w.finished_at IS NULL
                RETURNING w.parent_id, \(WorkflowStore.pending)
                """)
            guard let row = rows.first else { return nil }
            for effect in commits { try effect(connection) }
            if case .finish = outcome, let parent = try row.optionalString("parent_id") {
                let waiting = try connection.query("SELECT subject_id FROM workflows WHERE id = \(parent)::uuid").first
                if let waiting { Workflows.wake(connection, service: service, subject: try waiting.string("subject_id")) }
            }
            return try PendingStop(row)
        }
    }

    /// Starts the workflows of intents on subjects without a workflow in progress.
    func startIntended(_ definitions: [String: WorkflowDefinition], subject: String?, limit: Int) async throws -> Int {
        let known = definitions.flatMap { kind, definition in definition.versions.map { "\(kind)@\($0)" } }.sorted()
        return try await database.write { [service, ambient] connection in
            let rows = try connection.query(
                """
                SELECT i.subject_id, i.kind, i.version, i.body FROM intents i
                WHERE i.service = \(service) AND (\(subject)::uuid IS NULL OR i.subject_id = \(subject)::uuid)
                AND i.kind || '@' || i.version = ANY(\(known)::text[])
                AND NOT EXISTS (SELECT 1 FROM workflows w WHERE w.subject_id = i.subject_id AND w.finished_at IS NULL)
                ORDER BY i.created_at LIMIT \(limit) FOR UPDATE OF i SKIP LOCKED
                """)
            for row in rows {
                let kind = try row.string("kind")
                let subject = try row.string("subject_id")
                guard let definition = definitions[kind] else { continue }
                try Workflows.lock(connection, subject: subject)
                // Another process may have started a workflow on the subject before we got the lock.
                guard try !Workflows.isActive(connection, subject: subject) else { continue }
                try connection.execute("DELETE FROM intents WHERE subject_id = \(subject)::uuid AND kind = \(kind)")
                try WorkflowStart(definition, version: row.int("version"), subject: subject, frame: row.object("body")).insert(
                    connection, ambient.newID(), requestID: nil, ambient: ambient)
            }
            return rows.count
        }
    }

    // MARK: orphaned leases

    /// A lease whose holder has no session with PostgreSQL any more: the session lock is gone with it.
    private static let isOrphaned: SQL = """
        lease_holder IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND ((l.classid::bigint << 32) | l.objid::bigint)::text = lease_holder)
        """

    /// Leases of processes that seem to be gone.
    func orphans() async throws -> Set<OrphanedLease> {
        let carriedOn = carriedOn
        return try await database.read { connection in
            try connection.query("SELECT id, epoch FROM workflows WHERE \(carriedOn) AND \(WorkflowStore.isOrphaned) LIMIT 10000")
                .reduce(into: []) { $0.insert(OrphanedLease(id: try $1.string("id"), epoch: try $1.int("epoch"))) }
        }
    }

    /// Frees leases whose holders are still gone.
    func release(_ orphans: Set<OrphanedLease>) async throws -> Int {
        guard !orphans.isEmpty else { return 0 }
        let now = ambient.databaseNow
        let (ids, epochs) = (orphans.map(\.id), orphans.map { String($0.epoch) })
        return try await database.autocommit { connection in
            try connection.execute(
                """
                UPDATE workflows w SET run_at = \(now), lease_holder = NULL, lease_until = NULL
                FROM unnest(\(ids)::text[], \(epochs)::text[]) AS lost (id, epoch)
                WHERE w.id = lost.id::uuid AND w.epoch = lost.epoch::bigint AND w.finished_at IS NULL AND \(WorkflowStore.isOrphaned)
                """)
        }
    }

    /// Releases leases that this process holds without running them, because an outcome could not be recorded.
    func releaseUnused(running: [WorkflowID]) async throws -> Int {
        let now = ambient.databaseNow
        let ids = running.map(\.text)
        return try await database.autocommit { [holder] connection in
            try connection.execute(
                """
                UPDATE workflows SET run_at = \(now), lease_holder = NULL, lease_until = NULL
                WHERE lease_holder = \(holder) AND finished_at IS NULL AND id <> ALL(\(ids)::uuid[])
                """)
        }
    }

    /// Deletes workflows that ended more than `age` ago.
    func prune(olderThan age: Duration, limit: Int) async throws -> Int {
        let before: SQL = "\(ambient.databaseNow) - \(age)::interval"
        return try await database.autocommit { [service] connection in
            try connection.execute(
                """
                DELETE FROM workflows WHERE id IN (
                    SELECT id FROM workflows w WHERE service = \(service) AND finished_at < \(before)
                    AND NOT EXISTS (SELECT 1 FROM workflows p WHERE p.id = w.parent_id AND p.finished_at IS NULL)
                    ORDER BY finished_at LIMIT \(limit))
                """)
        }
    }
}
