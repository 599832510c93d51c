import ArgumentParser
import Database
import Kernel
import Logging
import Synchronization
import Workflow

/// The workflow engine with a backlog: steps that do nothing, each written down.
struct StepRate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "steps", abstract: "Runs workflows that never end; prints steps per second.")

    @Option(help: "libpq connection string of a database with the schema.")
    var database: String

    @Option(help: "Workflows that are ready all the time.")
    var ready = 100

    @Option(help: "Sessions with PostgreSQL, as a service has by default.")
    var connections = 8

    @Option(help: "Seconds.")
    var seconds = 3

    func run() async throws {
        let ambient = Ambient()
        let pool = Database(DatabaseConfiguration(connectionString: database, connectionsMax: connections))
        let service = "bench-\(ready)"
        let counted = StepCounter()
        let definition = Workflow<NoFrame>(
            service: service, kind: "bench",
            steps: [
                .init("step", deadline: .seconds(86_400)) { _ in
                    counted.add()
                    return .wait(.zero)
                }
            ], retriesForever: true, failed: { _, _ in }
        ).definition
        try await fill(pool, definition, at: ambient.now)
        let engine = WorkflowEngine(
            service: service, definitions: [definition], database: pool, ambient: ambient,
            log: Logger(label: "wolke-bench"))
        let running = Task { try await engine.run() }
        try await ambient.time.sleep(for: .milliseconds(500))
        let before = counted.count
        let begun = ambient.time.monotonicNanoseconds()
        try await ambient.time.sleep(for: .seconds(seconds))
        let rate = Double(counted.count - before) * 1e9 / Double(ambient.time.monotonicNanoseconds() - begun)
        running.cancel()
        _ = await running.result
        try await pool.write { try $0.execute("DELETE FROM workflows WHERE service = \(service)") }
        print("{\"steps_per_second\": \(rate)}")
    }

    private func fill(_ pool: Database, _ definition: WorkflowDefinition, at now: Timestamp) async throws {
        let ready = ready
        try await pool.write { connection in
            try connection.execute("DELETE FROM workflows WHERE service = \(definition.service)")
            try connection.execute(
                """
                INSERT INTO workflows (id, service, kind, subject_id, step, run_at, deadline, created_at, updated_at)
                SELECT gen_random_uuid(), \(definition.service), \(definition.kind), gen_random_uuid(), 'step', \(now)::timestamptz,
                    \(now)::timestamptz + interval '1 day', \(now)::timestamptz, \(now)::timestamptz
                FROM generate_series(1, \(ready)::bigint)
                """)
        }
        // What the filling itself leaves behind is not to be cleaned up while the engine is measured.
        try await pool.autocommit { try $0.script("VACUUM (ANALYZE) workflows") }
    }
}

private final class StepCounter: Sendable {
    private let steps = Atomic<Int>(0)
    var count: Int { steps.load(ordering: .relaxed) }
    func add() { steps.wrappingAdd(1, ordering: .relaxed) }
}
