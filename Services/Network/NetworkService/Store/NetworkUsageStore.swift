import Database
import Kernel
import NetworkCore
import WebAPI

/// A network with the used addresses of its subnets.
struct NetworkUsage: Sendable {
    let id: UUID128
    let name: String
    let project: String
    /// In the order of creation.
    let subnets: [(subnet: Subnet, name: String, used: Int)]
}

/// A page of networks by their ids. A network must match all values of each filter.
struct NetworkUsageQuery: Sendable {
    var ids: [String] = []
    var names: [String] = []
    var projects: [String] = []
    /// The last network of the previous page.
    var marker: UUID128?
    var isDescending = false
    var limit = 1

    fileprivate var condition: SQL {
        var conditions = ids.map { Field.Filter.uuid("id", $0) }
        conditions += names.map { "name = \($0)" as SQL }
        conditions += projects.map { "project_id = \($0)" as SQL }
        if let marker { conditions.append(isDescending ? "id < \(marker)" : "id > \(marker)") }
        return conditions.isEmpty ? "TRUE" : SQL.joined(conditions, separator: " AND ")
    }
}

extension NetworkAPI {
    func networkUsage(_ connection: Connection, _ query: NetworkUsageQuery) throws -> [NetworkUsage] {
        let networks = try connection.query(
            """
            SELECT id, name, project_id FROM networks WHERE \(query.condition)
            ORDER BY id \(raw: query.isDescending ? "DESC" : "ASC") LIMIT \(query.limit)
            """)
        let ids = try networks.map { try $0.uuid("id") }
        let rows = try connection.query(
            """
            SELECT s.*, (SELECT count(*) FROM port_fixed_ips f WHERE f.subnet_id = s.id) AS used FROM subnets s
            WHERE s.network_id = ANY(\(ids)::uuid[]) ORDER BY s.created_at, s.id
            """)
        var subnets: [UUID128: [(subnet: Subnet, name: String, used: Int)]] = [:]
        for row in rows {
            let subnet = try SubnetRow.subnet(row)
            subnets[subnet.networkID, default: []].append((subnet, try row.string("name"), try row.int("used")))
        }
        return try networks.map { row in
            let id = try row.uuid("id")
            return NetworkUsage(
                id: id, name: try row.string("name"), project: try row.string("project_id"), subnets: subnets[id] ?? [])
        }
    }
}
