import Authorization
import Database
import Kernel
import WebAPI

/// The hosts of a port: `ports.host_id` is the active binding, `port_bindings` has the others.
enum PortBindingStore {
    /// The active binding first.
    static func all(_ connection: Connection, of port: UUID128) throws -> [(host: String, isActive: Bool)] {
        try connection.query(
            """
            SELECT host_id AS host, true AS active FROM ports WHERE id = \(port) AND host_id <> ''
            UNION ALL SELECT host, false FROM port_bindings WHERE port_id = \(port) ORDER BY 2 DESC, 1
            """
        ).map { (try $0.string("host"), try $0.bool("active")) }
    }

    /// Locks the port.
    ///
    /// - Returns: the host to which it is bound, or an empty text.
    /// - Throws: 404 if the port does not exist.
    static func lock(_ connection: Connection, _ port: UUID128) throws -> String {
        guard let row = try connection.query("SELECT host_id FROM ports WHERE id = \(port) FOR UPDATE").first else {
            throw ResourceKind.ports.notFound("\(port)")
        }
        return try row.string("host_id")
    }

    /// Records that the port's server is expected on a further host.
    ///
    /// - Returns: false if such a binding exists.
    static func expect(_ connection: Connection, _ port: Authorized<Subject>, on host: String, at now: Timestamp) throws -> Bool {
        let port = try port.value(for: "create_port_binding").id
        return try connection.execute(
            """
            INSERT INTO port_bindings (port_id, host, is_expected, created_at) VALUES (\(port), \(host), true, \(now))
            ON CONFLICT DO NOTHING
            """) > 0
    }

    /// Makes a binding the active one, and the one that was active an inactive one.
    ///
    /// - Returns: false if there is no binding to `host`.
    static func activate(
        _ connection: Connection, _ port: Authorized<Subject>, on host: String, insteadOf active: String, at now: Timestamp
    ) throws -> Bool {
        let port = try port.value(for: "activate_port_binding").id
        guard try remove(connection, port, on: host) else { return false }
        try connection.execute(
            """
            INSERT INTO port_bindings (port_id, host, is_expected, created_at) VALUES (\(port), \(active), false, \(now))
            ON CONFLICT (port_id, host) DO UPDATE SET is_expected = false
            """)
        try connection.execute("UPDATE ports SET host_id = \(host), updated_at = \(now) WHERE id = \(port)")
        return true
    }

    /// - Returns: false if there is no such binding.
    static func delete(_ connection: Connection, _ port: Authorized<Subject>, on host: String) throws -> Bool {
        let port = try port.value(for: "delete_port_binding").id
        return try remove(connection, port, on: host)
    }

    /// Removes the inactive bindings of a port that is unbound.
    static func removeAll(_ connection: Connection, of port: Authorized<Subject>) throws {
        try connection.execute("DELETE FROM port_bindings WHERE port_id = \(try port.value(for: "update_port").id)")
    }

    private static func remove(_ connection: Connection, _ port: UUID128, on host: String) throws -> Bool {
        try connection.execute("DELETE FROM port_bindings WHERE port_id = \(port) AND host = \(host)") > 0
    }
}
