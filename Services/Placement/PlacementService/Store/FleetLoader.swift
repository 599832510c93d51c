import Contracts
import Database
import JSON
import Kernel
import PlacementCore

/// Reads hosts with the data that the scheduler needs.
struct FleetLoader: Sendable {
    let weights: SchedulingWeights
    let hostSilence: Duration

    func fleet(_ connection: Connection, at now: SQL) throws -> Fleet {
        let aggregates = try connection.query("SELECT id, metadata, availability_zone FROM published_aggregates").map { row in
            (
                HostAggregate(id: try row.int("id"), metadata: try FleetLoader.texts(row.json("metadata"))),
                try row.optionalString("availability_zone")
            )
        }
        let hosts = try hosts(connection, where: "true", at: now)
        return Fleet(hosts, aggregates: aggregates.map(\.0), weights: weights)
    }

    /// Changes when something other than an allocation or a provider changes: services, aggregates, silent hosts.
    func fingerprint(_ connection: Connection, at now: SQL) throws -> String {
        let row = try connection.query(
            """
            SELECT
                (SELECT count(*) || ':' || coalesce(sum(hashtextextended(host || enabled || forced_down || availability_zone
                    || (coalesce(last_seen_at < \(cut(now)), false)), 0)), 0) FROM published_hosts) AS services,
                (SELECT count(*) || ':' || coalesce(sum(hashtextextended(id || metadata::text || coalesce(availability_zone, ''), 0)), 0)
                    FROM published_aggregates) AS aggregates,
                (SELECT count(*) || ':' || coalesce(sum(hashtextextended(aggregate_id || host, 0)), 0)
                    FROM published_aggregate_hosts) AS members
            """)[0]
        return try row.string("services") + "/" + row.string("aggregates") + "/" + row.string("members")
    }

    private func cut(_ now: SQL) -> SQL { "\(now) - \(hostSilence)::interval" }

    /// The hosts that match the condition on the provider `r`.
    func hosts(_ connection: Connection, where condition: SQL, at now: SQL) throws -> [HostState] {
        let rows = try connection.query(
            """
            SELECT r.id, r.host, coalesce(s.enabled, r.enabled) AS enabled,
                coalesce(s.forced_down, r.forced_down) AS forced_down,
                coalesce(s.last_seen_at < \(cut(now)), false) AS silent,
                coalesce(
                    (SELECT coalesce(a.availability_zone, a.metadata->>'availability_zone') FROM published_aggregates a
                        JOIN published_aggregate_hosts m ON m.aggregate_id = a.id
                        WHERE m.host = r.host AND coalesce(a.availability_zone, a.metadata->>'availability_zone') IS NOT NULL
                        ORDER BY a.id LIMIT 1),
                    s.availability_zone, 'nova') AS zone,
                lower(s.hypervisor_type) AS hypervisor_type, s.architecture,
                (SELECT json_agg(t.trait) FROM provider_traits t WHERE t.resource_provider_id = r.id) AS traits,
                (SELECT json_agg(m.aggregate_id) FROM published_aggregate_hosts m WHERE m.host = r.host) AS aggregates,
                (SELECT json_agg(json_build_array(i.resource_class, i.total, i.reserved, i.min_unit, i.max_unit,
                    i.step_size, i.allocation_ratio))
                    FROM inventories i WHERE i.resource_provider_id = r.id) AS inventories,
                (SELECT json_object_agg(u.resource_class, u.used) FROM (
                    SELECT a.resource_class, sum(a.used) AS used FROM allocations a
                    WHERE a.resource_provider_id = r.id GROUP BY 1) u) AS used
            FROM resource_providers r LEFT JOIN published_hosts s ON s.host = r.host
            WHERE r.host IS NOT NULL AND \(condition) ORDER BY r.host
            """)
        return try rows.map(FleetLoader.host)
    }

    private static func host(_ row: Row) throws -> HostState {
        let traits = Set(try row.strings("traits"))
        let architecture =
            try row.optionalString("architecture").map(ServerNeeds.canonicalArchitecture)
            ?? traits.first { $0.hasPrefix("HW_ARCH_") }.map { ServerNeeds.canonicalArchitecture(String($0.dropFirst(8)).lowercased()) }
        var inventories: [String: Inventory] = [:]
        for item in try row.optionalJSON("inventories")?.arrayValue ?? [] {
            guard let cells = item.arrayValue, cells.count == 7, let name = cells[0].stringValue else { continue }
            inventories[name] = Inventory(
                total: cells[1].intValue ?? 0, reserved: cells[2].intValue ?? 0, minUnit: cells[3].intValue ?? 1,
                maxUnit: cells[4].intValue ?? 1, stepSize: cells[5].intValue ?? 1, allocationRatio: cells[6].doubleValue ?? 1)
        }
        var used: [String: Int] = [:]
        for member in try row.optionalJSON("used")?.objectValue?.members ?? [] { used[member.name] = member.value.intValue ?? 0 }
        var outage: Outage?
        if try row.bool("silent") { outage = .silent }
        if try row.bool("forced_down") { outage = .forcedDown }
        if try !row.bool("enabled") { outage = .disabled }
        return HostState(
            id: try row.uuid("id"), name: try row.string("host"), outage: outage, zone: try row.string("zone"),
            aggregates: (try row.optionalJSON("aggregates")?.arrayValue ?? []).compactMap(\.intValue).sorted(),
            traits: traits, architecture: architecture,
            hypervisorType: try row.optionalString("hypervisor_type").map { $0 == "kvm" ? "qemu" : $0 },
            inventories: inventories, used: used)
    }

    private static func texts(_ value: JSONValue) -> [String: String] {
        var texts: [String: String] = [:]
        for member in value.objectValue?.members ?? [] { texts[member.name] = member.value.stringValue ?? member.value.description }
        return texts
    }
}
