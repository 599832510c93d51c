import ComputeCore
import Contracts
import Database
import JSON
import Kernel

/// Records the hosts that expect a server which still runs elsewhere (`server_arrivals`).
enum Arrivals {
    /// The latest report of the host.
    struct State: Sendable {
        let host: String
        let generation: Int
        let observedGeneration: Int
        let power: ReportedPower?
        let failure: HostFailure?
        let endpoint: MigrationEndpoint?

        /// Everything is ready for the guest.
        var isReady: Bool { observedGeneration >= generation && failure == nil && endpoint != nil && power != nil }
        /// The guest is there: it runs, or is paused as it was.
        var hasArrived: Bool { power == .running || power == .paused }
    }

    /// Orders a host to expect the server.
    ///
    /// - Parameter connections: how that host connects to the volumes, by the id of the volume.
    static func order(
        _ connection: Connection, server: String, host: String, connections: [String: JSONValue], ambient: Ambient
    ) throws {
        try DesiredState.change(connection, server: server)
        try DesiredState.publish(connection, server: server, ambient: ambient)
        guard var description = try DesiredState.load(connection, where: "s.id = \(server)").first else { return }
        (description.power, description.operation, description.jobs) = (.expected, nil, [])
        // The target's disk needs the same backing image, because only the top layer is transferred.
        if description.rootIsCopy { description.image?.isCopied = true }
        for index in description.volumes.indices {
            guard let info = connections[description.volumes[index].volumeID] else { continue }
            description.volumes[index].connection = Enclosed(document: info)
        }
        // An earlier order to remove the server from that host may still be recorded.
        try connection.execute("DELETE FROM server_absences WHERE server_id = \(server) AND host = \(host)")
        try record(connection, description, host: host, ambient: ambient)
    }

    private static func record(_ connection: Connection, _ description: ServerDescription, host: String, ambient: Ambient) throws {
        let desired = try Enclosed(description.spec)
        try connection.execute(
            """
            INSERT INTO server_arrivals (server_id, host, generation, desired, published_at)
            VALUES (\(description.id), \(host), \(description.generation), \(desired.document)::jsonb, \(ambient.databaseNow))
            ON CONFLICT (server_id) DO UPDATE SET host = EXCLUDED.host, generation = EXCLUDED.generation, desired = EXCLUDED.desired,
                published_at = EXCLUDED.published_at
            """)
        try DesiredState.send(connection, desired, host: host, ambient: ambient)
    }

    /// Sends the order again if the host has not reported for `patience`.
    static func repeatOrder(_ connection: Connection, server: String, patience: Duration, ambient: Ambient) throws {
        let before: SQL = "\(ambient.databaseNow) - \(patience)::interval"
        let rows = try connection.query(
            """
            UPDATE server_arrivals SET published_at = \(ambient.databaseNow)
            WHERE server_id = \(server) AND published_at < \(before) RETURNING host, desired
            """)
        for row in rows {
            try DesiredState.send(connection, Enclosed(document: try row.json("desired")), host: try row.string("host"), ambient: ambient)
        }
    }

    /// Withdraws the order: the host stops expecting the server, and removes it unless the guest has arrived. Idempotent.
    static func withdraw(_ connection: Connection, server: String, ambient: Ambient) throws {
        guard let row = try connection.query("SELECT host, desired FROM server_arrivals WHERE server_id = \(server) FOR UPDATE").first
        else { return }
        let ordered: ServerSpec = try row.value("desired")
        guard ordered.power != .absent else { return try repeatOrder(connection, server: server, patience: .seconds(30), ambient: ambient) }
        let generation = try DesiredState.change(connection, server: server)
        try DesiredState.publish(connection, server: server, ambient: ambient)
        var withdrawn = ordered
        withdrawn.power = .absent
        withdrawn.operation = ServerSpec.Operation(id: ambient.newUUID().description, kind: .withdraw)
        (withdrawn.generation, withdrawn.epoch) = (generation, try epoch(connection, server))
        let desired = try Enclosed(withdrawn)
        try connection.execute(
            """
            UPDATE server_arrivals SET generation = \(generation), desired = \(desired.document)::jsonb,
                published_at = \(ambient.databaseNow) WHERE server_id = \(server)
            """)
        try DesiredState.send(connection, desired, host: try row.string("host"), ambient: ambient)
    }

    private static func epoch(_ connection: Connection, _ server: String) throws -> Int {
        try connection.query("SELECT epoch FROM servers WHERE id = \(server)").first?.int("epoch") ?? 0
    }

    static func forget(_ connection: Connection, server: String) throws {
        try connection.execute("DELETE FROM server_arrivals WHERE server_id = \(server)")
    }

    /// Nil if no host expects the server.
    static func state(_ connection: Connection, server: String) throws -> State? {
        try connection.query(
            """
            SELECT host, generation, observed_generation, observed_power, observed_error, observed_reason, observed_permanent, endpoint
            FROM server_arrivals WHERE server_id = \(server)
            """
        ).first.map { row in
            let host = try row.string("host")
            let error = try row.optionalString("observed_error")
            return State(
                host: host, generation: try row.int("generation"), observedGeneration: try row.int("observed_generation"),
                power: try row.optionalString("observed_power").map(ReportedPower.init(rawValue:)),
                failure: try error.map {
                    HostFailure(
                        reason: try row.optionalString("observed_reason"), details: "host \(host): \($0)",
                        isPermanent: try row.bool("observed_permanent"))
                }, endpoint: try row.optionalValue("endpoint"))
        }
    }

    /// Records what an expecting host reports.
    ///
    /// - Returns: whether the report is from such a host.
    static func record(_ connection: Connection, _ report: ObservedReport) throws -> Bool {
        guard
            let row = try connection.query(
                """
                SELECT generation, desired->>'power' AS power FROM server_arrivals
                WHERE server_id = \(report.serverID) AND host = \(report.host)
                """
            ).first
        else { return false }
        let isWithdrawn = try row.string("power") == DesiredPower.absent.rawValue
        if isWithdrawn, report.power == .absent, try report.generation >= row.int("generation") {
            try forget(connection, server: report.serverID)
            return true
        }
        let endpoint = try report.endpoint.map { try JSONValue(encoding: $0) }
        try connection.execute(
            """
            UPDATE server_arrivals SET observed_generation = \(report.generation), observed_power = \(report.power.rawValue),
                observed_error = \(report.error), observed_reason = \(report.reason), observed_permanent = \(report.permanent),
                endpoint = coalesce(\(endpoint)::jsonb, endpoint)
            WHERE server_id = \(report.serverID) AND observed_generation <= \(report.generation)
            """)
        return true
    }
}
