import Contracts
import Database
import JSON
import Kernel
import Logging
import Synchronization
import TestKit
import Testing
@testable import Workflow

/// The engine: order, repetition, waiting, unwinding, intents, leases.
@Suite struct WorkflowTests {
    /// The recorded events, in order.
    final class Trace: Sendable {
        private let entries = Mutex<[String]>([])
        var all: [String] { entries.withLock { $0 } }
        func add(_ entry: String) { entries.withLock { $0.append(entry) } }
        func count(_ entry: String) -> Int { all.filter { $0 == entry }.count }
    }

    /// The effects that the tests' steps record.
    struct Notes: Codable, Sendable {
        var number: Int?
        var written: String?
    }

    struct Bench: Sendable {
        let database: Database
        let time: ManualTime
        let ambient: Ambient
        let trace = Trace()

        func engine(_ workflows: [Workflow<Notes>], intents: [String: Workflow<Notes>] = [:]) -> WorkflowEngine {
            WorkflowEngine(
                service: "test", definitions: workflows.map(\.definition), intents: intents.mapValues(\.definition), database: database,
                ambient: ambient,
                log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        }

        func engine(of definitions: [WorkflowDefinition]) -> WorkflowEngine {
            WorkflowEngine(
                service: "test", definitions: definitions, database: database, ambient: ambient,
                log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        }

        func step(
            _ name: String, deadline: Duration = .seconds(60),
            run: @escaping @Sendable (inout StepContext, inout Notes) async throws -> StepResult = { _, _ in .next }
        ) -> Workflow<Notes>.Step {
            .init(
                name, deadline: deadline,
                run: { context, notes in
                    trace.add(name)
                    return try await run(&context, &notes)
                }, undo: { _, _ in trace.add("undo \(name)") })
        }

        func workflow(
            _ kind: String, version: Int = 1, alsoRuns: Set<Int> = [], _ steps: [Workflow<Notes>.Step], interruptedBy: Set<String> = []
        ) -> Workflow<Notes> {
            Workflow(
                service: "test", kind: kind, version: version, alsoRuns: alsoRuns, steps: steps, interruptedBy: interruptedBy
            ) { _, _, failure in trace.add("failed: \(failure.message)") }
        }

        func start(_ workflow: Workflow<Notes>, subject: String, notes: Notes = Notes()) async throws {
            _ = try await database.write {
                try Workflows.start($0, workflow, subject: subject, frame: notes, requestID: "req-1", ambient: ambient)
            }
        }

        static let subject0 = "00000000-0000-4000-8000-000000000009"

        func states() async throws -> [String] {
            try await database.read { try $0.query("SELECT state FROM workflows ORDER BY created_at, id").map { try $0.string("state") } }
        }
    }

    func with<Value: Sendable>(_ body: (Bench) async throws -> Value) async throws -> Value {
        try await TestDatabase.with { test in
            let time = ManualTime()
            return try await body(
                Bench(database: test.database, time: time, ambient: Ambient(time: time, random: SeededRandom(seed: 3))))
        }
    }

    @Test func stepsRunInOrderAndKeepTheirFrame() async throws {
        try await with { bench in
            let definition = bench.workflow(
                "plain",
                [
                    bench.step("one") { context, notes in
                        notes.number = 7
                        return .next
                    },
                    bench.step("two") { context, notes in
                        #expect(notes.number == 7)
                        #expect(context.requestID == "req-1")
                        return .goto("four")
                    },
                    bench.step("three"), bench.step("four"),
                ])
            try await bench.start(definition, subject: Bench.subject0)
            try await bench.engine([definition]).drain()
            #expect(bench.trace.all == ["one", "two", "four"])
            #expect(try await bench.states() == ["done"])
        }
    }

    @Test func anUndoHearsThatItTakesTooLong() async throws {
        try await with { bench in
            let waits = Workflow<Notes>.Step(
                "waits", deadline: .seconds(60), run: { _, _ in .next },
                undo: { context, _ in
                    bench.trace.add(context.isLate ? "late" : "waits")
                    if !context.isLate { throw UndoWait(.seconds(25)) }
                })
            // Its own deadline has passed long before the undo begins.
            let fails = bench.step("fails", deadline: .seconds(10)) { _, _ in
                bench.time.advance(by: .seconds(30))
                throw StepFailure("no use")
            }
            let definition = bench.workflow("undone", [waits, fails])
            try await bench.start(definition, subject: Bench.subject0)
            try await bench.engine([definition]).drain()
            #expect(bench.trace.all == ["fails", "undo fails", "waits", "waits", "waits", "late", "failed: no use"])
            #expect(try await bench.states() == ["failed"])
        }
    }

    @Test func transientFailuresAreRetriedAndOthersUnwind() async throws {
        try await with { bench in
            let definition = bench.workflow(
                "healing",
                [
                    bench.step("one"),
                    bench.step("two") { context, notes in
                        if context.attempt < 4 { throw ResourceError.unavailable("away") }
                        return .next
                    },
                    bench.step("three") { _, _ in throw StepFailure("no use", details: "because") },
                ])
            let start = bench.time.now()
            try await bench.start(definition, subject: Bench.subject0)
            try await bench.engine([definition]).drain()
            #expect(
                bench.trace.all == ["one", "two", "two", "two", "two", "three", "undo three", "undo two", "undo one", "failed: no use"])
            #expect(bench.time.now() - start > .milliseconds(1400))
            #expect(try await bench.states() == ["failed"])
        }
    }

    @Test func aWaitEndsAtItsDeadline() async throws {
        try await with { bench in
            let definition = bench.workflow(
                "waiting", [bench.step("one", deadline: .seconds(30)) { _, _ in .wait(.seconds(7)) }])
            try await bench.start(definition, subject: Bench.subject0)
            try await bench.engine([definition]).drain()
            #expect(bench.trace.count("one") == 6)
            #expect(bench.trace.all.last == "failed: The operation did not finish in time.")
        }
    }

    /// A step that was reached by `skip` does not restart with each lease.
    @Test func aWaitAfterASkippedStepEndsAtItsDeadline() async throws {
        try await with { bench in
            let definition = bench.workflow(
                "skipped", [bench.step("one") { _, _ in .skip }, bench.step("two", deadline: .seconds(30)) { _, _ in .wait(.seconds(7)) }])
            try await bench.start(definition, subject: Bench.subject0)
            try await bench.engine([definition]).drain()
            #expect(bench.trace.count("two") == 6)
            #expect(bench.trace.count("undo one") == 0)
            #expect(bench.trace.all.last == "failed: The operation did not finish in time.")
        }
    }

    @Test func anUndoMayWait() async throws {
        try await with { bench in
            let rounds = Trace()
            let step = Workflow<Notes>.Step(
                "one", run: { _, _ in throw StepFailure("no") },
                undo: { _, _ in
                    rounds.add("round")
                    if rounds.all.count < 3 { throw UndoWait(.seconds(1)) }
                })
            let definition = bench.workflow("patient", [step])
            try await bench.start(definition, subject: Bench.subject0)
            try await bench.engine([definition]).drain()
            #expect(rounds.all.count == 3)
            #expect(bench.trace.all == ["failed: no"])
        }
    }

    @Test func anIntentInterruptsAndFollows() async throws {
        try await with { bench in
            let delete = bench.workflow("delete", [bench.step("remove")])
            let create = bench.workflow(
                "create",
                [
                    bench.step("one") { [bench] _, _ in
                        _ = try await bench.database.write { connection in
                            try Workflows.startOrIntend(
                                connection, delete, intent: "delete", subject: Bench.subject0, frame: Notes(), requestID: nil,
                                ambient: bench.ambient)
                        }
                        return .next
                    }, bench.step("two"),
                ], interruptedBy: ["delete"])
            try await bench.start(create, subject: Bench.subject0)
            try await bench.engine([create, delete], intents: ["delete": delete]).drain()
            #expect(bench.trace.all == ["one", "undo two", "undo one", "failed: interrupted by delete", "remove"])
            #expect(try await bench.states().sorted() == ["done", "failed"])
        }
    }

    @Test func aDeadProcessIsFollowedByAnother() async throws {
        try await with { bench in
            let died = Mutex(false)
            let epochs = Mutex<[Int]>([])
            let definition = bench.workflow(
                "mortal",
                [
                    bench.step("one") { context, notes in
                        epochs.withLock { $0.append(context.epoch) }
                        let dies = died.withLock { died in
                            defer { died = true }
                            return !died
                        }
                        if dies { throw SimulatedKill() }
                        return .next
                    }
                ])
            try await bench.start(definition, subject: Bench.subject0)
            try await bench.engine([definition]).drain()
            #expect(bench.trace.all == ["one", "one"])
            let seen = epochs.withLock { $0 }
            #expect(seen.count == 2 && seen[0] < seen[1])
            #expect(try await bench.states() == ["done"])
        }
    }

    @Test func processWithoutLeaseChangesNothing() async throws {
        try await with { bench in
            let definition = bench.workflow(
                "fenced",
                [
                    bench.step("one") { [bench] context, notes in
                        if context.attempt == 1 {
                            let id = context.workflowID
                            _ = try await bench.database.write {
                                try $0.execute("UPDATE workflows SET epoch = epoch + 1, run_at = \(bench.ambient.now) WHERE id = \(id)")
                            }
                            notes.written = "by the loser"
                        }
                        return .next
                    }
                ])
            try await bench.start(definition, subject: Bench.subject0)
            try await bench.engine([definition]).drain()
            let frame = try await bench.database.read { try $0.query("SELECT frame FROM workflows")[0].object("frame") }
            #expect(frame["written"] == nil)
            #expect(bench.trace.all == ["one", "one"])
        }
    }

    /// Neither lease nor deadline nor wait is judged, or made, by the clock of a process.
    @Test(arguments: [-3, 3]) func wrongClocksHaveNoEffect(hours: Int) async throws {
        try await with { bench in
            func store(_ holder: String, _ time: any TimeSource) -> WorkflowStore {
                WorkflowStore(
                    database: bench.database, service: "test", holder: holder, known: ["leased@1"],
                    ambient: Ambient(time: time, random: SeededRandom(seed: 4)))
            }
            let right = store("right", bench.time)
            let wrong = store("wrong", WrongTime(bench.time, by: .seconds(hours * 3600)))
            let definition = bench.workflow("leased", [bench.step("one", deadline: .seconds(30))])
            try await bench.database.write {
                _ = try Workflows.start($0, definition, subject: Bench.subject0, frame: Notes(), requestID: nil, ambient: wrong.ambient)
            }
            let first = try #require(try await right.lease(limit: 1).first)
            #expect(first.deadline == right.ambient.deadline(in: .seconds(30)))
            #expect(try await wrong.lease(limit: 1).isEmpty)
            _ = try await right.record(first, frame: [:], outcome: .pause(.seconds(5), attempts: 0, error: nil))
            #expect(try await wrong.lease(limit: 1).isEmpty)
            #expect(try await wrong.nextRun() == .seconds(5))
            bench.time.advance(by: .seconds(5))
            let second = try #require(try await wrong.lease(limit: 1).first)
            #expect(second.deadline == right.ambient.deadline(in: .seconds(25)))
            _ = try await wrong.record(second, frame: [:], outcome: .pause(.seconds(5), attempts: 0, error: nil))
            bench.time.advance(by: .seconds(5))
            #expect(try await right.lease(limit: 1).count == 1)
        }
    }

    @Test func effectsCommitWithTheStepsRecord() async throws {
        try await with { bench in
            let effect: @Sendable (Connection) throws -> Void = {
                try $0.execute("INSERT INTO inbox (consumer, message_id, received_at) VALUES ('effect', gen_random_uuid(), now())")
            }
            let definition = bench.workflow(
                "committing",
                [
                    bench.step("one") { [bench] context, notes in
                        context.commit(effect)
                        if context.attempt == 1 {
                            let id = context.workflowID
                            _ = try await bench.database.write {
                                try $0.execute("UPDATE workflows SET epoch = epoch + 1, run_at = \(bench.ambient.now) WHERE id = \(id)")
                            }
                        }
                        return .next
                    },
                    bench.step("two") { context, notes in
                        context.commit { _ in throw StepFailure("the effect is refused") }
                        return .done
                    },
                ])
            try await bench.start(definition, subject: Bench.subject0)
            try await bench.engine([definition]).drain()
            #expect(bench.trace.all == ["one", "one", "two", "undo two", "undo one", "failed: the effect is refused"])
            let effects = try await bench.database.read { try $0.query("SELECT count(*) AS count FROM inbox")[0].int("count") }
            #expect(effects == 1)
        }
    }

    @Test func aSkippedStepIsNotUndoneAndAStepMayBeginLater() async throws {
        try await with { bench in
            let definition = bench.workflow(
                "skipping",
                [
                    bench.step("one"), bench.step("two") { _, _ in .skip },
                    bench.step("three") { context, notes in
                        notes.number = 7
                        return .nextAfter(.seconds(3))
                    },
                    bench.step("four") { context, notes in
                        #expect(notes.number == 7)
                        #expect(context.attempt == 1)
                        throw StepFailure("no use")
                    },
                ])
            let start = bench.time.now()
            try await bench.start(definition, subject: Bench.subject0)
            try await bench.engine([definition]).drain()
            #expect(bench.trace.all == ["one", "two", "three", "four", "undo four", "undo three", "undo one", "failed: no use"])
            #expect(bench.time.now() - start >= .seconds(3))
        }
    }

    @Test func aWakeConcernsItsServiceOrAll() {
        func subject(_ payload: String) -> String?? {
            Wake(payload: payload).flatMap { $0.concerns("compute") ? .some($0.subject) : nil }
        }
        #expect(subject("") == .some(nil))
        #expect(subject("compute") == .some(nil))
        #expect(subject("network") == nil)
        #expect(subject(Bench.subject0) == Bench.subject0)
        #expect(subject("compute \(Bench.subject0)") == Bench.subject0)
        #expect(subject("network \(Bench.subject0)") == nil)
    }

    @Test func everyVariantOfTheChecksIsMade() async throws {
        try await with { bench in
            let definition = bench.workflow("checked", [bench.step("one"), bench.step("two")])
            let checks = WorkflowChecks(definition.definition)
            #expect(checks.variants.count == 4 + 1 + 4)
            for variant in checks.variants {
                try await bench.start(definition, subject: bench.ambient.newUUID().description)
                try await bench.engine(of: [variant.definition]).drain()
            }
            let states = try await bench.states()
            #expect(states.filter { $0 == "failed" }.count == 4)
            #expect(states.filter { $0 == "done" }.count == 5)
        }
    }

    /// Finding what is ready must not depend on how much waits.
    @Test func leasingUsesItsIndex() async throws {
        try await with { bench in
            let store = WorkflowStore(
                database: bench.database, service: "test", holder: "1", known: ["k@1", "other@1"], ambient: bench.ambient)
            let ready = store.ready(limit: 32)
            let plan = try await bench.database.write { connection -> String in
                try connection.execute(
                    """
                    INSERT INTO workflows (id, service, kind, subject_id, step, run_at, created_at, updated_at)
                    SELECT gen_random_uuid(), 'test', 'k', gen_random_uuid(), 's', now() + (n || ' seconds')::interval, now(), now()
                    FROM generate_series(1, 20000) n
                    """)
                try connection.script("ANALYZE workflows")
                return try connection.query("EXPLAIN \(ready)").map { try $0.string("QUERY PLAN") }.joined(separator: "\n")
            }
            #expect(plan.contains("workflows_ready"))
            #expect(!plan.contains("Sort"))
        }
    }
}
