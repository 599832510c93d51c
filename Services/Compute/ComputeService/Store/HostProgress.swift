import Contracts
import Database
import Kernel
import Workflow

/// The hosts' progress with the disks of servers (`server_progress`), which agents report in their lists of servers. While a host makes
/// progress, the steps that wait for it do not time out, however large the disks are.
enum HostProgress {
    /// A host that has made no progress for this long counts as stuck. An agent lists its servers every minute.
    private static let patience = Duration.seconds(300)

    static func record(_ connection: Connection, _ servers: [HeldServer], host: String, ambient: Ambient) throws {
        for server in servers {
            guard let done = server.progress, UUID128(server.serverID) != nil else { continue }
            try connection.execute(
                """
                INSERT INTO server_progress AS p (server_id, host, done, advanced_at)
                SELECT s.id, \(host), \(done), \(ambient.databaseNow) FROM servers s WHERE s.id = \(server.serverID)::uuid AND NOT s.deleted
                    AND (s.host = \(host)
                        OR EXISTS (SELECT 1 FROM server_arrivals a WHERE a.server_id = s.id AND a.host = \(host)))
                ON CONFLICT (server_id) DO UPDATE SET host = EXCLUDED.host, done = EXCLUDED.done, advanced_at = EXCLUDED.advanced_at
                WHERE (p.host, p.done) IS DISTINCT FROM (EXCLUDED.host, EXCLUDED.done)
                """)
        }
    }

    /// Whether a host has recently made progress with its work for a server.
    static func advances(_ connection: Connection, server id: String, on host: String?, ambient: Ambient) throws -> Bool {
        try !connection.query(
            """
            SELECT 1 AS one FROM server_progress WHERE server_id = \(id) AND host = \(host)
                AND advanced_at > \(ambient.databaseNow) - \(patience)::interval
            """
        ).isEmpty
    }

    /// A condition on rows of `servers`: their hosts have made no recent progress.
    static func standsStill(_ ambient: Ambient) -> SQL {
        """
        NOT EXISTS (SELECT 1 FROM server_progress p WHERE p.server_id = servers.id AND p.host = servers.host
            AND p.advanced_at > \(ambient.databaseNow) - \(patience)::interval)
        """
    }
}

extension ServerSteps {
    /// The result of a step that waits for a host: while the host makes progress, the step's deadline restarts.
    func wait(_ delay: Duration, for id: String, on host: String?) async throws -> StepResult {
        let ambient = compute.ambient
        return try await compute.database.read { try HostProgress.advances($0, server: id, on: host, ambient: ambient) }
            ? .progress(delay) : .wait(delay)
    }
}
