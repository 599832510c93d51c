import Database
import Inspections
import Kernel
import Logging
import NetworkCore
import OVSDB

/// The reconciler's state and steps; used by one task.
final class NorthboundWorker {
    private let reconciler: NorthboundReconciler
    private var compiler: Compiler
    private var model = NBModel()
    /// Whether `model` shows the database as this session knows it.
    private var isLoaded = false
    private var pending: Set<NBSubject> = []
    /// Refused by OVN or pointing at what is not there; tried again with the next audit.
    private var postponed: Set<NBSubject> = []
    private var touchedPorts: Set<UUID128> = []
    /// Subjects on the list although nobody asked for a change: what is wrong about them is drift.
    private var suspects: Set<NBSubject> = []
    /// Subjects that look otherwise because gateways came or went; no drift until the next round.
    private var moved: Set<NBSubject> = []
    /// The last request for an audit that was heard.
    private var auditHeard = 0
    private var auditedAt: UInt64?
    private var askedAt: UInt64 = 0
    private var isAuditing = false

    private var database: Database { reconciler.database }
    private var client: OVSDBClient { reconciler.northbound }
    private var clock: UInt64 { reconciler.ambient.time.monotonicNanoseconds() }

    /// Changes read at once, and subjects read for one plan.
    private static let changesMax = 2000
    private static let subjectsMax = 300
    /// Of one plan, as events of their own.
    private static let driftShownMax = 20

    init(_ reconciler: NorthboundReconciler) {
        self.reconciler = reconciler
        compiler = reconciler.compiler
    }

    /// Does what there is to do; a failure is logged, and the next wake tries again.
    func step() async {
        do { try await reconcile() } catch is CancellationError { return } catch {
            reconciler.log.warning("northbound reconciliation interrupted", metadata: ["reason": "\(error)"])
            reconciler.metrics.increment("wolke_northbound_interruptions_total", help: "Reconciliation steps that failed.")
        }
    }

    private func reconcile() async throws {
        guard await client.holdsLock else {
            isLoaded = false
            auditedAt = nil
            reconciler.audits.isMine = false
            return
        }
        reconciler.audits.isMine = true
        try await look()
        guard await reconciler.southbound.currentSchema != nil else { return }
        let asked = reconciler.audits.asked
        if asked > auditHeard { auditedAt = nil }
        try await lookForGateways()
        if auditedAt.map({ clock - $0 > interval(reconciler.configuration.auditInterval) }) ?? true { try await beginAudit() }
        var more = true
        while more {
            let changes = try await readChanges()
            more = changes.count == NorthboundWorker.changesMax
            for subject in changes.compactMap(\.subject) { pending.insert(subject) }
            try await work()
            try await forget(changes.map(\.id))
        }
        if isAuditing {
            isAuditing = false
            auditedAt = clock
            auditHeard = asked
            reconciler.audits.done = asked
        }
        suspects = []
        moved = []
        try await reportPorts()
        try await askControllers()
    }

    private func interval(_ duration: Duration) -> UInt64 { UInt64(max(0, duration.microseconds)) * 1000 }

    // MARK: northbound news

    /// - Parameter own: the subjects of the transaction that this process has just made.
    private func look(own: Set<NBSubject> = []) async throws {
        let news = await client.takeChanges()
        if news.reset { isLoaded = false }
        if !isLoaded {
            model = NBModel()
            auditedAt = nil
            if !news.reset {
                for table in NBTable.allCases {
                    let rows = await client.rows(table.rawValue)
                    for (uuid, row) in rows {
                        model.insert(table, uuid, row.mapValues { NorthboundConversion.value($0) })
                    }
                }
            }
            isLoaded = true
        }
        let seen = model.apply(news.changes, isOwn: !own.isEmpty)
        touchedPorts.formUnion(seen.ports)
        // What somebody else changed is compared at once; own changes are what they should be.
        let foreign = Set(seen.subjects.compactMap { NBSubject($0) }).subtracting(own)
        pending.formUnion(foreign)
        suspects.formUnion(foreign)
    }

    private func lookForGateways() async throws {
        let gateways = await reconciler.fleet.gateways()
        guard gateways != compiler.gateways else { return }
        compiler.gateways = gateways
        let ports = try await database.read { connection in
            try connection.query("SELECT gateway_port_id FROM routers WHERE gateway_port_id IS NOT NULL")
                .map { try $0.uuid("gateway_port_id") }
        }
        for port in ports { pending.insert(.port(port)) }
        moved.formUnion(ports.map { .port($0) })
    }

    // MARK: what is to be done

    private struct ChangeRow: Sendable {
        let id: Int
        let subject: NBSubject?
    }

    private func readChanges() async throws -> [ChangeRow] {
        try await database.read { connection in
            try connection.query("SELECT id, subject FROM northbound_changes ORDER BY id LIMIT \(NorthboundWorker.changesMax)")
                .map { ChangeRow(id: try $0.int("id"), subject: NBSubject(try $0.string("subject"))) }
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

    /// Puts everything on the list: what should be there, and what is there.
    private func beginAudit() async throws {
        let all = try await database.snapshot { try NorthboundReader.all($0) }
        pending.formUnion(all)
        pending.formUnion(model.subjects.compactMap { NBSubject($0) })
        // What OVN refused before is no news.
        suspects.formUnion(pending.subtracting(postponed))
        pending.formUnion(postponed)
        postponed = []
        touchedPorts.formUnion(model.rows.filter { $0.value.table == .logicalSwitchPort }.keys)
        isAuditing = true
    }

    /// Works through the list in the order in which rows refer to each other.
    private func work() async throws {
        var incomplete: Set<NBSubject> = []
        while !pending.isEmpty {
            var left = pending.sorted()[...]
            while !left.isEmpty {
                let batch = Array(left.prefix(NorthboundWorker.subjectsMax))
                let result = try await apply(batch, try await read(batch))
                pending.subtract(result.done)
                incomplete.formUnion(result.incomplete)
                left = left.dropFirst(result.done.count)
            }
        }
        // What was missing may have come with what followed.
        for subject in incomplete.sorted() {
            let result = try await apply([subject], try await read([subject]))
            postponed.formUnion(result.incomplete)
        }
    }

    private func read(_ subjects: [NBSubject]) async throws -> NorthboundState {
        let doubtful = subjects.filter(suspects.contains)
        return try await database.snapshot { try NorthboundReader.read($0, subjects, suspects: doubtful) }
    }

    // MARK: transactions

    private struct Plan {
        var operations: [NBOperation] = []
        var done: [NBSubject] = []
        var incomplete: Set<NBSubject> = []
        var drift: [Finding] = []
    }

    private func plan(_ subjects: [NBSubject], _ state: NorthboundState) -> Plan {
        var transaction = NBTransaction(model: model)
        var plan = Plan()
        for subject in subjects {
            let before = transaction.operations.count
            transaction.add(subject, state.compile(subject, compiler))
            plan.done.append(subject)
            if transaction.operations.count > before, isDrift(subject, state) {
                plan.drift.append(
                    Finding(
                        invariant: "I12", rule: "OVN is as the networks are", subject: subject.description,
                        words: NBDrift.words(subject, Array(transaction.operations[before...]), model)))
            }
            if transaction.operations.count >= NetworkLimits.northboundOperationsMax { break }
        }
        plan.operations = transaction.operations
        plan.incomplete = transaction.incomplete
        return plan
    }

    /// Whether nobody has asked for what is about to change. An empty northbound database is a new one.
    private func isDrift(_ subject: NBSubject, _ state: NorthboundState) -> Bool {
        suspects.contains(subject) && !moved.contains(subject) && !state.changing.contains(subject)
            && (subject != .global || !model.subjects.isEmpty)
    }

    private func apply(
        _ subjects: [NBSubject], _ state: NorthboundState
    ) async throws -> (done: [NBSubject], incomplete: Set<NBSubject>) {
        let plan = plan(subjects, state)
        guard !plan.operations.isEmpty else { return (plan.done, plan.incomplete) }
        do {
            try await commit(plan.operations, of: Set(plan.done))
            try await report(plan.drift)
            return (plan.done, plan.incomplete)
        } catch let error as OVSDBError {
            guard case .transaction = error, !error.isPassing else { throw error }
            guard plan.done.count > 1 else {
                reconciler.log.error(
                    "OVN refuses a change", metadata: ["subject": "\(plan.done[0])", "reason": "\(error)"])
                reconciler.metrics.increment("wolke_northbound_refused_total", help: "Changes that OVN refused.")
                postponed.insert(plan.done[0])
                return (plan.done, [])
            }
            // One of them spoils it for all; the others must not wait for it.
            var incomplete: Set<NBSubject> = []
            for subject in plan.done { incomplete.formUnion(try await apply([subject], state).incomplete) }
            return (plan.done, incomplete)
        }
    }

    /// Writes down what was wrong though nobody had asked for a change; a wiped database is one sentence.
    private func report(_ drift: [Finding]) async throws {
        guard !drift.isEmpty else { return }
        var findings = drift
        if drift.count > NorthboundWorker.driftShownMax {
            findings = Array(drift.prefix(3)) + [
                Finding(
                    invariant: drift[0].invariant, rule: drift[0].rule, subject: "northbound",
                    words: "OVN did not agree with \(drift.count - 3) more subjects")
            ]
        }
        let entries = findings
        let now = reconciler.ambient.now
        Repairs.log(reconciler.log, entries)
        try await database.write { try Repairs.record($0, service: "network", entries, at: now) }
    }

    private func commit(_ operations: [NBOperation], of subjects: Set<NBSubject>) async throws {
        let wire = try operations.gathered.map { try NorthboundConversion.operation($0) }
        try await client.transact([.assertLock(NorthboundReconciler.lock)] + wire)
        reconciler.metrics.increment(
            "wolke_northbound_operations_total", [("cause", isAuditing ? "audit" : "change")], by: Double(operations.count),
            help: "Operations on OVN's northbound database.")
        // The copy shows the effect by now.
        try await look(own: subjects)
    }

    // MARK: ports

    /// Writes down which ports are up, and wakes those who wait for their servers' ports.
    private func reportPorts() async throws {
        let states = touchedPorts.compactMap { model.port($0) }
        touchedPorts = []
        guard !states.isEmpty else { return }
        let ids = states.map(\.id)
        let statuses = states.map { $0.isUp ? "ACTIVE" : "DOWN" }
        let now = reconciler.ambient.now
        do {
            try await database.write { connection in
                let changed = try connection.query(
                    """
                    UPDATE ports p SET status = v.status, updated_at = \(now)
                    FROM unnest(\(ids)::uuid[], \(statuses)::text[]) AS v(id, status)
                    WHERE p.id = v.id AND p.status <> v.status AND p.device_owner <> \(DeviceOwner.floatingIP)
                    RETURNING p.device_id
                    """)
                for device in Set(try changed.map { try $0.string("device_id") }) where !device.isEmpty {
                    try connection.notify("wolke_wake", device)
                }
            }
        } catch {
            auditedAt = nil
            throw error
        }
    }

    /// Asks every controller to say that it is up to date; the answers are the agents' sign of life.
    private func askControllers() async throws {
        let now = clock
        guard askedAt == 0 || now - askedAt > interval(reconciler.configuration.heartbeatInterval) else { return }
        askedAt = now
        try await client.transact([
            .assertLock(NorthboundReconciler.lock),
            .mutate(table: "NB_Global", where: [], mutations: [.add("nb_cfg", 1)]),
        ])
    }
}
