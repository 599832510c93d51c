import Database
import Kernel
import Logging

/// One step of the schema's history. Numbered, forward only, never changed once it has landed.
package struct Migration: Sendable {
    package let number: Int
    package let name: String
    package let sql: String

    package init(_ number: Int, _ name: String, _ sql: String) {
        self.number = number
        self.name = name
        self.sql = sql
    }
}

/// The schema that this build knows.
package enum Schema {
    /// All migrations in order. Add the next one here and in a file of its own.
    package static let migrations: [Migration] = [
        foundationMigration,
        identityMigration,
        placementMigration,
        imageMigration,
        networkMigration,
        blockStorageMigration,
        computeMigration,
        repairsMigration,
        northboundChangesMigration,
        tokenPlansMigration,
        snapshotProgressMigration,
        northboundBatchesMigration,
        newPortsMigration, ruleSignaturesMigration, identityControlMigration, readOnlyFlagMigration,
        keptDecisionsMigration,
        planeServicesMigration,
        virtualPortsMigration,
        auditedServicesMigration,
        metadataPortsMigration,
        sandboxStateMigration,
        workflowVersionsMigration,
        publishedViewsMigration,
        imagePropertiesMigration,
    ]

    /// The number of the newest migration that this build knows.
    package static var version: Int { migrations.last?.number ?? 0 }

    /// Key of the advisory lock under which migrations run.
    private static let lockKey = 0x776f_6c6b

    /// Brings the database to `Schema.version`. Safe to run from several processes at once.
    ///
    /// - Returns: the numbers that were applied.
    /// - Throws: `ResourceError` when the database is newer than this build; `DatabaseError` when a step fails, which
    ///   is then undone whole.
    @discardableResult
    package static func migrate(_ database: Database, migrations: [Migration] = Schema.migrations) async throws -> [Int] {
        try await database.autocommit { connection in
            try connection.query("SELECT pg_advisory_lock(\(lockKey))")
            do {
                let applied = try apply(connection, migrations)
                try connection.query("SELECT pg_advisory_unlock(\(lockKey))")
                return applied
            } catch {
                try connection.query("SELECT pg_advisory_unlock(\(lockKey))")
                throw error
            }
        }
    }

    private static func apply(_ connection: Connection, _ migrations: [Migration]) throws -> [Int] {
        try connection.script(
            """
            CREATE TABLE IF NOT EXISTS schema_migrations (
                number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())
            """)
        let known = Set(try connection.query("SELECT number FROM schema_migrations").map { try $0.int("number") })
        let newest = migrations.last?.number ?? 0
        if let unknown = known.max(), unknown > newest {
            throw ResourceError(
                .conflict, "the database is at schema \(unknown), newer than the \(newest) that this build knows")
        }
        var applied: [Int] = []
        for migration in migrations where !known.contains(migration.number) {
            do {
                try connection.script("BEGIN")
                try connection.script(migration.sql)
                try connection.query(
                    "INSERT INTO schema_migrations (number, name) VALUES (\(migration.number), \(migration.name))")
                try connection.script("COMMIT")
            } catch {
                try connection.script("ROLLBACK")
                throw error
            }
            applied.append(migration.number)
        }
        return applied
    }

    /// Refuses to go on unless the database has exactly the schema that this build knows.
    ///
    /// - Throws: `ResourceError` naming both versions and the command to run.
    package static func require(_ database: Database) async throws {
        let found = try await database.read { connection -> Int in
            let exists = try connection.query("SELECT to_regclass('schema_migrations') IS NOT NULL AS present")
            guard try exists[0].bool("present") else { return 0 }
            return try connection.query("SELECT coalesce(max(number), 0) AS number FROM schema_migrations")[0].int("number")
        }
        guard found == version else {
            throw ResourceError(
                .conflict,
                "the database has schema \(found), this build needs \(version); run `osctl db migrate`")
        }
    }
}
