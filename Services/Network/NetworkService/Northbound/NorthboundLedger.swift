import Contracts
import Database
import Kernel
import NetworkCore

/// What the reconciler does in PostgreSQL: apart from its worker, so that it goes on while OVN commits.
struct NorthboundLedger: Sendable {
    let database: Database
    let ambient: Ambient

    /// Changes read at once.
    static let changesMax = 1000
    /// Subjects compared in one go, few enough for the next ones to be made while OVN commits; with as many at hand no more
    /// changes are read.
    static let subjectsMax = 300
    /// With fewer, a plan waits for the one before: more may come meanwhile, and OVN copies whole switches for each plan.
    static let hurryMin = 250
    /// Of a full comparison: what changes meanwhile is not to wait for all of it.
    static let auditedMax = 300

    /// Subjects that somebody has changed together.
    struct Change: Sendable {
        let id: Int
        let subjects: Set<NBSubject>
    }

    struct Job: Sendable {
        /// Changes that OVN has: forgotten.
        var made: [Int] = []
        /// Ports and whether they are up: written down.
        var ports: [(id: UUID128, isUp: Bool)] = []
        /// Changes that are known and not yet made.
        var taken: [Int] = []
        /// Subjects to be compared beside those of new changes.
        var pending: Set<NBSubject> = []
        /// Compared along with them.
        var audited: [NBSubject] = []
        /// Those of which it is to be known whether their change is noted.
        var suspects: Set<NBSubject> = []
        /// On their way to OVN: left out.
        var inFlight: Set<NBSubject> = []
    }

    /// What there is to do next, as one snapshot of the database shows it.
    struct Work: Sendable {
        var changes: [Change] = []
        /// In the order in which rows refer to each other.
        var subjects: [NBSubject] = []
        var state = NorthboundState()
    }

    func run(_ job: Job) async throws -> Work {
        try await forget(job.made)
        try await report(job.ports)
        return try await database.snapshot { try NorthboundLedger.read($0, job) }
    }

    private static func read(_ connection: Connection, _ job: Job) throws -> Work {
        var work = Work()
        if job.pending.count < subjectsMax { work.changes = try changes(connection, except: job.taken) }
        var subjects = job.pending
        for change in work.changes { subjects.formUnion(change.subjects) }
        subjects.subtract(job.inFlight)
        if subjects.count > subjectsMax { subjects = Set(subjects.sorted().prefix(subjectsMax)) }
        work.subjects = subjects.union(Set(job.audited).subtracting(job.inFlight)).sorted()
        guard !work.subjects.isEmpty else { return work }
        work.state = try NorthboundReader.read(
            connection, work.subjects, suspects: work.subjects.filter(job.suspects.contains))
        return work
    }

    /// Ids are given before transactions end: the next change may have a lower one than those that are known.
    private static func changes(_ connection: Connection, except taken: [Int]) throws -> [Change] {
        let rows = try connection.query(
            """
            SELECT id, kind, ids FROM northbound_changes WHERE id <> ALL(\(taken)::bigint[])
            ORDER BY id LIMIT \(changesMax)
            """)
        return try rows.map { row in
            let kind = try row.string("kind")
            return Change(id: try row.int("id"), subjects: Set(try row.uuids("ids").compactMap { NBSubject(kind, $0) }))
        }
    }

    private func forget(_ ids: [Int]) async throws {
        guard !ids.isEmpty else { return }
        try await database.write { connection in
            // One that comes back after a crash is compared again, and nothing is found to do.
            try connection.script("SET LOCAL synchronous_commit TO off")
            try connection.execute("DELETE FROM northbound_changes WHERE id = ANY(\(ids)::bigint[])")
        }
    }

    /// Writes down which ports are up, and wakes those who wait for their servers' ports.
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
