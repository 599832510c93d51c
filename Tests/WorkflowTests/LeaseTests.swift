import Contracts
import Database
import JSON
import Kernel
import Synchronization
import TestKit
import Testing
@testable import Workflow

/// Several releases side by side, and leases of long steps.
@Suite struct LeaseTests {
    private typealias Bench = WorkflowTests.Bench
    private typealias Notes = WorkflowTests.Notes

    private func with<Value: Sendable>(_ body: (Bench) async throws -> Value) async throws -> Value {
        try await WorkflowTests().with(body)
    }

    private func row(_ bench: Bench) async throws -> (state: String, step: String, epoch: Int, error: String?) {
        try await bench.database.read { connection in
            let row = try connection.query("SELECT state, step, epoch, last_error FROM workflows ORDER BY created_at, id")[0]
            return (try row.string("state"), try row.string("step"), try row.int("epoch"), try row.optionalString("last_error"))
        }
    }

    // MARK: releases

    @Test func aReplicaLeavesKindsAndVersionsAloneThatItDoesNotKnow() async throws {
        try await with { bench in
            let new = bench.workflow("grown", version: 2, [bench.step("one"), bench.step("added")])
            let old = bench.workflow("grown", [bench.step("one")])
            let other = bench.workflow("other", [bench.step("other")])
            try await bench.start(new, subject: Bench.subject0)
            try await bench.start(other, subject: bench.ambient.newUUID().description)
            try await bench.engine([old]).drain()
            #expect(bench.trace.all == [])
            #expect(try await row(bench).epoch == 0, "it was not even leased")
            try await bench.engine([bench.workflow("grown", version: 3, alsoRuns: [2], [bench.step("one"), bench.step("added")]), other])
                .drain()
            #expect(bench.trace.all.sorted() == ["added", "one", "other"])
            #expect(try await bench.states() == ["done", "done"])
        }
    }

    @Test func twoVersionsOfAKindRunSideBySide() async throws {
        try await with { bench in
            let old = bench.workflow("grown", [bench.step("before")])
            let new = bench.workflow("grown", version: 2, [bench.step("after")])
            try await bench.start(old, subject: bench.ambient.newUUID().description)
            try await bench.start(new, subject: bench.ambient.newUUID().description)
            try await bench.engine([old, new]).drain()
            #expect(bench.trace.all.sorted() == ["after", "before"])
        }
    }

    /// Leases once and checks: a workflow that is set aside would wait forever.
    private func once(_ bench: Bench, _ workflow: Workflow<Notes>) async throws {
        let engine = bench.engine([workflow])
        await #expect(throws: ResourceError.self) { try await engine.drain(roundsMax: 5) }
    }

    @Test func aStepThatIsNotKnownIsNotUnwound() async throws {
        try await with { bench in
            let new = bench.workflow("changed", [bench.step("one"), bench.step("renamed") { _, _ in .wait(.seconds(1)) }])
            try await bench.start(new, subject: Bench.subject0)
            await #expect(throws: ResourceError.self) { try await bench.engine([new]).drain(roundsMax: 8) }
            #expect(try await row(bench).step == "renamed")
            let traced = bench.trace.all.count
            try await once(bench, bench.workflow("changed", [bench.step("one"), bench.step("two")]))
            let after = try await row(bench)
            #expect(after.state == "ready" && after.step == "renamed")
            #expect(after.error == "this release cannot carry it on: changed has no step renamed")
            #expect(bench.trace.all.count == traced, "nothing was run and nothing undone")
            // Its deadline passes in the meantime; the release that knows it continues it nevertheless.
            bench.time.advance(by: .seconds(3600))
            try await once(bench, bench.workflow("changed", [bench.step("one"), bench.step("two")]))
            #expect(try await row(bench).state == "ready")
            let waited = Flag()
            let knowing = bench.workflow(
                "changed",
                [
                    bench.step("one"),
                    bench.step("renamed") { _, _ in
                        if waited.isSet { return .next }
                        waited.set()
                        return .wait(.seconds(1))
                    },
                ])
            try await bench.engine([knowing]).drain()
            #expect(try await row(bench).state == "done")
        }
    }

    @Test func parametersThatCannotBeReadAreNotReplaced() async throws {
        struct Sized: Codable, Sendable { var size: Int }
        try await with { bench in
            try await bench.start(bench.workflow("sized", [bench.step("one")]), subject: Bench.subject0)
            let resize = Workflow<Sized>(
                service: "test", kind: "sized",
                steps: [
                    .init("one") { _, frame in
                        bench.trace.add("size \(frame.size)")
                        return .next
                    }
                ], failed: { _, _, _ in bench.trace.add("failed") })
            let engine = bench.engine(of: [resize.definition])
            await #expect(throws: ResourceError.self) { try await engine.drain(roundsMax: 5) }
            #expect(bench.trace.all == [])
            #expect(try await row(bench).error == "this release cannot carry it on: its parameters cannot be read: size: is missing")
        }
    }

    // MARK: leases

    @Test func theEndOfARunLeavesTheNextRunOfTheSameWorkflowAlone() async throws {
        try await with { bench in
            try await bench.start(bench.workflow("twice", [bench.step("one")]), subject: Bench.subject0)
            let store = WorkflowStore(
                database: bench.database, service: "test", holder: "5", known: ["twice@1"], ambient: bench.ambient)
            let first = try #require(try await store.lease(limit: 1).first)
            _ = try await store.record(first, frame: [:], outcome: .pause(.zero, attempts: 0, error: nil))
            let second = try #require(try await store.lease(limit: 1).first)
            var running = RunningWorkflows()
            for workflow in [first, second] { running.begin(workflow, leaseEnd: 100, isLost: false) }
            #expect(running.lose(first.lease) == nil)
            running.end(first.lease)
            #expect(running.leases == [second.lease])
            let mayBegin = running.beginStep(second.lease, isForward: true, end: nil) {}
            #expect(mayBegin && running.endStep(second.lease) == nil, "it is neither cancelled nor lost")
            // Renewals are queries of leases, not of workflows.
            let held = try await store.renew([first.lease, second.lease])
            #expect(held.count == 1 && held[second.lease] != nil)
        }
    }

    @Test func aRowThatIsLockedIsNotTakenForLost() async throws {
        try await with { bench in
            try await bench.start(bench.workflow("busy", [bench.step("one")]), subject: Bench.subject0)
            let store = WorkflowStore(
                database: bench.database, service: "test", holder: "5", known: ["busy@1"], ambient: bench.ambient)
            let lease = try #require(try await store.lease(limit: 1).first).lease
            let (locked, letGo) = (Flag(), Flag())
            let holder = Task {
                try await bench.database.write { connection in
                    try connection.query("SELECT 1 AS one FROM workflows FOR UPDATE")
                    locked.set()
                    while !letGo.isSet { try connection.query("SELECT pg_sleep(0.01)") }
                }
            }
            while !locked.isSet { await Task.yield() }
            let held = try await store.renew([lease])
            letGo.set()
            try await holder.value
            guard case .busy = held[lease] else {
                Issue.record("\(held)")
                return
            }
        }
    }

    /// A stopping process shows that it is alive until its last step has ended.
    @Test func aStopKeepsTheLeasesUntilTheStepsHaveEnded() async throws {
        try await TestDatabase.with { test in
            let bench = Bench(database: test.database, time: ManualTime(), ambient: Ambient())
            let (entered, cancelled, letGo) = (Flag(), Flag(), Flag())
            let workflow = bench.workflow(
                "stubborn",
                [
                    bench.step("copy") { _, _ in
                        entered.set()
                        while !letGo.isSet {
                            if Task.isCancelled { cancelled.set() }
                            await Task.yield()
                        }
                        return .next
                    }
                ])
            try await bench.start(workflow, subject: Bench.subject0)
            let engine = bench.engine([workflow])
            let run = Task { try await engine.run() }
            while !entered.isSet { await Task.yield() }
            run.cancel()
            while !cancelled.isSet { await Task.yield() }
            // The listening session checks twice a second whether it must end.
            let end = bench.ambient.deadline(in: .milliseconds(1200))
            while bench.ambient.time.monotonicNanoseconds() < end {
                #expect(try await engine.store.orphans().isEmpty)
                try await bench.ambient.time.sleep(for: .milliseconds(50))
            }
            letGo.set()
            try await run.value
            #expect(try await bench.states() == ["done"])
        }
    }

    /// A clock that only the test advances; `sleep` waits for that.
    private final class SteppedTime: TimeSource {
        private let microseconds = Mutex<Int64>(1_790_000_000_000_000)
        func now() -> Timestamp { Timestamp(microseconds: microseconds.withLock { $0 }) }
        func databaseNow() -> Timestamp? { now() }
        func monotonicNanoseconds() -> UInt64 { UInt64(microseconds.withLock { $0 }) * 1000 }
        func advance(by duration: Duration) { microseconds.withLock { $0 += duration.microseconds } }
        func sleep(for duration: Duration) async throws {
            let end = now() + duration
            while now() < end {
                try Task.checkCancellation()
                await Task.yield()
            }
        }
    }

    /// A workflow with one step that runs until it is cancelled or released, an engine that runs it, and another engine.
    private func withLongStep(
        deadline: Duration = .seconds(7200), interruptedBy: Set<String> = [],
        _ body: (_ bench: Bench, _ time: SteppedTime, _ engine: WorkflowEngine, _ other: WorkflowEngine, _ letGo: Flag) async throws -> Void
    ) async throws {
        try await TestDatabase.with { test in
            let time = SteppedTime()
            let ambient = Ambient(time: time, random: SeededRandom(seed: 3))
            let bench = Bench(database: test.database, time: ManualTime(), ambient: ambient)
            let (letGo, entered) = (Flag(), Flag())
            let concurrent = Mutex((now: 0, most: 0))
            let long = bench.workflow(
                "long",
                [
                    bench.step("copy", deadline: deadline) { _, _ in
                        concurrent.withLock { $0 = ($0.now + 1, max($0.most, $0.now + 1)) }
                        defer { concurrent.withLock { $0.now -= 1 } }
                        entered.set()
                        while !letGo.isSet {
                            do { try Task.checkCancellation() } catch {
                                bench.trace.add("cancelled")
                                throw error
                            }
                            await Task.yield()
                        }
                        return .next
                    }
                ], interruptedBy: interruptedBy)
            try await bench.start(long, subject: Bench.subject0)
            let engine = bench.engine([long])
            let other = bench.engine([long])
            let drained = Task { try? await engine.drain(roundsMax: 1) }
            while !entered.isSet { await Task.yield() }
            try await body(bench, time, engine, other, letGo)
            letGo.set()
            _ = await drained.value
            #expect(concurrent.withLock { $0.most } == 1, "one at a time")
        }
    }

    @Test func aStepOfAnHourKeepsItsLease() async throws {
        try await withLongStep { bench, time, engine, other, letGo in
            for _ in 0..<3600 / 10 {
                time.advance(by: .seconds(10))
                engine.cancelOverdue()
                try await engine.renewLeases()
                #expect(try await other.store.lease(limit: 1).isEmpty)
            }
            letGo.set()
            while try await bench.states() != ["done"] { await Task.yield() }
            #expect(bench.trace.all == ["copy"])
            #expect(try await row(bench).epoch == 1)
        }
    }

    @Test func aStepIsCancelledBeforeALeaseThatWasNotRenewedEnds() async throws {
        try await withLongStep { bench, time, engine, other, _ in
            time.advance(by: .seconds(44))
            engine.cancelOverdue()
            #expect(bench.trace.all == ["copy"])
            time.advance(by: .seconds(2))
            engine.cancelOverdue()
            while bench.trace.all != ["copy", "cancelled"] { await Task.yield() }
            let taken = try await other.store.lease(limit: 1)
            #expect(taken.isEmpty, "the lease has not ended yet")
            #expect(try await row(bench).state == "ready", "nothing was recorded")
        }
    }

    @Test func stepWithLostLeaseIsCancelled() async throws {
        try await withLongStep { bench, time, engine, _, _ in
            try await bench.database.write { try $0.execute("UPDATE workflows SET epoch = epoch + 1, lease_holder = 'another'") }
            time.advance(by: .seconds(21))
            try await engine.renewLeases()
            while bench.trace.all != ["copy", "cancelled"] { await Task.yield() }
            #expect(try await row(bench).state == "ready")
        }
    }

    @Test func aStepIsCancelledAtItsDeadlineAndUnwinds() async throws {
        try await withLongStep(deadline: .seconds(30)) { bench, time, engine, _, _ in
            time.advance(by: .seconds(31))
            engine.cancelOverdue()
            while try await bench.states() != ["failed"] { await Task.yield() }
            #expect(bench.trace.all == ["copy", "cancelled", "undo copy", "failed: The operation did not finish in time."])
        }
    }

    @Test func anIntentInterruptsAStepThatTakesLong() async throws {
        try await withLongStep(interruptedBy: ["delete"]) { bench, time, engine, _, _ in
            try await bench.database.write {
                try Workflows.startOrIntend(
                    $0, bench.workflow("delete", [bench.step("remove")]), intent: "delete", subject: Bench.subject0, frame: Notes(),
                    requestID: nil, ambient: bench.ambient)
            }
            time.advance(by: .seconds(21))
            try await engine.renewLeases()
            while try await bench.states() != ["failed"] { await Task.yield() }
            #expect(bench.trace.all == ["copy", "cancelled", "undo copy", "failed: interrupted by delete"])
        }
    }

    /// The lease of a process without a session is taken only after two checks; the lease of a live process is never taken.
    @Test func onlyLeasesOfAbsentHoldersAreFreed() async throws {
        try await with { bench in
            let workflow = bench.workflow("left", [bench.step("one")])
            try await bench.start(workflow, subject: Bench.subject0)
            let store = WorkflowStore(
                database: bench.database, service: "test", holder: "77", known: ["left@1"], ambient: bench.ambient)
            let leased = try #require(try await store.lease(limit: 1).first)
            let orphans = try await store.orphans()
            #expect(orphans == [OrphanedLease(id: leased.id.text, epoch: leased.epoch)])
            // It was leased again in the meantime, so the earlier check does not count.
            #expect(try await store.release([OrphanedLease(id: leased.id.text, epoch: leased.epoch - 1)]) == 0)
            let notifications = bench.database.notifications(.wake, advisoryLock: 77)
            var iterator = notifications.makeAsyncIterator()
            #expect(await iterator.next() == .resync)
            #expect(try await store.orphans().isEmpty)
            #expect(try await store.release(orphans) == 0, "its holder is back")
            #expect(try await store.lease(limit: 1).isEmpty)
            #expect(try await store.releaseUnused(running: [leased.id]) == 0)
            #expect(try await store.releaseUnused(running: []) == 1, "its holder says that it does not run it")
            #expect(try await store.lease(limit: 1).count == 1)
        }
    }

    /// When the session with the lock breaks, the steps end before another process takes their leases.
    @Test func aLostSessionEndsTheSteps() async throws {
        try await TestDatabase.with { test in
            let bench = Bench(database: test.database, time: ManualTime(), ambient: Ambient())
            let epochs = Mutex<[Int]>([])
            let concurrent = Mutex((now: 0, most: 0))
            let workflow = bench.workflow(
                "long",
                [
                    bench.step("copy") { context, _ in
                        let epoch = context.epoch
                        let first = epochs.withLock { epochs in
                            epochs.append(epoch)
                            return epochs.count == 1
                        }
                        concurrent.withLock { $0 = ($0.now + 1, max($0.most, $0.now + 1)) }
                        defer { concurrent.withLock { $0.now -= 1 } }
                        if first { try await bench.ambient.time.sleep(for: .seconds(600)) }
                        return .next
                    }
                ])
            try await bench.start(workflow, subject: Bench.subject0)
            let engine = bench.engine([workflow])
            let run = Task { try await engine.run() }
            defer { run.cancel() }
            while epochs.withLock({ $0.isEmpty }) { try await bench.ambient.time.sleep(for: .milliseconds(5)) }
            let ended = try await bench.database.autocommit {
                try $0.query(
                    """
                    SELECT pg_terminate_backend(pid) AS ended FROM pg_locks WHERE locktype = 'advisory'
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                    """
                ).count
            }
            #expect(ended == 1)
            while try await bench.states() != ["done"] { try await bench.ambient.time.sleep(for: .milliseconds(20)) }
            #expect(epochs.withLock { $0.count } == 2)
            #expect(concurrent.withLock { $0.most } == 1)
        }
    }
}
