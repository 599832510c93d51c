import Authorization
import Database
import JSON
import Kernel
import NetworkCore

/// What a port's row needs at least; attributes with defaults are set on it.
struct PortRow: Sendable {
    let id: UUID128
    let network: UUID128
    let project: String
    /// Nil for one of the service's choice.
    var mac: MACAddress?
    var name = ""
    var description = ""
    var status = "DOWN"
    var adminStateUp = true
    var deviceID = ""
    var deviceOwner = ""
    var hostID = ""
    var profile: JSONValue = [:]
    var portSecurity = true
    var pairs: JSONValue = []
    var dhcpOptions: JSONValue = []
    var tags: [String] = []
}

/// A port as a create request describes it.
struct PortDraft: Sendable {
    let id: UUID128
    let owner: Authorized<String>
    let network: UUID128
    let change: PortChange
    let tags: [String]

    init(
        _ body: JSONObject, id: UUID128, owner: Authorized<String>, network: UUID128, anyGroup: Bool
    ) throws {
        self.id = id
        self.owner = owner
        self.network = network
        change = try PortChange(body, anyGroup: anyGroup)
        tags = try body.tags() ?? []
    }
}

/// The attributes of a port that a request sets, checked as far as that goes without the database.
struct PortChange: Sendable {
    let body: JSONObject
    let mac: MACAddress?
    let wishes: [AddressAllocator.Wish]?
    /// Nil where not given.
    let groups: [UUID128]?
    let pairs: [AddressPair]?
    let dhcpOptions: JSONValue?
    /// Whether groups of other projects may be used.
    let anyGroup: Bool

    init(_ body: JSONObject, anyGroup: Bool) throws {
        self.body = body
        self.anyGroup = anyGroup
        mac = try body.text("mac_address").map { text in
            guard let mac = MACAddress(text), !mac.isMulticast, mac.value != 0 else {
                throw ResourceError.badRequest("Invalid input for mac_address. Reason: '\(text)' is not a unicast MAC address.")
            }
            return mac
        }
        wishes = try body.list("fixed_ips").map { try AddressAllocator.Wish.parse($0) }
        if body["security_groups"]?.isNull == true { groups = [] } else {
            groups = try body.list("security_groups").map { values in
                Array(Set(try values.map { try JSONObject.uuid($0.stringValue ?? "", "security_groups") })).sorted()
            }
        }
        if body["allowed_address_pairs"]?.isNull == true { pairs = [] } else {
            pairs = try body.list("allowed_address_pairs").map { try PortChange.pairs($0) }
        }
        dhcpOptions = try body.list("extra_dhcp_opts").map { try DHCPOptions.checked($0) }
    }

    private static func pairs(_ values: [JSONValue]) throws -> [AddressPair] {
        let pairs = try values.map { value -> AddressPair in
            let text = value["ip_address"]?.stringValue ?? ""
            let ip: String
            if let address = IPAddress(text) { ip = "\(address)" } else if let network = IPNetwork(text) { ip = "\(network)" } else {
                throw ResourceError.badRequest(
                    "Invalid input for allowed_address_pairs. Reason: '\(text)' is neither an IP address nor a CIDR.")
            }
            return AddressPair(mac: value["mac_address"]?.stringValue.flatMap { MACAddress($0) }, ip: ip)
        }
        guard Set(pairs).count == pairs.count else {
            throw ResourceError.badRequest(
                "Request contains duplicate address pair.", type: "DuplicateAddressPairInRequest")
        }
        return pairs
    }

    static func json(_ pairs: [AddressPair], mac: MACAddress) -> JSONValue {
        .array(pairs.map { ["mac_address": .string(($0.mac ?? mac).description), "ip_address": .string($0.ip)] })
    }
}

extension NetworkAPI {
    /// - Throws: 409 where the hardware address is taken; 404 where the network is gone.
    func insertPort(_ connection: Connection, _ row: PortRow) throws -> UUID128 {
        for _ in 0..<16 {
            let mac = row.mac ?? AddressPlanner.newMAC(ambient.random)
            let inserted: Rows
            do {
                inserted = try connection.query(
                    """
                    INSERT INTO ports (id, network_id, project_id, name, description, status, admin_state_up, mac_address,
                        device_id, device_owner, host_id, binding_profile, port_security_enabled, allowed_address_pairs,
                        extra_dhcp_opts, tags, created_at, updated_at)
                    VALUES (\(row.id), \(row.network), \(row.project), \(row.name), \(row.description), \(row.status),
                        \(row.adminStateUp), \(mac.description), \(row.deviceID), \(row.deviceOwner), \(row.hostID),
                        \(row.profile)::jsonb, \(row.portSecurity), \(row.pairs)::jsonb, \(row.dhcpOptions)::jsonb,
                        \(row.tags)::text[], \(ambient.now), \(ambient.now))
                    ON CONFLICT (network_id, mac_address) DO NOTHING RETURNING id
                    """)
            } catch let error as DatabaseError where error.isForeignKeyViolation {
                throw Collection.networks.notFound("\(row.network)")
            }
            if !inserted.isEmpty { return row.id }
            if let mac = row.mac { throw NetworkFault.macInUse(mac, network: row.network) }
        }
        throw ResourceError(
            .unavailable, "Unable to generate a unique mac on network \(row.network).", type: "MacAddressGenerationFailure")
    }

    func createPort(_ connection: Connection, _ draft: PortDraft) throws {
        let change = draft.change
        let body = change.body
        let project = draft.owner.value
        try reserve(connection, project, "port")
        guard
            let network = try connection.query(
                "SELECT port_security_enabled FROM networks WHERE id = \(draft.network) FOR SHARE").first
        else { throw Collection.networks.notFound("\(draft.network)") }
        let owner = body.text("device_owner") ?? ""
        let secured = try body.bool("port_security_enabled") ?? network.bool("port_security_enabled")
        var row = PortRow(
            id: draft.id, network: draft.network, project: project,
            mac: change.mac ?? AddressPlanner.newMAC(ambient.random), deviceID: body.text("device_id") ?? "",
            deviceOwner: owner)
        row.name = body.text("name") ?? ""
        row.description = body.text("description") ?? ""
        row.adminStateUp = body.bool("admin_state_up") ?? true
        row.hostID = body.text("binding:host_id") ?? ""
        row.profile = body["binding:profile"].flatMap { $0.isNull ? nil : $0 } ?? [:]
        row.portSecurity = secured
        row.dhcpOptions = change.dhcpOptions ?? []
        row.tags = draft.tags
        if let pairs = change.pairs, !pairs.isEmpty {
            guard secured else { throw NetworkAPI.pairsNeedSecurity }
            row.pairs = PortChange.json(pairs, mac: row.mac ?? MACAddress(value: 0))
        }
        if change.mac == nil { row.mac = nil }
        _ = try insertPort(connection, row)
        let mac = try self.mac(connection, draft.id)
        try allocator(connection).allocate(port: draft.id, network: draft.network, mac: mac, wishes: change.wishes)
        if change.mac == nil, let pairs = change.pairs, !pairs.isEmpty {
            try connection.execute(
                "UPDATE ports SET allowed_address_pairs = \(PortChange.json(pairs, mac: mac))::jsonb WHERE id = \(draft.id)")
        }
        if let groups = change.groups, !groups.isEmpty {
            guard secured else { throw NetworkAPI.groupsNeedSecurity }
            try setGroups(connection, port: draft.id, project: project, groups, any: change.anyGroup)
        } else if change.groups == nil, secured, !DeviceOwner.isTrusted(owner) {
            let group = try defaultGroup(connection, project: project)
            try setGroups(connection, port: draft.id, project: project, [group], any: true)
        }
    }

    private static let pairsNeedSecurity = ResourceError.conflict(
        "Port Security must be enabled in order to have allowed address pairs on a port.",
        type: "AddressPairAndPortSecurityRequired")
    private static let groupsNeedSecurity = ResourceError.badRequest(
        "Port security must be enabled and port must have an IP address in order to use security groups.",
        type: "PortSecurityAndIPRequiredForSecurityGroups")

    private func mac(_ connection: Connection, _ port: UUID128) throws -> MACAddress {
        let text = try connection.query("SELECT mac_address FROM ports WHERE id = \(port)")[0].string("mac_address")
        guard let mac = MACAddress(text) else { throw ResourceError.internalError("port \(port) has the MAC '\(text)'") }
        return mac
    }

    private func setGroups(
        _ connection: Connection, port: UUID128, project: String, _ groups: [UUID128], any: Bool
    ) throws {
        let condition: SQL = any ? "TRUE" : "project_id = \(project)"
        let found = try connection.query(
            "SELECT id FROM security_groups WHERE id = ANY(\(groups)::uuid[]) AND \(condition) FOR KEY SHARE")
            .map { try $0.uuid("id") }
        if let missing = groups.first(where: { !found.contains($0) }) { throw Collection.securityGroups.notFound("\(missing)") }
        try connection.execute(
            "DELETE FROM port_security_groups WHERE port_id = \(port) AND NOT security_group_id = ANY(\(groups)::uuid[])")
        try connection.execute(
            """
            INSERT INTO port_security_groups (port_id, security_group_id)
            SELECT \(port), unnest(\(groups)::uuid[]) ON CONFLICT DO NOTHING
            """)
    }

    // MARK: update

    func updatePort(_ connection: Connection, _ port: Authorized<Subject>, _ change: PortChange) throws {
        let id = port.value.id
        guard let row = try connection.query("SELECT * FROM ports WHERE id = \(id) FOR UPDATE").first else {
            throw Collection.ports.notFound("\(id)")
        }
        let body = change.body
        let owner = try row.string("device_owner")
        let network = try row.uuid("network_id")
        let fixed = owner == DeviceOwner.routerInterface ? ["device_id", "device_owner", "mac_address"]
            : ["device_id", "device_owner", "fixed_ips", "mac_address"]
        if DeviceOwner.reserved.contains(owner), let name = fixed.first(where: { body[$0] != nil }) {
            throw NetworkFault.badRequest("port", "\(name) of a port with device owner \(owner) is set by the service itself.")
        }
        var changes = Assignments()
        if let name = body.text("name") { changes.set("name", name) }
        if let text = body.text("description") { changes.set("description", text) }
        if let up = body.bool("admin_state_up") { changes.set("admin_state_up", up) }
        if body["device_id"] != nil { changes.set("device_id", body.text("device_id") ?? "") }
        if body["device_owner"] != nil { changes.set("device_owner", body.text("device_owner") ?? "") }
        if body["binding:host_id"] != nil { changes.set("host_id", body.text("binding:host_id") ?? "") }
        if let profile = body["binding:profile"] { changes.set(json: "binding_profile", profile.isNull ? [:] : profile) }
        if let options = change.dhcpOptions { changes.set(json: "extra_dhcp_opts", options) }
        let mac = try change.mac ?? self.mac(connection, id)
        if let wanted = change.mac { changes.set("mac_address", wanted.description) }
        try changeSecurity(connection, port, row, change, mac, &changes)
        do { try changes.apply(connection, "ports", id, at: ambient.now) } catch let error as DatabaseError
        where error.isUniqueViolation { throw NetworkFault.macInUse(mac, network: network) }
        guard let wishes = change.wishes else { return }
        let before = try subnetIDs(connection, id)
        try changeAddresses(connection, id, network, mac, wishes)
        let after = try subnetIDs(connection, id)
        guard owner != DeviceOwner.routerInterface || before == after else {
            throw NetworkFault.badRequest("port", "a router's interface stays in its subnets.")
        }
    }

    private func subnetIDs(_ connection: Connection, _ port: UUID128) throws -> [UUID128] {
        try connection.query("SELECT subnet_id FROM port_fixed_ips WHERE port_id = \(port) ORDER BY subnet_id")
            .map { try $0.uuid("subnet_id") }
    }

    private func changeSecurity(
        _ connection: Connection, _ port: Authorized<Subject>, _ row: Row, _ change: PortChange, _ mac: MACAddress,
        _ changes: inout Assignments
    ) throws {
        let id = port.value.id
        let secured = try change.body.bool("port_security_enabled") ?? row.bool("port_security_enabled")
        if change.body.bool("port_security_enabled") != nil { changes.set("port_security_enabled", secured) }
        let current = try connection.query("SELECT security_group_id FROM port_security_groups WHERE port_id = \(id)")
        if !secured {
            if let groups = change.groups, !groups.isEmpty { throw NetworkAPI.groupsNeedSecurity }
            guard change.groups != nil || current.isEmpty else {
                throw ResourceError.conflict(
                    "Port has security group associated. Cannot disable port security or IP address until security group is removed.",
                    type: "PortSecurityPortHasSecurityGroup")
            }
            let pairs = try change.pairs.map { !$0.isEmpty } ?? !(row.json("allowed_address_pairs").arrayValue ?? []).isEmpty
            if pairs { throw NetworkAPI.pairsNeedSecurity }
        }
        if let pairs = change.pairs { changes.set(json: "allowed_address_pairs", PortChange.json(pairs, mac: mac)) }
        if let groups = change.groups {
            try setGroups(connection, port: id, project: port.value.projectID, groups, any: change.anyGroup)
        }
    }

    /// Keeps what is asked for and there, gives back the rest, takes what is new.
    private func changeAddresses(
        _ connection: Connection, _ port: UUID128, _ network: UUID128, _ mac: MACAddress, _ wishes: [AddressAllocator.Wish]
    ) throws {
        var held = try connection.query(
            "SELECT subnet_id, ip_address FROM port_fixed_ips WHERE port_id = \(port) ORDER BY position")
            .compactMap { row -> FixedIP? in
                guard let address = IPAddress(try row.string("ip_address")) else { return nil }
                return FixedIP(subnetID: try row.uuid("subnet_id"), address: address)
            }
        var fresh: [AddressAllocator.Wish] = []
        var kept: [FixedIP] = []
        // Addresses first: a wish for any address of a subnet must not take the one that another wish names.
        for wish in wishes.filter({ $0.address != nil }) + wishes.filter({ $0.address == nil }) {
            let index = held.firstIndex {
                (wish.address == nil || wish.address == $0.address) && (wish.subnet == nil || wish.subnet == $0.subnetID)
            }
            if let index { kept.append(held.remove(at: index)) } else { fresh.append(wish) }
        }
        for fixed in held {
            try connection.execute(
                "DELETE FROM port_fixed_ips WHERE subnet_id = \(fixed.subnetID) AND ip_address = \(fixed.address)")
            try disassociate(connection, port: port, fixed: fixed.address)
        }
        try allocator(connection).allocate(
            port: port, network: network, mac: mac, wishes: fresh, startingAt: kept.count)
    }

    // MARK: delete

    /// - Throws: 409 for a port that belongs to a router, a floating IP or the plane.
    func deletePort(_ connection: Connection, _ port: Authorized<Subject>) throws {
        let id = port.value.id
        guard let row = try connection.query("SELECT device_owner, project_id FROM ports WHERE id = \(id) FOR UPDATE").first
        else { throw Collection.ports.notFound("\(id)") }
        let owner = try row.string("device_owner")
        guard !DeviceOwner.reserved.contains(owner) else { throw NetworkFault.servicePort(id, owner: owner) }
        try disassociate(connection, port: id, fixed: nil)
        try removePort(connection, id)
    }

    /// Removes the row of a port that nothing refers to any more, and its quota.
    func removePort(_ connection: Connection, _ id: UUID128) throws {
        let rows = try connection.query("DELETE FROM ports WHERE id = \(id) RETURNING project_id, device_owner")
        guard let row = rows.first, try row.string("device_owner") != DeviceOwner.metadata else { return }
        try release(connection, row.string("project_id"), "port")
    }
}
