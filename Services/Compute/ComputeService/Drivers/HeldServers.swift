import Contracts
import Database
import Kernel

/// Compares the servers that an agent has with the rows of Compute. An agent reports a change once, so a report that the broker
/// loses is found only here.
enum HeldServers {
    /// Servers for which the two sides differ.
    struct Comparison: Sendable {
        /// Servers that belong on the host, but that are missing there or differ from the recorded state.
        var differing: [String] = []
        /// Servers that the host has but should not have.
        var strays: [String] = []

        var isEmpty: Bool { differing.isEmpty && strays.isEmpty }
    }

    /// A report or a desired state may be on its way for this long.
    private static let patience: Duration = .seconds(15)
    private static let batchMax = 200

    /// Skips servers that the host has not reported since its agent started, and those listed with a generation older than the recorded
    /// one.
    static func compare(_ connection: Connection, _ servers: [HeldServer], host: String, ambient: Ambient) throws -> Comparison {
        let servers = servers.filter { UUID128($0.serverID) != nil }
        let before: SQL = "\(ambient.databaseNow) - \(patience)::interval"
        let held: SQL = """
            unnest(\(servers.map(\.serverID))::uuid[], \(servers.map(\.generation))::bigint[],
                \(servers.map(\.epoch))::bigint[],
                \(servers.map { $0.power?.rawValue ?? "" })::text[], \(servers.map(\.state.rawValue))::text[],
                \(servers.map(\.metadataReady))::boolean[], \(servers.map(\.unknown))::boolean[])
                AS h(id, generation, epoch, power, state, metadata_ready, is_unknown)
            """
        let ordered: SQL = """
            (EXISTS (SELECT 1 FROM server_absences a WHERE a.server_id = s.id AND a.host = \(host))
                OR EXISTS (SELECT 1 FROM server_arrivals a WHERE a.server_id = s.id AND a.host = \(host)))
            """
        var comparison = Comparison()
        let rows = try connection.query(
            """
            SELECT s.id, true AS belongs FROM servers s LEFT JOIN \(held) ON h.id = s.id
            WHERE s.host = \(host) AND NOT s.deleted AND s.published_at < \(before) AND NOT \(ordered) AND CASE
                WHEN h.id IS NULL OR h.is_unknown OR h.epoch < s.epoch
                    THEN NOT (s.observed_permanent AND s.observed_generation >= s.generation)
                ELSE h.power <> '' AND h.generation >= s.observed_generation
                    AND (s.observed_host, s.observed_generation, s.observed_power, s.observed_state, s.metadata_ready)
                        IS DISTINCT FROM (\(host)::text, h.generation, h.power, h.state, h.metadata_ready) END
            UNION ALL SELECT s.id, false FROM \(held) JOIN servers s ON s.id = h.id
            WHERE (s.deleted OR s.host <> \(host)) AND h.power <> \(ReportedPower.absent.rawValue) AND NOT \(ordered)
            ORDER BY 1 LIMIT \(batchMax)
            """)
        for row in rows {
            if try row.bool("belongs") {
                comparison.differing.append(try row.string("id"))
            } else {
                comparison.strays.append(try row.string("id"))
            }
        }
        return comparison
    }

    /// Sends the desired states again, which the agent answers with new reports, and orders the host to remove strays.
    static func ask(_ connection: Connection, _ comparison: Comparison, host: String, ambient: Ambient) throws {
        for id in comparison.differing { try DesiredState.publish(connection, server: id, ambient: ambient) }
        for id in comparison.strays {
            guard try !connection.query("SELECT 1 AS one FROM servers WHERE id = \(id) FOR UPDATE").isEmpty else { continue }
            try Observations.removeStray(connection, server: id, host: host, ambient: ambient)
        }
    }
}
