import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

/// Allocates addresses for one or many ports. Correct under concurrency: the unique key of `port_fixed_ips` alone decides
/// which addresses are in use, and an insertion waits there for another transaction that inserts the same address.
struct AddressAllocator {
    let connection: Connection
    let random: any RandomSource
    /// Whether addresses in SLAAC subnets may be chosen, as for router ports.
    var choosesFreely = false

    /// One item of `fixed_ips` in a request.
    struct FixedIPRequest: Sendable {
        var subnet: UUID128?
        var address: IPAddress?

        static func parse(_ values: [JSONValue]) throws -> [FixedIPRequest] {
            guard values.count <= NetworkLimits.fixedIPsPerPortMax else {
                throw NetworkFault.invalidInput("Exceeded maximum amount of fixed ips per port.")
            }
            let fixedIPRequests = try values.map { value in
                FixedIPRequest(
                    subnet: try value["subnet_id"]?.stringValue.map { try JSONObject.uuid($0, "fixed_ips") },
                    address: try value["ip_address"]?.stringValue.map { try JSONObject.address($0, "fixed_ips") })
            }
            let addresses = fixedIPRequests.compactMap(\.address)
            guard Set(addresses).count == addresses.count else {
                throw ResourceError.badRequest("Invalid input for fixed_ips. Reason: Duplicate IP address.")
            }
            return fixedIPRequests
        }
    }

    /// A port that needs addresses.
    struct Request {
        let port: UUID128
        let network: UUID128
        let mac: MACAddress
        /// Nil for one address per IP version of the network.
        let fixedIPRequests: [FixedIPRequest]?
        /// Index of the first new address among the port's addresses.
        var position = 0
    }

    /// The subnets of a network in the order of their use.
    func subnets(of network: UUID128) throws -> [Subnet] { try subnets(of: [network], lock: "") }

    private func subnets(of networks: [UUID128], lock: SQL) throws -> [Subnet] {
        try connection.query(
            """
            SELECT \(raw: SubnetRow.columns) FROM subnets WHERE network_id \(anyOf: networks)
            ORDER BY created_at, id \(lock)
            """
        ).map { try SubnetRow.subnet($0) }
    }

    /// Allocates the addresses that a port requests.
    ///
    /// - Throws: 409 if the pools are exhausted or an address is in use; 400 for a request that does not match the network.
    @discardableResult
    func allocate(_ request: Request) throws -> [FixedIP] { try allocate([request]) }

    /// The same for several ports, all or none.
    @discardableResult
    func allocate(_ requests: [Request]) throws -> [FixedIP] {
        guard requests.contains(where: { $0.fixedIPRequests?.isEmpty != true }) else { return [] }
        let networks = Array(Set(requests.map(\.network)))
        let subnets = Dictionary(grouping: try subnets(of: networks, lock: "FOR KEY SHARE"), by: \.networkID)
        return try take(try requests.flatMap { try demands($0, subnets[$0.network] ?? []) }).compactMap { $0 }
    }

    // MARK: demands

    /// A demand for one address.
    struct Demand {
        enum Source {
            case exact(FixedIP)
            case any(Subnet)
        }

        let port: UUID128
        let position: Int
        /// Possible sources, in order of preference.
        var sources: ArraySlice<Source>
        /// The error if no address is available; nil if the address is optional.
        let fault: ResourceError?
    }

    private func demands(_ request: Request, _ subnets: [Subnet]) throws -> [Demand] {
        guard let fixedIPRequests = request.fixedIPRequests else { return automatic(request, subnets) }
        return try fixedIPRequests.enumerated().map { index, wanted in
            let source: Demand.Source
            let fault: ResourceError
            if let address = wanted.address {
                let subnet = try subnet(for: address, wanted.subnet, request.network, subnets)
                if subnet.isAutoAddressed, !choosesFreely,
                    address != AddressPlanner.autoAddress(subnet.cidr, mac: request.mac)
                {
                    throw NetworkFault.invalidInput(
                        """
                        IPv6 address \(address) cannot be directly assigned to a port on subnet \(subnet.id) as \
                        the subnet is configured for automatic addresses
                        """
                    )
                }
                source = .exact(FixedIP(subnetID: subnet.id, address: address))
                fault = .conflict(
                    "IP address \(address) already allocated in subnet \(subnet.id)", type: "IpAddressAlreadyAllocated")
            } else {
                guard let subnet = subnets.first(where: { $0.id == wanted.subnet }) else {
                    throw wrongSubnet(wanted.subnet, request.network)
                }
                source = self.source(in: subnet, request.mac)
                fault = NetworkFault.noAddresses(subnet: subnet.id)
            }
            return Demand(port: request.port, position: request.position + index, sources: [source], fault: fault)
        }
    }

    /// One address per IP version, plus the addresses that guests in SLAAC subnets assign themselves.
    private func automatic(_ request: Request, _ subnets: [Subnet]) -> [Demand] {
        var result: [Demand] = []
        func add(_ subnets: [Subnet], _ fault: ResourceError?) {
            guard !subnets.isEmpty else { return }
            result.append(
                Demand(
                    port: request.port, position: request.position + result.count,
                    sources: ArraySlice(subnets.map { source(in: $0, request.mac) }), fault: fault))
        }
        for version in [IPAddress.Version.v4, .v6] {
            add(
                subnets.filter { $0.cidr.version == version && !$0.isAutoAddressed },
                NetworkFault.noAddresses(request.network))
        }
        for subnet in subnets where subnet.isAutoAddressed { add([subnet], nil) }
        return result
    }

    private func source(in subnet: Subnet, _ mac: MACAddress) -> Demand.Source {
        guard subnet.isAutoAddressed else { return .any(subnet) }
        return .exact(FixedIP(subnetID: subnet.id, address: AddressPlanner.autoAddress(subnet.cidr, mac: mac)))
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

    /// Chooses an address of the subnet for each port that can have one; nil for the others.
    func take(in subnet: Subnet, _ ports: [(id: UUID128, mac: MACAddress, position: Int)]) throws -> [FixedIP?] {
        try take(
            ports.map {
                Demand(port: $0.id, position: $0.position, sources: [source(in: subnet, $0.mac)], fault: nil)
            })
    }
}

extension AddressAllocator {
    /// A candidate address for the demand at `index`.
    private struct Proposal {
        let index: Int
        let fixed: FixedIP
        let isExact: Bool
    }

    /// A row of `port_fixed_ips`.
    private struct Place: Hashable {
        let port: UUID128
        let fixed: FixedIP
    }

    /// Allocates in rounds of one insertion each. Demands that lost their address to another transaction are retried in the
    /// next round. Each round sees what others have committed since the last one, so the loop terminates.
    ///
    /// - Returns: the address of each demand; nil for an optional one without an address.
    /// - Throws: the first fault of a demand that cannot be met.
    private func take(_ demands: [Demand]) throws -> [FixedIP?] {
        var demands = demands
        var result = [FixedIP?](repeating: nil, count: demands.count)
        var searches: [UUID128: AddressSearch] = [:]
        var open = Array(demands.indices)
        while !open.isEmpty {
            let proposals = try propose(&demands, open, &searches)
            var taken = try insert(proposals, demands)
            for proposal in proposals {
                if taken.remove(Place(port: demands[proposal.index].port, fixed: proposal.fixed)) != nil {
                    result[proposal.index] = proposal.fixed
                } else if proposal.isExact {
                    demands[proposal.index].sources.removeFirst()
                }
            }
            open.removeAll { result[$0] != nil }
            for index in open where demands[index].sources.isEmpty { if let fault = demands[index].fault { throw fault } }
            open.removeAll { demands[$0].sources.isEmpty }
        }
        return result
    }

    /// The next candidate address of each demand in `open`; an exhausted source is removed.
    private func propose(
        _ demands: inout [Demand], _ open: [Int], _ searches: inout [UUID128: AddressSearch]
    ) throws -> [Proposal] {
        var proposals: [Proposal] = []
        var asking: [UUID128: (subnet: Subnet, indices: [Int])] = [:]
        for index in open {
            switch demands[index].sources.first {
            case .exact(let fixed)?: proposals.append(Proposal(index: index, fixed: fixed, isExact: true))
            case .any(let subnet)?: asking[subnet.id, default: (subnet, [])].indices.append(index)
            case nil: break
            }
        }
        let exact = Set(proposals.map(\.fixed))
        for (id, asked) in asking {
            var search = searches[id] ?? AddressSearch(asked.subnet.allocationPools, random: random)
            let named = Set(exact.filter { $0.subnetID == id }.map(\.address))
            let addresses = try find(asked.indices.count, in: id, &search, except: named)
            for (index, address) in zip(asked.indices, addresses) {
                proposals.append(
                    Proposal(index: index, fixed: FixedIP(subnetID: id, address: address), isExact: false))
            }
            if search.isExhausted {
                for index in asked.indices.dropFirst(addresses.count) { demands[index].sources.removeFirst() }
            }
            searches[id] = search
        }
        // All transactions insert in the same order, so that they cannot deadlock.
        return proposals.sorted { ($0.fixed.subnetID, $0.fixed.address) < ($1.fixed.subnetID, $1.fixed.address) }
    }

    /// Candidate addresses of the subnet's pools. Fewer than `count` before the end of `search` means that the caller must call
    /// again.
    private func find(
        _ count: Int, in subnet: UUID128, _ search: inout AddressSearch, except named: Set<IPAddress>
    ) throws -> [IPAddress] {
        if let guesses = search.guesses(count, random: random) { return guesses.filter { !named.contains($0) } }
        var result: [IPAddress] = []
        while result.count < count, !search.isExhausted {
            let window = search.window
            let rows = try connection.query(
                "SELECT ip_address FROM port_fixed_ips WHERE subnet_id = \(subnet) AND ip_address = ANY(\(window)::text[])")
            let taken = Set(try rows.compactMap { IPAddress(try $0.string("ip_address")) })
            result += search.choose(count - result.count, of: window, taken: taken.union(named))
        }
        return result
    }

    /// Inserts the proposed addresses; returns those that were free.
    private func insert(_ proposals: [Proposal], _ demands: [Demand]) throws -> Set<Place> {
        guard let first = proposals.first else { return [] }
        let ports = proposals.map { demands[$0.index].port }
        let (subnets, addresses) = (proposals.map(\.fixed.subnetID), proposals.map(\.fixed.address))
        do {
            let count = try connection.execute(
                """
                INSERT INTO port_fixed_ips (port_id, subnet_id, ip_address, position)
                SELECT * FROM unnest(\(ports)::uuid[], \(subnets)::uuid[], \(addresses)::text[],
                    \(proposals.map { demands[$0.index].position })::integer[])
                ON CONFLICT (subnet_id, ip_address) DO NOTHING
                """)
            // Usually all were free.
            if count == proposals.count { return Set(zip(ports, proposals).map { Place(port: $0, fixed: $1.fixed) }) }
            let rows = try connection.query(
                """
                SELECT f.port_id, f.subnet_id, f.ip_address
                FROM unnest(\(ports)::uuid[], \(subnets)::uuid[], \(addresses)::text[]) AS w (port_id, subnet_id, ip_address)
                    JOIN port_fixed_ips f USING (port_id, subnet_id, ip_address)
                """)
            return Set(
                try rows.compactMap { row in
                    guard let address = IPAddress(try row.string("ip_address")) else { return nil }
                    return Place(
                        port: try row.uuid("port_id"), fixed: FixedIP(subnetID: try row.uuid("subnet_id"), address: address))
                })
        } catch let error as DatabaseError where error.isForeignKeyViolation {
            throw ResourceKind.subnets.notFound("\(first.fixed.subnetID)")
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

    /// Guests in a SLAAC subnet assign themselves an address, including those that existed before the subnet.
    func addAutoAddresses(_ connection: Connection, network: UUID128, subnet: Subnet) throws {
        let ports = try connection.query(
            """
            SELECT p.id, p.mac_address, (SELECT count(*) FROM port_fixed_ips f WHERE f.port_id = p.id) AS held
            FROM ports p WHERE p.network_id = \(network) AND p.device_owner NOT LIKE 'network:%'
            """)
        let members = try ports.compactMap { port -> (id: UUID128, mac: MACAddress, position: Int)? in
            guard let mac = MACAddress(try port.string("mac_address")) else { return nil }
            return (try port.uuid("id"), mac, try port.int("held"))
        }
        _ = try allocator(connection).take(in: subnet, members)
        try ServerPorts.announce(connection, where: "network_id = \(network)", ambient: ambient)
    }

    // MARK: metadata port

    /// Adds an address in `subnet` to the network's metadata port, creating the port if needed.
    ///
    /// The port belongs to no project, like those of floating IPs: clients that delete a project's resources would keep the
    /// network because of a port with the project's id and an unknown owner. The network's owner can see it.
    func addMetadataAddress(_ connection: Connection, network: Subject, subnet: Subnet) throws {
        let existing = try connection.query(
            "SELECT id, mac_address FROM ports WHERE network_id = \(network.id) AND device_owner = \(DeviceOwner.metadata)")
        var port = try existing.first?.uuid("id")
        if port == nil {
            port = try insertPort(
                connection,
                PortRow(
                    id: ambient.newUUID(), network: network.id, project: "", mac: nil,
                    deviceID: "ovnmeta-\(network.id)", deviceOwner: DeviceOwner.metadata))
        }
        guard let port else { return }
        let held = try connection.query("SELECT 1 AS one FROM port_fixed_ips WHERE port_id = \(port) AND subnet_id = \(subnet.id)")
        guard held.isEmpty else { return }
        // If no address is left, the metadata service is not reachable through this subnet; everything else works.
        _ = try allocator(connection).take(in: subnet, [(port, MACAddress(value: 0), 0)])
        try ServerPorts.announce(connection, where: "network_id = \(network.id)", ambient: ambient)
    }

    /// The port itself exists as long as the network, because hypervisors refer to it by id.
    func removeMetadataAddress(_ connection: Connection, network: UUID128, subnet: UUID128) throws {
        try connection.execute(
            """
            DELETE FROM port_fixed_ips WHERE subnet_id = \(subnet) AND port_id IN
                (SELECT id FROM ports WHERE network_id = \(network) AND device_owner = \(DeviceOwner.metadata))
            """)
        try ServerPorts.announce(connection, where: "network_id = \(network)", ambient: ambient)
    }
}
