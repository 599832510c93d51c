import Database
import Inspections
import Kernel
import Logging
import NetworkCore
import OVSDB

/// The reconciler's state and steps; used by one task.
final class NorthboundWorker {
    private let reconciler: NorthboundReconciler
    private let ledger: NorthboundLedger
    private var compiler: Compiler
    private var model = NBModel()
    private var pending: Set<NBSubject> = []
    /// What a full comparison has not come to yet, in order.
    private var audited: ArraySlice<NBSubject> = []
    /// Pointing at what is not there; tried again when something has come.
    private var waiting: Set<NBSubject> = []
    private var isWaitingOver = false
    /// Refused by OVN; tried again with the next audit.
    private var postponed: Set<NBSubject> = []
    /// How often this round has found a subject otherwise than it had just been made.
    private var unsettled: [NBSubject: Int] = [:]
    private var touchedPorts: Set<UUID128> = []
    /// Changes that are read and not made, by subject.
    private var owed: [NBSubject: [Int]] = [:]
    /// How many subjects of each change are not made.
    private var unmade: [Int: Int] = [:]
    /// Changes that OVN has.
    private var made: [Int] = []
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

    /// Of one plan, as events of their own.
    private static let driftShownMax = 20
    /// How often a subject is made again in one round before it is left to the next audit.
    private static let repeatsMax = 5

    init(_ reconciler: NorthboundReconciler) {
        self.reconciler = reconciler
        ledger = NorthboundLedger(database: reconciler.database, ambient: reconciler.ambient)
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
            // What the one who has the lock does is followed here all the same.
            _ = model.apply(await takeNews().changes)
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
        try await work()
        if isAuditing {
            isAuditing = false
            auditedAt = clock
            auditHeard = asked
            reconciler.audits.done = asked
        }
        suspects = []
        moved = []
        unsettled = [:]
        try await askControllers()
    }

    private func interval(_ duration: Duration) -> UInt64 { UInt64(max(0, duration.microseconds)) * 1000 }

    // MARK: northbound news

    /// - Parameters:
    ///   - own: the subjects that this process' transaction has just changed; they are looked at otherwise.
    ///   - down: ports that are down in the database.
    private func look(own: Set<NBSubject> = [], down: Set<UUID128> = []) async throws {
        let news = await takeNews()
        let seen = model.apply(news.changes)
        for row in seen.ports {
            if let port = model.port(row), !port.isUp, down.contains(port.id) { continue }
            touchedPorts.insert(row)
        }
        if !news.changes.isEmpty { isWaitingOver = true }
        // All is compared anyway, then.
        guard !news.reset else { return }
        // What somebody else changed is compared at once.
        let foreign = seen.subjects.subtracting(own)
        pending.formUnion(foreign)
        suspects.formUnion(foreign)
    }

    /// What has changed in the database; everything, for an empty model, when a session has begun.
    private func takeNews() async -> OVSDBChanges {
        let news = await client.takeChanges()
        if news.reset {
            model = NBModel()
            auditedAt = nil
            // One that is under way has compared with what was before.
            isAuditing = false
        }
        return news
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

    /// Puts everything on the list: what should be there, and what is there.
    private func beginAudit() async throws {
        var all = Set(try await database.snapshot { try NorthboundReader.all($0) })
        all.formUnion(model.subjects)
        // What OVN refused before is no news.
        suspects.formUnion(all.subtracting(postponed))
        audited = all.union(postponed).sorted()[...]
        postponed = []
        touchedPorts.formUnion(model.rows.filter { $0.value.table == .logicalSwitchPort }.keys)
        isAuditing = true
    }

    /// Compares and commits until nothing is left. While OVN commits one plan, the next one is read, made and sent.
    private func work() async throws {
        var flight: Flight?
        do {
            while true {
                let work = try await chores(flight)
                take(work.changes)
                if let landing = flight, work.subjects.count < NorthboundLedger.hurryMin {
                    // Not much: there may be more when that one is done, and fewer transactions are less work for OVN.
                    flight = nil
                    try await land(landing, beside: nil)
                } else if work.subjects.isEmpty {
                    guard findMore() else { return }
                } else {
                    let next = start(plan(work.subjects, work.state), work.state)
                    let landing = flight
                    flight = next
                    if let landing { try await land(landing, beside: next) }
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
                made.append(change.id)
                continue
            }
            pending.formUnion(change.subjects)
            unmade[change.id] = change.subjects.count
            for subject in change.subjects { owed[subject, default: []].append(change.id) }
        }
    }

    /// Whether there is anything left to do.
    private func findMore() -> Bool {
        if isWaitingOver, !waiting.isEmpty {
            pending.formUnion(waiting)
            waiting = []
        }
        isWaitingOver = false
        return !pending.isEmpty || !audited.isEmpty || !made.isEmpty || !touchedPorts.isEmpty
    }

    /// Writes down in PostgreSQL what has happened, and reads what is next.
    private func chores(_ flight: Flight?) async throws -> NorthboundLedger.Work {
        let touched = touchedPorts
        let job = NorthboundLedger.Job(
            made: made, ports: touched.compactMap { model.port($0) }, taken: Array(unmade.keys),
            pending: pending, audited: Array(audited.prefix(NorthboundLedger.auditedMax)), suspects: suspects,
            inFlight: Set(flight?.plan.done ?? []))
        made = []
        touchedPorts = []
        do {
            return try await ledger.run(job)
        } catch {
            made += job.made
            touchedPorts.formUnion(touched)
            throw error
        }
    }

    // MARK: transactions

    private struct Plan {
        var operations: [NBOperation] = []
        var done: [NBSubject] = []
        /// Those of `done` that are to be changed, as they will be.
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

    /// Whether nobody has asked for what is about to change. An empty northbound database is a new one.
    private func isDrift(_ subject: NBSubject, _ state: NorthboundState) -> Bool {
        suspects.contains(subject) && !moved.contains(subject) && !state.changing.contains(subject)
            && (subject != .global || !model.subjects.isEmpty)
    }

    /// A plan on its way to OVN.
    private struct Flight {
        let plan: Plan
        let state: NorthboundState
        /// The changes that are owed by its subjects.
        let changes: [NBSubject: [Int]]
        let reply: Task<Void, any Error>
    }

    /// - Returns: nil where there is nothing to change.
    private func start(_ plan: Plan, _ state: NorthboundState) -> Flight? {
        pending.subtract(plan.done)
        if !audited.isEmpty {
            let done = Set(plan.done)
            audited = audited.drop { done.contains($0) }
        }
        var changes: [NBSubject: [Int]] = [:]
        for subject in plan.done { changes[subject] = owed.removeValue(forKey: subject) }
        guard !plan.operations.isEmpty else {
            forget(changes)
            close(plan)
            return nil
        }
        return send(plan, state, changes)
    }

    private func send(_ plan: Plan, _ state: NorthboundState, _ changes: [NBSubject: [Int]]) -> Flight {
        let (client, operations) = (client, plan.operations)
        let reply = Task { try await NorthboundWorker.transact(operations, client) }
        return Flight(plan: plan, state: state, changes: changes, reply: reply)
    }

    private static func transact(_ operations: [NBOperation], _ client: OVSDBClient) async throws {
        var transaction = OVSDBTransaction([OVSDBOperation.assertLock(NorthboundReconciler.lock)]) { $0.write(to: &$1) }
        try transaction.append(operations.gathered) { try NorthboundConversion.operation($0).write(to: &$1) }
        try await client.transact(transaction)
    }

    /// - Parameter other: started meanwhile; its news may have come too.
    /// - Throws: what ends the step; what OVN refuses is put off.
    private func land(_ flight: Flight, beside other: Flight?) async throws {
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
        forget(flight.changes)
    }

    /// Nothing is left to do for these subjects.
    private func forget(_ changes: [NBSubject: [Int]]) {
        for change in changes.values.joined() {
            let left = (unmade[change] ?? 1) - 1
            unmade[change] = left > 0 ? left : nil
            if left == 0 { made.append(change) }
        }
    }

    /// Why OVN will never take it; nil when it has.
    private func refusal(of flight: Flight) async throws -> OVSDBError? {
        do { try await flight.reply.value } catch let error as OVSDBError {
            guard case .transaction = error, !error.isPassing else { throw error }
            return error
        }
        return nil
    }

    /// Its subjects are compared again.
    private func abandon(_ flight: Flight) {
        pending.formUnion(flight.plan.done)
        owed.merge(flight.changes) { $1 + $0 }
    }

    private func committed(_ plan: Plan, _ state: NorthboundState, beside other: Flight?) async throws {
        reconciler.metrics.increment(
            "wolke_northbound_operations_total", [("cause", isAuditing ? "audit" : "change")],
            by: Double(plan.operations.count), help: "Operations on OVN's northbound database.")
        // The copy shows the effect by now.
        let own = Set(plan.changed.map(\.subject)).union(other?.plan.changed.map(\.subject) ?? [])
        try await look(own: own, down: state.down.union(other?.state.down ?? []))
        close(plan)
        verify(plan)
        try await report(plan.drift)
    }

    private func close(_ plan: Plan) {
        waiting.subtract(plan.done)
        waiting.formUnion(plan.incomplete)
    }

    private func refused(_ plan: Plan, _ state: NorthboundState, _ error: OVSDBError, beside other: Flight?) async throws {
        guard plan.done.count > 1 else {
            reconciler.log.error("OVN refuses a change", metadata: ["subject": "\(plan.done[0])", "reason": "\(error)"])
            reconciler.metrics.increment("wolke_northbound_refused_total", help: "Changes that OVN refused.")
            postponed.insert(plan.done[0])
            return
        }
        // One of them spoils it for all; the others must not wait for it.
        for subject in plan.done {
            let single = self.plan([subject], state)
            if single.operations.isEmpty { close(single) } else { try await land(send(single, state, [:]), beside: other) }
        }
    }

    /// What somebody else changed in the same moment came with the own news: what was made is compared once more.
    private func verify(_ plan: Plan) {
        var transaction = NBTransaction(model: model)
        for (subject, desired) in plan.changed where !plan.incomplete.contains(subject) && !model.shows(subject, desired) {
            let before = transaction.operations.count
            transaction.add(subject, desired)
            guard transaction.operations.count > before else { continue }
            unsettled[subject, default: 0] += 1
            guard unsettled[subject, default: 0] <= NorthboundWorker.repeatsMax else {
                reconciler.log.error("OVN does not keep a change", metadata: ["subject": "\(subject)"])
                postponed.insert(subject)
                continue
            }
            pending.insert(subject)
            suspects.insert(subject)
        }
        // What it points at has gone meanwhile, and will be made again.
        waiting.formUnion(transaction.incomplete)
        suspects.formUnion(transaction.incomplete)
    }

    /// Writes down what was wrong though nobody had asked for a change; a wiped database is one sentence.
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
