import ComputeCore
import Database
import JSON
import Kernel

extension ServerCreation {
    /// Interfaces as the workflow will make them: each with a network, an own port or both.
    func networks() throws -> JSONValue {
        switch request.networks {
        case .none: return []
        case .automatic(let required):
            let ids = try connection.query(
                """
                SELECT n.id FROM networks n WHERE NOT n.external AND n.admin_state_up
                AND (n.project_id = \(owner.project) OR n.shared)
                AND EXISTS (SELECT 1 FROM subnets s WHERE s.network_id = n.id) ORDER BY n.id LIMIT 2
                """
            ).map { try $0.string("id") }
            if ids.count > 1 {
                throw ResourceError.conflict("Multiple possible networks found, use a Network ID to be more specific.")
            }
            if ids.isEmpty, required {
                throw ResourceError.badRequest(
                    "Unable to automatically allocate a network for project \(owner.project): it has none with a subnet.")
            }
            return .array(ids.map { InterfaceRequest(networkID: $0).document })
        case .interfaces(let list):
            guard list.count <= 32 else { throw ResourceError.badRequest("networks has more than 32 items.") }
            let ports = list.compactMap(\.portID)
            guard ports.uniqued.count == ports.count else {
                throw ResourceError.badRequest("A port is named twice in networks.")
            }
            for item in list { try check(item) }
            return .array(list.map(\.document))
        }
    }

    private func check(_ item: InterfaceRequest) throws {
        if let port = item.portID {
            try ServerInterfaces.checkPort(connection, port: port, project: owner.project, isAdmin: owner.isAdmin)
        }
        guard let network = item.networkID else { return }
        try ServerInterfaces.checkNetwork(
            connection, network: network, project: owner.project, isAdmin: owner.isAdmin, address: item.fixedIP)
    }

    /// Ids of the security groups; empty for the project's default.
    func securityGroups() throws -> JSONValue {
        var ids: [String] = []
        for name in request.securityGroups where name != "default" || request.securityGroups.count > 1 {
            let rows = try connection.query(
                """
                SELECT id FROM security_groups WHERE project_id = \(owner.project)
                AND (id::text = \(name) OR name = \(name)) LIMIT 2
                """)
            if rows.count > 1 {
                throw ResourceError.conflict(
                    "Multiple security groups found matching '\(name)'. Use an ID to be more specific.")
            }
            guard let row = rows.first else {
                throw ResourceError.badRequest("Unable to find security_group with name or id '\(name.prefix(255))'")
            }
            ids.append(try row.string("id"))
        }
        return JSONValue(ids.uniqued)
    }
}

/// Checks and rows of interfaces.
enum ServerInterfaces {
    /// A port that a server may take.
    static func checkPort(_ connection: Connection, port: String, project: String, isAdmin: Bool) throws {
        let rows = try connection.query(
            """
            SELECT p.project_id, p.device_id, EXISTS (SELECT 1 FROM server_interfaces i WHERE i.port_id = p.id) AS taken,
                EXISTS (SELECT 1 FROM port_fixed_ips f WHERE f.port_id = p.id) AS addressed
            FROM ports p WHERE p.id = \(port)
            """)
        guard let row = rows.first, try isAdmin || row.string("project_id") == project else {
            throw ResourceError.badRequest("Port id \(port) could not be found.")
        }
        if try row.bool("taken") || !row.string("device_id").isEmpty {
            throw ResourceError.conflict("Port \(port) is still in use.")
        }
    }

    /// A network in which a server of the project may have a port.
    static func checkNetwork(
        _ connection: Connection, network: String, project: String, isAdmin: Bool, address: String?
    ) throws {
        let rows = try connection.query(
            """
            SELECT n.project_id, n.shared, n.external,
                EXISTS (SELECT 1 FROM subnets s WHERE s.network_id = n.id) AS addressed,
                EXISTS (SELECT 1 FROM port_fixed_ips f JOIN subnets s ON s.id = f.subnet_id
                    WHERE s.network_id = n.id AND f.ip_address = \(address)) AS address_taken,
                (SELECT json_agg(s.cidr) FROM subnets s WHERE s.network_id = n.id) AS cidrs
            FROM networks n WHERE n.id = \(network)
            """)
        guard let row = rows.first,
            try isAdmin || row.string("project_id") == project || row.bool("shared") || row.bool("external")
        else { throw ResourceError.badRequest("Network \(network) could not be found.") }
        if try row.bool("external"), try !row.bool("shared"), try row.string("project_id") != project, !isAdmin {
            throw ResourceError.forbidden("It is not allowed to create an interface on external network \(network)")
        }
        guard try row.bool("addressed") else {
            throw ResourceError.badRequest("Network \(network) requires a subnet in order to boot instances on.")
        }
        guard let address else { return }
        let networks = try row.strings("cidrs").compactMap { IPNetwork($0) }
        guard let parsed = IPAddress(address), networks.contains(where: { $0.contains(parsed) }) else {
            throw ResourceError.badRequest("Fixed IP address \(address) is not a valid ip address for network \(network).")
        }
        if try row.bool("address_taken") {
            throw ResourceError.badRequest("Fixed IP address \(address) is already in use on network \(network).")
        }
    }
}

/// Checks of volumes that servers take.
enum ServerVolumes {
    static func checkAttachable(_ connection: Connection, volume: String, project: String, boots: Bool) throws {
        let rows = try connection.query(
            """
            SELECT v.status, v.bootable, v.multiattach FROM volumes v
            WHERE v.id = \(volume) AND v.project_id = \(project)
            """)
        guard let row = rows.first else {
            throw ResourceError.badRequest("Block Device Mapping is Invalid: failed to get volume \(volume).")
        }
        let status = try row.string("status")
        let free = try status == "available" || (status == "in-use" && row.bool("multiattach"))
        guard free else {
            throw ResourceError.badRequest(
                "Invalid volume: volume '\(volume)' status must be 'available'. Currently in '\(status)' status.")
        }
        if boots, try !row.bool("bootable") {
            throw ResourceError.badRequest("Block Device \(volume) is not bootable.")
        }
    }
}
