import Database
import Kernel
import Schema

/// PostgreSQL with one session for all processes: a transaction is one indivisible event.
final class SimulatedStore: @unchecked Sendable {
    private struct Listener {
        let process: SimulatedProcess
        let channels: Set<String>
        let lock: Int?
        let stream: AsyncStream<Notification>.Continuation
        var deafUntil: UInt64 = 0
    }

    struct Away: Error {}

    private let connection: Connection
    private var listeners: [Int: Listener] = [:]
    private var channels: Set<String> = []
    private var numbers = 0
    /// No statement returns before this time.
    var awayUntil: UInt64 = 0

    /// - Parameter server: a connection string to any database of a server on which databases can be created.
    init(server: String) throws {
        let name = "simulation_\(SystemRandom().uuid().compact)"
        let admin = Connection(configuration: DatabaseConfiguration(connectionString: server))
        try admin.script("CREATE DATABASE \(name)")
        connection = Connection(configuration: DatabaseConfiguration(connectionString: "\(server) dbname=\(name)"))
        databaseName = name
        try prepare()
    }

    let databaseName: String

    private func prepare() throws {
        try connection.script(
            "CREATE TABLE schema_migrations (number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        for migration in Schema.migrations { try migration.run(connection) }
        // Plans and the order of rows must not depend on earlier runs in this database.
        try connection.script("SET plan_cache_mode = force_generic_plan; SET jit = off; SET synchronous_commit = off")
        try connection.script(
            "UPDATE volume_types SET id = '77777777-7777-4777-8777-777777777777', created_at = '2026-01-01'; CREATE SCHEMA baseline")
        for table in try tables() {
            try connection.script("ALTER TABLE public.\(table) SET (autovacuum_enabled = false)")
            if try !connection.query("SELECT 1 AS one FROM \(raw: table) LIMIT 1").isEmpty {
                try connection.script("CREATE TABLE baseline.\(table) AS SELECT * FROM public.\(table)")
            }
        }
    }

    /// Deletes the database.
    func drop(server: String) {
        do {
            try Connection(configuration: DatabaseConfiguration(connectionString: server)).script(
                "DROP DATABASE \(databaseName) WITH (FORCE)")
        } catch { print("the database \(databaseName) stays: \(error)") }
    }

    private func tables() throws -> [String] {
        try connection.query(
            "SELECT tablename::text AS name FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_migrations' ORDER BY 1"
        )
        .map { try $0.string("name") }
    }

    /// Resets the database to its state after the migrations.
    func reset() throws {
        listeners = [:]
        awayUntil = 0
        try connection.allowWrites()
        try connection.script("SELECT pg_advisory_unlock_all()")
        let used = try connection.query(
            """
            SELECT relname::text AS name FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'schema_migrations'
            AND pg_relation_size(oid) > 0 ORDER BY 1
            """
        ).map { try $0.string("name") }
        if !used.isEmpty { try connection.script("TRUNCATE \(used.joined(separator: ", ")) RESTART IDENTITY CASCADE") }
        let kept = try connection.query("SELECT tablename::text AS name FROM pg_tables WHERE schemaname = 'baseline' ORDER BY 1")
            .map { try $0.string("name") }
        try connection.script("SET session_replication_role = replica")
        for table in kept { try connection.script("INSERT INTO public.\(table) SELECT * FROM baseline.\(table)") }
        try connection.script("SET session_replication_role = DEFAULT")
        try connection.script("SELECT setval('network_segment_ids', 1, false)")
        _ = try connection.awaitNotifications(timeoutMilliseconds: 0, isOwn: { _ in false })
    }

    /// Statements of the run itself, without faults and without simulated time.
    func look<Value>(_ body: (Connection) throws -> Value) throws -> Value {
        defer { connection.beforeStatement = nil }
        connection.beforeStatement = nil
        return try body(connection)
    }

    // MARK: statements of processes

    /// Runs a transaction's body; the statement with the number `failing` gets no response.
    func perform<Value>(_ world: World, failing: Int?, _ body: (Connection) throws -> Value) throws -> Value {
        var left = failing ?? Int.max
        connection.beforeStatement = {
            left -= 1
            if left < 0 { throw Away() }
        }
        defer { connection.beforeStatement = nil }
        let value = try body(connection)
        for notification in try connection.awaitNotifications(timeoutMilliseconds: 0, isOwn: { _ in false }) { tell(world, notification) }
        return value
    }

    // MARK: notifications

    private func tell(_ world: World, _ notification: Notification) {
        for number in listeners.keys.sorted() {
            guard let listener = listeners[number], listener.channels.contains(notification.channel) else { continue }
            if listener.deafUntil > world.executor.now { continue }
            if world.happens(world.faults.deaf, "deaf") {
                let silence = world.between(.milliseconds(200), .seconds(6))
                listeners[number]?.deafUntil = world.executor.now + UInt64(silence.microseconds) * 1000
                if let lock = listener.lock { lose(lock, of: listener, within: silence, in: world) }
                world.executor.after(silence) { [self] in
                    guard listener.process.isAlive, listeners[number] != nil else { return }
                    if let lock = listener.lock { change(lock, "SELECT pg_advisory_lock_shared(\(lock))", listener) }
                    listener.stream.yield(.resync)
                }
                continue
            }
            world.executor.after(world.between(.microseconds(100), .milliseconds(3))) {
                if listener.process.isAlive { listener.stream.yield(notification) }
            }
        }
    }

    /// PostgreSQL releases the lock at once; the process notices a little later, but before it has a session again.
    private func lose(_ lock: Int, of listener: Listener, within silence: Duration, in world: World) {
        change(lock, "SELECT pg_advisory_unlock_shared(\(lock))", listener)
        world.executor.after(world.between(.milliseconds(1), min(.milliseconds(700), silence))) {
            if listener.process.isAlive { listener.stream.yield(.lost) }
        }
    }

    private func change(_ lock: Int, _ statement: SQL, _ listener: Listener) {
        do { try look { _ = try $0.query(statement) } } catch {
            listener.process.world.violation("the lock \(lock) cannot be changed: \(error)")
        }
    }

    func listen(_ process: SimulatedProcess, _ wanted: [String], lock: Int?) -> AsyncStream<Notification> {
        let (stream, continuation) = AsyncStream.makeStream(of: Notification.self)
        numbers += 1
        let number = numbers
        listeners[number] = Listener(process: process, channels: Set(wanted), lock: lock, stream: continuation)
        do {
            try look { connection in
                for channel in wanted where channels.insert(channel).inserted { try connection.script("LISTEN \"\(channel)\"") }
                if let lock { try connection.query("SELECT pg_advisory_lock_shared(\(lock))") }
            }
        } catch { process.world.violation("cannot listen: \(error)") }
        continuation.yield(.resync)
        return stream
    }

    func forget(_ process: SimulatedProcess) {
        for (number, listener) in listeners.sorted(by: { $0.key < $1.key }) where listener.process === process {
            listener.stream.finish()
            listeners[number] = nil
            guard let lock = listener.lock else { continue }
            do { try look { _ = try $0.query("SELECT pg_advisory_unlock_shared(\(lock))") } } catch {
                process.world.violation("cannot unlock: \(error)")
            }
        }
    }
}

/// The database from the view of one process.
struct ProcessSession: InlineSession {
    let process: SimulatedProcess

    func run<Value: Sendable>(_ body: @Sendable (Connection) throws -> Value) async throws -> Value {
        let world = process.world
        try await process.reach("store")
        if world.happens(world.faults.storeSlow, "slow store") {
            try await process.ambient.time.sleep(for: world.between(.milliseconds(100), .seconds(6)))
        }
        if world.store.awayUntil > world.executor.now || world.happens(world.faults.storeAway, "store away") {
            world.trace("\(process.name) store away")
            throw ResourceError.unavailable("the database is away")
        }
        let failing = world.happens(world.faults.statements, "statement lost") ? world.random.below(6) : nil
        let value: Value
        do {
            value = try world.store.perform(world, failing: failing, body)
            world.trace("\(process.name) transaction")
        } catch is SimulatedStore.Away {
            world.trace("\(process.name) transaction broken")
            throw ResourceError.unavailable("the database went away")
        } catch {
            world.trace("\(process.name) transaction failed \(error)")
            throw error
        }
        try await process.reach("stored")
        if world.happens(world.faults.lostCommits, "commit unknown") {
            world.trace("\(process.name) commit unknown")
            throw DatabaseError.lostCommit
        }
        return value
    }

    func notifications(_ channels: [String], advisoryLock: Int?) -> AsyncStream<Notification> {
        guard process.isAlive else { return AsyncStream { $0.finish() } }
        return process.world.store.listen(process, channels, lock: advisoryLock)
    }
}
