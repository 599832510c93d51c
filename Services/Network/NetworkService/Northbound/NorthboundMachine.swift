import Inspections
import Kernel
import NetworkCore
import OVSDB
import ServiceCatalog

/// What the reconciler has still to compare and to change in OVN, and what it does next. A value without I/O: the worker carries
/// out each effect and says with an event what came of it.
///
/// A round begins with `woken` and ends with the effect `finish`. While OVN commits one plan, the next one is read and made.
struct NorthboundMachine {
    enum Event {
        /// Something may have changed, or time has passed.
        ///
        /// - holdsLock: whether this process writes OVN's northbound database.
        /// - auditsAsked: the number of the last request for a comparison of everything.
        case woken(holdsLock: Bool, auditsAsked: Int)
        case news(OVSDBChanges)
        /// Nil while nothing is known of the hypervisors.
        case gateways([GatewayCandidate]?)
        case gatewayPorts([UUID128])
        case allSubjects(Set<NBSubject>)
        case work(NorthboundLedger.Work)
        case answer(Answer)
        /// `record` or `requestControllerSync` has been done.
        case done
        /// The effect that was to yield an event failed; the round ends.
        case failed
    }

    /// Of OVN, to a plan.
    enum Answer: Equatable {
        case committed
        /// It will never take it.
        case refused(String)
    }

    /// Carried out in order. The last effect of a list yields the next event, unless it is `finish`.
    enum Effect {
        // Without an event.
        case send(flight: Int, [NBOperation])
        /// Waits for the answer to a plan that no longer counts.
        case discard(flight: Int)
        case countOperations(Int, isAudit: Bool)
        case reportRefusal(NBSubject, String)
        /// Somebody changes it again and again.
        case reportUnkept(NBSubject)
        /// The comparison of everything that was asked for under this number has ended.
        case auditDone(Int)
        case finish
        // With one.
        case readNews
        case readGateways
        case readGatewayPorts
        /// All that should be in OVN.
        case readSubjects
        /// Writes down what has happened, and reads what is next.
        case exchange(NorthboundLedger.Job)
        case awaitAnswer(flight: Int)
        case record([Finding])
        case requestControllerSync
    }

    private enum Phase {
        case idle
        /// Another process writes; its work is followed.
        case following
        case looking
        case readingGateways
        case readingGatewayPorts([GatewayCandidate])
        case readingSubjects
        case exchanging(applied: [Int], ports: Set<UUID128>)
        case landing(Landing)
        case lookingAfter(Landing)
        case recording(Landing)
        case asking
    }

    /// Of one plan, as events of their own.
    private static let driftShownMax = 20
    /// How often a subject is made again in one round before it is left to the next audit.
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
    /// Subjects that OVN refused or that somebody keeps changing; compared again with the next audit.
    private(set) var deferredSubjects: Set<NBSubject> = []
    /// How often this round has found a subject otherwise than it had just been made.
    private var reapplyCounts: [NBSubject: Int] = [:]
    /// Rows of switch ports whose state may have changed.
    private var touchedPorts: Set<UUID128> = []
    /// Subjects that are compared although nobody asked for a change: any difference there is drift.
    private var driftCandidates: Set<NBSubject> = []
    /// Subjects that look otherwise because gateways came or went; no drift in this round.
    private var rescheduledGatewayPorts: Set<NBSubject> = []
    /// The plan that OVN has and has not answered.
    private var flight: InFlightPlan?
    private var flights = 0
    private var syncRequestedAt: UInt64?

    /// - Parameters:
    ///   - auditInterval: between two comparisons of everything, in nanoseconds.
    ///   - heartbeatInterval: between two questions to all controllers, in nanoseconds.
    init(compiler: Compiler, auditInterval: UInt64, heartbeatInterval: UInt64) {
        self.compiler = compiler
        self.auditInterval = auditInterval
        self.heartbeatInterval = heartbeatInterval
    }

    /// - Parameter now: of a monotonic clock, in nanoseconds.
    mutating func handle(_ event: Event, at now: UInt64) -> [Effect] {
        switch (phase, event) {
        case (.idle, .woken(let holdsLock, let asked)):
            audit.asked = asked
            phase = holdsLock ? .looking : .following
            return [.readNews]
        case (.following, .news(let news)):
            _ = take(news)
            audit.endedAt = nil
            return finish()
        case (.looking, .news(let news)):
            look(news)
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
            phase = .lookingAfter(landing)
            return [.countOperations(landing.current.plan.operations.count, isAudit: audit.isRunning), .readNews]
        case (.landing(let landing), .answer(.refused(let reason))): return refused(landing, reason)
        case (.lookingAfter(let landing), .news(let news)): return committed(landing, news)
        case (.recording(let landing), .done): return landed(landing)
        case (.asking, .done): return finish()
        // Also what nobody asked for.
        default: return interrupt()
        }
    }

    private mutating func finish() -> [Effect] {
        phase = .idle
        return [.finish]
    }

    /// What was on its way is compared again, in the next round.
    private mutating func interrupt() -> [Effect] {
        switch phase {
        case .exchanging(let applied, let ports):
            changes.applied += applied
            touchedPorts.formUnion(ports)
        case .landing(let landing), .lookingAfter(let landing), .recording(let landing):
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

    // MARK: northbound news

    /// - Parameters:
    ///   - own: the subjects that this process' transactions have just changed; `verify` looks at them.
    ///   - down: ports that are down in the database.
    private mutating func look(_ news: OVSDBChanges, own: Set<NBSubject> = [], down: Set<UUID128> = []) {
        let seen = take(news)
        for row in seen.ports {
            if let port = model.port(row), !port.isUp, down.contains(port.id) { continue }
            touchedPorts.insert(row)
        }
        if !news.changes.isEmpty { hasNewRows = true }
        // The audit that follows compares everything.
        guard !news.reset else { return }
        // What somebody else changed is compared at once.
        let foreign = seen.subjects.subtracting(own)
        pendingSubjects.formUnion(foreign)
        driftCandidates.formUnion(foreign)
    }

    /// What has changed in the database; everything, for an empty model, when a session has begun.
    private mutating func take(_ news: OVSDBChanges) -> (ports: Set<UUID128>, subjects: Set<NBSubject>) {
        if news.reset {
            model = NBModel()
            audit.endedAt = nil
            // One that is under way has compared with what was before.
            audit.isRunning = false
        }
        return model.apply(news.changes)
    }

    // MARK: what is to be done

    private mutating func auditOrWork(_ now: UInt64) -> [Effect] {
        guard audit.isDue(now, every: auditInterval) else { return exchange() }
        phase = .readingSubjects
        return [.readSubjects]
    }

    /// Puts everything on the list: what should be there, and what is there.
    private mutating func beginAudit(_ subjects: Set<NBSubject>) {
        let all = subjects.union(model.subjects)
        // What OVN refused before is no news.
        driftCandidates.formUnion(all.subtracting(deferredSubjects))
        audit.queue = all.union(deferredSubjects).sorted()[...]
        audit.isRunning = true
        deferredSubjects = []
        touchedPorts.formUnion(model.rows.filter { $0.value.table == .logicalSwitchPort }.keys)
    }

    private mutating func exchange() -> [Effect] {
        let job = NorthboundLedger.Job(
            appliedChanges: changes.applied, ports: touchedPorts.compactMap { model.port($0) }, knownChanges: changes.known,
            pendingSubjects: pendingSubjects,
            auditQueue: Array(audit.queue.prefix(NorthboundLedger.auditBatchMax)), driftCandidates: driftCandidates,
            inFlight: Set(flight?.plan.done ?? []))
        phase = .exchanging(applied: changes.applied, ports: touchedPorts)
        changes.applied = []
        touchedPorts = []
        return [.exchange(job)]
    }

    private mutating func proceed(_ work: NorthboundLedger.Work, _ now: UInt64) -> [Effect] {
        for change in work.changes {
            changes.add(change)
            pendingSubjects.formUnion(change.subjects)
        }
        if let landing = flight, work.subjects.count < NorthboundLedger.fullBatchMin {
            // Not much: there may be more when that one is done, and fewer transactions are less work for OVN.
            flight = nil
            return land(landing)
        }
        guard !work.subjects.isEmpty else { return findMore() ? exchange() : endRound(now) }
        let next = start(plan(work.subjects, work.state), work.state)
        let landing = flight
        flight = next
        return (next.map(send) ?? []) + (landing.map { land($0) } ?? exchange())
    }

    /// Whether there is anything left to do.
    private mutating func findMore() -> Bool {
        if hasNewRows, !blockedOnMissingRows.isEmpty {
            pendingSubjects.formUnion(blockedOnMissingRows)
            blockedOnMissingRows = []
        }
        hasNewRows = false
        return !pendingSubjects.isEmpty || !audit.queue.isEmpty || !changes.applied.isEmpty || !touchedPorts.isEmpty
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
        // Asks every controller to say that it is up to date; the answers are the agents' sign of life.
        guard syncRequestedAt.map({ now - $0 > heartbeatInterval }) ?? true else { return effects + finish() }
        syncRequestedAt = now
        phase = .asking
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

    /// Whether nobody has asked for what is about to change. An empty northbound database is a new one.
    private func isDrift(_ subject: NBSubject, _ state: NorthboundState) -> Bool {
        driftCandidates.contains(subject) && !rescheduledGatewayPorts.contains(subject) && !state.changing.contains(subject)
            && (subject != .global || !model.subjects.isEmpty)
    }

    /// - Returns: nil where there is nothing to change.
    private mutating func start(_ plan: Plan, _ state: NorthboundState) -> InFlightPlan? {
        pendingSubjects.subtract(plan.done)
        audit.drop(plan.done)
        let owed = changes.take(plan.done)
        guard !plan.operations.isEmpty else {
            changes.complete(owed)
            close(plan)
            return nil
        }
        return makeFlight(plan, state, owed)
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
        // The model shows the effect by now; that of the other plan may have come too.
        let own = Set(plan.changed.map(\.subject)).union(flight?.plan.changed.map(\.subject) ?? [])
        look(news, own: own, down: state.down.union(flight?.state.down ?? []))
        close(plan)
        let reports = verify(plan)
        guard !plan.drift.isEmpty else { return reports + landed(landing) }
        phase = .recording(landing)
        return reports + [.record(NorthboundMachine.shown(plan.drift))]
    }

    /// Nothing is left to do for its subjects.
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
        // One of them spoils it for all; the others must not wait for it.
        var parts = landing
        parts.isWhole = false
        parts.rest = plan.done[...]
        return tryNext(parts)
    }

    /// The next subject of a plan that OVN refused, by itself.
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

    /// What somebody else changed in the same moment came with the own news: what was made is compared once more.
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
        // What it points at has gone meanwhile, and will be made again.
        blockedOnMissingRows.formUnion(transaction.incomplete)
        driftCandidates.formUnion(transaction.incomplete)
        return reports
    }

    /// A wiped database is one sentence.
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
        /// Those of `done` that are to be changed, as they will be.
        var changed: [(subject: NBSubject, desired: NBDesired)] = []
        var incomplete: Set<NBSubject> = []
        var drift: [Finding] = []
    }

    /// A plan on its way to OVN.
    private struct InFlightPlan {
        let number: Int
        let plan: Plan
        let state: NorthboundState
        /// The changes that its subjects belong to.
        let changes: [NBSubject: [Int]]
    }

    /// A plan whose answer is awaited: whole or, after OVN refused it, subject by subject.
    private struct Landing {
        let flight: InFlightPlan
        var isWhole = true
        var single: InFlightPlan?
        var rest: ArraySlice<NBSubject> = []

        var current: InFlightPlan { single ?? flight }
    }
}
