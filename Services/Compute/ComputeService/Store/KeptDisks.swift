import ComputeCore
import Contracts
import Database
import Kernel

/// Disks of servers that remain on hosts which the servers have left (`server_kept_disks`).
///
/// A host keeps them while the move can be reverted. After the move they remain until the server's final host has its own disks: until
/// it has done what is desired of the server, or, if it has failed since the move, until it has started the server. A host that has failed
/// may be unable to use its disks, and then these are the only copies.
enum KeptDisks {
    /// Records that a host keeps the disks of a server that leaves it.
    static func keep(_ connection: Connection, server id: String, on host: String) throws {
        try connection.execute(
            "INSERT INTO server_kept_disks (server_id, host, until_started) VALUES (\(id), \(host), false) ON CONFLICT DO NOTHING")
    }

    /// The server's host has failed: the disks remain until it has started the server.
    static func needStart(_ connection: Connection, server id: String) throws {
        try connection.execute("UPDATE server_kept_disks SET until_started = true WHERE server_id = \(id) AND NOT until_started")
    }

    /// Forgets kept disks after the server has returned to the host and uses them again.
    static func forget(_ connection: Connection, server id: String, on host: String) throws {
        try connection.execute("DELETE FROM server_kept_disks WHERE server_id = \(id) AND host = \(host)")
    }

    static func areKept(_ connection: Connection, server id: String, on host: String) throws -> Bool {
        try !connection.query("SELECT 1 AS one FROM server_kept_disks WHERE server_id = \(id) AND host = \(host)").isEmpty
    }

    /// Records the disks of a move by a replica of an earlier release, which does not know this table.
    static func adopt(_ connection: Connection, server id: String) throws {
        try connection.execute(
            """
            INSERT INTO server_kept_disks (server_id, host)
            SELECT m.server_id, m.source_host FROM server_migrations m JOIN servers s ON s.id = m.server_id
            WHERE m.server_id = \(id) AND m.status = ANY(\(MigrationStore.open)::text[]) AND s.host = m.dest_host
                AND m.dest_host <> m.source_host
            ON CONFLICT DO NOTHING
            """)
    }

    /// Orders all other hosts to remove a server's kept disks. The server's move must have ended.
    static func discard(_ connection: Connection, server id: String, ambient: Ambient) throws {
        // Lock the server's row first, as all transactions do.
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

    /// Like `discard`, but only if the server's host has applied the latest desired state and the server is not being deleted.
    ///
    /// - Returns: whether the disks were discarded.
    @discardableResult
    static func discardIfStarted(_ connection: Connection, server id: String, ambient: Ambient) throws -> Bool {
        guard let server = try WorkflowServer.load(connection, id), server.isApplied, server.task != TaskState.deleting.rawValue else {
            return false
        }
        if server.observedPower != .running, server.observedPower != .paused {
            let needed = try connection.query("SELECT 1 AS one FROM server_kept_disks WHERE server_id = \(id) AND until_started")
            guard needed.isEmpty else { return false }
        }
        try discard(connection, server: id, ambient: ambient)
        return true
    }

    /// Servers with kept disks that are no longer needed: the server's host was down or failed at the end of a move, and has since reached
    /// the server's desired state.
    static func unneeded(_ connection: Connection, limit: Int) throws -> [String] {
        try connection.query(
            """
            SELECT DISTINCT s.id FROM server_kept_disks k JOIN servers s ON s.id = k.server_id
            WHERE NOT s.deleted AND s.task_state IS NULL AND k.host <> s.host AND s.vm_state NOT IN ('error', 'resized')
                AND s.observed_generation >= s.generation AND s.observed_state = 'applied' AND s.observed_host = s.host
                AND (s.observed_power IN ('running', 'paused') OR s.observed_power = 'shutoff'
                    AND NOT EXISTS (SELECT 1 FROM server_kept_disks o WHERE o.server_id = s.id AND o.until_started))
                AND NOT EXISTS (SELECT 1 FROM server_migrations m WHERE m.server_id = s.id
                    AND m.status = ANY(\(MigrationStore.open)::text[]))
            ORDER BY s.id LIMIT \(limit)
            """
        ).map { try $0.string("id") }
    }
}
