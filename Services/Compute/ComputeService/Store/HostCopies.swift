import Contracts
import Database
import JSON
import Kernel

/// Snapshots of volumes in use that wait for the copy of the server's host.
enum HostCopies {
    /// A snapshot that waits, and the server that has its volume.
    struct Pending: Sendable {
        let snapshot: String
        let server: String?
        let subject: ActingSubject
    }

    private static let waiting: SQL = "p.host_copy = 'pending' AND p.status = 'creating'"

    /// Servers with attached volumes of which snapshots wait, and that no workflow, task or job works on.
    ///
    /// - Parameter isLocking: whether to lock the servers' rows, skipping locked ones.
    static func servers(_ connection: Connection, idle: SQL, isLocking: Bool, limit: Int) throws -> [String] {
        try connection.query(
            """
            SELECT s.id FROM servers s WHERE NOT s.deleted AND s.host IS NOT NULL AND s.published_at IS NOT NULL AND s.task_state IS NULL
                AND EXISTS (SELECT 1 FROM published_volume_snapshots p JOIN server_volumes v ON v.volume_id = p.volume_id
                    WHERE \(waiting) AND v.server_id = s.id AND v.state = 'attached')
                AND NOT EXISTS (SELECT 1 FROM server_jobs j WHERE j.server_id = s.id) AND \(idle)
            ORDER BY s.id LIMIT \(limit) \(raw: isLocking ? "FOR UPDATE OF s SKIP LOCKED" : "")
            """
        ).map { try $0.string("id") }
    }

    /// Snapshots that no host can copy, because no server has the volume any more or the server is on no host.
    static func orphans(_ connection: Connection, limit: Int) throws -> [Pending] {
        try connection.query(
            """
            SELECT p.id, p.project_id, p.user_id FROM published_volume_snapshots p WHERE \(waiting)
                AND NOT EXISTS (SELECT 1 FROM server_volumes v JOIN servers s ON s.id = v.server_id
                    WHERE v.volume_id = p.volume_id AND s.host IS NOT NULL AND NOT s.deleted)
            ORDER BY p.id LIMIT \(limit)
            """
        ).map { Pending(snapshot: try $0.string("id"), server: nil, subject: try ServerSteps.subject($0)) }
    }

    /// The waiting snapshots of a server's volumes.
    ///
    /// - Parameter volume: limits the result to this volume; nil for all.
    static func pending(_ connection: Connection, server: String, volume: String? = nil) throws -> [Pending] {
        try connection.query(
            """
            SELECT p.id, s.project_id, s.user_id FROM published_volume_snapshots p JOIN server_volumes v ON v.volume_id = p.volume_id
                JOIN servers s ON s.id = v.server_id
            WHERE \(waiting) AND s.id = \(server) AND v.state = 'attached' AND v.volume_id = coalesce(\(volume)::uuid, v.volume_id)
            ORDER BY p.id
            """
        ).map { Pending(snapshot: try $0.string("id"), server: server, subject: try ServerSteps.subject($0)) }
    }

    /// The copies that a host must make for those of these snapshots that still wait, at most one per volume.
    ///
    /// - Throws: 500 for a connection that names no file.
    static func volumes(_ connection: Connection, server: String, snapshots: [String]) throws -> [ServerJob.VolumeCopies.Volume] {
        let rows = try connection.query(
            """
            SELECT DISTINCT ON (p.volume_id) p.id, p.volume_id, p.size, v.connection FROM published_volume_snapshots p
            JOIN server_volumes v ON v.volume_id = p.volume_id
            WHERE \(waiting) AND v.server_id = \(server) AND v.state = 'attached' AND p.id = ANY(\(snapshots)::uuid[])
            ORDER BY p.volume_id, p.id
            """)
        return try rows.map { row in
            let connection = try row.json("connection")
            guard let path = connection["path"]?.stringValue, let format = connection["format"]?.stringValue,
                let slash = path.lastIndex(of: "/")
            else { throw ResourceError.internalError("the connection of volume \(try row.string("volume_id")) names no file") }
            let name = ServerJob.VolumeCopies.fileName(ofSnapshot: try row.string("id"))
            return .init(
                id: try row.string("volume_id"), path: path[...slash] + name, format: format, sizeGiB: try row.int("size"))
        }
    }

    /// The snapshots among these that wait for a copy.
    static func stillPending(_ connection: Connection, _ snapshots: [String]) throws -> Set<String> {
        Set(
            try connection.query(
                "SELECT p.id FROM published_volume_snapshots p WHERE \(waiting) AND p.id = ANY(\(snapshots)::uuid[])"
            ).map { try $0.string("id") })
    }

    /// The states of snapshots; one that was deleted is left out.
    static func states(_ connection: Connection, _ snapshots: [String]) throws -> [String: String] {
        try connection.query("SELECT id, status FROM published_volume_snapshots WHERE id = ANY(\(snapshots)::uuid[])")
            .reduce(into: [:]) { $0[try $1.string("id")] = try $1.string("status") }
    }
}
