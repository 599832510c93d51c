import Database
import Kernel
import Schema
import TestKit
import Testing

/// Migrations of an earlier release and of a later one with a longer list.
private enum Releases {
    static let base = Schema.migrations
    static var next: Int { Schema.version + 1 }
    static let expansion = Migration(next, "expansion", "CREATE TABLE upgrade_things (id integer PRIMARY KEY, old_name text)")
    static let contraction = Migration(next + 1, "contraction", kind: .contract, "ALTER TABLE upgrade_things DROP COLUMN old_name")
    static let expanded = base + [expansion]
    static let contracted = base + [expansion, contraction]
}

@Suite struct SchemaTests {
    private let ambient = Ambient()

    private func replica(_ service: String = "wolke-old", knows migrations: [Migration]) -> Replicas.Replica {
        Replicas.Replica(
            id: ambient.newUUID(), service: service, host: "one", process: 77, release: "0.1.9", schemaVersion: migrations.last?.number ?? 0
        )
    }

    private func columns(_ test: TestDatabase, _ table: String) async throws -> [String] {
        try await test.database.read { connection in
            try connection.query(
                "SELECT column_name::text AS name FROM information_schema.columns WHERE table_name = \(table) ORDER BY ordinal_position"
            ).map { try $0.string("name") }
        }
    }

    private func words(_ body: () async throws -> Void) async -> String {
        do { try await body() } catch let error as ResourceError { return error.context ?? error.message } catch { return "\(error)" }
        return ""
    }

    // MARK: starting

    @Test func repeatedMigrationsChangeNothing() async throws {
        try await TestDatabase.with { test in
            #expect(try await Schema.migrate(test.database) == [])
            #expect(try await Schema.contract(test.database) == [])
            try await Schema.require(test.database)
        }
    }

    @Test func numbersAscend() {
        let numbers = Schema.migrations.map(\.number)
        // Numbers that were reserved and not used leave gaps.
        #expect(numbers.first == 1 && zip(numbers, numbers.dropFirst()).allSatisfy { $0 < $1 })
        #expect(Schema.migrations.allSatisfy { $0.number > Schema.base || $0.kind == .expand })
    }

    @Test func aServiceStartsOnANewerExpandedSchema() async throws {
        try await TestDatabase.with { test in
            #expect(try await Schema.migrate(test.database, migrations: Releases.expanded) == [Releases.next])
            try await Schema.require(test.database, migrations: Releases.base)
            try await Replicas.join(test.database, replica(knows: Releases.base), ambient, migrations: Releases.base)
            // Its own command finds nothing to do and removes nothing.
            #expect(try await Schema.migrate(test.database, migrations: Releases.base) == [])
            #expect(try await columns(test, "upgrade_things") == ["id", "old_name"])
        }
    }

    @Test func aServiceRefusesASchemaThatLacksItsMigrations() async throws {
        try await TestDatabase.with { test in
            let text = await words {
                try await Replicas.join(test.database, replica(knows: Releases.expanded), ambient, migrations: Releases.expanded)
            }
            #expect(text.contains("needs migration \(Releases.next) too; run `osctl db migrate`"), "\(text)")
        }
    }

    /// Release 0.1.0 compares the highest number in `schema_migrations` with its own, and knows no other table.
    @Test func release010StartsUntilTheSchemaIsContracted() async throws {
        try await TestDatabase.with { test in
            let last: @Sendable () async throws -> Int = {
                try await test.database.read {
                    try $0.query("SELECT coalesce(max(number), 0) AS number FROM schema_migrations")[0].int("number")
                }
            }
            #expect(try await last() == Schema.base)
            try await Schema.migrate(test.database, migrations: Releases.expanded)
            #expect(try await last() == Schema.base)
            try await Schema.contract(test.database, migrations: Releases.contracted)
            #expect(try await last() == Releases.next + 1)
        }
    }

    @Test func aDatabaseOfRelease010IsExpanded() async throws {
        try await TestDatabase.with { test in
            // As that release leaves it: without the second table and without release names.
            try await test.database.autocommit {
                try $0.script(
                    """
                    DROP TABLE service_replicas, schema_expansions; ALTER TABLE schema_migrations DROP COLUMN release
                    """)
            }
            let text = await words { try await Schema.require(test.database) }
            #expect(text.contains("needs"), "\(text)")
            let migrations = Schema.migrations.filter { $0.number <= Schema.base || $0.name == "replicas" }
            #expect(try await Schema.migrate(test.database, migrations: migrations) == migrations.suffix(1).map(\.number))
        }
    }

    // MARK: contracting

    @Test func aServiceRefusesAContractedSchemaAndSaysWhichReleaseItNeeds() async throws {
        try await TestDatabase.with { test in
            try await Schema.contract(test.database, migrations: Releases.contracted)
            for migrations in [Releases.base, Releases.expanded] {
                let old = replica(knows: migrations)
                let start = await words { try await Replicas.join(test.database, old, ambient, migrations: migrations) }
                #expect(start.contains("contracted to schema \(Releases.next + 1) by release \(WolkeVersion.current)"), "\(start)")
                #expect(start.contains("Start release \(WolkeVersion.current) or a newer one"), "\(start)")
                let sign = await words { try await Replicas.renew(test.database, old, ambient, migrations: migrations) }
                #expect(sign.contains("contracted to schema"), "\(sign)")
                await #expect(throws: ResourceError.self) { try await Schema.migrate(test.database, migrations: migrations) }
            }
            #expect(try await test.database.read { try Replicas.live($0, ambient) } == [])
        }
    }

    @Test func contractingWaitsForOlderReplicas() async throws {
        try await TestDatabase.with { test in
            let (old, new) = (replica(knows: Releases.expanded), replica("wolke-new", knows: Releases.contracted))
            try await Schema.migrate(test.database, migrations: Releases.contracted)
            #expect(try await columns(test, "upgrade_things") == ["id", "old_name"], "migrate leaves the contraction")
            try await Replicas.join(test.database, old, ambient, migrations: Releases.expanded)
            try await Replicas.join(test.database, new, ambient, migrations: Releases.contracted)
            let refusal = await words { try await Schema.contract(test.database, migrations: Releases.contracted) }
            #expect(refusal.contains("wolke-old of release 0.1.9 (schema \(Releases.next)) on one, process 77"), "\(refusal)")
            #expect(!refusal.contains("wolke-new"), "\(refusal)")
            #expect(try await columns(test, "upgrade_things") == ["id", "old_name"])
            try await Replicas.leave(test.database, old)
            #expect(try await Schema.contract(test.database, migrations: Releases.contracted) == [Releases.next + 1])
            #expect(try await columns(test, "upgrade_things") == ["id"])
        }
    }

    @Test func silentReplicasDoNotBlockContraction() async throws {
        try await TestDatabase.with { test in
            try await Replicas.join(test.database, replica(knows: Releases.base), ambient, migrations: Releases.base)
            await #expect(throws: ResourceError.self) { try await Schema.contract(test.database, migrations: Releases.contracted) }
            try await test.database.write {
                try $0.execute("UPDATE service_replicas SET last_seen_at = last_seen_at - interval '61 seconds'")
            }
            // The refused attempt has already expanded the schema.
            #expect(try await Schema.contract(test.database, migrations: Releases.contracted) == [Releases.next + 1])
        }
    }

    @Test func sessionsWithoutANameCountAsRelease010() async throws {
        try await TestDatabase.with { test in
            var configuration = DatabaseConfiguration(connectionString: test.connectionString, connectionsMax: 1)
            configuration.applicationName = ""
            let old = Database(configuration)
            _ = try await old.read { try $0.query("SELECT 1 AS one")[0].int("one") }
            let refusal = await words { try await Schema.contract(test.database, migrations: Releases.contracted) }
            #expect(refusal.contains("processes of release 0.1.0"), "\(refusal)")
            old.close()
            var applied: [Int] = []
            for _ in 0..<1000 where applied.isEmpty {
                do { applied = try await Schema.contract(test.database, migrations: Releases.contracted) } catch is ResourceError {
                    try await SystemTime().sleep(for: .milliseconds(20))
                }
            }
            #expect(applied == [Releases.next + 1])
        }
    }

    // MARK: concurrency and crashes

    @Test func severalMigrateAndStartAtOnce() async throws {
        try await TestDatabase.with(connectionsMax: 8) { test in
            let (database, ambient) = (test.database, ambient)
            let applied = try await withThrowingTaskGroup(of: [Int].self) { group in
                for number in 0..<6 {
                    let replica = replica("wolke-\(number)", knows: Releases.contracted)
                    group.addTask {
                        let applied = try await Schema.migrate(database, migrations: Releases.contracted)
                        try await Replicas.join(database, replica, ambient, migrations: Releases.contracted)
                        return applied + (try await Schema.contract(database, migrations: Releases.contracted))
                    }
                }
                return try await group.reduce(into: []) { $0 += $1 }
            }
            #expect(applied.sorted() == [Releases.next, Releases.next + 1])
        }
    }

    /// A server process that dies during the migration, as if the machine crashed.
    @Test func crashedMigrationsAreAtomic() async throws {
        try await TestDatabase.with { (test) async throws -> Void in
            let dies = Migration(Releases.next, "dies", "CREATE TABLE half_way (id integer); SELECT pg_terminate_backend(pg_backend_pid())")
            #expect(await words { try await Schema.migrate(test.database, migrations: Releases.base + [dies]) } != "")
            let fails = Migration(Releases.next, "fails", "CREATE TABLE half_way (id integer); SELECT 1 / 0")
            #expect(
                await words { try await Schema.migrate(test.database, migrations: Releases.base + [fails]) }.contains("division by zero"))
            // Its record cannot be written, because the migration has already written one.
            let unrecorded = Migration(
                Releases.next, "unrecorded",
                "CREATE TABLE half_way (id integer); INSERT INTO schema_expansions (number, name, release) VALUES (\(Releases.next), 'x', 'y')"
            )
            #expect(await words { try await Schema.migrate(test.database, migrations: Releases.base + [unrecorded]) } != "")
            #expect(try await columns(test, "half_way") == [])
            #expect(try await Schema.state(test.database).newest == Schema.version)
            // The lock was released, and the corrected migration runs.
            let mended = Migration(Releases.next, "mended", "CREATE TABLE half_way (id integer)")
            #expect(try await Schema.migrate(test.database, migrations: Releases.base + [mended]) == [Releases.next])
        }
    }

    @Test func aMigrationDoesNotQueueBehindALongTransactionForLong() async throws {
        try await TestDatabase.with { test in
            let holder = Database(DatabaseConfiguration(connectionString: test.connectionString, connectionsMax: 1))
            defer { holder.close() }
            let (letGo, reads) = (Flag(), Flag())
            let held = Task {
                try await holder.write { connection in
                    try connection.query("SELECT count(*) FROM flavors")
                    reads.set()
                    while !letGo.isSet { try connection.query("SELECT pg_sleep(0.05)") }
                }
            }
            while !reads.isSet { try await SystemTime().sleep(for: .milliseconds(5)) }
            let adds = Migration(Releases.next, "adds", "ALTER TABLE flavors ADD COLUMN note text")
            async let applied = Schema.migrate(test.database, migrations: Releases.base + [adds])
            while try await waits(test, for: "AccessExclusiveLock") == 0 { try await SystemTime().sleep(for: .milliseconds(5)) }
            // It waits behind the migration, which lets it pass after its lock timeout, while the transaction continues.
            _ = try await Database(DatabaseConfiguration(connectionString: test.connectionString, connectionsMax: 1))
                .read { try $0.query("SELECT count(*) AS number FROM flavors")[0].int("number") }
            letGo.set()
            #expect(try await applied == [Releases.next])
            try await held.value
        }
    }

    /// The number of sessions that wait for a lock of that mode on the flavors.
    private func waits(_ test: TestDatabase, for mode: String) async throws -> Int {
        try await test.database.read {
            try $0.query("SELECT count(*) AS n FROM pg_locks WHERE NOT granted AND mode = \(mode) AND relation = 'flavors'::regclass")[0]
                .int("n")
        }
    }

    @Test func indexesAreBuiltBesideWritesAndAgainAfterACrash() async throws {
        try await TestDatabase.with { test in
            let index = Migration(
                Releases.next, "index", kind: .index, "CREATE INDEX CONCURRENTLY IF NOT EXISTS flavors_upgrade ON flavors (vcpus);\n")
            // The state after an interrupted attempt.
            try await test.database.autocommit { try $0.script("CREATE INDEX CONCURRENTLY flavors_upgrade ON flavors (vcpus)") }
            let superuser = Database(DatabaseConfiguration(connectionString: test.connectionString, connectionsMax: 1))
            defer { superuser.close() }
            try await superuser.autocommit {
                try $0.script("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'flavors_upgrade'::regclass")
            }
            #expect(try await Schema.migrate(test.database, migrations: Releases.base + [index]) == [Releases.next])
            let valid = try await test.database.read {
                try $0.query("SELECT indisvalid AS valid FROM pg_index WHERE indexrelid = 'flavors_upgrade'::regclass")[0].bool("valid")
            }
            #expect(valid)
            #expect(try await Schema.migrate(test.database, migrations: Releases.base + [index]) == [])
        }
    }

    /// On an upgraded database the contracting migrations run last, on a new one all run in order.
    @Test func contractionsLastGiveTheSameSchema() async throws {
        try await TestDatabase.with { test in
            let inOrder = try await shape(test.database)
            try await test.database.autocommit { try $0.script("DROP SCHEMA public CASCADE; CREATE SCHEMA public") }
            let base = Schema.migrations.filter { $0.number <= Schema.base }
            try await Schema.migrate(test.database, migrations: base)
            try await Schema.migrate(test.database)
            try await Schema.contract(test.database)
            #expect(try await shape(test.database) == inOrder)
        }
    }

    /// Columns, constraints, indexes, triggers and functions, as PostgreSQL prints them.
    private func shape(_ database: Database) async throws -> [String] {
        try await database.read { connection in
            try connection.query(
                """
                SELECT c.relname || ' ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull || ' ' ||
                    coalesce(pg_get_expr(d.adbin, d.adrelid), '') AS words
                FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
                WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')
                UNION ALL SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
                    WHERE connamespace = 'public'::regnamespace
                UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
                UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
                UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
                ORDER BY 1
                """
            ).map { try $0.string("words") }
        }
    }
}

/// Allowed statements of migrations.
@Suite struct MigrationRulesTests {
    /// Landed before these rules. 23 builds an index on a column that it adds to a small table.
    private static let landed: Set = [23]

    @Test func expandingMigrationsFollowTheRules() {
        let problems = Schema.migrations.filter { $0.number > Schema.base && !Self.landed.contains($0.number) }
            .flatMap { migration in MigrationRules.problems(migration).map { "\(migration.number) \(migration.name): \($0)" } }
        #expect(problems.isEmpty, "\(problems.joined(separator: "\n"))")
    }

    private static let contracting = [
        "DROP TABLE ports", "drop index ports_device", "DROP FUNCTION northbound_touch(text, text)", "DROP TRIGGER northbound ON ports",
        "ALTER TABLE ports DROP COLUMN name", "ALTER TABLE ports RENAME COLUMN name TO title", "ALTER TABLE ports RENAME TO doors",
        "ALTER FUNCTION f() RENAME TO g", "ALTER TABLE ports ALTER COLUMN name TYPE varchar(10)",
        "ALTER TABLE ports ALTER name SET DATA TYPE varchar",
        "ALTER TABLE ports\n    ALTER COLUMN name SET NOT NULL", "ALTER TABLE ports ALTER COLUMN name DROP NOT NULL",
        "ALTER TABLE ports ALTER COLUMN name DROP DEFAULT", "ALTER TABLE ports ADD COLUMN a text NOT NULL",
        "ALTER TABLE ports ADD COLUMN a text, ADD COLUMN b integer NOT NULL", "ALTER TABLE ports ADD a text NOT NULL",
        "ALTER TABLE ports ADD CONSTRAINT c CHECK (name <> '')", "ALTER TABLE ports ADD CHECK(name <> '')",
        "ALTER TABLE ports ADD UNIQUE (name)",
        "ALTER TABLE ports ADD COLUMN a text UNIQUE", "ALTER TABLE ports DROP CONSTRAINT c", "ALTER TABLE ports ADD COLUMN a serial",
        "ALTER TABLE ports ADD COLUMN a uuid DEFAULT gen_random_uuid()", "CREATE INDEX a ON ports (name)",
        "CREATE UNIQUE INDEX a ON ports (name)",
        "DELETE FROM ports", "TRUNCATE ports", "DO $$ BEGIN EXECUTE 'DROP TABLE ports'; END $$", "LOCK TABLE ports",
        "REVOKE ALL ON ports FROM public",
        "CREATE TABLE a (id integer); ALTER TABLE ports DROP COLUMN name", "SELECT 1; /* ; */ DROP TABLE ports -- '",
        "ALTER TABLE ports DISABLE TRIGGER northbound",
    ]

    @Test(arguments: contracting) func contractingStatementsAreFound(sql: String) {
        #expect(!MigrationRules.problems(Migration(99, "bad", sql)).isEmpty)
        #expect(MigrationRules.problems(Migration(99, "said so", kind: .contract, sql)).isEmpty)
    }

    @Test(arguments: [
        "CREATE TABLE a (id integer PRIMARY KEY, name text NOT NULL UNIQUE); CREATE UNIQUE INDEX b ON a (name); ALTER TABLE a ADD CHECK (id > 0)",
        "ALTER TABLE ports ADD COLUMN a text, ADD COLUMN b integer NOT NULL DEFAULT 0 CHECK (b >= 0)",
        "ALTER TABLE ports ADD CONSTRAINT c CHECK (name <> 'DROP TABLE; x') NOT VALID",
        "ALTER TABLE ports DROP CONSTRAINT c, ADD CONSTRAINT c CHECK (name IN ('a', 'b')) NOT VALID",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM a; DROP TABLE b; RETURN NULL; END $$",
        "-- DROP TABLE ports;\nCREATE TRIGGER t AFTER UPDATE OR DELETE ON ports FOR EACH ROW EXECUTE FUNCTION f()",
        "UPDATE ports SET a = name WHERE a IS NULL", "INSERT INTO things VALUES ('; DROP TABLE ports')",
    ]) func expandingStatementsAreNot(sql: String) {
        #expect(MigrationRules.problems(Migration(99, "good", sql)) == [])
    }

    @Test func indexMigrationsHoldIndexesOnly() {
        let good =
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS a ON ports (name);\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS b ON ports (id)"
        #expect(MigrationRules.problems(Migration(99, "good", kind: .index, good)) == [])
        for bad in ["CREATE INDEX a ON ports (name)", "CREATE INDEX CONCURRENTLY a ON ports (name)", good + "; SELECT 1"] {
            #expect(!MigrationRules.problems(Migration(99, "bad", kind: .index, bad)).isEmpty)
        }
    }
}
