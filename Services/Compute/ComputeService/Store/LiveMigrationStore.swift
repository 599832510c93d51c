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
    static func record(_ connection: Connection, _ progress: MigrationProgress, job: String, server: String, now: Timestamp) throws {
        let (memory, disk) = (progress.memory, progress.disk)
        try connection.execute(
            """
            UPDATE server_migrations SET memory_total = \(memory.total), memory_processed = \(memory.processed),
                memory_remaining = \(memory.remaining), disk_total = \(disk.total), disk_processed = \(disk.processed),
                disk_remaining = \(disk.remaining), updated_at = \(now)
            WHERE uuid = \(job)::uuid AND server_id = \(server) AND status = ANY(\(live)::text[])
            """)
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
