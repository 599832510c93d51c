import Authorization
import ComputeCore
import Contracts
import Database
import GuestKeys
import JSON
import Kernel
import Schema
import WebAPI
import Workflow

/// Accepts a live migration inside its transaction.
struct LiveMigrateRequest {
    let connection: Connection
    let compute: Compute
    let owner: ServerOwner
    let host: String?
    /// Nil to copy local disks if there are any.
    let copiesDisks: Bool?
    let preview: MovePreview

    /// - Throws: 400 for a host that cannot take the server, or a server that cannot be moved; 409 if its host is down.
    func run(_ decision: Authorized<ServerRecord>, _ server: ServerRecord) throws {
        let id = try decision.value(for: ServerLiveMigrateRoutes.action).id
        let source = server.host ?? ""
        try MoveChecks.requireUpgraded(connection, compute.ambient)
        try MoveChecks.require(connection, id, without: [.dedicatedProcessors])
        if try copiesDisks == false && MoveChecks.hasLocalDisks(connection, id) {
            throw ResourceError.badRequest(
                """
                Migration pre-check error: instance \(id) is not on shared storage: shared storage live-migration requires volumes only, \
                without local disks. Use block_migration 'auto'.
                """)
        }
        guard try Hosts.isUp(source, connection, compute) else {
            throw ResourceError.badRequest("Compute service of \(source) is unavailable at this time.")
        }
        if let host {
            try MoveChecks(connection, compute).require(host, for: id, from: source, besides: preview.reasons[host] ?? [])
        } else {
            try preview.requireHost(for: id)
        }
        let migration = try MigrationStore.begin(connection, .live, of: server, for: owner, ambient: compute.ambient)
        try Workflows.start(
            connection, ServerLiveMigration(compute).workflow, subject: id,
            frame: ServerLiveMigration.Frame(migration: migration, source: source, requested: host), requestID: owner.requestID,
            ambient: compute.ambient)
    }
}

/// Finds the hosts to which a server can move.
struct MoveChecks {
    private let connection: Connection
    private let compute: Compute

    init(_ connection: Connection, _ compute: Compute) {
        self.connection = connection
        self.compute = compute
    }

    /// Whether a server has disks that only its host has. The config drive does not count, because the target recreates it.
    static func hasLocalDisks(_ connection: Connection, _ id: String) throws -> Bool {
        try connection.query(
            """
            SELECT NOT EXISTS (SELECT 1 FROM server_volumes v WHERE v.server_id = s.id AND v.boot_index = 0)
                OR coalesce((s.flavor->>'ephemeral')::bigint, 0) > 0 OR coalesce((s.flavor->>'swap')::bigint, 0) > 0 AS it_has
            FROM servers s WHERE s.id = \(id)
            """)[0].bool("it_has")
    }

    /// The migration of the schema that introduced moves.
    private static let moves = 45

    /// - Throws: 409 while processes run that do not support moves: they would order the expecting host to remove the guest.
    static func requireUpgraded(_ connection: Connection, _ ambient: Ambient) throws {
        let older = try Replicas.blockers(connection, of: moves, ambient)
        guard older.isEmpty else {
            throw ResourceError.conflict("No server can move before the upgrade is complete: there is \(older.joined(separator: ", ")).")
        }
    }

    /// - Parameter members: flags that would make the scheduler ignore a host's capacity. Clients send them as false.
    /// - Throws: 400 if one of them is set.
    static func require(_ body: JSONValue, without members: [String]) throws {
        for name in members where body[name].flatMap({ BodySchema.boolean($0) }) == true {
            throw ResourceError.badRequest(
                "Invalid value for '\(name)': true. The scheduler always checks the host. Use false, or leave it out.")
        }
    }

    /// State of a server that stays on its host when the server moves.
    enum HostState: Hashable { case firmware, tpm, dedicatedProcessors }

    /// - Parameter states: kinds of state that this kind of move would lose.
    /// - Throws: 400 for a server that has one of them.
    static func require(_ connection: Connection, _ id: String, without states: Set<HostState>) throws {
        if let reason = try hostState(connection, id, of: states) {
            throw ResourceError.badRequest("Instance \(id) cannot leave its host: it has \(reason).")
        }
    }

    private static func hostState(_ connection: Connection, _ id: String, of states: Set<HostState>) throws -> String? {
        let (flavor, properties) = try ServerStore.hardware(connection, of: id)
        let hardware = GuestHardware(flavor, properties)
        return if hardware.tpm != nil, states.contains(.tpm) {
            "a trusted platform module, whose state only a live migration (os-migrateLive) takes along"
        } else if hardware.firmware == .uefi, states.contains(.firmware) {
            "UEFI firmware, whose variables only a live migration (os-migrateLive) takes along"
        } else if hardware.processorPolicy == .dedicated, states.contains(.dedicatedProcessors) {
            "processors of its host for itself"
        } else { nil }
    }

    /// Hosts that have not yet removed the remains of a server, and those that keep its disks.
    static func hostsWithRemains(of id: String) -> SQL {
        """
        SELECT host FROM server_absences WHERE server_id = \(id)
        UNION SELECT host FROM server_kept_disks WHERE server_id = \(id)
        UNION SELECT source_host FROM server_migrations
            WHERE server_id = \(id) AND dest_host <> source_host AND status = ANY(\(MigrationStore.open)::text[])
        """
    }

    /// Why a server that is off cannot move to another host, as a sentence; nil if it can.
    func whatForbidsLeaving(_ server: ServerRecord) throws -> String? {
        let source = server.host ?? ""
        guard try Replicas.blockers(connection, of: MoveChecks.moves, compute.ambient).isEmpty else {
            return "no server can move before the upgrade of the services is complete."
        }
        if let reason = try MoveChecks.hostState(connection, server.id, of: [.firmware, .tpm]) {
            return "instance \(server.id) cannot leave its host: it has \(reason)."
        }
        guard let row = try row(source), try row.bool("is_up") else { return "the host of instance \(server.id) is down." }
        guard try unable(toKeep: server.id).contains(source) == false else {
            return "the agent on the host of instance \(server.id) is of a release that would delete the server's disks."
        }
        return nil
    }

    /// Hosts that still have remains of the server, like `hostsWithRemains`, and those whose agents cannot move disks.
    func unable(toKeep id: String) throws -> [String] {
        try connection.query(
            """
            \(MoveChecks.hostsWithRemains(of: id))
            UNION SELECT host FROM hypervisors WHERE capabilities->>'release' IS NULL ORDER BY host
            """
        ).map { try $0.string("host") }
    }

    /// - Parameter reasons: the scheduler's, as sentences.
    /// - Throws: 400 naming every known reason why the server cannot move to this host.
    func require(_ host: String, for id: String, from source: String, besides reasons: [String]) throws {
        guard host != source else {
            throw ResourceError.badRequest("Unable to migrate instance (\(id)) to current host (\(source)).")
        }
        let row = try requireAvailable(host)
        // A guest that the host has not yet removed would be mistaken for the one that has arrived.
        guard try !connection.query(MoveChecks.hostsWithRemains(of: id)).contains(where: { try $0.string("host") == host }) else {
            throw ResourceError.conflict("Compute host \(host) has not yet removed the leftover files of instance \(id).")
        }
        let obstacles = try obstacles(of: id, from: source, to: row) + reasons
        guard obstacles.isEmpty else {
            throw ResourceError.badRequest("Migration pre-check error: \(host): \(obstacles.joined(separator: " "))")
        }
    }

    /// - Throws: 400 if the host does not exist, is down or is disabled.
    @discardableResult
    func requireAvailable(_ host: String) throws -> Row {
        guard let row = try row(host) else {
            throw ResourceError.badRequest("Compute host \(host.prefix(255)) could not be found.")
        }
        guard try row.bool("is_up") else {
            throw ResourceError.badRequest("Compute service of \(host) is unavailable at this time.")
        }
        guard try row.bool("enabled") else { throw ResourceError.badRequest("Compute service of \(host) is disabled.") }
        return row
    }

    private func row(_ host: String) throws -> Row? {
        try connection.query(
            """
            SELECT t.host, t.enabled, \(Hosts.isUp("t", compute)) AS is_up, h.capabilities FROM compute_services t
            LEFT JOIN hypervisors h ON h.host = t.host WHERE t.host = \(host)
            """
        ).first
    }

    private func obstacles(of id: String, from source: String, to row: Row) throws -> [String] {
        guard let now: HostCapabilities = try self.row(source)?.optionalValue("capabilities"),
            let there: HostCapabilities = try row.optionalValue("capabilities")
        else { return ["The hypervisor is not known."] }
        let (host, alike) = (try row.string("host"), try HostAggregateStore.hostsWithProcessor(of: source, connection))
        return MoveObstacles.list(from: now, to: there, sharesProcessors: alike.contains(host), networks: try physicalNetworks(of: id))
    }

    /// The physical networks that a server is connected to.
    private func physicalNetworks(of id: String) throws -> Set<String> {
        let rows = try connection.query(
            """
            SELECT DISTINCT n.physical_network FROM server_interfaces i JOIN published_ports p ON p.id = i.port_id
            JOIN published_networks n ON n.id = p.network_id
            WHERE i.server_id = \(id) AND i.state <> 'detaching' AND n.physical_network IS NOT NULL
            """)
        return Set(try rows.map { try $0.string("physical_network") })
    }

    /// Hosts on which the guest cannot continue to run, and those that have not yet removed the remains of the server.
    func unsuitable(for id: String, on source: String) throws -> [String] { try obstacles(of: id, from: source).keys.sorted() }

    /// By host, why the guest cannot continue to run there; without the hosts on which it can.
    func obstacles(of id: String, from source: String) throws -> [String: [String]] {
        let leaving = try connection.query(MoveChecks.hostsWithRemains(of: id)).map { try $0.string("host") }
        var found = Dictionary(leaving.map { ($0, ["It has not yet removed the leftover files of the server."]) }) { first, _ in first }
        guard let now: HostCapabilities = try row(source)?.optionalValue("capabilities") else { return found }
        let alike = try HostAggregateStore.hostsWithProcessor(of: source, connection)
        let networks = try physicalNetworks(of: id)
        for row in try connection.query("SELECT host, capabilities FROM hypervisors WHERE host <> \(source)") {
            let (host, there) = (try row.string("host"), try row.value("capabilities") as HostCapabilities)
            found[host, default: []] += MoveObstacles.list(
                from: now, to: there, sharesProcessors: alike.contains(host), networks: networks)
        }
        return found.filter { !$0.value.isEmpty }
    }
}
