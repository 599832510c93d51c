import Database
import JSON
import Kernel
import NetworkCore

/// Gives addresses to ports. Exact under concurrency: what is taken is decided by the unique key of `port_fixed_ips`
/// alone, and an insertion waits there for another transaction that is about to take the same address.
struct AddressAllocator {
    let connection: Connection
    let random: any RandomSource
    /// Whether addresses of auto-addressed subnets may be chosen: those of routers are.
    var choosesFreely = false

    /// What a request asks for in one item of `fixed_ips`.
    struct Wish: Sendable {
        var subnet: UUID128?
        var address: IPAddress?

        static func parse(_ values: [JSONValue]) throws -> [Wish] {
            guard values.count <= NetworkLimits.fixedIPsPerPortMax else {
                throw NetworkFault.invalidInput("Exceeded maximum amount of fixed ips per port.")
            }
            let wishes = try values.map { value in
                Wish(
                    subnet: try value["subnet_id"]?.stringValue.map { try JSONObject.uuid($0, "fixed_ips") },
                    address: try value["ip_address"]?.stringValue.map { try JSONObject.address($0, "fixed_ips") })
            }
            let addresses = wishes.compactMap(\.address)
            guard Set(addresses).count == addresses.count else {
                throw ResourceError.badRequest("Invalid input for fixed_ips. Reason: Duplicate IP address.")
            }
            return wishes
        }
    }

    /// The subnets of a network in the order in which they are used.
    func subnets(of network: UUID128) throws -> [Subnet] {
        try connection.query("SELECT * FROM subnets WHERE network_id = \(network) ORDER BY created_at, id")
            .map { try SubnetRow.subnet($0) }
    }

    /// Addresses for a port as `wishes` say; nil for one address of each IP version that the network has.
    ///
    /// - Throws: 409 when the pools are exhausted or an address is in use; 400 for what does not fit the network.
    @discardableResult
    func allocate(
        port: UUID128, network: UUID128, mac: MACAddress, wishes: [Wish]?, startingAt position: Int = 0
    ) throws -> [FixedIP] {
        let subnets = try subnets(of: network)
        guard let wishes else { return try automatic(port, network, mac, subnets) }
        var result: [FixedIP] = []
        for wish in wishes {
            let place = position + result.count
            if let address = wish.address {
                let subnet = try self.subnet(for: address, wish.subnet, network, subnets)
                if subnet.isAutoAddressed, !choosesFreely, address != AddressPlanner.autoAddress(subnet.cidr, mac: mac) {
                    throw NetworkFault.invalidInput(
                        "IPv6 address \(address) cannot be directly assigned to a port on subnet \(subnet.id) as the subnet is configured for automatic addresses")
                }
                guard try take(address, subnet.id, port, place) else {
                    throw ResourceError.conflict(
                        "IP address \(address) already allocated in subnet \(subnet.id)", type: "IpAddressAlreadyAllocated")
                }
                result.append(FixedIP(subnetID: subnet.id, address: address))
                continue
            }
            guard let id = wish.subnet, let subnet = subnets.first(where: { $0.id == id }) else {
                throw wrongSubnet(wish.subnet, network)
            }
            guard let address = try next(in: subnet, port, mac, place) else { throw NetworkFault.noAddresses(subnet: id) }
            result.append(FixedIP(subnetID: id, address: address))
        }
        return result
    }

    private func wrongSubnet(_ subnet: UUID128?, _ network: UUID128) -> ResourceError {
        NetworkFault.invalidInput(
            "Failed to create port on network \(network), because fixed_ips included invalid subnet \(subnet?.description ?? "")")
    }

    private func subnet(
        for address: IPAddress, _ id: UUID128?, _ network: UUID128, _ subnets: [Subnet]
    ) throws -> Subnet {
        if let id {
            guard let subnet = subnets.first(where: { $0.id == id }) else { throw wrongSubnet(id, network) }
            guard AddressAllocator.isHost(address, subnet.cidr) else { throw NetworkFault.invalidAddress(address, subnet: id) }
            return subnet
        }
        guard let subnet = subnets.first(where: { AddressAllocator.isHost(address, $0.cidr) }) else {
            throw NetworkFault.invalidAddress(address, network: network)
        }
        return subnet
    }

    private static func isHost(_ address: IPAddress, _ cidr: IPNetwork) -> Bool {
        SubnetRules.usableRange(cidr)?.contains(address) ?? false
    }

    /// One address of each version, plus the ones that guests of auto-addressed subnets give themselves.
    private func automatic(
        _ port: UUID128, _ network: UUID128, _ mac: MACAddress, _ subnets: [Subnet]
    ) throws -> [FixedIP] {
        var result: [FixedIP] = []
        for version in [IPAddress.Version.v4, .v6] {
            let candidates = subnets.filter { $0.cidr.version == version && !$0.isAutoAddressed }
            guard !candidates.isEmpty else { continue }
            var found = false
            for subnet in candidates where !found {
                guard let address = try next(in: subnet, port, mac, result.count) else { continue }
                result.append(FixedIP(subnetID: subnet.id, address: address))
                found = true
            }
            if !found { throw NetworkFault.noAddresses(network) }
        }
        for subnet in subnets where subnet.isAutoAddressed {
            guard let address = try next(in: subnet, port, mac, result.count) else { continue }
            result.append(FixedIP(subnetID: subnet.id, address: address))
        }
        return result
    }

    /// Takes a free address of the subnet's pools; nil when there is none.
    func next(in subnet: Subnet, _ port: UUID128, _ mac: MACAddress, _ position: Int) throws -> IPAddress? {
        if subnet.isAutoAddressed {
            let address = AddressPlanner.autoAddress(subnet.cidr, mac: mac)
            return try take(address, subnet.id, port, position) ? address : nil
        }
        if AddressPlanner.size(subnet.allocationPools) > UInt128(NetworkLimits.orderedPoolSize) {
            for address in AddressPlanner.candidates(
                subnet.allocationPools, count: NetworkLimits.candidates, random: random)
            where try take(address, subnet.id, port, position) { return address }
        }
        // Each round sees what others have committed since the last one, so it ends: with an address or without any.
        while true {
            let taken = try connection.query("SELECT ip_address FROM port_fixed_ips WHERE subnet_id = \(subnet.id)")
                .compactMap { IPAddress(try $0.string("ip_address")) }
            let free = AddressPlanner.free(
                subnet.allocationPools, taken: Set(taken), count: NetworkLimits.candidates)
            if free.isEmpty { return nil }
            for address in free where try take(address, subnet.id, port, position) { return address }
        }
    }

    private func take(_ address: IPAddress, _ subnet: UUID128, _ port: UUID128, _ position: Int) throws -> Bool {
        do {
            return try !connection.query(
                """
                INSERT INTO port_fixed_ips (port_id, subnet_id, ip_address, position)
                VALUES (\(port), \(subnet), \(address), \(position)) ON CONFLICT (subnet_id, ip_address) DO NOTHING
                RETURNING port_id
                """).isEmpty
        } catch let error as DatabaseError where error.isForeignKeyViolation {
            throw Collection.subnets.notFound("\(subnet)")
        }
    }
}

extension NetworkAPI {
    func allocator(_ connection: Connection) -> AddressAllocator {
        AddressAllocator(connection: connection, random: ambient.random)
    }

    /// For ports of routers.
    func routerAllocator(_ connection: Connection) -> AddressAllocator {
        AddressAllocator(connection: connection, random: ambient.random, choosesFreely: true)
    }

    /// Guests on an auto-addressed subnet give themselves an address, those that were there before it too.
    func addAutoAddresses(_ connection: Connection, network: UUID128, subnet: Subnet) throws {
        let ports = try connection.query(
            """
            SELECT p.id, p.mac_address, (SELECT count(*) FROM port_fixed_ips f WHERE f.port_id = p.id) AS held
            FROM ports p WHERE p.network_id = \(network) AND p.device_owner NOT LIKE 'network:%'
            """)
        for port in ports {
            guard let mac = MACAddress(try port.string("mac_address")) else { continue }
            _ = try allocator(connection).next(in: subnet, try port.uuid("id"), mac, try port.int("held"))
        }
    }

    // MARK: metadata port

    /// Gives the network's metadata port, which is made where there is none, an address in `subnet`.
    func addMetadataAddress(_ connection: Connection, network: Subject, subnet: Subnet) throws {
        let existing = try connection.query(
            "SELECT id, mac_address FROM ports WHERE network_id = \(network.id) AND device_owner = \(DeviceOwner.metadata)")
        var port = try existing.first?.uuid("id")
        if port == nil {
            port = try insertPort(
                connection,
                PortRow(
                    id: ambient.newUUID(), network: network.id, project: network.projectID, mac: nil,
                    deviceID: "ovnmeta-\(network.id)", deviceOwner: DeviceOwner.metadata))
        }
        guard let port else { return }
        let held = try connection.query("SELECT 1 AS one FROM port_fixed_ips WHERE port_id = \(port) AND subnet_id = \(subnet.id)")
        guard held.isEmpty else { return }
        // Without an address left metadata is not reachable through this subnet, all else works.
        _ = try allocator(connection).next(in: subnet, port, MACAddress(value: 0), 0)
    }

    /// The port itself stays as long as the network: hypervisors know it by its id.
    func removeMetadataAddress(_ connection: Connection, network: UUID128, subnet: UUID128) throws {
        try connection.execute(
            """
            DELETE FROM port_fixed_ips WHERE subnet_id = \(subnet) AND port_id IN
                (SELECT id FROM ports WHERE network_id = \(network) AND device_owner = \(DeviceOwner.metadata))
            """)
    }
}
