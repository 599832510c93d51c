import Contracts
import Database
import JSON
import Kernel
import Messaging
import NetworkCore
import WebAPI

/// Port changes that the servers' hosts must know about: whether port security is enabled, and the addresses by which the
/// metadata service identifies the guest. Changes that OVN implements need no message to the hosts.
enum ServerPorts {
    /// Maximum number of servers in one message.
    private static let batchMax = 200

    /// Notifies Compute, with the commit, of the servers that have these ports on hosts.
    ///
    /// - Parameter condition: a condition on rows of `ports`.
    static func announce(_ connection: Connection, where condition: SQL, ambient: Ambient) throws {
        let servers = try connection.query(
            """
            SELECT DISTINCT device_id FROM ports
            WHERE (\(condition)) AND device_owner LIKE 'compute:%' AND host_id <> '' ORDER BY device_id
            """
        ).map { try $0.string("device_id") }
        for start in stride(from: 0, to: servers.count, by: batchMax) {
            let some = Array(servers[start..<min(start + batchMax, servers.count)])
            try Outbox.add(connection, PortsChanged(servers: some), to: .computeAgents, ambient: ambient, relayedElsewhere: true)
        }
    }
}
