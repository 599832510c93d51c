import Kernel
import NetworkCore
import ServiceCatalog
import Testing

@testable import NetworkService
@testable import OVSDB

/// The reconciler's decisions, with OVN and PostgreSQL simulated as values.
@Suite struct NorthboundMachineTests {
    /// Carries out effects as the worker does.
    private struct Bench {
        enum Fate: Equatable {
            case commit
            case refuse
            /// The session ends, before or after OVN has applied the change.
            case lose(applied: Bool)
        }

        static let second: UInt64 = 1_000_000_000
        var machine = NorthboundMachine(compiler: Compiler(), auditInterval: 300 * second, heartbeatInterval: 30 * second)
        var now = second
        var holdsLock = true
        var gateways: [GatewayCandidate]? = []
        /// PostgreSQL.
        var networks: [UUID128: Network] = [:]
        var changes: [NorthboundLedger.Change] = []
        var failsToRead = false
        /// OVN: rows by id, and updates that the monitor has not sent yet.
        var rows: [UUID128: OVSDBRow] = [:]
        var news = OVSDBChanges(reset: true, changes: [])
        /// The outcome of a plan.
        var fate: @Sendable (_ subjects: [String]) -> Fate = { _ in .commit }
        /// A change by another client right after a plan.
        var meddles = false
        // Recorded events.
        var sent: [[String]] = []
        var log: [String] = []
        var drift: [Finding] = []
        var exchanges = 0
        private var fates: [Int: Fate] = [:]

        mutating func add(_ name: Int) {
            let network = Network(id: UUID128(high: 1, low: UInt64(name)), projectID: "p", name: "n\(name)")
            networks[network.id] = network
            changes.append(.init(id: changes.count + 1, subjects: [.network(network.id)]))
        }

        var names: [String] { rows.values.compactMap { $0["name"]?.string }.sorted() }
        var wanted: [String] { networks.keys.map(\.description).sorted() }

        /// One round, as after a wake-up.
        mutating func round(auditsAsked: Int = 0) throws {
            var event = NorthboundMachine.Event.woken(holdsLock: holdsLock, auditsAsked: auditsAsked)
            for _ in 0..<1000 {
                var next: NorthboundMachine.Event?
                for effect in machine.handle(event, at: now) {
                    if case .finish = effect { return }
                    next = try perform(effect)
                }
                event = try #require(next)
            }
            Issue.record("the round does not end")
        }

        private mutating func perform(_ effect: NorthboundMachine.Effect) throws -> NorthboundMachine.Event? {
            switch effect {
            case .readNews:
                defer { news = OVSDBChanges(reset: false, changes: []) }
                return .news(news)
            case .readGateways: return .gateways(gateways)
            case .readGatewayPorts: return .gatewayPorts([])
            case .readSubjects:
                log.append("audit")
                return .allSubjects(Set(networks.keys.map { .network($0) }))
            case .exchange(let job): return failsToRead ? .failed : .work(exchange(job))
            case .send(let flight, let operations): try send(flight, operations)
            case .awaitAnswer(let flight):
                switch fates.removeValue(forKey: flight) {
                case .commit: return .answer(.committed)
                case .refuse: return .answer(.refused("constraint violation"))
                case .lose, nil: return .failed
                }
            case .discard(let flight):
                fates[flight] = nil
                log.append("discard")
            case .record(let findings):
                drift += findings
                return .done
            case .requestControllerSync:
                log.append("ask")
                return .done
            case .countOperations: break
            case .reportRefusal(let subject, _): log.append("refused \(subject)")
            case .reportUnkept(let subject): log.append("unkept \(subject)")
            case .auditDone(let number): log.append("audited \(number)")
            case .finish: break
            }
            return nil
        }

        private mutating func exchange(_ job: NorthboundLedger.Job) -> NorthboundLedger.Work {
            exchanges += 1
            changes.removeAll { job.appliedChanges.contains($0.id) }
            var work = NorthboundLedger.Work()
            work.changes = changes.filter { !job.knownChanges.contains($0.id) }
            var subjects = job.pendingSubjects.union(work.changes.flatMap(\.subjects)).subtracting(job.inFlight)
            subjects = Set(subjects.sorted().prefix(NorthboundLedger.subjectsMax))
            work.subjects = subjects.union(Set(job.auditQueue).subtracting(job.inFlight)).sorted()
            work.state.networks = networks
            work.state.changing = Set(changes.flatMap(\.subjects))
            return work
        }

        private mutating func send(_ flight: Int, _ operations: [NBOperation]) throws {
            var names: [String] = []
            var fresh: [(UUID128, OVSDBRow)] = []
            for case .insert(_, let name, let row) in operations {
                let id = try #require(
                    UUID128(row["name"]?.atoms.compactMap { if case .string(let text) = $0 { text } else { nil } }.first ?? ""))
                names.append(id.description)
                fresh.append((UUID128(high: 9, low: id.low &* 1000 &+ UInt64(name.utf8.count) &+ now), try wire(row)))
            }
            sent.append(names)
            let fate = fate(names)
            fates[flight] = fate
            guard fate == .commit || fate == .lose(applied: true) else { return }
            for case .delete(_, let id) in operations { delete(id) }
            for (id, row) in fresh {
                insert(id, row)
                if meddles { delete(id) }
            }
        }

        private func wire(_ row: NBColumns) throws -> OVSDBRow {
            try row.mapValues { value in
                switch value {
                case .set(let atoms): .set(try atoms.mapped { try NorthboundConversion.atom($0) })
                case .map(let entries): OVSDBValue(entries)
                }
            }
        }

        mutating func insert(_ id: UUID128, _ row: OVSDBRow) {
            rows[id] = row
            news.changes.append(OVSDBRowChange(table: "Logical_Switch", uuid: id, kind: .inserted(row)))
        }

        mutating func delete(_ id: UUID128) {
            rows[id] = nil
            news.changes.append(OVSDBRowChange(table: "Logical_Switch", uuid: id, kind: .deleted))
        }

        /// A new session: the monitor sends everything again.
        mutating func reconnect() {
            news = OVSDBChanges(
                reset: true, changes: rows.map { OVSDBRowChange(table: "Logical_Switch", uuid: $0.key, kind: .inserted($0.value)) })
        }
    }

    @Test func aChangeIsMadeOnceAndForgotten() throws {
        var bench = Bench()
        try bench.round()
        #expect(bench.log == ["audit", "audited 0", "ask"])
        bench.add(1)
        try bench.round()
        #expect(bench.names == bench.wanted && bench.changes.isEmpty && bench.sent.count == 1)
        try bench.round()
        #expect(bench.sent.count == 1 && bench.drift.isEmpty && bench.log.count == 3)
    }

    @Test func manyChangesArePlannedWhileOthersAreOnTheirWay() throws {
        var bench = Bench()
        for name in 1...700 { bench.add(name) }
        try bench.round()
        #expect(bench.names == bench.wanted && bench.changes.isEmpty)
        #expect(bench.sent.map(\.count).reduce(0, +) == 700 && bench.sent.count >= 3)
        #expect(bench.drift.isEmpty)
    }

    /// The answer is lost: whether OVN has applied the change or not, it is applied exactly once in the end.
    @Test(arguments: [true, false]) func aLostAnswerIsNoLostChange(_ applied: Bool) throws {
        var bench = Bench()
        try bench.round()
        for name in 1...700 { bench.add(name) }
        bench.fate = { _ in .lose(applied: applied) }
        try bench.round()
        #expect(bench.changes.count == 700, "nothing is forgotten before OVN has it")
        #expect(bench.log.contains("discard"), "the plan behind it ends too")
        bench.fate = { _ in .commit }
        bench.reconnect()
        try bench.round()
        #expect(bench.names == bench.wanted && bench.changes.isEmpty)
        #expect(bench.drift.isEmpty, "requested changes are not counted as drift: \(bench.drift.prefix(3))")
    }

    @Test func failedReadsAreRepeated() throws {
        var bench = Bench()
        bench.add(1)
        bench.failsToRead = true
        try bench.round()
        try bench.round()
        #expect(bench.sent.isEmpty)
        bench.failsToRead = false
        try bench.round()
        #expect(bench.names == bench.wanted && bench.changes.isEmpty)
        // Also events that are only recorded.
        bench.add(2)
        try bench.round()
        #expect(bench.names == bench.wanted && bench.changes.isEmpty)
    }

    /// Without the lock the changes of the other process are followed; with it, everything is compared first.
    @Test func takingOverComparesEverything() throws {
        var bench = Bench()
        bench.holdsLock = false
        bench.add(1)
        try bench.round()
        #expect(bench.sent.isEmpty && bench.log.isEmpty && bench.changes.count == 1)
        var other = Bench()
        other.add(1)
        try other.round()
        for (id, row) in other.rows { bench.insert(id, row) }
        try bench.round()
        #expect(bench.machine.model.subjects == [.network(UUID128(high: 1, low: 1))])
        bench.holdsLock = true
        try bench.round()
        #expect(bench.log.prefix(2) == ["audit", "audited 0"] && bench.sent.isEmpty && bench.changes.isEmpty)
        // Lost and acquired again.
        bench.holdsLock = false
        try bench.round()
        bench.holdsLock = true
        try bench.round()
        #expect(bench.log.filter { $0 == "audit" }.count == 2)
    }

    @Test func aNewSessionComparesEverything() throws {
        var bench = Bench()
        for name in 1...3 { bench.add(name) }
        try bench.round()
        // Wiped between sessions.
        bench.rows = [:]
        bench.reconnect()
        try bench.round()
        #expect(bench.names == bench.wanted)
        #expect(bench.drift.count == 3 && bench.log.filter { $0 == "audit" }.count == 2)
    }

    @Test func aWipedDatabaseIsFewFindings() throws {
        var bench = Bench()
        for name in 1...50 { bench.add(name) }
        try bench.round()
        bench.rows = [:]
        bench.reconnect()
        try bench.round()
        #expect(bench.names == bench.wanted)
        #expect(bench.drift.count == 4 && bench.drift.last?.words == "OVN did not agree with 47 more subjects")
    }

    /// A change that OVN refuses does not block others, and is only retried in the next audit.
    @Test func aRefusedSubjectWaitsForTheNextAudit() throws {
        var bench = Bench()
        try bench.round()
        for name in 1...3 { bench.add(name) }
        let bad = UUID128(high: 1, low: 2).description
        bench.fate = { $0.contains(bad) ? .refuse : .commit }
        try bench.round()
        #expect(bench.names == bench.wanted.filter { $0 != bad } && bench.changes.isEmpty)
        #expect(bench.sent.count == 4 && bench.log.last == "refused network/\(bad)")
        try bench.round()
        #expect(bench.sent.count == 4)
        bench.fate = { _ in .commit }
        bench.now += 301 * Bench.second
        try bench.round()
        #expect(bench.names == bench.wanted)
        #expect(bench.drift.isEmpty, "what OVN refused before is no news")
    }

    /// Another client removes every change: the round still ends.
    @Test func repeatedlyRevertedSubjectsWaitForTheNextAudit() throws {
        var bench = Bench()
        try bench.round()
        bench.add(1)
        bench.meddles = true
        try bench.round()
        #expect(bench.names.isEmpty && bench.sent.count == 6)
        #expect(bench.log.last == "unkept network/\(UUID128(high: 1, low: 1))")
        bench.meddles = false
        try bench.round(auditsAsked: 1)
        #expect(bench.names == bench.wanted && bench.log.contains("audited 1"))
    }

    @Test func foreignChangesAreDrift() throws {
        var bench = Bench()
        bench.add(1)
        try bench.round()
        bench.delete(try #require(bench.rows.keys.first))
        try bench.round()
        #expect(bench.names == bench.wanted && bench.drift.map(\.invariant) == ["I12"])
        #expect(bench.log.filter { $0 == "audit" }.count == 1)
    }

    @Test func auditsAndQuestionsFollowTheClockAndRequests() throws {
        var bench = Bench()
        try bench.round()
        bench.now += 29 * Bench.second
        try bench.round()
        #expect(bench.log == ["audit", "audited 0", "ask"])
        bench.now += 2 * Bench.second
        try bench.round()
        #expect(bench.log.last == "ask" && bench.log.count == 4)
        try bench.round(auditsAsked: 1)
        #expect(bench.log.suffix(2) == ["audit", "audited 1"])
        try bench.round(auditsAsked: 1)
        #expect(bench.log.count == 6)
        bench.now += 301 * Bench.second
        try bench.round(auditsAsked: 1)
        #expect(bench.log.suffix(3) == ["audit", "audited 1", "ask"])
    }

    @Test func changesWaitForTheHypervisors() throws {
        var bench = Bench()
        bench.gateways = nil
        bench.add(1)
        try bench.round()
        #expect(bench.exchanges == 0 && bench.sent.isEmpty)
    }
}
