import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// The statements about aggregates and their hosts. Changes take the decision about the aggregate's id.
enum HostAggregateStore {
    private static let action = "os_compute_api:os-aggregates:"
    private static let metadataMax = 128

    /// Aggregates between whose hosts guests live-migrate: guests get the processor features that all of these hosts have.
    private static let sharesProcessors: SQL = "a.metadata->>'cpu_model' = 'baseline'"

    /// The distinct processors of the hosts between which the server of a row `s` must be able to move, as a list; null if its host is not
    /// in such an aggregate. Hosts with releases before 0.2.0 do not report their processor.
    static let processorDefinitions: SQL = """
        (SELECT jsonb_agg(DISTINCT p.capabilities->'processor_definition') FROM aggregate_hosts h
            JOIN aggregates a ON a.id = h.aggregate_id AND \(sharesProcessors)
            JOIN aggregate_hosts o ON o.aggregate_id = a.id JOIN hypervisors p ON p.host = o.host
            WHERE h.host = s.host AND p.capabilities->>'processor_definition' IS NOT NULL)
        """

    /// The other hosts that share an aggregate of this kind with a host.
    static func hostsWithProcessor(of host: String, _ connection: Connection) throws -> Set<String> {
        Set(
            try connection.query(
                """
                SELECT o.host FROM aggregate_hosts h JOIN aggregates a ON a.id = h.aggregate_id AND \(sharesProcessors)
                JOIN aggregate_hosts o ON o.aggregate_id = a.id WHERE h.host = \(host) AND o.host <> h.host
                """
            ).map { try $0.string("host") })
    }

    struct Draft: Sendable {
        let uuid: UUID128
        let name: String
        let zone: String?
    }

    /// - Returns: the new aggregate's number.
    /// - Throws: 409 for a name that is taken.
    static func insert(_ connection: Connection, _ decision: Authorized<Draft>, at now: Timestamp) throws -> String {
        let draft = try decision.value(for: action + "create")
        let row: Changes = ["uuid": "\(draft.uuid)", "name": "\(draft.name)", "availability_zone": "\(draft.zone)"]
        let rows = try connection.query("\(row.insertion("aggregates", at: now, isUpdated: false)) ON CONFLICT DO NOTHING RETURNING id")
        guard let id = try rows.first?.string("id") else { throw ResourceError.conflict("Aggregate \(draft.name) already exists.") }
        return id
    }

    /// The hosts of an aggregate that are up and enabled.
    static func readyHosts(_ connection: Connection, _ id: String, _ compute: Compute) throws -> [String] {
        try connection.query(
            """
            SELECT h.host FROM aggregate_hosts h JOIN compute_services t ON t.host = h.host
            WHERE h.aggregate_id::text = \(id) AND t.enabled AND \(Hosts.isUp("t", compute)) ORDER BY h.host
            """
        ).map { try $0.string("host") }
    }

    /// Locks an aggregate's row.
    ///
    /// - Throws: 404 if there is no such aggregate.
    private static func lock(_ connection: Connection, _ id: String) throws -> Row {
        guard Int32(id) != nil,
            let row = try connection.query("SELECT id, name, availability_zone, metadata FROM aggregates WHERE id = \(id)::int FOR UPDATE")
                .first
        else { throw ResourceKind.aggregates.notFound(id) }
        return row
    }

    /// - Throws: 404; 409 for a name that is taken; 400 for another zone under servers.
    static func update(_ connection: Connection, _ decision: Authorized<String>, _ aggregate: JSONValue, at now: Timestamp) throws {
        let id = try decision.value(for: action + "update")
        let row = try lock(connection, id)
        let name = aggregate["name"]?.stringValue
        if let name, name != (try row.string("name")) {
            let taken = try connection.query("SELECT 1 AS one FROM aggregates WHERE name = \(name)")
            if !taken.isEmpty { throw ResourceError.conflict("Aggregate \(name) already exists.") }
        }
        let zone = try aggregate["availability_zone"].map { $0.stringValue } ?? row.optionalString("availability_zone")
        try checkZone(connection, id, from: row.optionalString("availability_zone"), to: zone)
        var changes = Changes()
        if let name { changes.set("name", name) }
        changes.set("availability_zone", zone)
        try changes.apply(connection, "aggregates", where: "id = \(id)::int", at: now)
    }

    /// A zone cannot change while servers run in it.
    private static func checkZone(_ connection: Connection, _ id: String, from old: String?, to new: String?) throws {
        guard old != new else { return }
        let busy = try connection.query(
            """
            SELECT 1 AS one FROM servers s JOIN aggregate_hosts h ON h.host = s.host
            WHERE h.aggregate_id = \(id)::int AND NOT s.deleted LIMIT 1
            """)
        if !busy.isEmpty {
            throw ResourceError.badRequest("Cannot update aggregate \(id). Reason: One or more hosts contain instances in this zone.")
        }
    }

    /// - Throws: 404; 400 if it has hosts.
    static func delete(_ connection: Connection, _ decision: Authorized<String>) throws {
        let id = try decision.value(for: action + "delete")
        _ = try lock(connection, id)
        let hosts = try connection.query("SELECT 1 AS one FROM aggregate_hosts WHERE aggregate_id = \(id)::int LIMIT 1")
        if !hosts.isEmpty { throw ResourceError.badRequest("Cannot remove aggregate \(id). Reason: Host aggregate is not empty.") }
        try connection.execute("DELETE FROM aggregates WHERE id = \(id)::int")
    }

    /// - Throws: 404 for the aggregate or the host; 409 if it has the host, or the host is in another zone.
    static func add(_ connection: Connection, host: String, to decision: Authorized<String>, at now: Timestamp) throws {
        let id = try decision.value(for: action + "add_host")
        let row = try lock(connection, id)
        let known = try connection.query("SELECT 1 AS one FROM compute_services WHERE host = \(host)")
        if known.isEmpty { throw ResourceError.notFound("Compute host \(host.prefix(255)) could not be found.") }
        let zone = try row.optionalString("availability_zone")
        let others = try connection.query(
            """
            SELECT a.availability_zone FROM aggregates a JOIN aggregate_hosts h ON h.aggregate_id = a.id
            WHERE h.host = \(host) AND a.availability_zone IS NOT NULL AND a.availability_zone <> \(zone)
            """)
        if zone != nil, !others.isEmpty {
            throw ResourceError.conflict(
                "Cannot add host to aggregate \(id). Reason: One or more hosts already in different availability zone(s).")
        }
        let added = try connection.execute(
            "INSERT INTO aggregate_hosts (aggregate_id, host) VALUES (\(id)::int, \(host)) ON CONFLICT DO NOTHING")
        if added == 0 { throw ResourceError.conflict("Aggregate \(id) already has host \(host).") }
        try touch(connection, id, at: now)
    }

    /// - Throws: 404 for the aggregate or the host.
    static func remove(_ connection: Connection, host: String, from decision: Authorized<String>, at now: Timestamp) throws {
        let id = try decision.value(for: action + "remove_host")
        _ = try lock(connection, id)
        let removed = try connection.execute("DELETE FROM aggregate_hosts WHERE aggregate_id = \(id)::int AND host = \(host)")
        if removed == 0 { throw ResourceError.notFound("Aggregate \(id) has no host \(host.prefix(255)).") }
        try touch(connection, id, at: now)
    }

    private static func touch(_ connection: Connection, _ id: String, at now: Timestamp) throws {
        try connection.execute("UPDATE aggregates SET updated_at = \(now) WHERE id = \(id)::int")
    }

    /// Sets items of the metadata; a null removes one. `availability_zone` is the aggregate's zone.
    ///
    /// - Throws: 404; 400 for too many items, for an invalid zone, or for a change of zone while servers run in it.
    static func setMetadata(
        _ connection: Connection, of decision: Authorized<String>, _ changes: JSONObject, at now: Timestamp
    ) throws {
        let id = try decision.value(for: action + "set_metadata")
        let row = try lock(connection, id)
        var metadata = try row.object("metadata")
        var zone = try row.optionalString("availability_zone")
        for member in changes.members {
            if member.name == "availability_zone" {
                try AggregateRoutes.check(zone: member.value.stringValue)
                try checkZone(connection, id, from: zone, to: member.value.stringValue)
                zone = member.value.stringValue
            } else {
                if member.name == "cpu_model", let model = member.value.stringValue, model != "baseline" {
                    throw ResourceError.badRequest(
                        "Invalid input for field/attribute cpu_model. Value: \(model.prefix(64)). It must be 'baseline', or null.")
                }
                // A null removes the item. `nil` in a conditional of JSON values would be a null, not its absence.
                let value: JSONValue? = member.value.isNull ? .none : member.value
                metadata[member.name] = value
            }
        }
        guard metadata.count <= metadataMax else {
            throw ResourceError.badRequest("An aggregate has at most \(metadataMax) metadata items.")
        }
        try connection.execute(
            """
            UPDATE aggregates SET metadata = \(metadata)::jsonb, availability_zone = \(zone), updated_at = \(now) WHERE id = \(id)::int
            """)
    }
}
