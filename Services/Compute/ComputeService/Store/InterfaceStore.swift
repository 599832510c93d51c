import Authorization
import Database
import JSON
import Kernel

/// The statements about servers' interfaces. Workflows insert and delete them.
enum InterfaceStore {
    /// An interface with the state of its port.
    struct Interface: Sendable {
        let portID: String
        let tag: String?
        let networkID: String
        let macAddress: String
        let portStatus: String
        /// The port's addresses with their subnets, as clients see them.
        let fixedIPs: JSONValue
    }

    /// The attached interfaces, and those that are being detached. An interface that is being attached is not shown.
    ///
    /// - Parameter port: nil for all.
    static func list(_ connection: Connection, of server: String, port: String? = nil) throws -> [Interface] {
        try connection.query(
            """
            SELECT i.port_id, i.tag, p.network_id, p.mac_address, p.status,
                (SELECT coalesce(json_agg(json_build_object('subnet_id', f.subnet_id, 'ip_address', f.ip_address)
                    ORDER BY f.position), '[]')
                    FROM published_fixed_ips f WHERE f.port_id = p.id) AS addresses
            FROM server_interfaces i JOIN published_ports p ON p.id = i.port_id
            WHERE i.server_id = \(server) AND (\(port)::uuid IS NULL OR i.port_id = \(port)::uuid)
                AND i.state <> 'attaching' ORDER BY i.position
            """
        ).map { row in
            Interface(
                portID: try row.string("port_id"), tag: try row.optionalString("tag"), networkID: try row.string("network_id"),
                macAddress: try row.string("mac_address"), portStatus: try row.string("status"), fixedIPs: try row.json("addresses"))
        }
    }

    /// The networks on which a server of the project can get an interface without naming one: at most two, which is enough to see
    /// that there are several.
    static func usableNetworks(_ connection: Connection, project: String) throws -> [String] {
        try connection.query(
            """
            SELECT n.id FROM published_networks n WHERE NOT n.external
                AND published_network_usable(n.project_id, n.shared, \(project))
            AND n.has_subnets LIMIT 2
            """
        ).map { try $0.string("id") }
    }

    /// The server's first attached port in a network.
    static func port(_ connection: Connection, of server: String, network: String) throws -> String? {
        try connection.query(
            """
            SELECT i.port_id FROM server_interfaces i JOIN published_ports p ON p.id = i.port_id
            WHERE i.server_id = \(server) AND p.network_id = \(network) AND i.state = 'attached' ORDER BY i.position LIMIT 1
            """
        ).first?.string("port_id")
    }

    /// The server's attached port with an address.
    static func port(_ connection: Connection, of server: String, address: String) throws -> String? {
        try connection.query(
            """
            SELECT i.port_id FROM server_interfaces i JOIN published_fixed_ips f ON f.port_id = i.port_id
            WHERE i.server_id = \(server) AND f.ip_address = \(address) AND i.state = 'attached' LIMIT 1
            """
        ).first?.string("port_id")
    }

    /// A port's addresses in order.
    static func fixedIPs(_ connection: Connection, of port: String) throws -> [(subnet: String, address: String)] {
        try connection.query("SELECT subnet_id, ip_address FROM published_fixed_ips WHERE port_id = \(port) ORDER BY position").map {
            (subnet: try $0.string("subnet_id"), address: try $0.string("ip_address"))
        }
    }

    /// The ids of a network's subnets, those of IPv4 first.
    static func subnets(_ connection: Connection, of network: String) throws -> [String] {
        try connection.query("SELECT id FROM published_subnets WHERE network_id = \(network) ORDER BY ip_version, id").map {
            try $0.string("id")
        }
    }

    /// Locks the row of an interface.
    ///
    /// - Returns: whether its port was created for the server, and whether the interface is being detached already; nil if the server
    ///   has no interface with this port, or its attachment is not complete.
    static func lock(_ connection: Connection, port: String, of server: String) throws -> (isOwn: Bool, isDetaching: Bool)? {
        try connection.query(
            """
            SELECT created, state FROM server_interfaces
            WHERE server_id = \(server) AND port_id = \(port) AND state <> 'attaching' FOR UPDATE
            """
        ).first.map { (isOwn: try $0.bool("created"), isDetaching: try $0.string("state") == "detaching") }
    }

    /// The position after the last interface of a server, as an expression.
    static func nextPosition(of server: String) -> SQL {
        "(SELECT coalesce(max(n.position), -1) + 1 FROM server_interfaces n WHERE n.server_id = \(server))"
    }

    /// Whether `server_interfaces i` is the work of an attaching workflow.
    ///
    /// - Parameter operation: the workflow's subject. Rows of older releases have none.
    static func isAttached(by operation: String) -> SQL { "coalesce(i.attach_operation, \(operation)) = \(operation)" }

    /// Whether `server_interfaces i` is what a detaching workflow detaches.
    static func isDetached(by operation: String) -> SQL {
        "(i.state = 'detaching' AND coalesce(i.detach_operation, \(operation)) = \(operation))"
    }

    /// The statement that inserts an interface with an existing port as `server_interfaces i`; no row if there is no such port.
    ///
    /// - Parameters:
    ///   - isNew: whether the port was created for the server.
    ///   - operation: the subject of the workflow that attaches it to a server that exists.
    static func insertion(
        port: String, server: String, position: SQL, isNew: Bool = false, tag: String?, state: String, operation: String? = nil
    ) -> SQL {
        """
        INSERT INTO server_interfaces AS i (port_id, server_id, position, network_id, created, tag, state, attach_operation)
        SELECT p.id, \(server), \(position), p.network_id, \(isNew), \(tag), \(state), \(operation)
        FROM published_ports p WHERE p.id = \(port)
        """
    }

    /// Claims an existing port for a server unless that has happened.
    ///
    /// - Returns: whether it was free.
    static func claim(_ connection: Connection, port: String, tag: String?, server: String, operation: String) throws -> Bool {
        let insertion = insertion(
            port: port, server: server, position: nextPosition(of: server), tag: tag, state: "attaching", operation: operation)
        return try connection.execute("\(insertion) ON CONFLICT DO NOTHING") == 1
    }

    /// Claims an existing port for a server, so that no other server can use it. The interface is not part of the server's desired
    /// state until it is attached.
    ///
    /// - Parameter operation: the subject of the workflow that attaches it.
    /// - Throws: 409 if another request has claimed it.
    static func claim(
        _ connection: Connection, port: String, tag: String?, of decision: Authorized<ServerRecord>, operation: String
    ) throws {
        let server = try decision.value(for: "os_compute_api:os-attach-interfaces:create").id
        guard try claim(connection, port: port, tag: tag, server: server, operation: operation) else {
            throw ResourceError.conflict("Port \(port) is still in use.")
        }
    }

    /// - Parameter operation: the subject of the workflow that detaches it.
    static func markDetaching(
        _ connection: Connection, port: String, of decision: Authorized<ServerRecord>, operation: String
    ) throws {
        let server = try decision.value(for: "os_compute_api:os-attach-interfaces:delete").id
        try connection.execute(
            """
            UPDATE server_interfaces SET state = 'detaching', detach_operation = \(operation)
            WHERE server_id = \(server) AND port_id = \(port)
            """)
    }
}
