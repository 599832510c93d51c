import Authorization
import ComputeCore
import Database
import JSON
import Kernel
import WebAPI

extension ServerCreation {
    /// The interfaces that the workflow will create: each with a network, an existing port, or both.
    func networks() throws -> JSONValue {
        switch request.networks {
        case .none: return []
        case .automatic(let required):
            let ids = try connection.query(
                """
                SELECT n.id FROM published_networks n WHERE NOT n.external AND n.admin_state_up
                AND published_network_usable(n.project_id, n.shared, \(owner.project))
                AND n.has_subnets ORDER BY n.id LIMIT 2
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
            return .array(try list.map { try ServerInterfaces.checked(connection, $0, owner).document })
        }
    }

    /// Ids of the security groups; empty for the project's default.
    func securityGroups() throws -> JSONValue {
        var ids: [String] = []
        for name in request.securityGroups where name != "default" || request.securityGroups.count > 1 {
            let rows = try connection.query(
                """
                SELECT id FROM published_security_groups WHERE project_id = \(owner.project)
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
    /// Checks the network and port of an interface, and records whether only an administrator's rights allow them.
    ///
    /// - Throws: 400, 403 or 409 with Nova's messages.
    static func checked(_ connection: Connection, _ item: InterfaceRequest, _ owner: ServerOwner) throws -> InterfaceRequest {
        var isOrdinary = true
        if let port = item.portID {
            isOrdinary = try checkPort(connection, port: port, project: owner.project, isAdmin: owner.isAdmin)
        } else if let network = item.networkID {
            isOrdinary = try checkNetwork(connection, network: network, owner, address: item.fixedIP)
        }
        if isOrdinary { return item }
        guard let administrator = owner.administrator else {
            throw ResourceError.forbidden("A resource of another project requires an administrator's token scoped to a project.")
        }
        var item = item
        item.administrator = administrator
        return item
    }

    /// Mirrors Network's action `create_port:fixed_ips`; Network checks it again when the port is created.
    static let addressAction = "os_compute_api:servers:choose_fixed_ip"

    static func mayChooseAddress(_ context: RequestContext, networkProject: String) -> Bool {
        context.allows(addressAction, target: ["network:project_id": networkProject])
    }

    /// Checks an existing port that a server is to use.
    ///
    /// - Returns: whether project rights are sufficient, without administrator rights.
    static func checkPort(_ connection: Connection, port: String, project: String, isAdmin: Bool) throws -> Bool {
        let rows = try connection.query(
            """
            SELECT p.project_id, p.device_id, EXISTS (SELECT 1 FROM server_interfaces i WHERE i.port_id = p.id) AS taken,
                EXISTS (SELECT 1 FROM published_fixed_ips f WHERE f.port_id = p.id) AS addressed
            FROM published_ports p WHERE p.id = \(port)
            """)
        guard let row = rows.first, try isAdmin || row.string("project_id") == project else {
            throw ResourceError.badRequest("Port id \(port) could not be found.")
        }
        if try row.bool("taken") || !row.string("device_id").isEmpty {
            throw ResourceError.conflict("Port \(port) is still in use.")
        }
        return try row.string("project_id") == project
    }

    /// A network in which a server of the project may have a port, perhaps with an address of the user's choice.
    ///
    /// - Returns: whether project rights are sufficient, without administrator rights.
    static func checkNetwork(
        _ connection: Connection, network: String, _ owner: ServerOwner, address: String?
    ) throws -> Bool {
        let (isAdmin, project) = (owner.isAdmin, owner.project)
        let rows = try connection.query(
            """
            SELECT n.project_id, n.shared, n.external,
                n.has_subnets AS addressed,
                EXISTS (SELECT 1 FROM published_port_addresses f
                    WHERE f.network_id = n.id AND f.ip_address = \(address)) AS address_taken,
                n.cidrs
            FROM published_networks n WHERE n.id = \(network)
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
        let isOwn = try row.string("project_id") == project
        guard let address else { return try isOwn || row.bool("shared") }
        guard owner.choosesAddress(try row.string("project_id")) else {
            throw ResourceError.forbidden(
                """
                Policy doesn't allow \(addressAction) to be performed: fixed IP address \(address) cannot be \
                chosen on network \(network), which belongs to another project.
                """
            )
        }
        let networks = try row.strings("cidrs").compactMap { IPNetwork($0) }
        guard let parsed = IPAddress(address), networks.contains(where: { $0.contains(parsed) }) else {
            throw ResourceError.badRequest("Fixed IP address \(address) is not a valid ip address for network \(network).")
        }
        if try row.bool("address_taken") {
            throw ResourceError.badRequest("Fixed IP address \(address) is already in use on network \(network).")
        }
        return isOwn
    }
}

/// Checks of volumes that servers take.
enum ServerVolumes {
    /// A snapshot from which the project can create a volume.
    static func checkSnapshot(_ connection: Connection, _ device: DeviceRequest, project: String) throws {
        let id = device.uuid ?? ""
        let rows = try connection.query(
            "SELECT status, size FROM published_volume_snapshots WHERE id = \(id)::uuid AND project_id = \(project)")
        guard let row = rows.first else {
            throw ResourceError.badRequest("Block Device Mapping is Invalid: failed to get snapshot \(id).")
        }
        let (status, size) = (try row.string("status"), try row.int("size"))
        guard status == "available" else {
            throw ResourceError.badRequest(
                "Invalid snapshot: snapshot '\(id)' status must be 'available'. Currently in '\(status)' status.")
        }
        if let asked = device.size, asked < size {
            throw ResourceError.badRequest(
                "Block Device Mapping is Invalid: volume_size \(asked) is smaller than snapshot \(id), which has \(size) GiB.")
        }
    }

    /// Whether a snapshot of the volume is being created, so that its content must not change.
    static func isBeingCopied(_ connection: Connection, _ volume: String) throws -> Bool {
        try !connection.query(
            "SELECT 1 AS one FROM published_volume_snapshots WHERE volume_id = \(volume)::uuid AND status = 'creating' LIMIT 1"
        ).isEmpty
    }

    static func attachments(_ connection: Connection, of volume: String) throws -> Int {
        try connection.query(
            "SELECT count(*) AS n FROM published_volume_attachments WHERE volume_id = \(volume)::uuid")[0].int("n")
    }

    /// A volume type, by id or name, that the project may use.
    static func checkType(_ connection: Connection, _ type: String, project: String) throws {
        let rows = try connection.query(
            """
            SELECT 1 AS one FROM published_volume_types y WHERE (y.name = \(type) OR y.id::text = \(type))
            AND published_volume_type_usable(y.id, y.is_public, \(project))
            """)
        guard rows.isEmpty else { return }
        throw ResourceError.badRequest("Block Device Mapping is Invalid: Volume type with name \(type.prefix(255)) could not be found.")
    }

    /// - Parameter row: with the volume's `status` and `multiattach`.
    /// - Throws: 400 for a volume that cannot be attached to a further server, or a multiattach volume if the request's version does not
    ///   support it.
    static func requireFree(_ row: Row, volume: String, knowsMultiattach: Bool) throws {
        let (status, isMultiattach) = (try row.string("status"), try row.bool("multiattach"))
        guard status == "available" || status == "in-use" && isMultiattach else {
            throw ResourceError.badRequest(
                "Invalid volume: volume '\(volume)' status must be 'available'. Currently in '\(status)' status.")
        }
        guard !isMultiattach || knowsMultiattach else {
            throw ResourceError.badRequest("Multiattach volumes are only supported starting with compute API version 2.60.")
        }
    }

    static func checkAttachable(
        _ connection: Connection, volume: String, project: String, boots: Bool, knowsMultiattach: Bool
    ) throws {
        let rows = try connection.query(
            """
            SELECT v.status, v.bootable, v.multiattach FROM published_volumes v
            WHERE v.id = \(volume) AND v.project_id = \(project)
            """)
        guard let row = rows.first else {
            throw ResourceError.badRequest("Block Device Mapping is Invalid: failed to get volume \(volume).")
        }
        try requireFree(row, volume: volume, knowsMultiattach: knowsMultiattach)
        if boots, try !row.bool("bootable") {
            throw ResourceError.badRequest("Block Device \(volume) is not bootable.")
        }
    }
}
