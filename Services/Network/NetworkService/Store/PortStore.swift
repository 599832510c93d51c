import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

/// The required columns of a port's row; other attributes have defaults.
struct PortRow: Sendable, Equatable {
    var id: UUID128
    let network: UUID128
    let project: String
    /// Nil if the service chooses one.
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
    var pairs: [AddressPair] = []
    var dhcpOptions: JSONValue = []
    var tags: [String] = []

    /// Whether only ids and hardware addresses differ.
    func isLike(_ other: PortRow) -> Bool {
        var same = self
        (same.id, same.mac) = (other.id, other.mac)
        return same == other
    }
}

/// A validated create request for a port.
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

extension NetworkAPI {
    /// - Throws: 409 if the hardware address is in use; 404 if the network does not exist.
    func insertPort(_ connection: Connection, _ row: PortRow) throws -> UUID128 {
        _ = try insertPorts(connection, [row])
        return row.id
    }

    /// Inserts the rows, all or none. The service chooses a hardware address for rows without one.
    ///
    /// - Returns: the hardware addresses by port.
    /// - Throws: 409 if an address is in use; 404 if the network does not exist.
    private func insertPorts(_ connection: Connection, _ rows: [PortRow]) throws -> [UUID128: MACAddress] {
        var result: [UUID128: MACAddress] = [:]
        // Rows with a requested hardware address first.
        var open = rows.filter { $0.mac != nil } + rows.filter { $0.mac == nil }
        for _ in 0..<16 where !open.isEmpty {
            let macs = open.map { $0.mac ?? AddressPlanner.newMAC(ambient.random) }
            let inserted = Set(
                try insert(connection, open, macs, "ON CONFLICT (network_id, mac_address) DO NOTHING RETURNING id")
                    .map { try $0.uuid("id") })
            for (row, mac) in zip(open, macs) where inserted.contains(row.id) { result[row.id] = mac }
            open.removeAll { inserted.contains($0.id) }
            if let row = open.first, let mac = row.mac { throw NetworkFault.macInUse(mac, network: row.network) }
        }
        guard let row = open.first else { return result }
        throw ResourceError(
            .unavailable, "Unable to generate a unique mac on network \(row.network).", type: "MacAddressGenerationFailure")
    }

    /// The same for rows without a requested hardware address, assuming that the chosen ones are free: among thousands of ports
    /// they are, and `ON CONFLICT` makes PostgreSQL insert each row in two steps with a log record for each.
    ///
    /// - Throws: `DatabaseError.isTakenMAC` if one was not; the transaction fails then, at its first writing statement.
    private func insertTrusting(_ connection: Connection, _ rows: [PortRow]) throws -> [UUID128: MACAddress] {
        let macs = rows.map { _ in AddressPlanner.newMAC(ambient.random) }
        _ = try insert(connection, rows, macs, "")
        return Dictionary(uniqueKeysWithValues: zip(rows.map(\.id), macs))
    }

    /// The statement, which ends with `conflicts`.
    private func insert(
        _ connection: Connection, _ rows: [PortRow], _ macs: [MACAddress], _ conflicts: SQL
    ) throws -> Rows {
        do {
            return try connection.query(
                """
                INSERT INTO ports (id, network_id, project_id, name, description, status, admin_state_up, mac_address,
                    device_id, device_owner, host_id, binding_profile, port_security_enabled, allowed_address_pairs,
                    extra_dhcp_opts, tags, created_at, updated_at)
                \(NetworkAPI.values(rows, macs, at: ambient.now)) \(conflicts)
                """)
        } catch let error as DatabaseError where error.isForeignKeyViolation {
            throw ResourceKind.networks.notFound(rows.first.map { "\($0.network)" } ?? "")
        }
    }

    /// The values of an insertion. If the ports of a request only differ in their ids and hardware addresses, the other values
    /// are sent once.
    private static func values(_ rows: [PortRow], _ macs: [MACAddress], at now: Timestamp) -> SQL {
        let addresses = macs.map(\.description)
        if let row = rows.first, row.pairs.isEmpty, rows.allSatisfy({ $0.isLike(row) }) {
            return """
                SELECT r.id, \(row.network)::uuid, \(row.project)::text, \(row.name)::text, \(row.description)::text,
                    \(row.status)::text, \(row.adminStateUp)::boolean, r.mac, \(row.deviceID)::text,
                    \(row.deviceOwner)::text, \(row.hostID)::text, \(row.profile)::jsonb, \(row.portSecurity)::boolean,
                    '[]'::jsonb, \(row.dhcpOptions)::jsonb, \(row.tags)::text[], \(now)::timestamptz, \(now)::timestamptz
                FROM unnest(\(rows.map(\.id))::uuid[], \(addresses)::text[]) AS r (id, mac)
                """
        }
        return """
            SELECT r.id, r.network, r.project, r.name, r.description, r.status, r.up, r.mac, r.device, r.owner, r.host,
                r.profile, r.secured, r.pairs, r.dhcp_opts, r.tags::text[], \(now)::timestamptz, \(now)::timestamptz
            FROM unnest(\(rows.map(\.id))::uuid[], \(rows.map(\.network))::uuid[], \(rows.map(\.project))::text[],
                \(rows.map(\.name))::text[], \(rows.map(\.description))::text[], \(rows.map(\.status))::text[],
                \(rows.map(\.adminStateUp))::boolean[], \(addresses)::text[], \(rows.map(\.deviceID))::text[],
                \(rows.map(\.deviceOwner))::text[], \(rows.map(\.hostID))::text[], \(rows.map(\.profile))::jsonb[],
                \(rows.map(\.portSecurity))::boolean[], \(zip(rows, macs).map { PortChange.json($0.pairs, mac: $1) })::jsonb[],
                \(rows.map(\.dhcpOptions))::jsonb[], \(rows.map { $0.tags.sqlText ?? "{}" })::text[])
                AS r (id, network, project, name, description, status, up, mac, device, owner, host, profile, secured,
                    pairs, dhcp_opts, tags)
            """
    }

    /// Creates all of the ports or none; the number of statements does not depend on the number of ports. The caller must reserve
    /// their quota.
    ///
    /// - Parameter trusting: whether hardware addresses chosen by the service are assumed to be free.
    /// - Throws: `DatabaseError.isTakenMAC` if one was not; repeat in a new transaction with `trusting` false.
    func createPorts(_ connection: Connection, _ drafts: [PortDraft], trusting: Bool) throws {
        try drafts.map(\.owner).values(for: "create_port")
        let isSecured = try lockNetworks(connection, drafts)
        let rows = try drafts.map { draft in
            guard let preset = isSecured[draft.network] else { throw ResourceKind.networks.notFound("\(draft.network)") }
            return try NetworkAPI.row(draft, isSecured: draft.change.body.bool("port_security_enabled") ?? preset)
        }
        for (network, rows) in Dictionary(grouping: rows, by: \.network) {
            try refuseBroadcastPairs(connection, network, rows.flatMap(\.pairs))
        }
        let chooses = rows.allSatisfy { $0.mac == nil }
        let macs = try trusting && chooses ? insertTrusting(connection, rows) : insertPorts(connection, rows)
        try allocator(connection).allocate(
            drafts.compactMap { draft in
                macs[draft.id].map {
                    AddressAllocator.Request(
                        port: draft.id, network: draft.network, mac: $0, fixedIPRequests: draft.change.fixedIPRequests)
                }
            })
        try joinGroups(connection, try groups(connection, drafts, rows), "")
    }

    /// Reserves quota for the ports.
    ///
    /// - Throws: 409 if a quota is exceeded.
    func reserve(_ connection: Connection, _ drafts: [PortDraft]) throws {
        let owners = Dictionary(grouping: drafts, by: \.owner.value).mapValues(\.count)
        for (project, count) in owners.sorted(by: { $0.key < $1.key }) { try reserve(connection, project, NetworkQuotas.ports, count) }
    }

    /// Locks the networks of `drafts` against changes until the end of the transaction; returns whether their ports have port
    /// security by default. From here on the transaction only writes addresses and groups of new ports: they are covered by the
    /// recorded change that the ports are new.
    private func lockNetworks(_ connection: Connection, _ drafts: [PortDraft]) throws -> [UUID128: Bool] {
        let networks = Array(Set(drafts.map(\.network)))
        let rows = try connection.query(
            """
            SELECT id, port_security_enabled, set_config('wolke.new_ports', 'on', true) FROM networks
            WHERE id \(anyOf: networks) ORDER BY id FOR SHARE
            """)
        return Dictionary(uniqueKeysWithValues: try rows.map { (try $0.uuid("id"), try $0.bool("port_security_enabled")) })
    }

    private static func row(_ draft: PortDraft, isSecured: Bool) throws -> PortRow {
        let change = draft.change
        let body = change.body
        var row = PortRow(
            id: draft.id, network: draft.network, project: draft.owner.value, mac: change.mac,
            deviceID: body.text("device_id") ?? "", deviceOwner: body.text("device_owner") ?? "")
        row.name = body.text("name") ?? ""
        row.description = body.text("description") ?? ""
        row.adminStateUp = body.bool("admin_state_up") ?? true
        row.hostID = body.text("binding:host_id") ?? ""
        row.profile = body["binding:profile"].flatMap { $0.isNull ? nil : $0 } ?? [:]
        row.portSecurity = isSecured
        row.dhcpOptions = change.dhcpOptions ?? []
        row.tags = draft.tags
        row.pairs = change.pairs ?? []
        try AddressPair.refuseDuplicates(row.pairs, mac: row.mac)
        guard isSecured || row.pairs.isEmpty else { throw NetworkAPI.pairsNeedSecurity }
        return row
    }

    /// The requested groups of the ports; the project's default group for ports that request none.
    private func groups(_ connection: Connection, _ drafts: [PortDraft], _ rows: [PortRow]) throws -> [GroupMembershipRequest] {
        var defaults: [String: UUID128] = [:]
        var result: [GroupMembershipRequest] = []
        for (draft, row) in zip(drafts, rows) {
            if let groups = draft.change.groups {
                guard row.portSecurity || groups.isEmpty else { throw NetworkAPI.groupsNeedSecurity }
                result += groups.map {
                    GroupMembershipRequest(port: row.id, group: $0, project: row.project, any: draft.change.anyGroup)
                }
            } else if row.portSecurity, !DeviceOwner.isTrusted(row.deviceOwner) {
                let group = try defaults[row.project] ?? defaultGroup(connection, project: row.project)
                defaults[row.project] = group
                result.append(GroupMembershipRequest(port: row.id, group: group, project: row.project, any: true))
            }
        }
        return result
    }

    private static let pairsNeedSecurity = ResourceError.conflict(
        "Port Security must be enabled in order to have allowed address pairs on a port.",
        type: "AddressPairAndPortSecurityRequired")
    private static let groupsNeedSecurity = ResourceError.badRequest(
        "Port security must be enabled and port must have an IP address in order to use security groups.",
        type: "PortSecurityAndIPRequiredForSecurityGroups")

    /// A port to be added to a group.
    private struct GroupMembershipRequest {
        let port: UUID128
        let group: UUID128
        /// The port's project.
        let project: String
        /// Whether the group may belong to another project.
        let any: Bool
    }

    /// - Parameter conflicts: the end of the statement; empty for new ports, which are in no group yet.
    /// - Throws: 404 if a group does not exist, or does not belong to the project.
    private func joinGroups(_ connection: Connection, _ memberships: [GroupMembershipRequest], _ conflicts: SQL) throws {
        guard !memberships.isEmpty else { return }
        struct Key: Hashable {
            let group: UUID128
            /// Nil if any group may be used.
            let project: String?
        }
        let keys = memberships.map { Key(group: $0.group, project: $0.any ? nil : $0.project) }
        let named = Array(Set(keys))
        let found = Set(
            try connection.query(
                """
                SELECT g.id, CASE WHEN w.is_owners THEN g.project_id END AS project_id FROM security_groups g
                JOIN unnest(\(named.map(\.group))::uuid[], \(named.map { $0.project ?? "" })::text[],
                    \(named.map { $0.project != nil })::boolean[]) AS w (id, project_id, is_owners)
                    ON w.id = g.id AND (NOT w.is_owners OR w.project_id = g.project_id)
                ORDER BY g.id FOR KEY SHARE OF g
                """
            ).map { Key(group: try $0.uuid("id"), project: try $0.optionalString("project_id")) })
        if let missing = keys.first(where: { !found.contains($0) }) {
            throw ResourceKind.securityGroups.notFound("\(missing.group)")
        }
        try connection.execute(
            """
            INSERT INTO port_security_groups (port_id, security_group_id)
            SELECT * FROM unnest(\(memberships.map(\.port))::uuid[], \(memberships.map(\.group))::uuid[]) \(conflicts)
            """)
    }

    /// Locks ports and returns their security groups, which cannot change until the transaction ends.
    func lockGroups(_ connection: Connection, ofPorts ids: [UUID128]) throws -> [UUID128: Set<UUID128>] {
        try connection.query("SELECT id FROM ports WHERE id \(anyOf: ids) ORDER BY id FOR UPDATE")
        return try connection.query("SELECT port_id, security_group_id FROM port_security_groups WHERE port_id \(anyOf: ids)")
            .reduce(into: [:]) { try $0[$1.uuid("port_id"), default: []].insert($1.uuid("security_group_id")) }
    }

    // MARK: update

    func updatePort(_ connection: Connection, _ port: Authorized<Subject>, _ change: PortChange) throws {
        let id = try port.value(for: "update_port").id
        guard let row = try connection.query("SELECT * FROM ports WHERE id = \(id) FOR UPDATE").first else {
            throw ResourceKind.ports.notFound("\(id)")
        }
        let body = change.body
        let owner = try row.string("device_owner")
        let network = try row.uuid("network_id")
        let fixed =
            owner == DeviceOwner.routerInterface
            ? ["device_id", "device_owner", "mac_address"]
            : ["device_id", "device_owner", "fixed_ips", "mac_address"]
        if DeviceOwner.reserved.contains(owner), let name = fixed.first(where: { body[$0] != nil }) {
            throw NetworkFault.badRequest("port", "\(name) of a port with device owner \(owner) is set by the service itself.")
        }
        var changes = ResourceKind.ports.changes(body)
        if body["device_id"] != nil { changes.set("device_id", body.text("device_id") ?? "") }
        if body["device_owner"] != nil { changes.set("device_owner", body.text("device_owner") ?? "") }
        if body["binding:host_id"] != nil {
            let host = body.text("binding:host_id") ?? ""
            changes.set("host_id", host)
            // Unbinding a port during a move of its server removes the other bindings too.
            if host.isEmpty { try PortBindingStore.removeAll(connection, of: port) }
        }
        if let profile = body["binding:profile"] { changes.set(json: "binding_profile", profile.isNull ? [:] : profile) }
        if let options = change.dhcpOptions { changes.set(json: "extra_dhcp_opts", options) }
        guard let mac = try change.mac ?? MACAddress(row.string("mac_address")) else {
            throw ResourceError.internalError("port \(id) has the MAC '\(try row.string("mac_address"))'")
        }
        if let wanted = change.mac {
            let old = try row.string("mac_address")
            guard try wanted.description == old || row.string("host_id").isEmpty else {
                throw NetworkFault.portBound(id, old: old, new: wanted)
            }
            changes.set("mac_address", wanted.description)
        }
        try changeSecurity(connection, port, row, change, mac, &changes)
        do { try changes.apply(connection, "ports", id, at: ambient.now) } catch let error as DatabaseError
            where error.isUniqueViolation
        { throw NetworkFault.macInUse(mac, network: network) }
        if try change.fixedIPRequests != nil || change.groups != nil
            || body.bool("port_security_enabled").map({ try $0 != row.bool("port_security_enabled") }) ?? false
        {
            try ServerPorts.announce(connection, where: "id = \(id)", ambient: ambient)
        }
        guard let fixedIPRequests = change.fixedIPRequests else { return }
        let before = try subnetIDs(connection, id)
        try changeAddresses(connection, id, network, mac, fixedIPRequests)
        let after = try subnetIDs(connection, id)
        guard owner != DeviceOwner.routerInterface || before == after else {
            throw NetworkFault.badRequest("port", "the subnets of a router interface cannot be changed.")
        }
    }

    /// - Throws: 400 for a pair with the network or broadcast address of one of the network's subnets.
    private func refuseBroadcastPairs(_ connection: Connection, _ network: UUID128, _ pairs: [AddressPair]) throws {
        let addresses = pairs.compactMap { IPAddress($0.ip) }.filter { $0.version == .v4 }
        guard !addresses.isEmpty else { return }
        let subnets = try allocator(connection).subnets(of: network)
        for address in addresses {
            guard
                let subnet = subnets.first(where: {
                    $0.cidr.contains(address) && SubnetRules.usableRange($0.cidr)?.contains(address) == false
                })
            else { continue }
            throw NetworkFault.invalidInput(
                """
                allowed_address_pairs: '\(address)' is the \
                \(address == subnet.cidr.last ? "broadcast" : "network") address of the subnet \(subnet.cidr).
                """
            )
        }
    }

    private func subnetIDs(_ connection: Connection, _ port: UUID128) throws -> [UUID128] {
        try connection.query("SELECT subnet_id FROM port_fixed_ips WHERE port_id = \(port) ORDER BY subnet_id")
            .map { try $0.uuid("subnet_id") }
    }

    private func changeSecurity(
        _ connection: Connection, _ port: Authorized<Subject>, _ row: Row, _ change: PortChange, _ mac: MACAddress,
        _ changes: inout Changes
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
        if let pairs = change.pairs {
            try AddressPair.refuseDuplicates(pairs, mac: mac)
            try refuseBroadcastPairs(connection, try row.uuid("network_id"), pairs)
            changes.set(json: "allowed_address_pairs", PortChange.json(pairs, mac: mac))
        }
        if let groups = change.groups {
            try joinGroups(
                connection,
                groups.map { GroupMembershipRequest(port: id, group: $0, project: port.value.projectID, any: change.anyGroup) },
                "ON CONFLICT DO NOTHING")
            try connection.execute(
                "DELETE FROM port_security_groups WHERE port_id = \(id) AND NOT security_group_id = ANY(\(groups)::uuid[])")
        }
    }

    /// Keeps requested addresses that the port already has, releases the others, and allocates new ones.
    private func changeAddresses(
        _ connection: Connection, _ port: UUID128, _ network: UUID128, _ mac: MACAddress,
        _ fixedIPRequests: [AddressAllocator.FixedIPRequest]
    ) throws {
        var held = try connection.query(
            "SELECT subnet_id, ip_address FROM port_fixed_ips WHERE port_id = \(port) ORDER BY position"
        )
        .compactMap { row -> FixedIP? in
            guard let address = IPAddress(try row.string("ip_address")) else { return nil }
            return FixedIP(subnetID: try row.uuid("subnet_id"), address: address)
        }
        var fresh: [AddressAllocator.FixedIPRequest] = []
        var kept: [FixedIP] = []
        // Items with an address first: an item for any address of a subnet must not take the address that another item
        // names.
        for wanted in fixedIPRequests.filter({ $0.address != nil }) + fixedIPRequests.filter({ $0.address == nil }) {
            let index = held.firstIndex {
                (wanted.address == nil || wanted.address == $0.address) && (wanted.subnet == nil || wanted.subnet == $0.subnetID)
            }
            if let index { kept.append(held.remove(at: index)) } else { fresh.append(wanted) }
        }
        try refuseFloatingIPs(connection, port, leading: held.map(\.address))
        for fixed in held {
            try connection.execute(
                "DELETE FROM port_fixed_ips WHERE subnet_id = \(fixed.subnetID) AND ip_address = \(fixed.address)")
        }
        try allocator(connection).allocate(
            AddressAllocator.Request(port: port, network: network, mac: mac, fixedIPRequests: fresh, position: kept.count))
    }

    /// As in Neutron, an address with a floating IP cannot be removed; the client must disassociate the floating IP first.
    ///
    /// - Throws: 400 if a floating IP leads to a removed address of the port.
    private func refuseFloatingIPs(_ connection: Connection, _ port: UUID128, leading addresses: [IPAddress]) throws {
        guard !addresses.isEmpty else { return }
        let rows = try connection.query(
            """
            SELECT floating_ip_address, fixed_ip_address FROM floating_ips
            WHERE port_id = \(port) AND fixed_ip_address = ANY(\(addresses.map(\.description))::text[]) LIMIT 1
            """)
        guard let row = rows.first else { return }
        throw NetworkFault.badRequest(
            "port",
            """
            Cannot update the fixed_ips of the port \(port): the floating IP \
            \(try row.string("floating_ip_address")) is associated with \(try row.string("fixed_ip_address")). \
            Disassociate it first.
            """
        )
    }

    // MARK: delete

    /// - Throws: 409 for a port that belongs to a router, a floating IP or the service itself.
    func deletePort(_ connection: Connection, _ port: Authorized<Subject>) throws {
        let id = try port.value(for: "delete_port").id
        guard let row = try connection.query("SELECT device_owner, project_id FROM ports WHERE id = \(id) FOR UPDATE").first
        else { throw ResourceKind.ports.notFound("\(id)") }
        let owner = try row.string("device_owner")
        guard !DeviceOwner.reserved.contains(owner) else { throw NetworkFault.servicePort(id, owner: owner) }
        try disassociate(connection, port: id, fixed: nil)
        try removePort(connection, id)
    }

    /// Deletes the row of a port to which nothing refers any more, and releases its quota.
    func removePort(_ connection: Connection, _ id: UUID128) throws {
        let rows = try connection.query("DELETE FROM ports WHERE id = \(id) RETURNING project_id, device_owner")
        guard let row = rows.first, try row.string("device_owner") != DeviceOwner.metadata else { return }
        try release(connection, row.string("project_id"), NetworkQuotas.ports)
    }
}

extension DatabaseError {
    /// Whether another port of the network has the hardware address.
    var isTakenMAC: Bool { isUniqueViolation && constraint == "ports_network_id_mac_address_key" }
}
