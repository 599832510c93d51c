package import Database
package import Kernel

/// The registered processes that use the database.
package enum Replicas {
    /// Interval between heartbeats of a replica.
    package static let interval: Duration = .seconds(10)
    /// A replica without a heartbeat for this long counts as stopped.
    package static let silence: Duration = .seconds(60)

    /// One process.
    package struct Replica: Sendable, Hashable {
        package let id: UUID128
        /// The executable's name, such as `wolke-compute`.
        package let service: String
        package let host: String
        package let process: Int
        package let release: String
        /// The newest migration known to the process.
        package let schemaVersion: Int

        package init(
            id: UUID128, service: String, host: String, process: Int, release: String = WolkeVersion.current,
            schemaVersion: Int = Schema.version
        ) {
            self.id = id
            self.service = service
            self.host = host
            self.process = process
            self.release = release
            self.schemaVersion = schemaVersion
        }

        /// The description in messages.
        package var words: String { "\(service) of release \(release) (schema \(schemaVersion)) on \(host), process \(process)" }
    }

    // MARK: registration

    /// Registers a starting process, unless it cannot work on the database. No migration can run at the same time.
    ///
    /// - Throws: `ResourceError` as `SchemaState.requireUsable`.
    package static func join(_ database: Database, _ replica: Replica, _ ambient: Ambient, migrations: [Migration] = Schema.migrations)
        async throws
    {
        while true {
            // Polled for the same reason as in `Schema.exclusively`.
            let joined = try await database.write { connection in
                guard try connection.query("SELECT pg_try_advisory_xact_lock_shared(\(Schema.lockKey)) AS held")[0].bool("held") else {
                    return false
                }
                try SchemaState.read(connection).requireUsable(migrations)
                try connection.execute("DELETE FROM service_replicas WHERE last_seen_at < \(ambient.databaseNow) - interval '1 day'")
                try write(connection, replica, ambient)
                return true
            }
            if joined { return }
            try await ambient.time.sleep(for: .milliseconds(100))
        }
    }

    /// Records a heartbeat.
    ///
    /// - Throws: `ResourceError` if the schema was contracted beyond the replica, which must then exit: it was silent for so long
    ///   that it counted as stopped.
    package static func renew(_ database: Database, _ replica: Replica, _ ambient: Ambient, migrations: [Migration] = Schema.migrations)
        async throws
    {
        try await database.write { connection in
            // If a migration is running, skip this heartbeat; the next one is early enough.
            guard try connection.query("SELECT pg_try_advisory_xact_lock_shared(\(Schema.lockKey)) AS held")[0].bool("held") else { return }
            try SchemaState.read(connection).requireKnown(migrations)
            try write(connection, replica, ambient)
        }
    }

    /// Removes the registration of a stopping process.
    package static func leave(_ database: Database, _ replica: Replica) async throws {
        try await database.write { try $0.execute("DELETE FROM service_replicas WHERE id = \(replica.id)") }
    }

    private static func write(_ connection: Connection, _ replica: Replica, _ ambient: Ambient) throws {
        let now = ambient.databaseNow
        try connection.execute(
            """
            INSERT INTO service_replicas (id, service, host, process, release, schema_version, started_at, last_seen_at)
            VALUES (\(replica.id), \(replica.service), \(replica.host), \(replica.process), \(replica.release),
                \(replica.schemaVersion), \(now), \(now))
            ON CONFLICT (id) DO UPDATE SET last_seen_at = EXCLUDED.last_seen_at
            """)
    }

    // MARK: running replicas

    /// Replicas with a recent heartbeat, by service and release.
    package static func live(_ connection: Connection, _ ambient: Ambient) throws -> [Replica] {
        guard try connection.query("SELECT to_regclass('service_replicas') IS NOT NULL AS present")[0].bool("present") else { return [] }
        let silence = silence.components.seconds
        return try connection.query(
            """
            SELECT * FROM service_replicas WHERE last_seen_at > \(ambient.databaseNow) - \(silence) * interval '1 second'
            ORDER BY service, release, host, process
            """
        ).map { row in
            Replica(
                id: try row.uuid("id"), service: try row.string("service"), host: try row.string("host"), process: try row.int("process"),
                release: try row.string("release"), schemaVersion: try row.int("schema_version"))
        }
    }

    /// Sessions of the same user without a name. Release 0.1.0 does not register its processes and gives its sessions no
    /// name; every later build, and PostgreSQL's own programs, give them one.
    package static func unnamedSessions(_ connection: Connection) throws -> Int {
        try connection.query(
            """
            SELECT count(*) AS sessions FROM pg_stat_activity
            WHERE datname = current_database() AND usename = current_user AND backend_type = 'client backend'
            AND coalesce(application_name, '') = ''
            """)[0].int("sessions")
    }

    /// Descriptions of the replicas that migration `number` would break; empty if none.
    package static func blockers(_ connection: Connection, of number: Int, _ ambient: Ambient) throws -> [String] {
        var words = try live(connection, ambient).filter { $0.schemaVersion < number }.map(\.words)
        let unnamed = try unnamedSessions(connection)
        if unnamed > 0 {
            words.append(
                "processes of release 0.1.0, or programs that give their sessions no application_name: "
                    + "\(unnamed) \(unnamed == 1 ? "session" : "sessions") of the database")
        }
        return words
    }
}
