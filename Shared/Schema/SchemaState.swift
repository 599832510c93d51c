package import Database
import Kernel

/// The migrations of a database, and those that a build must know to work on it.
package struct SchemaState: Sendable, Equatable {
    /// Numbers of all applied migrations.
    package var applied: Set<Int> = []
    /// The newest migration that a build must know: the last contracting one, or the newest of the base.
    package var required = 0
    /// The release that applied `required`; nil if none was recorded (the base).
    package var requiredRelease: String?
    /// The release that applied the newest migration; nil if none was recorded.
    package var newestRelease: String?

    package init(applied: Set<Int> = [], required: Int = 0, requiredRelease: String? = nil, newestRelease: String? = nil) {
        self.applied = applied
        self.required = required
        self.requiredRelease = requiredRelease
        self.newestRelease = newestRelease
    }

    /// The newest applied migration; 0 for an empty database.
    package var newest: Int { applied.max() ?? 0 }

    /// Reads the records; the state is empty if there are none.
    ///
    /// - Throws: `DatabaseError`.
    package static func read(_ connection: Connection) throws -> SchemaState {
        let tables = try connection.query(
            "SELECT to_regclass('schema_migrations') IS NOT NULL AS base, to_regclass('schema_expansions') IS NOT NULL AS expansions")[0]
        guard try tables.bool("base") else { return SchemaState() }
        // Release 0.1.0 creates `schema_migrations` without a release, and no `schema_expansions`.
        let rows =
            try tables.bool("expansions")
            ? connection.query(
                """
                SELECT number, release, true AS required FROM schema_migrations
                UNION ALL SELECT number, release, false FROM schema_expansions ORDER BY number
                """)
            : connection.query("SELECT number, NULL::text AS release, true AS required FROM schema_migrations ORDER BY number")
        var state = SchemaState()
        for row in rows {
            let (number, release) = (try row.int("number"), try row.optionalString("release"))
            state.applied.insert(number)
            state.newestRelease = release
            if try row.bool("required") { (state.required, state.requiredRelease) = (number, release) }
        }
        return state
    }

    // MARK: comparison with this build

    /// Expanding migrations of the build that the database does not have, in order.
    package func missing(_ migrations: [Migration] = Schema.migrations) -> [Migration] {
        migrations.filter { $0.kind != .contract && !applied.contains($0.number) }
    }

    /// Contracting migrations of the build that the database does not have, in order.
    package func pending(_ migrations: [Migration] = Schema.migrations) -> [Migration] {
        migrations.filter { $0.kind == .contract && !applied.contains($0.number) }
    }

    /// Whether a newer release has changed the database. The build may still be able to work on it.
    package func isNewer(than migrations: [Migration] = Schema.migrations) -> Bool { newest > (migrations.last?.number ?? 0) }

    /// - Throws: `ResourceError` if the database was contracted beyond the migrations known to the build.
    package func requireKnown(_ migrations: [Migration] = Schema.migrations) throws {
        let version = migrations.last?.number ?? 0
        guard required > version else { return }
        throw ResourceError(
            .conflict,
            """
            the database was contracted to schema \(required)\(requiredRelease.map { " by release \($0)" } ?? ""); this is release \
            \(WolkeVersion.current), which knows schema \(version). Start release \(requiredRelease ?? "of that schema") or a newer one
            """)
    }

    /// - Throws: `ResourceError` with the remedy if the build cannot work on the database.
    package func requireUsable(_ migrations: [Migration] = Schema.migrations) throws {
        try requireKnown(migrations)
        let missing = missing(migrations)
        guard !missing.isEmpty else { return }
        throw ResourceError(
            .conflict,
            """
            the database has schema \(newest); release \(WolkeVersion.current) needs \(missing.count == 1 ? "migration" : "migrations") \
            \(missing.map { String($0.number) }.joined(separator: ", ")) too; run `osctl db migrate`
            """)
    }
}
