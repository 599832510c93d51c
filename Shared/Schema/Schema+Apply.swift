import Database
import Glibc
import Kernel

/// Applying migrations: one process at a time, each migration whole or not at all.
///
/// `schema_migrations` holds what a build must know: the base and contracting migrations. `schema_expansions` holds the
/// others. Release 0.1.0 reads only the first table and starts when that ends with its own newest migration; so it starts
/// on an expanded database, and refuses a contracted one (docs/adr/0012-expand-and-contract.md).
extension Schema {
    /// Key of the advisory lock: exclusive while migrations run, shared while a replica joins.
    static let lockKey = 0x776f_6c6b
    /// How long a migration waits for a table's lock before it lets the statements pass that wait behind it.
    private static let lockTimeout = "3s"
    private static let attemptsMax = 20

    /// Applies the expanding migrations that are missing, and all of them to an empty database. Safe to run from several
    /// processes at once, and while services run.
    ///
    /// - Returns: the numbers that were applied.
    /// - Throws: `ResourceError` when the database was contracted beyond this build; `DatabaseError` when a migration
    ///   fails, which is then undone whole.
    @discardableResult
    package static func migrate(_ database: Database, migrations: [Migration] = Schema.migrations) async throws -> [Int] {
        try await exclusively(database) { try expand($0, migrations) }
    }

    /// Applies what `migrate` applies, then the contracting migrations in order, each once no replica runs that does not
    /// know it.
    ///
    /// - Returns: the numbers that were applied.
    /// - Throws: `ResourceError` that names the replicas which would break; those before are applied. Otherwise as `migrate`.
    @discardableResult
    package static func contract(
        _ database: Database, migrations: [Migration] = Schema.migrations, ambient: Ambient = Ambient()
    ) async throws -> [Int] {
        try await exclusively(database) { connection in
            var applied = try expand(connection, migrations)
            for migration in try SchemaState.read(connection).pending(migrations) {
                let blockers = try Replicas.blockers(connection, of: migration.number, ambient)
                guard blockers.isEmpty else {
                    throw ResourceError(
                        .conflict,
                        "migration \(migration.number) (\(migration.name)) would break what runs; stop first:\n  "
                            + blockers.joined(separator: "\n  "))
                }
                try apply(connection, migration)
                applied.append(migration.number)
            }
            return applied
        }
    }

    /// The database's state.
    package static func state(_ database: Database) async throws -> SchemaState {
        try await database.read { try SchemaState.read($0) }
    }

    /// Refuses to go on where this build cannot work on the database.
    ///
    /// - Throws: `ResourceError` naming both versions and what to do.
    package static func require(_ database: Database, migrations: [Migration] = Schema.migrations) async throws {
        try await state(database).requireUsable(migrations)
    }

    // MARK: steps

    private static func exclusively<Value: Sendable>(
        _ database: Database, _ body: @escaping @Sendable (Connection) throws -> Value
    ) async throws -> Value {
        try await database.autocommit { connection in
            // Polled: a statement that waits holds a snapshot, which an index built concurrently would wait for in turn.
            while try !connection.query("SELECT pg_try_advisory_lock(\(lockKey)) AS held")[0].bool("held") { usleep(50_000) }
            // Where the session breaks, PostgreSQL releases the lock.
            defer { do { try connection.query("SELECT pg_advisory_unlock(\(lockKey))") } catch {} }
            return try body(connection)
        }
    }

    private static func expand(_ connection: Connection, _ migrations: [Migration]) throws -> [Int] {
        try prepareRecords(connection)
        let state = try SchemaState.read(connection)
        try state.requireKnown(migrations)
        // Nothing can run on an empty database, so nothing can break.
        let wanted = state.applied.isEmpty ? migrations : state.missing(migrations)
        for migration in wanted { try apply(connection, migration) }
        return wanted.map(\.number)
    }

    private static func prepareRecords(_ connection: Connection) throws {
        try connection.script(
            """
            CREATE TABLE IF NOT EXISTS schema_migrations (
                number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
            CREATE TABLE IF NOT EXISTS schema_expansions (
                number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now(), release text NOT NULL)
            """)
        let columns = try connection.query(
            """
            SELECT 1 FROM pg_attribute
            WHERE attrelid = 'schema_migrations'::regclass AND attname = 'release' AND NOT attisdropped
            """)
        if columns.isEmpty { try connection.script("ALTER TABLE schema_migrations ADD COLUMN release text") }
    }

    private static func apply(_ connection: Connection, _ migration: Migration) throws {
        if migration.kind == .index { return try applyIndexes(connection, migration) }
        for attempt in 1... {
            do {
                try connection.script("BEGIN; SET LOCAL lock_timeout = '\(lockTimeout)'")
                try migration.run(connection)
                try record(connection, migration)
                try connection.script("COMMIT")
                return
            } catch {
                // A broken session has rolled back already.
                do { try connection.script("ROLLBACK") } catch {}
                guard let error = error as? DatabaseError, error.isLockTimeout || error.isRetryable, attempt < attemptsMax else {
                    throw error
                }
                usleep(200_000)
            }
        }
    }

    /// Recorded once all are there: an attempt that was cut short is repeated.
    private static func applyIndexes(_ connection: Connection, _ migration: Migration) throws {
        try migration.run(connection)
        try record(connection, migration)
    }

    private static func record(_ connection: Connection, _ migration: Migration) throws {
        let (number, name, release) = (migration.number, migration.name, WolkeVersion.current)
        if migration.kind == .contract || number <= base {
            try connection.execute("INSERT INTO schema_migrations (number, name, release) VALUES (\(number), \(name), \(release))")
        } else {
            try connection.execute("INSERT INTO schema_expansions (number, name, release) VALUES (\(number), \(name), \(release))")
        }
    }
}
