import Contracts
import Database
import Kernel
import NetworkCore

/// The reconciler's work in PostgreSQL. Separate from `NorthboundWorker` so that it can run while OVN commits.
struct NorthboundLedger: Sendable {
    let database: Database
    let ambient: Ambient

    /// Most changes read at once.
    static let changesMax = 1000
    /// Most subjects compared in one batch, few enough to build the next batch while OVN commits. With this many pending, no
    /// further changes are read.
    static let subjectsMax = 300
    /// A plan with fewer subjects waits for the previous one: more may arrive in the meantime, and OVN copies whole switches for
    /// each plan.
    static let fullBatchMin = 250
    /// Most subjects of an audit in one batch, so that new changes do not wait for the whole audit.
    static let auditBatchMax = 300

    /// Subjects that one transaction changed together.
    struct Change: Sendable {
        let id: Int
        let subjects: Set<NBSubject>
    }

    struct Job: Sendable {
        /// Changes that OVN has committed; they are deleted.
        var appliedChanges: [Int] = []
        /// Ports and whether they are up; their status is updated.
        var ports: [(id: UUID128, isUp: Bool)] = []
        /// Changes already read and not yet applied; they are not read again.
        var knownChanges: [Int] = []
        /// Subjects to compare in addition to those of new changes.
        var pendingSubjects: Set<NBSubject> = []
        /// Subjects of the audit to compare along with them.
        var auditQueue: [NBSubject] = []
        /// Subjects for which the state must include whether a change of theirs is recorded.
        var driftCandidates: Set<NBSubject> = []
        /// Subjects in flight to OVN; they are left out.
        var inFlight: Set<NBSubject> = []
    }

    /// The next batch of work, read in one snapshot of the database.
    struct Work: Sendable {
        var changes: [Change] = []
        /// Sorted so that referenced rows come before the rows that refer to them.
        var subjects: [NBSubject] = []
        var state = NorthboundState()
    }

    func run(_ job: Job) async throws -> Work {
        try await deleteAppliedChanges(job.appliedChanges)
        try await report(job.ports)
        return try await database.snapshot { try NorthboundLedger.read($0, job) }
    }

    private static func read(_ connection: Connection, _ job: Job) throws -> Work {
        var work = Work()
        if job.pendingSubjects.count < subjectsMax { work.changes = try changes(connection, except: job.knownChanges) }
        var subjects = job.pendingSubjects
        for change in work.changes { subjects.formUnion(change.subjects) }
        subjects.subtract(job.inFlight)
        if subjects.count > subjectsMax { subjects = Set(subjects.sorted().prefix(subjectsMax)) }
        work.subjects = subjects.union(Set(job.auditQueue).subtracting(job.inFlight)).sorted()
        guard !work.subjects.isEmpty else { return work }
        work.state = try NorthboundReader.read(
            connection, work.subjects, driftCandidates: work.subjects.filter(job.driftCandidates.contains))
        return work
    }

    /// Known changes are excluded by id and not by a lower bound: ids are assigned before commit, so a change that becomes
    /// visible later may have a lower id.
    private static func changes(_ connection: Connection, except knownChanges: [Int]) throws -> [Change] {
        let rows = try connection.query(
            """
            SELECT id, kind, ids FROM northbound_changes WHERE id <> ALL(\(knownChanges)::bigint[])
            ORDER BY id LIMIT \(changesMax)
            """)
        return try rows.map { row in
            let kind = try row.string("kind")
            return Change(id: try row.int("id"), subjects: Set(try row.uuids("ids").compactMap { NBSubject(kind, $0) }))
        }
    }

    private func deleteAppliedChanges(_ ids: [Int]) async throws {
        guard !ids.isEmpty else { return }
        try await database.write { connection in
            // A deletion lost in a crash only means that the subjects are compared again.
            try connection.script("SET LOCAL synchronous_commit TO off")
            try connection.execute("DELETE FROM northbound_changes WHERE id = ANY(\(ids)::bigint[])")
        }
    }

    /// Updates the status of ports and wakes workflows that wait for the ports of their server.
    private func report(_ ports: [(id: UUID128, isUp: Bool)]) async throws {
        guard !ports.isEmpty else { return }
        let ids = ports.map(\.id)
        let statuses = ports.map { $0.isUp ? "ACTIVE" : "DOWN" }
        let now = ambient.now
        try await database.write { connection in
            let changed = try connection.query(
                """
                UPDATE ports p SET status = v.status, updated_at = \(now)
                FROM unnest(\(ids)::uuid[], \(statuses)::text[]) AS v(id, status)
                WHERE p.id = v.id AND p.status <> v.status AND p.device_owner <> \(DeviceOwner.floatingIP)
                RETURNING p.device_id
                """)
            for device in Set(try changed.map { try $0.string("device_id") }) where !device.isEmpty {
                try connection.notify(.wake, Wake(subject: device))
            }
        }
    }
}
