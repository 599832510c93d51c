import Database
import Kernel
import PlacementCore

/// Where the servers are that requests name: members of their groups, and those of the hints.
struct Neighbourhood: Sendable {
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
        hosts = try Neighbourhood.hosts(connection, of: Array(members.values.reduce(into: named) { $0.formUnion($1) }))
    }

    /// Allocations say it first: before the server's own row does.
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

    /// A server is nowhere, or on one host only, from now on.
    mutating func move(_ server: UUID128, to host: UUID128?) { hosts[server] = host.map { [$0] } }

    func around(_ request: SchedulingRequest) -> Surroundings {
        var around = Surroundings()
        if let group = request.group {
            for member in members[group.id] ?? [] where member != request.consumerID {
                for host in hosts[member] ?? [] { around.members[host, default: 0] += 1 }
            }
        }
        around.same = Set(request.sameHost.flatMap { hosts[$0] ?? [] })
        around.different = Set(request.differentHost.flatMap { hosts[$0] ?? [] })
        return around
    }
}
