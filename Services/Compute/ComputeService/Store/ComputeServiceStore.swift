import Authorization
import Contracts
import Database
import Kernel
import Messaging
import WebAPI

/// The statements about the services on hosts and those of the control plane.
enum ComputeServiceStore {
    private static let action = "os_compute_api:os-services:"

    /// A service with its availability zone.
    struct Entry: Sendable {
        let zone: String
        let host: String
        /// `nova-compute` on hosts.
        let kind: String
        let isEnabled: Bool
        let isUp: Bool
        /// The time of the last report; nil if the service has never sent one.
        let seenAt: Timestamp?
    }

    /// How a request identifies a service on a host.
    enum Name: Sendable {
        case id(UUID128)
        case host(String)

        fileprivate var condition: SQL {
            switch self {
            case .id(let id): "t.id = \(id)"
            case .host(let host): "t.host = \(host)"
            }
        }
    }

    /// A change of a service on a host. Members that are nil do not change.
    struct Draft: Sendable {
        var isEnabled: Bool?
        /// Why the service is disabled. Only stored together with `isEnabled`.
        var reason: String?
        var isForcedDown: Bool?
    }

    /// The zone of the control plane's services, `internal` as in Nova.
    static let planeZone = "internal"

    /// The zone of a host: the first one of its aggregates, otherwise its own.
    private static let zone = """
        coalesce((SELECT a.availability_zone FROM aggregates a JOIN aggregate_hosts g ON g.aggregate_id = a.id
            WHERE g.host = t.host AND a.availability_zone IS NOT NULL ORDER BY a.id LIMIT 1), t.availability_zone)
        """

    /// The rows `t` of all services: those on hosts, and the schedulers and conductors of the control plane.
    ///
    /// - Parameter compute: provides the time without a report after which a service counts as down.
    static func source(_ compute: Compute) -> String {
        """
        (SELECT t.id, t.number, 'nova-compute' AS kind, t.host, t.enabled, t.disabled_reason, t.forced_down,
            coalesce(t.last_seen_at, t.updated_at) AS seen_at, \(Hosts.isUpText("t", compute)) AS is_up, \(zone) AS zone
        FROM compute_services t
        UNION ALL
        SELECT p.id, p.number, p.kind, p.host, true, NULL, false, p.last_seen_at,
            p.last_seen_at > \(Hosts.latestSilence(compute)), '\(planeZone)'
        FROM plane_services p) t
        """
    }

    // MARK: reading

    static func isHost(_ connection: Connection, _ host: String) throws -> Bool {
        try !connection.query("SELECT 1 AS one FROM compute_services WHERE host = \(host)").isEmpty
    }

    /// The kind of a service of the control plane; nil if there is none with this id.
    static func planeKind(_ connection: Connection, of id: UUID128) throws -> String? {
        try connection.query("SELECT kind FROM plane_services WHERE id = \(id)").first?.string("kind")
    }

    /// The services on hosts, by zone and host.
    static func onHosts(_ connection: Connection, _ compute: Compute) throws -> [Entry] {
        try connection.query(
            """
            SELECT 'nova-compute' AS kind, t.host, t.enabled, t.last_seen_at AS seen_at, \(Hosts.isUp("t", compute)) AS is_up,
                \(raw: zone) AS zone
            FROM compute_services t ORDER BY zone, t.host
            """
        ).map(entry)
    }

    /// The services of the control plane, by host and kind.
    static func ofPlane(_ connection: Connection, _ compute: Compute) throws -> [Entry] {
        try connection.query("SELECT * FROM \(raw: source(compute)) WHERE t.kind <> 'nova-compute' ORDER BY t.host, t.kind").map(entry)
    }

    private static func entry(_ row: Row) throws -> Entry {
        Entry(
            zone: try row.string("zone"), host: try row.string("host"), kind: try row.string("kind"),
            isEnabled: try row.bool("enabled"), isUp: try row.bool("is_up"), seenAt: try row.optionalTimestamp("seen_at"))
    }

    // MARK: changing

    /// Changes a service on a host, and tells Placement about the host.
    ///
    /// - Returns: the service's id; nil if there is no such service.
    static func update(
        _ connection: Connection, _ name: Name, _ draft: Draft, _ decision: Authorized<Void>, ambient: Ambient
    ) throws -> String? {
        try decision.value(for: action + "update")
        var changes = Changes()
        if let isEnabled = draft.isEnabled {
            changes.set("enabled", isEnabled)
            changes.set("disabled_reason", draft.reason)
        }
        if let isForcedDown = draft.isForcedDown { changes.set("forced_down", isForcedDown) }
        let update = changes.statement("compute_services t", where: name.condition, at: ambient.now, touching: true) ?? ""
        guard let row = try connection.query("\(update) RETURNING t.id, t.host").first else { return nil }
        try Hosts.announce(connection, host: try row.string("host"), ambient: ambient)
        return try row.string("id")
    }

    /// Deletes a service by its id or number. A control-plane process that still runs registers again with its next report.
    ///
    /// - Returns: whether there was such a service.
    /// - Throws: 409 for a host with servers.
    static func delete(
        _ connection: Connection, id: UUID128?, number: Int?, _ decision: Authorized<Void>, ambient: Ambient
    ) throws -> Bool {
        try decision.value(for: action + "delete")
        let rows = try connection.query(
            """
            SELECT t.host, (SELECT count(*) FROM servers s WHERE s.host = t.host AND NOT s.deleted) AS servers,
                (SELECT h.id FROM hypervisors h WHERE h.host = t.host) AS provider
            FROM compute_services t WHERE t.id = \(id)::uuid OR t.number = \(number)::int FOR UPDATE
            """)
        guard let row = rows.first else {
            return try connection.execute("DELETE FROM plane_services WHERE id = \(id)::uuid OR number = \(number)::int") > 0
        }
        let host = try row.string("host")
        if try row.int("servers") > 0 {
            throw ResourceError.conflict(
                "Unable to delete compute service that is hosting instances. Migrate or delete the instances first.")
        }
        let removed = HostRemoved(host: host, providerID: try row.optionalString("provider"))
        try Outbox.add(connection, removed, to: .placementHosts, ambient: ambient)
        try connection.execute("DELETE FROM aggregate_hosts WHERE host = \(host)")
        try connection.execute("DELETE FROM compute_services WHERE host = \(host)")
        return true
    }
}
