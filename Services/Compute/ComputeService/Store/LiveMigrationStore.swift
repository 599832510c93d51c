import Contracts
import Database
import JSON
import Kernel
import WebAPI

/// Statements about live migrations in progress.
extension MigrationStore {
    /// Whether the operator has requested to abort a migration.
    static func isAborted(_ connection: Connection, _ migration: String) throws -> Bool {
        try connection.query("SELECT abort_requested FROM server_migrations WHERE uuid = \(migration)").first?.bool("abort_requested")
            ?? false
    }

    /// Records the progress of the transfer. The job of a live migration has the id of the migration's record.
    static func record(_ connection: Connection, _ progress: MigrationProgress, job: String, server: String, ambient: Ambient) throws {
        let (memory, disk, now) = (progress.memory, progress.disk, ambient.databaseNow)
        try connection.execute(
            """
            UPDATE server_migrations SET memory_total = \(memory.total), memory_processed = \(memory.processed),
                memory_remaining = \(memory.remaining), disk_total = \(disk.total), disk_processed = \(disk.processed),
                disk_remaining = \(disk.remaining), updated_at = \(ambient.now),
                transfer_begun_at = coalesce(transfer_begun_at, \(now)),
                transfer_advanced_at = CASE WHEN (memory_processed, disk_processed)
                    IS DISTINCT FROM (\(memory.processed)::bigint, \(disk.processed)::bigint) THEN \(now) ELSE transfer_advanced_at END
            WHERE uuid = \(job)::uuid AND server_id = \(server) AND status = ANY(\(live)::text[])
            """)
    }

    /// How far the transfer of a guest is from its end by the clock.
    struct Transfer: Sendable {
        /// Whether the source has sent something recently.
        let advances: Bool
        /// Since the source's first report about it.
        let seconds: Int
        /// The size of memory and local disks, as in Nova at least 2.
        let gibibytes: Int
    }

    /// A source that has sent nothing for this long does not advance.
    private static let patience = Duration.seconds(300)

    /// Nil before the first report.
    static func transfer(_ connection: Connection, _ migration: String, ambient: Ambient) throws -> Transfer? {
        try connection.query(
            """
            SELECT coalesce(m.transfer_advanced_at > \(ambient.databaseNow) - \(patience)::interval, false) AS advances,
                extract(epoch FROM \(ambient.databaseNow) - m.transfer_begun_at)::bigint AS seconds,
                greatest(2, ceil(greatest(
                    ((s.flavor->>'ram')::numeric + coalesce((s.flavor->>'swap')::numeric, 0)) / 1024
                        + coalesce((s.flavor->>'ephemeral')::numeric, 0)
                        + CASE WHEN EXISTS (SELECT 1 FROM server_volumes v WHERE v.server_id = s.id AND v.boot_index = 0) THEN 0
                            ELSE coalesce((s.flavor->>'disk')::numeric, 0) END,
                    (coalesce(m.memory_total, 0)::numeric + coalesce(m.disk_total, 0)) / 1073741824)))::bigint AS gibibytes
            FROM server_migrations m JOIN servers s ON s.id = m.server_id
            WHERE m.uuid = \(migration) AND m.transfer_begun_at IS NOT NULL
            """
        ).first.map {
            Transfer(advances: try $0.bool("advances"), seconds: try $0.int("seconds"), gibibytes: try $0.int("gibibytes"))
        }
    }

    /// The live migrations of a server in progress.
    static func liveRows(_ connection: Connection, server id: String, number: String?) throws -> Rows {
        try connection.query(
            """
            SELECT * FROM server_migrations WHERE server_id = \(id) AND type = 'live-migration'
                AND status = ANY(\(live)::text[]) AND (\(number)::text IS NULL OR id::text = \(number)) ORDER BY id
            """)
    }

    /// A live migration of the server, by its number or, from 2.59 on, its UUID as well.
    struct Live: Sendable {
        let migration: String
        let status: String
    }

    /// - Throws: 404 if there is none, or it is not a live migration.
    static func find(_ connection: Connection, _ number: String, server id: String, lock: Bool = false) throws -> Live {
        let row = try connection.query(
            """
            SELECT uuid, status, type FROM server_migrations WHERE server_id = \(id) AND id::text = \(number)
            \(raw: lock ? "FOR UPDATE" : "")
            """
        ).first
        guard let row else {
            throw ResourceError.notFound("Migration \(number.prefix(64)) for instance \(id) could not be found.")
        }
        guard try row.string("type") == "live-migration" else {
            throw ResourceError.notFound("Migration \(number.prefix(64)) for server \(id) is not live-migration.")
        }
        return Live(migration: try row.string("uuid"), status: try row.string("status"))
    }
}
