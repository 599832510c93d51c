import Contracts
import Database
import JSON
import Kernel
import Messaging
import NetworkCore
import WebAPI

/// Port changes that the servers' hosts must know about: whether port security is enabled, the addresses by which the metadata service
/// identifies the guest, and the guest's metadata about its subnets (gateway, name servers, DHCP), floating IPs, security groups and the
/// MTU. Changes that OVN implements need no message to the hosts.
enum ServerPorts {
    /// Maximum number of servers in one message.
    private static let batchMax = 200

    /// Notifies Compute, with the commit, of the servers that have these ports on hosts. The change is counted too, so that Compute
    /// notices it if the broker loses the message.
    ///
    /// - Parameter condition: a condition on rows of `ports`.
    static func announce(_ connection: Connection, where condition: SQL, ambient: Ambient) throws {
        let servers = try connection.query(
            """
            WITH changed AS (
                INSERT INTO port_changes (port_id, number, changed_at)
                SELECT id, 1, \(ambient.databaseNow) FROM ports
                WHERE (\(condition)) AND device_owner LIKE 'compute:%' AND host_id <> '' ORDER BY id
                ON CONFLICT (port_id) DO UPDATE SET number = port_changes.number + 1, changed_at = EXCLUDED.changed_at
                RETURNING port_id)
            SELECT DISTINCT p.device_id FROM changed c JOIN ports p ON p.id = c.port_id ORDER BY p.device_id
            """
        ).map { try $0.string("device_id") }
        for start in stride(from: 0, to: servers.count, by: batchMax) {
            let some = Array(servers[start..<min(start + batchMax, servers.count)])
            try Outbox.add(connection, PortsChanged(servers: some), to: .computeAgents, ambient: ambient, relayedElsewhere: true)
        }
    }
}
