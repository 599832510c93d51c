import Inspections
import Kernel
import NetworkCore
import OVSDB
import ServiceCatalog

/// The reconciler's state machine: the subjects that are still to be compared and changed in OVN, and the next action. A value
/// without I/O: the worker carries out each effect and reports its result as an event.
///
/// A round starts with the event `woken` and ends with the effect `finish`. While OVN commits one plan, the next one is read and
/// built.
struct NorthboundMachine {
    enum Event {
        /// Something may have changed, or time has passed.
        ///
        /// - holdsLock: whether this process may write to OVN's northbound database.
        /// - auditsAsked: the number of the last request for an audit.
        case woken(holdsLock: Bool, auditsAsked: Int)
        case news(OVSDBChanges)
        /// Nil while the hypervisors are unknown.
        case gateways([GatewayCandidate]?)
        case gatewayPorts([UUID128])
        case allSubjects(Set<NBSubject>)
        case work(NorthboundLedger.Work)
        case answer(Answer)
        /// `record` or `requestControllerSync` was carried out.
        case done
        /// An effect that should have returned an event failed; the round ends.
        case failed
    }

    /// OVN's answer to a plan.
    enum Answer: Equatable {
        case committed
        /// OVN refuses the plan permanently.
        case refused(String)
    }

    /// Effects are carried out in order. The last effect of a list returns the next event, unless it is `finish`.
    enum Effect {
        // Effects without an event.
        case send(flight: Int, [NBOperation])
        /// Waits for the answer to a plan that is no longer needed.
        case discard(flight: Int)
        case countOperations(Int, isAudit: Bool)
        case reportRefusal(NBSubject, String)
        /// Another client keeps changing the subject.
        case reportUnkept(NBSubject)
        /// The audit for the request with this number has ended.
        case auditDone(Int)
        case finish
        // Effects with an event.
        case readNews
        case readGateways
        case readGatewayPorts
        /// Reads all subjects that should exist in OVN.
        case readSubjects
        /// Records completed changes, and reads the next work.
        case exchange(NorthboundLedger.Job)
        case awaitAnswer(flight: Int)
        case record([Finding])
        case requestControllerSync
    }

    private enum Phase {
        case idle
        /// Another process writes; this one only applies its changes to the model.
        case following
        case readingNews
        case readingGateways
        case readingGatewayPorts([GatewayCandidate])
        case readingSubjects
        case exchanging(applied: [Int], ports: Set<UUID128>)
        case landing(Landing)
        case readingNewsAfterCommit(Landing)
        case recording(Landing)
        case requestingSync
    }

    /// Maximum number of drift findings of one plan that are shown individually.
    private static let driftShownMax = 20
    /// How often a subject is applied again in one round before it is deferred to the next audit.
    private static let repeatsMax = 5

    private let auditInterval: UInt64
    private let heartbeatInterval: UInt64
    private(set) var compiler: Compiler
    private(set) var model = NBModel()
    private var phase = Phase.idle
    /// Subjects to compare.
    private(set) var pendingSubjects: Set<NBSubject> = []
    private var audit = NorthboundAudit()
    private var changes = PendingChanges()
    /// Subjects that refer to rows that do not exist yet; compared again after the next change of the database.
    private var blockedOnMissingRows: Set<NBSubject> = []
    private var hasNewRows = false
    /// Subjects that OVN refused or that another client keeps changing; compared again in the next audit.
    private(set) var deferredSubjects: Set<NBSubject> = []
    /// How often in this round a subject was found changed after it had been applied.
    private var reapplyCounts: [NBSubject: Int] = [:]
    /// Rows of switch ports whose state may have changed.
    private var changedPorts: Set<UUID128> = []
    /// Subjects that are compared without a recorded change: any difference found there is drift.
    private var driftCandidates: Set<NBSubject> = []
    /// Subjects whose rows change because gateways were added or removed; this does not count as drift in this round.
    private var rescheduledGatewayPorts: Set<NBSubject> = []
    /// The plan that was sent to OVN and has no answer yet.
    private var flight: InFlightPlan?
    private var flights = 0
    private var syncRequestedAt: UInt64?

    /// - Parameters:
    ///   - auditInterval: time between two audits, in nanoseconds.
    ///   - heartbeatInterval: time between two sync requests to all controllers, in nanoseconds.
    init(compiler: Compiler, auditInterval: UInt64, heartbeatInterval: UInt64) {
        self.compiler = compiler
        self.auditInterval = auditInterval
        self.heartbeatInterval = heartbeatInterval
    }

    /// - Parameter now: time of a monotonic clock, in nanoseconds.
    mutating func handle(_ event: Event, at now: UInt64) -> [Effect] {
        switch (phase, event) {
        case (.idle, .woken(let holdsLock, let asked)):
            audit.asked = asked
            phase = holdsLock ? .readingNews : .following
            return [.readNews]
        case (.following, .news(let news)):
            _ = updateModel(news)
            audit.endedAt = nil
            return finish()
        case (.readingNews, .news(let news)):
            applyNews(news)
            phase = .readingGateways
            return [.readGateways]
        case (.readingGateways, .gateways(let gateways?)):
            if audit.asked > audit.heard { audit.endedAt = nil }
            guard gateways != compiler.gateways else { return auditOrWork(now) }
            phase = .readingGatewayPorts(gateways)
            return [.readGatewayPorts]
        case (.readingGateways, .gateways(nil)): return finish()
        case (.readingGatewayPorts(let gateways), .gatewayPorts(let ports)):
            compiler.gateways = gateways
            pendingSubjects.formUnion(ports.map { .port($0) })
            rescheduledGatewayPorts.formUnion(ports.map { .port($0) })
            return auditOrWork(now)
        case (.readingSubjects, .allSubjects(let subjects)):
            beginAudit(subjects)
            return exchange()
        case (.exchanging, .work(let work)): return proceed(work, now)
        case (.landing(let landing), .answer(.committed)):
            phase = .readingNewsAfterCommit(landing)
            return [.countOperations(landing.current.plan.operations.count, isAudit: audit.isRunning), .readNews]
        case (.landing(let landing), .answer(.refused(let reason))): return refused(landing, reason)
        case (.readingNewsAfterCommit(let landing), .news(let news)): return committed(landing, news)
        case (.recording(let landing), .done): return landed(landing)
        case (.requestingSync, .done): return finish()
        // Includes events that do not belong to the phase.
        default: return interrupt()
        }
    }

    private mutating func finish() -> [Effect] {
        phase = .idle
        return [.finish]
    }

    /// Ends the round early. Plans in flight are compared again in the next round.
    private mutating func interrupt() -> [Effect] {
        switch phase {
        case .exchanging(let applied, let ports):
            changes.applied += applied
            changedPorts.formUnion(ports)
        case .landing(let landing), .readingNewsAfterCommit(let landing), .recording(let landing):
            if let single = landing.single { abandon(single) }
            abandon(landing.flight)
        default: break
        }
        guard let other = flight else { return finish() }
        flight = nil
        abandon(other)
        return [.discard(flight: other.number)] + finish()
    }

    private mutating func abandon(_ flight: InFlightPlan) {
        pendingSubjects.formUnion(flight.plan.done)
        changes.giveBack(flight.changes)
    }

    // MARK: changes in the northbound database

    /// - Parameters:
    ///   - own: the subjects changed by this process's transactions, which `verify` checks.
    ///   - down: ports that are down in the database.
    private mutating func applyNews(_ news: OVSDBChanges, own: Set<NBSubject> = [], down: Set<UUID128> = []) {
        let seen = updateModel(news)
        for row in seen.ports {
            if let port = model.port(row), !port.isUp, down.contains(port.id) { continue }
            changedPorts.insert(row)
        }
        if !news.changes.isEmpty { hasNewRows = true }
        // The audit that follows compares everything.
        guard !news.reset else { return }
        // Rows changed by other clients are compared at once.
        let foreign = seen.subjects.subtracting(own)
        pendingSubjects.formUnion(foreign)
        driftCandidates.formUnion(foreign)
    }

    /// Applies the changes to the model; after a new session, everything is applied to an empty model.
    private mutating func updateModel(_ news: OVSDBChanges) -> (ports: Set<UUID128>, subjects: Set<NBSubject>) {
        if news.reset {
            model = NBModel()
            audit.endedAt = nil
            // A running audit has compared the previous state.
            audit.isRunning = false
        }
        return model.apply(news.changes)
    }

    // MARK: work

    private mutating func auditOrWork(_ now: UInt64) -> [Effect] {
        guard audit.isDue(now, every: auditInterval) else { return exchange() }
        phase = .readingSubjects
        return [.readSubjects]
    }

    /// Queues all subjects for the audit: those of the database and those of OVN.
    private mutating func beginAudit(_ subjects: Set<NBSubject>) {
        let all = subjects.union(model.subjects)
        // Subjects that OVN refused before are already known.
        driftCandidates.formUnion(all.subtracting(deferredSubjects))
        audit.queue = all.union(deferredSubjects).sorted()[...]
        audit.isRunning = true
        deferredSubjects = []
        changedPorts.formUnion(model.rows.filter { $0.value.table == .logicalSwitchPort }.keys)
    }

    private mutating func exchange() -> [Effect] {
        let job = NorthboundLedger.Job(
            appliedChanges: changes.applied, ports: changedPorts.compactMap { model.port($0) }, knownChanges: changes.known,
            pendingSubjects: pendingSubjects,
            auditQueue: Array(audit.queue.prefix(NorthboundLedger.auditBatchMax)), driftCandidates: driftCandidates,
            inFlight: Set(flight?.plan.done ?? []))
        phase = .exchanging(applied: changes.applied, ports: changedPorts)
        changes.applied = []
        changedPorts = []
        return [.exchange(job)]
    }

    private mutating func proceed(_ work: NorthboundLedger.Work, _ now: UInt64) -> [Effect] {
        for change in work.changes {
            changes.add(change)
            pendingSubjects.formUnion(change.subjects)
        }
        if let landing = flight, work.subjects.count < NorthboundLedger.fullBatchMin {
            // A small batch waits: more work may arrive in the meantime, and fewer transactions are less work for OVN.
            flight = nil
            return land(landing)
        }
        guard !work.subjects.isEmpty else { return findMore() ? exchange() : endRound(now) }
        let next = start(plan(work.subjects, work.state), work.state)
        let landing = flight
        flight = next
        return (next.map(send) ?? []) + (landing.map { land($0) } ?? exchange())
    }

    /// Whether there is any work left.
    private mutating func findMore() -> Bool {
        if hasNewRows, !blockedOnMissingRows.isEmpty {
            pendingSubjects.formUnion(blockedOnMissingRows)
            blockedOnMissingRows = []
        }
        hasNewRows = false
        return !pendingSubjects.isEmpty || !audit.queue.isEmpty || !changes.applied.isEmpty || !changedPorts.isEmpty
    }

    private mutating func endRound(_ now: UInt64) -> [Effect] {
        var effects: [Effect] = []
        if audit.isRunning {
            audit.end(now)
            effects.append(.auditDone(audit.heard))
        }
        driftCandidates = []
        rescheduledGatewayPorts = []
        reapplyCounts = [:]
        // Requests every controller to report that it is up to date; the reports serve as the agents' heartbeats.
        guard syncRequestedAt.map({ now - $0 > heartbeatInterval }) ?? true else { return effects + finish() }
        syncRequestedAt = now
        phase = .requestingSync
        return effects + [.requestControllerSync]
    }

    // MARK: plans

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

    /// Whether the change of the subject was not requested. An empty northbound database is new, so that nothing in it is drift.
    private func isDrift(_ subject: NBSubject, _ state: NorthboundState) -> Bool {
        driftCandidates.contains(subject) && !rescheduledGatewayPorts.contains(subject) && !state.changing.contains(subject)
            && (subject != .global || !model.subjects.isEmpty)
    }

    /// - Returns: nil if nothing has to be changed.
    private mutating func start(_ plan: Plan, _ state: NorthboundState) -> InFlightPlan? {
        pendingSubjects.subtract(plan.done)
        audit.drop(plan.done)
        let taken = changes.take(plan.done)
        guard !plan.operations.isEmpty else {
            changes.complete(taken)
            close(plan)
            return nil
        }
        return makeFlight(plan, state, taken)
    }

    private mutating func makeFlight(_ plan: Plan, _ state: NorthboundState, _ changes: [NBSubject: [Int]]) -> InFlightPlan {
        flights += 1
        return InFlightPlan(number: flights, plan: plan, state: state, changes: changes)
    }

    private func send(_ flight: InFlightPlan) -> [Effect] { [.send(flight: flight.number, flight.plan.operations)] }

    private mutating func land(_ flight: InFlightPlan) -> [Effect] {
        phase = .landing(Landing(flight: flight))
        return [.awaitAnswer(flight: flight.number)]
    }

    private mutating func committed(_ landing: Landing, _ news: OVSDBChanges) -> [Effect] {
        let (plan, state) = (landing.current.plan, landing.current.state)
        // The model now contains the effect of this plan, and possibly also that of the other plan in flight.
        let own = Set(plan.changed.map(\.subject)).union(flight?.plan.changed.map(\.subject) ?? [])
        applyNews(news, own: own, down: state.down.union(flight?.state.down ?? []))
        close(plan)
        let reports = verify(plan)
        guard !plan.drift.isEmpty else { return reports + landed(landing) }
        phase = .recording(landing)
        return reports + [.record(NorthboundMachine.shown(plan.drift))]
    }

    /// All subjects of the plan have been processed.
    private mutating func landed(_ landing: Landing) -> [Effect] {
        if !landing.isWhole { return tryNext(landing) }
        changes.complete(landing.flight.changes)
        return exchange()
    }

    private mutating func refused(_ landing: Landing, _ reason: String) -> [Effect] {
        let plan = landing.current.plan
        guard plan.done.count > 1 else {
            deferredSubjects.insert(plan.done[0])
            return [.reportRefusal(plan.done[0], reason)] + landed(landing)
        }
        // One refused subject makes OVN refuse the whole plan, so each subject is tried separately.
        var parts = landing
        parts.isWhole = false
        parts.rest = plan.done[...]
        return tryNext(parts)
    }

    /// Sends the next subject of a plan that OVN refused, by itself.
    private mutating func tryNext(_ landing: Landing) -> [Effect] {
        var parts = landing
        while let subject = parts.rest.popFirst() {
            let single = plan([subject], landing.flight.state)
            guard !single.operations.isEmpty else {
                close(single)
                continue
            }
            let next = makeFlight(single, landing.flight.state, [:])
            parts.single = next
            phase = .landing(parts)
            return send(next) + [.awaitAnswer(flight: next.number)]
        }
        changes.complete(landing.flight.changes)
        return exchange()
    }

    private mutating func close(_ plan: Plan) {
        blockedOnMissingRows.subtract(plan.done)
        blockedOnMissingRows.formUnion(plan.incomplete)
    }

    /// Compares the changed subjects once more, because the update with our own changes may include concurrent changes by other
    /// clients.
    private mutating func verify(_ plan: Plan) -> [Effect] {
        var reports: [Effect] = []
        var transaction = NBTransaction(model: model)
        for (subject, desired) in plan.changed where !plan.incomplete.contains(subject) && !model.shows(subject, desired) {
            let before = transaction.operations.count
            transaction.add(subject, desired)
            guard transaction.operations.count > before else { continue }
            reapplyCounts[subject, default: 0] += 1
            guard reapplyCounts[subject, default: 0] <= NorthboundMachine.repeatsMax else {
                reports.append(.reportUnkept(subject))
                deferredSubjects.insert(subject)
                continue
            }
            pendingSubjects.insert(subject)
            driftCandidates.insert(subject)
        }
        // A referenced row was deleted in the meantime and will be created again.
        blockedOnMissingRows.formUnion(transaction.incomplete)
        driftCandidates.formUnion(transaction.incomplete)
        return reports
    }

    /// Summarizes many findings, so that a wiped database does not produce thousands.
    private static func shown(_ drift: [Finding]) -> [Finding] {
        guard drift.count > driftShownMax else { return drift }
        return Array(drift.prefix(3)) + [
            Finding(
                invariant: drift[0].invariant, rule: drift[0].rule, subject: "northbound",
                words: "OVN did not agree with \(drift.count - 3) more subjects")
        ]
    }
}

extension NorthboundMachine {
    private struct Plan {
        var operations: [NBOperation] = []
        var done: [NBSubject] = []
        /// The subjects of `done` that have to be changed, with their desired rows.
        var changed: [(subject: NBSubject, desired: NBDesired)] = []
        var incomplete: Set<NBSubject> = []
        var drift: [Finding] = []
    }

    /// A plan that was sent to OVN.
    private struct InFlightPlan {
        let number: Int
        let plan: Plan
        let state: NorthboundState
        /// The changes to which its subjects belong.
        let changes: [NBSubject: [Int]]
    }

    /// A plan whose answer is awaited: as a whole or, after OVN refused it, subject by subject.
    private struct Landing {
        let flight: InFlightPlan
        var isWhole = true
        var single: InFlightPlan?
        var rest: ArraySlice<NBSubject> = []

        var current: InFlightPlan { single ?? flight }
    }
}
