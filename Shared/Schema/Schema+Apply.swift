package import Database
import Glibc
package import Kernel

/// Applies migrations: one process at a time, each migration completely or not at all.
///
/// `schema_migrations` contains the migrations that a build must know: the base and contracting migrations. `schema_expansions`
/// contains the others. Release 0.1.0 only reads the first table and starts if it ends with its own newest migration; so it
/// starts on an expanded database and refuses a contracted one (docs/adr/0012-expand-and-contract.md).
extension Schema {
    /// Key of the advisory lock: exclusive while migrations run, shared while a replica joins.
    static let lockKey = 0x776f_6c6b
    /// How long a migration waits for a table's lock before it lets the statements waiting behind it pass.
    private static let lockTimeout = "3s"
    private static let attemptsMax = 20

    /// Applies the missing expanding migrations, and on an empty database all migrations. Several processes may call it at once,
    /// and services may be running.
    ///
    /// - Returns: the numbers of the applied migrations.
    /// - Throws: `ResourceError` if the database was contracted beyond this build; `DatabaseError` if a migration fails, which is
    ///   then rolled back completely.
    @discardableResult
    package static func migrate(_ database: Database, migrations: [Migration] = Schema.migrations) async throws -> [Int] {
        try await exclusively(database) { try expand($0, migrations) }
    }

    /// Applies the migrations of `migrate`, then the contracting migrations in order, each once no replica runs that does not
    /// know it.
    ///
    /// - Returns: the numbers of the applied migrations.
    /// - Throws: `ResourceError` naming the replicas that a migration would break; earlier migrations are applied. Otherwise as
    ///   `migrate`.
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
                        "migration \(migration.number) (\(migration.name)) would break running processes; stop these first:\n  "
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

    /// Throws if this build cannot work on the database.
    ///
    /// - Throws: `ResourceError` naming both versions and the remedy.
    package static func require(_ database: Database, migrations: [Migration] = Schema.migrations) async throws {
        try await state(database).requireUsable(migrations)
    }

    // MARK: steps

    private static func exclusively<Value: Sendable>(
        _ database: Database, _ body: @escaping @Sendable (Connection) throws -> Value
    ) async throws -> Value {
        try await database.autocommit { connection in
            // Polled, because a waiting statement holds a snapshot, for which a concurrent index build would wait in turn.
            while try !connection.query("SELECT pg_try_advisory_lock(\(lockKey)) AS held")[0].bool("held") { usleep(50_000) }
            // If the session breaks, PostgreSQL releases the lock.
            defer { do { try connection.query("SELECT pg_advisory_unlock(\(lockKey))") } catch {} }
            return try body(connection)
        }
    }

    private static func expand(_ connection: Connection, _ migrations: [Migration]) throws -> [Int] {
        try prepareRecords(connection)
        let state = try SchemaState.read(connection)
        try state.requireKnown(migrations)
        // No service can run on an empty database, so a migration cannot break any.
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
                // A broken session has been rolled back already.
                do { try connection.script("ROLLBACK") } catch {}
                guard let error = error as? DatabaseError, error.isLockTimeout || error.isRetryable, attempt < attemptsMax else {
                    throw error
                }
                usleep(200_000)
            }
        }
    }

    /// Recorded after all statements, so that an interrupted attempt is repeated.
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
