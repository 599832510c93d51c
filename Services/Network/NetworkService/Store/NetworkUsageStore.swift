import Database
import Kernel
import NetworkCore

/// A network with the used addresses of its subnets.
struct NetworkUsage: Sendable {
    let id: UUID128
    let name: String
    let project: String
    /// In the order of creation.
    let subnets: [(subnet: Subnet, name: String, used: Int)]
}

extension NetworkAPI {
    /// - Parameter condition: on rows of `networks`; ORDER BY and LIMIT may follow.
    func networkUsage(_ connection: Connection, where condition: SQL) throws -> [NetworkUsage] {
        let networks = try connection.query("SELECT id, name, project_id FROM networks WHERE \(condition)")
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
