import Contracts
import Database
import Kernel
import Workflow

/// The hosts' progress with the disks of servers (`server_progress`), which agents report in their lists of servers. While a host makes
/// progress, the steps that wait for it do not time out.
///
/// The reported number shows that the host works, not that it comes to an end: a download that breaks off starts again. So there is a
/// limit, which grows with the size of the disks.
enum HostProgress {
    /// A host that has made no progress for this long counts as stuck. An agent lists its servers every minute.
    private static let patience = Duration.seconds(300)
    /// Steps stop waiting for a host that has made no progress for this long, so later progress is other work.
    private static let staleness = ServerResize.hostDeadline * 2
    /// How long a host may make progress, plus `limitPerGiB` for each GiB of the server's root and ephemeral disks. Includes the time in
    /// which the host makes disks of other servers first.
    static let limit = Duration.seconds(86_400)
    static let limitPerGiB = Duration.seconds(600)

    static func record(_ connection: Connection, _ servers: [HeldServer], host: String, ambient: Ambient) throws {
        for server in servers {
            guard let done = server.progress, UUID128(server.serverID) != nil else { continue }
            try connection.execute(
                """
                INSERT INTO server_progress AS p (server_id, host, done, generation, advanced_at, begun_at)
                SELECT s.id, \(host), \(done), s.generation, \(ambient.databaseNow), \(ambient.databaseNow) FROM servers s
                WHERE s.id = \(server.serverID)::uuid AND NOT s.deleted
                    AND (s.host = \(host)
                        OR EXISTS (SELECT 1 FROM server_arrivals a WHERE a.server_id = s.id AND a.host = \(host)))
                ON CONFLICT (server_id) DO UPDATE SET host = EXCLUDED.host, done = EXCLUDED.done, advanced_at = EXCLUDED.advanced_at,
                    begun_at = CASE WHEN \(goesOn) THEN p.begun_at ELSE EXCLUDED.begun_at END,
                    generation = CASE WHEN \(goesOn) THEN p.generation ELSE EXCLUDED.generation END
                WHERE (p.host, p.done) IS DISTINCT FROM (EXCLUDED.host, EXCLUDED.done)
                """)
        }
    }

    /// Whether a report continues the work of row `p`, which the host has not finished.
    private static let goesOn: SQL = """
        (p.host = EXCLUDED.host AND p.advanced_at > EXCLUDED.advanced_at - \(staleness)::interval
            AND NOT EXISTS (SELECT 1 FROM servers o WHERE o.id = p.server_id AND o.observed_state = 'applied'
                AND o.observed_host = p.host AND o.observed_generation >= p.generation))
        """

    /// Whether the host of row `p` has recently made progress, and is within its limit. A condition on rows of `servers` and `p`.
    private static func isAdvancing(_ ambient: Ambient) -> SQL {
        """
        p.advanced_at > \(ambient.databaseNow) - \(patience)::interval
            AND p.begun_at > \(ambient.databaseNow) - \(limit)::interval - \(limitPerGiB)::interval
                * (coalesce((servers.flavor->>'disk')::integer, 0) + coalesce((servers.flavor->>'ephemeral')::integer, 0))
        """
    }

    /// Whether a host has recently made progress with its work for a server, and is within its limit.
    static func advances(_ connection: Connection, server id: String, on host: String?, ambient: Ambient) throws -> Bool {
        try !connection.query(
            """
            SELECT 1 AS one FROM server_progress p JOIN servers ON servers.id = p.server_id
            WHERE p.server_id = \(id) AND p.host = \(host) AND \(isAdvancing(ambient))
            """
        ).isEmpty
    }

    /// A condition on rows of `servers`: their hosts have made no recent progress.
    static func standsStill(_ ambient: Ambient) -> SQL {
        """
        NOT EXISTS (SELECT 1 FROM server_progress p WHERE p.server_id = servers.id AND p.host = servers.host AND \(isAdvancing(ambient)))
        """
    }
}

extension ServerSteps {
    /// The result of a step that waits for a host: while the host makes progress within its limit, the step's deadline restarts.
    func wait(_ delay: Duration, for id: String, on host: String?) async throws -> StepResult {
        let ambient = compute.ambient
        return try await compute.database.read { try HostProgress.advances($0, server: id, on: host, ambient: ambient) }
            ? .progress(delay) : .wait(delay)
    }
}
