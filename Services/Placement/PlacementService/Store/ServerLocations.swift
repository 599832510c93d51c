import Database
import Kernel
import PlacementCore

/// The hosts of the servers that scheduling requests refer to: members of their server groups and servers in scheduler hints.
struct ServerLocations: Sendable {
    private var members: [String: Set<UUID128>] = [:]
    private var hosts: [UUID128: Set<UUID128>] = [:]

    init(_ connection: Connection, _ requests: [SchedulingRequest]) throws {
        var named: Set<UUID128> = []
        for request in requests {
            named.formUnion(request.sameHost)
            named.formUnion(request.differentHost)
            guard let group = request.group else { continue }
            var all = members[group.id] ?? []
            if all.isEmpty, let id = UUID128(group.id) {
                let rows = try connection.query("SELECT id FROM published_servers WHERE group_id = \(id) AND NOT deleted")
                all = Set(try rows.map { try $0.uuid("id") })
            }
            members[group.id] = all.union(group.members)
        }
        hosts = try ServerLocations.hosts(connection, of: Array(members.values.reduce(into: named) { $0.formUnion($1) }))
    }

    /// Reads allocations as well as servers, because an allocation is written before the server's row names its host.
    private static func hosts(_ connection: Connection, of servers: [UUID128]) throws -> [UUID128: Set<UUID128>] {
        guard !servers.isEmpty else { return [:] }
        let rows = try connection.query(
            """
            SELECT a.consumer_id AS server, r.id FROM allocations a JOIN resource_providers r ON r.id = a.resource_provider_id
            WHERE a.consumer_id = ANY(\(servers)::uuid[]) AND r.host IS NOT NULL
            UNION SELECT s.id, r.id FROM published_servers s JOIN resource_providers r ON r.host = s.host
            WHERE s.id = ANY(\(servers)::uuid[]) AND NOT s.deleted
            """)
        var hosts: [UUID128: Set<UUID128>] = [:]
        for row in rows { hosts[try row.uuid("server"), default: []].insert(try row.uuid("id")) }
        return hosts
    }

    /// Records that a server is on one host only, or on none.
    mutating func move(_ server: UUID128, to host: UUID128?) { hosts[server] = host.map { [$0] } }

    func affinity(_ request: SchedulingRequest) -> AffinityContext {
        var affinity = AffinityContext()
        if let group = request.group {
            for member in members[group.id] ?? [] where member != request.consumerID {
                for host in hosts[member] ?? [] { affinity.members[host, default: 0] += 1 }
            }
        }
        affinity.same = Set(request.sameHost.flatMap { hosts[$0] ?? [] })
        affinity.different = Set(request.differentHost.flatMap { hosts[$0] ?? [] })
        return affinity
    }
}
