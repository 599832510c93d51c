import ComputeCore
import Contracts
import Database
import Kernel

/// Disks of servers on hosts that the servers have left (`server_kept_disks`).
///
/// A host keeps them while the move can be reverted. When the move has ended they stay until the server has been started where it is
/// then: if that host cannot use its own disks, these are the only ones.
enum KeptDisks {
    /// A host that the server leaves keeps its disks.
    static func keep(_ connection: Connection, server id: String, on host: String) throws {
        try connection.execute(
            "INSERT INTO server_kept_disks (server_id, host) VALUES (\(id), \(host)) ON CONFLICT DO NOTHING")
    }

    /// The server is on the host again, and its disks there are the server's.
    static func forget(_ connection: Connection, server id: String, on host: String) throws {
        try connection.execute("DELETE FROM server_kept_disks WHERE server_id = \(id) AND host = \(host)")
    }

    static func areKept(_ connection: Connection, server id: String, on host: String) throws -> Bool {
        try !connection.query("SELECT 1 AS one FROM server_kept_disks WHERE server_id = \(id) AND host = \(host)").isEmpty
    }

    /// Has all other hosts remove the disks that they have kept of a server; its move must have ended.
    static func discard(_ connection: Connection, server id: String, ambient: Ambient) throws {
        // The server's row first, as everywhere.
        let own = try connection.query("SELECT host FROM servers WHERE id = \(id) FOR UPDATE").first?.optionalString("host")
        let hosts = try connection.query("DELETE FROM server_kept_disks WHERE server_id = \(id) RETURNING host").map {
            try $0.string("host")
        }.filter { $0 != own }
        guard !hosts.isEmpty else { return }
        // Reports about earlier orders, which came with lower generations, do not count as reports about this one.
        try DesiredState.change(connection, server: id)
        for host in hosts.sorted() { try Absences.order(connection, server: id, host: host, ambient: ambient) }
        let isDeleted = try connection.query("SELECT deleted FROM servers WHERE id = \(id)").first?.bool("deleted") ?? true
        if !isDeleted { try DesiredState.publish(connection, server: id, ambient: ambient) }
    }

    /// The same if the server's host has done what was last desired of the server, and nobody deletes the server.
    ///
    /// - Returns: whether it has.
    @discardableResult
    static func discardIfStarted(_ connection: Connection, server id: String, ambient: Ambient) throws -> Bool {
        guard let server = try WorkflowServer.load(connection, id), server.isApplied, server.task != TaskState.deleting.rawValue else {
            return false
        }
        try discard(connection, server: id, ambient: ambient)
        return true
    }

    /// Servers that run although hosts keep disks of them: the start at the end of a move had failed, and a later one succeeded.
    static func unneeded(_ connection: Connection, limit: Int) throws -> [String] {
        try connection.query(
            """
            SELECT DISTINCT s.id FROM server_kept_disks k JOIN servers s ON s.id = k.server_id
            WHERE NOT s.deleted AND s.task_state IS NULL AND k.host <> s.host AND s.vm_state NOT IN ('error', 'resized')
                AND s.observed_generation >= s.generation AND s.observed_state = 'applied' AND s.observed_host = s.host
                AND s.observed_power IN ('running', 'paused')
                AND NOT EXISTS (SELECT 1 FROM server_migrations m WHERE m.server_id = s.id
                    AND m.status = ANY(\(MigrationStore.open)::text[]))
            ORDER BY s.id LIMIT \(limit)
            """
        ).map { try $0.string("id") }
    }
}
