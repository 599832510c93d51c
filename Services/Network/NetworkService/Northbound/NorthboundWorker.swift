import Database
import Inspections
import Kernel
import Logging
import NetworkCore
import OVSDB
import ServiceCatalog

/// The reconciler's state and steps; used by one task.
final class NorthboundWorker {
    private let reconciler: NorthboundReconciler
    private let ledger: NorthboundLedger
    private var compiler: Compiler
    private var model = NBModel()
    private var pendingSubjects: Set<NBSubject> = []
    /// Subjects that the current audit has still to compare, in order.
    private var auditQueue: ArraySlice<NBSubject> = []
    /// Subjects that refer to rows that do not exist yet; retried after the next change of the northbound database.
    private var blockedOnMissingRows: Set<NBSubject> = []
    /// Whether the northbound database has changed since the blocked subjects were last retried.
    private var hasNewRows = false
    /// Subjects that OVN refused or did not keep; retried with the next audit.
    private var deferredSubjects: Set<NBSubject> = []
    /// How often each subject was applied again in this round because OVN showed another state than the one just written.
    private var reapplyCounts: [NBSubject: Int] = [:]
    /// Rows of logical switch ports whose up/down state is still to be written to PostgreSQL.
    private var touchedPorts: Set<UUID128> = []
    /// Changes read from the database but not yet applied to OVN, by subject.
    private var pendingChanges: [NBSubject: [Int]] = [:]
    /// For each change that was read, how many of its subjects are not yet applied to OVN.
    private var remainingSubjectCounts: [Int: Int] = [:]
    /// Changes that OVN has committed, to be deleted from PostgreSQL.
    private var appliedChanges: [Int] = []
    /// Subjects queued without a database change; any difference found there is drift.
    private var driftCandidates: Set<NBSubject> = []
    /// Gateway ports that differ because gateway chassis were added or removed; not drift until the next round.
    private var rescheduledGatewayPorts: Set<NBSubject> = []
    /// Number of the last audit request that was answered.
    private var lastAuditRequest = 0
    /// When the last audit ended; nil if one is due now.
    private var auditedAt: UInt64?
    private var syncRequestedAt: UInt64 = 0
    private var isAuditing = false

    private var database: Database { reconciler.database }
    private var client: OVSDBClient { reconciler.northbound }
    private var clock: UInt64 { reconciler.ambient.time.monotonicNanoseconds() }

    /// At most this many differences of one plan are recorded one by one.
    private static let driftShownMax = 20
    /// How often a subject is applied again in one round before it is deferred to the next audit.
    private static let repeatsMax = 5

    init(_ reconciler: NorthboundReconciler) {
        self.reconciler = reconciler
        ledger = NorthboundLedger(database: reconciler.database, ambient: reconciler.ambient)
        compiler = reconciler.compiler
    }

    /// Runs one reconciliation round. A failure is logged, and the next wake retries.
    func step() async {
        do { try await reconcile() } catch is CancellationError { return } catch {
            reconciler.log.warning("northbound reconciliation interrupted", metadata: ["reason": "\(error)"])
            reconciler.metrics.increment("wolke_northbound_interruptions_total", help: "Reconciliation steps that failed.")
        }
    }

    private func reconcile() async throws {
        guard await client.holdsLock else {
            // Keep the model up to date with the changes of the process that holds the lock.
            _ = model.apply(await takeUpdates().changes)
            auditedAt = nil
            reconciler.audits.isMine = false
            return
        }
        reconciler.audits.isMine = true
        try await applyUpdates()
        guard await reconciler.southbound.currentSchema != nil else { return }
        let asked = reconciler.audits.asked
        if asked > lastAuditRequest { auditedAt = nil }
        try await refreshGateways()
        if auditedAt.map({ clock - $0 > interval(reconciler.configuration.auditInterval) }) ?? true { try await beginAudit() }
        try await work()
        if isAuditing {
            isAuditing = false
            auditedAt = clock
            lastAuditRequest = asked
            reconciler.audits.done = asked
        }
        driftCandidates = []
        rescheduledGatewayPorts = []
        reapplyCounts = [:]
        try await requestControllerSync()
    }

    private func interval(_ duration: Duration) -> UInt64 { UInt64(max(0, duration.microseconds)) * 1000 }

    // MARK: updates from the northbound database

    /// - Parameters:
    ///   - own: subjects that this process' transaction has just changed; `verify` compares them.
    ///   - down: ports that are down in PostgreSQL.
    private func applyUpdates(own: Set<NBSubject> = [], down: Set<UUID128> = []) async throws {
        let updates = await takeUpdates()
        let seen = model.apply(updates.changes)
        for row in seen.ports {
            if let port = model.port(row), !port.isUp, down.contains(port.id) { continue }
            touchedPorts.insert(row)
        }
        if !updates.changes.isEmpty { hasNewRows = true }
        // A new session compares everything anyway.
        guard !updates.reset else { return }
        // Compare at once what another client changed.
        let foreign = seen.subjects.subtracting(own)
        pendingSubjects.formUnion(foreign)
        driftCandidates.formUnion(foreign)
    }

    /// Changes of the northbound database since the last call. After a new session begins, these are all rows, for an empty model.
    private func takeUpdates() async -> OVSDBChanges {
        let updates = await client.takeChanges()
        if updates.reset {
            model = NBModel()
            auditedAt = nil
            // An audit in progress has compared with the state of the previous session.
            isAuditing = false
        }
        return updates
    }

    private func refreshGateways() async throws {
        let gateways = await reconciler.fleet.gateways()
        guard gateways != compiler.gateways else { return }
        compiler.gateways = gateways
        let ports = try await database.read { connection in
            try connection.query("SELECT gateway_port_id FROM routers WHERE gateway_port_id IS NOT NULL")
                .map { try $0.uuid("gateway_port_id") }
        }
        for port in ports { pendingSubjects.insert(.port(port)) }
        rescheduledGatewayPorts.formUnion(ports.map { .port($0) })
    }

    // MARK: work queue

    /// Queues every subject that PostgreSQL or OVN has.
    private func beginAudit() async throws {
        var all = Set(try await database.snapshot { try NorthboundReader.all($0) })
        all.formUnion(model.subjects)
        // A subject that OVN refused before differs for that reason, not because of drift.
        driftCandidates.formUnion(all.subtracting(deferredSubjects))
        auditQueue = all.union(deferredSubjects).sorted()[...]
        deferredSubjects = []
        touchedPorts.formUnion(model.rows.filter { $0.value.table == .logicalSwitchPort }.keys)
        isAuditing = true
    }

    /// Compares and commits until the queue is empty. While OVN commits one plan, the next one is read, built and sent.
    private func work() async throws {
        var flight: InFlightPlan?
        do {
            while true {
                let work = try await exchange(flight)
                take(work.changes)
                if let previous = flight, work.subjects.count < NorthboundLedger.fullBatchMin {
                    // A small batch: wait for the plan in flight, because more may arrive and fewer transactions are less work for OVN.
                    flight = nil
                    try await finish(previous, beside: nil)
                } else if work.subjects.isEmpty {
                    guard findMore() else { return }
                } else {
                    let next = start(plan(work.subjects, work.state), work.state)
                    let previous = flight
                    flight = next
                    if let previous { try await finish(previous, beside: next) }
                }
            }
        } catch {
            if let flight {
                _ = await flight.reply.result
                abandon(flight)
            }
            throw error
        }
    }

    private func take(_ changes: [NorthboundLedger.Change]) {
        for change in changes {
            guard !change.subjects.isEmpty else {
                appliedChanges.append(change.id)
                continue
            }
            pendingSubjects.formUnion(change.subjects)
            remainingSubjectCounts[change.id] = change.subjects.count
            for subject in change.subjects { pendingChanges[subject, default: []].append(change.id) }
        }
    }

    /// Whether there is more to do, including blocked subjects that can be retried now.
    private func findMore() -> Bool {
        if hasNewRows, !blockedOnMissingRows.isEmpty {
            pendingSubjects.formUnion(blockedOnMissingRows)
            blockedOnMissingRows = []
        }
        hasNewRows = false
        return !pendingSubjects.isEmpty || !auditQueue.isEmpty || !appliedChanges.isEmpty || !touchedPorts.isEmpty
    }

    /// Writes the results so far to PostgreSQL and reads the next batch from it.
    private func exchange(_ flight: InFlightPlan?) async throws -> NorthboundLedger.Work {
        let touched = touchedPorts
        let job = NorthboundLedger.Job(
            appliedChanges: appliedChanges, ports: touched.compactMap { model.port($0) }, knownChanges: Array(remainingSubjectCounts.keys),
            pendingSubjects: pendingSubjects, auditQueue: Array(auditQueue.prefix(NorthboundLedger.auditBatchMax)),
            driftCandidates: driftCandidates, inFlight: Set(flight?.plan.done ?? []))
        appliedChanges = []
        touchedPorts = []
        do {
            return try await ledger.run(job)
        } catch {
            appliedChanges += job.appliedChanges
            touchedPorts.formUnion(touched)
            throw error
        }
    }

    // MARK: transactions

    private struct Plan {
        var operations: [NBOperation] = []
        var done: [NBSubject] = []
        /// Those of `done` that differ, with their desired state.
        var changed: [(subject: NBSubject, desired: NBDesired)] = []
        var incomplete: Set<NBSubject> = []
        var drift: [Finding] = []
    }

    private func plan(_ subjects: [NBSubject], _ state: NorthboundState) -> Plan {
        var transaction = NBTransaction(model: model)
        var plan = Plan()
        for subject in subjects {
            let before = transaction.operations.count
            let desired = state.compile(subject, compiler)
            transaction.add(subject, desired)
            plan.done.append(subject)
            guard transaction.operations.count > before else { continue }
            plan.changed.append((subject, desired))
            if isDrift(subject, state) {
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

    /// Whether the difference has no database change behind it. An empty northbound database is new and has no drift.
    private func isDrift(_ subject: NBSubject, _ state: NorthboundState) -> Bool {
        driftCandidates.contains(subject) && !rescheduledGatewayPorts.contains(subject) && !state.changing.contains(subject)
            && (subject != .global || !model.subjects.isEmpty)
    }

    /// A plan that was sent to OVN and is not yet answered.
    private struct InFlightPlan {
        let plan: Plan
        let state: NorthboundState
        /// The changes that its subjects belong to.
        let changes: [NBSubject: [Int]]
        let reply: Task<Void, any Error>
    }

    /// - Returns: nil if there is nothing to change.
    private func start(_ plan: Plan, _ state: NorthboundState) -> InFlightPlan? {
        pendingSubjects.subtract(plan.done)
        if !auditQueue.isEmpty {
            let done = Set(plan.done)
            auditQueue = auditQueue.drop { done.contains($0) }
        }
        var changes: [NBSubject: [Int]] = [:]
        for subject in plan.done { changes[subject] = pendingChanges.removeValue(forKey: subject) }
        guard !plan.operations.isEmpty else {
            markApplied(changes)
            updateBlockedSubjects(plan)
            return nil
        }
        return send(plan, state, changes)
    }

    private func send(_ plan: Plan, _ state: NorthboundState, _ changes: [NBSubject: [Int]]) -> InFlightPlan {
        let (client, operations) = (client, plan.operations)
        let reply = Task { try await NorthboundWorker.transact(operations, client) }
        return InFlightPlan(plan: plan, state: state, changes: changes, reply: reply)
    }

    private static func transact(_ operations: [NBOperation], _ client: OVSDBClient) async throws {
        var transaction = OVSDBTransaction([OVSDBOperation.assertLock(NorthboundReconciler.lock)]) { $0.write(to: &$1) }
        try transaction.append(operations.gathered) { try NorthboundConversion.operation($0).write(to: &$1) }
        try await client.transact(transaction)
    }

    /// Waits for OVN's answer and processes it. A plan that OVN refuses is retried subject by subject.
    ///
    /// - Parameter other: a plan sent meanwhile, whose effects may be among the updates already.
    /// - Throws: errors that end the round.
    private func finish(_ flight: InFlightPlan, beside other: InFlightPlan?) async throws {
        do {
            if let refusal = try await refusal(of: flight) {
                try await refused(flight.plan, flight.state, refusal, beside: other)
            } else {
                try await committed(flight.plan, flight.state, beside: other)
            }
        } catch {
            abandon(flight)
            throw error
        }
        markApplied(flight.changes)
    }

    /// Counts these subjects as applied; a change without remaining subjects is complete.
    private func markApplied(_ changes: [NBSubject: [Int]]) {
        for change in changes.values.joined() {
            let left = (remainingSubjectCounts[change] ?? 1) - 1
            remainingSubjectCounts[change] = left > 0 ? left : nil
            if left == 0 { appliedChanges.append(change) }
        }
    }

    /// The permanent error for which OVN refused the plan; nil if it was committed.
    ///
    /// - Throws: temporary errors.
    private func refusal(of flight: InFlightPlan) async throws -> OVSDBError? {
        do { try await flight.reply.value } catch let error as OVSDBError {
            guard case .transaction = error, !error.isPassing else { throw error }
            return error
        }
        return nil
    }

    /// Queues the plan's subjects again.
    private func abandon(_ flight: InFlightPlan) {
        pendingSubjects.formUnion(flight.plan.done)
        pendingChanges.merge(flight.changes) { $1 + $0 }
    }

    private func committed(_ plan: Plan, _ state: NorthboundState, beside other: InFlightPlan?) async throws {
        reconciler.metrics.increment(
            "wolke_northbound_operations_total", [("cause", isAuditing ? "audit" : "change")],
            by: Double(plan.operations.count), help: "Operations on OVN's northbound database.")
        // The updates of a transaction arrive before its reply.
        let own = Set(plan.changed.map(\.subject)).union(other?.plan.changed.map(\.subject) ?? [])
        try await applyUpdates(own: own, down: state.down.union(other?.state.down ?? []))
        updateBlockedSubjects(plan)
        verify(plan)
        try await report(plan.drift)
    }

    private func updateBlockedSubjects(_ plan: Plan) {
        blockedOnMissingRows.subtract(plan.done)
        blockedOnMissingRows.formUnion(plan.incomplete)
    }

    private func refused(_ plan: Plan, _ state: NorthboundState, _ error: OVSDBError, beside other: InFlightPlan?) async throws {
        guard plan.done.count > 1 else {
            reconciler.log.error("OVN refuses a change", metadata: ["subject": "\(plan.done[0])", "reason": "\(error)"])
            reconciler.metrics.increment("wolke_northbound_refused_total", help: "Changes that OVN refused.")
            deferredSubjects.insert(plan.done[0])
            return
        }
        // One refused subject fails the whole transaction; apply them one by one so that the others do not wait for it.
        for subject in plan.done {
            let single = self.plan([subject], state)
            if single.operations.isEmpty {
                updateBlockedSubjects(single)
            } else {
                try await finish(send(single, state, [:]), beside: other)
            }
        }
    }

    /// Compares the changed subjects once more, because changes by other clients may have arrived together with our own.
    private func verify(_ plan: Plan) {
        var transaction = NBTransaction(model: model)
        for (subject, desired) in plan.changed where !plan.incomplete.contains(subject) && !model.shows(subject, desired) {
            let before = transaction.operations.count
            transaction.add(subject, desired)
            guard transaction.operations.count > before else { continue }
            reapplyCounts[subject, default: 0] += 1
            guard reapplyCounts[subject, default: 0] <= NorthboundWorker.repeatsMax else {
                reconciler.log.error("OVN does not keep a change", metadata: ["subject": "\(subject)"])
                deferredSubjects.insert(subject)
                continue
            }
            pendingSubjects.insert(subject)
            driftCandidates.insert(subject)
        }
        // A row that the subject refers to was deleted meanwhile and will be created again.
        blockedOnMissingRows.formUnion(transaction.incomplete)
        driftCandidates.formUnion(transaction.incomplete)
    }

    /// Records drift. Many differences at once (a wiped database) are summarized in one entry.
    private func report(_ drift: [Finding]) async throws {
        guard !drift.isEmpty else { return }
        var findings = drift
        if drift.count > NorthboundWorker.driftShownMax {
            findings =
                Array(drift.prefix(3)) + [
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

    /// Increments `nb_cfg`, which every ovn-controller acknowledges; the acknowledgements show which chassis are alive.
    private func requestControllerSync() async throws {
        let now = clock
        guard syncRequestedAt == 0 || now - syncRequestedAt > interval(reconciler.configuration.heartbeatInterval) else { return }
        syncRequestedAt = now
        try await client.transact([
            .assertLock(NorthboundReconciler.lock),
            .mutate(table: "NB_Global", where: [], mutations: [.add("nb_cfg", 1)]),
        ])
    }
}
