import Database
import JSON
import Kernel
import NetworkCore

/// The part of the database from which a batch of subjects is compiled, read in one snapshot.
struct NorthboundState: Sendable {
    var networks: [UUID128: Network] = [:]
    var subnets: [UUID128: Subnet] = [:]
    var ports: [UUID128: Port] = [:]
    var routers: [UUID128: Router] = [:]
    var floating: [UUID128: FloatingIP] = [:]
    var groups: [UUID128: SecurityGroup] = [:]
    /// The address of the metadata port, by subnet.
    var metadata: [UUID128: IPAddress] = [:]
    /// Networks behind a router, by router.
    var inside: [UUID128: [IPNetwork]] = [:]
    /// Ports that are not up according to the database.
    var down: Set<UUID128> = []
    /// Drift candidates with a change that is recorded but not yet applied to OVN.
    var changing: Set<NBSubject> = []

    /// The desired rows of `subject`; `.nothing` if it no longer exists.
    func compile(_ subject: NBSubject, _ compiler: Compiler) -> NBDesired {
        switch subject {
        case .global: return compiler.compileGlobal()
        case .securityGroup(let id): return groups[id].map { compiler.compile($0) } ?? .nothing
        case .network(let id): return networks[id].map { compiler.compile($0) } ?? .nothing
        case .subnet(let id):
            guard let subnet = subnets[id], let network = networks[subnet.networkID] else { return .nothing }
            return compiler.compile(subnet, network: network, metadata: metadata[id])
        case .router(let id):
            return routers[id].map { compiler.compile($0, internalNetworks: inside[id] ?? [], gatewaySubnets: subnets) }
                ?? .nothing
        case .port(let id):
            guard let port = ports[id], let network = networks[port.networkID] else { return .nothing }
            return compiler.compile(port, network: network, subnets: subnets, metadata: metadata)
        case .floatingIP(let id): return floating[id].map { compiler.compile($0) } ?? .nothing
        }
    }
}

/// Reads `NorthboundState` for a batch of subjects: a fixed number of queries, however many subjects there are.
struct NorthboundReader {
    let connection: Connection
    private(set) var state = NorthboundState()

    init(_ connection: Connection) { self.connection = connection }

    private mutating func changing(_ subjects: [NBSubject]) throws {
        guard !subjects.isEmpty else { return }
        let rows = try connection.query(
            """
            SELECT DISTINCT c.kind, u.id FROM northbound_changes c, unnest(c.ids) AS u (id)
            WHERE u.id = ANY(\(subjects.compactMap(\.id))::uuid[])
            """)
        state.changing = Set(try rows.compactMap { NBSubject(try $0.string("kind"), try $0.uuid("id")) }).intersection(subjects)
    }

    /// - Parameter driftCandidates: subjects for which `changing` is filled.
    static func read(
        _ connection: Connection, _ subjects: [NBSubject], driftCandidates: [NBSubject]
    ) throws -> NorthboundState {
        var reader = NorthboundReader(connection)
        var ids: [Int: [UUID128]] = [:]
        for subject in subjects {
            if let id = subject.id { ids[subject.rank, default: []].append(id) }
        }
        func of(_ subject: NBSubject) -> [UUID128] { ids[subject.rank] ?? [] }
        let none = UUID128(high: 0, low: 0)
        try reader.groups(of(.securityGroup(none)))
        try reader.ports(of(.port(none)))
        try reader.routers(of(.router(none)))
        try reader.floating(of(.floatingIP(none)))
        let subnets = Set(of(.subnet(none))).union(reader.neededSubnets)
        try reader.subnets(Array(subnets))
        let networks = Set(of(.network(none))).union(reader.state.ports.values.map(\.networkID))
            .union(reader.state.subnets.values.map(\.networkID))
        try reader.networks(Array(networks))
        try reader.metadata(Array(networks))
        try reader.changing(driftCandidates)
        return reader.state
    }

    private var neededSubnets: Set<UUID128> {
        var result: Set<UUID128> = []
        for port in state.ports.values { for fixed in port.fixedIPs { result.insert(fixed.subnetID) } }
        for router in state.routers.values { for fixed in router.gateway?.fixedIPs ?? [] { result.insert(fixed.subnetID) } }
        return result
    }

    private mutating func groups(_ ids: [UUID128]) throws {
        guard !ids.isEmpty else { return }
        for row in try connection.query("SELECT id, name, stateful FROM security_groups WHERE id \(anyOf: ids)") {
            let id = try row.uuid("id")
            state.groups[id] = SecurityGroup(id: id, name: try row.string("name"), stateful: try row.bool("stateful"))
        }
        for row in try connection.query(
            """
            SELECT id, security_group_id, direction, ethertype, protocol, port_range_min, port_range_max, remote_ip_prefix,
                remote_group_id
            FROM security_group_rules WHERE security_group_id \(anyOf: ids) ORDER BY id
            """)
        {
            let prefix = try row.optionalString("remote_ip_prefix").flatMap { IPNetwork($0) }
            state.groups[try row.uuid("security_group_id")]?.rules.append(
                SecurityGroupRule(
                    id: try row.uuid("id"), direction: try row.string("direction") == "egress" ? .egress : .ingress,
                    etherType: try row.string("ethertype") == "IPv6" ? .v6 : .v4,
                    protocolName: try row.optionalString("protocol"), portRangeMin: try row.optionalInt("port_range_min"),
                    portRangeMax: try row.optionalInt("port_range_max"), remoteNetwork: prefix,
                    remoteGroupID: try row.optionalUUID("remote_group_id")))
        }
    }

    private mutating func ports(_ ids: [UUID128]) throws {
        guard !ids.isEmpty else { return }
        for row in try connection.query(
            """
            SELECT id, mac_address, status, network_id, project_id, name, admin_state_up, device_id, device_owner, host_id,
                nullif(allowed_address_pairs, '[]') AS pairs, port_security_enabled, nullif(extra_dhcp_opts, '[]') AS dhcp_opts
            FROM ports WHERE id \(anyOf: ids)
            """)
        {
            let id = try row.uuid("id")
            guard let mac = MACAddress(try row.string("mac_address")) else { continue }
            if try row.string("status") == "DOWN" { state.down.insert(id) }
            // Few ports have any, so parsing is skipped for the others.
            let pairs = try row.optionalJSON("pairs")?.arrayValue ?? []
            state.ports[id] = Port(
                id: id, networkID: try row.uuid("network_id"), projectID: try row.string("project_id"),
                name: try row.string("name"), mac: mac, adminStateUp: try row.bool("admin_state_up"),
                deviceID: try row.string("device_id"), deviceOwner: try row.string("device_owner"),
                addressPairs: pairs.map { pair in
                    AddressPair(
                        mac: pair["mac_address"]?.stringValue.flatMap { MACAddress($0) },
                        ip: pair["ip_address"]?.stringValue ?? "")
                }, portSecurityEnabled: try row.bool("port_security_enabled"),
                dhcpOptions: try row.optionalJSON("dhcp_opts").map { DHCPOptions.read($0) } ?? [])
            state.ports[id]?.host = try row.string("host_id")
        }
        for row in try connection.query("SELECT port_id, host, is_expected FROM port_bindings WHERE port_id \(anyOf: ids)") {
            state.ports[try row.uuid("port_id")]?.otherBindings.append(
                Port.Binding(host: try row.string("host"), isExpected: try row.bool("is_expected")))
        }
        for row in try fixedIPs(ids) {
            guard let address = IPAddress(try row.string("ip_address")) else { continue }
            state.ports[try row.uuid("port_id")]?.fixedIPs.append(
                FixedIP(subnetID: try row.uuid("subnet_id"), address: address))
        }
        for row in try connection.query(
            "SELECT port_id, security_group_id FROM port_security_groups WHERE port_id \(anyOf: ids)")
        {
            state.ports[try row.uuid("port_id")]?.securityGroups.append(try row.uuid("security_group_id"))
        }
        try parents(ids)
    }

    /// Ports with an address pair that names an address of one of `ids`.
    private mutating func parents(_ ids: [UUID128]) throws {
        // Uses the few ports with pairs (ports_with_pairs) instead of all ports of a network.
        for row in try connection.query(
            """
            SELECT v.id, f.ip_address, p.id AS parent
            FROM ports v JOIN port_fixed_ips f ON f.port_id = v.id
            JOIN ports p ON p.network_id = v.network_id AND p.allowed_address_pairs <> '[]' AND p.id <> v.id
            WHERE v.id \(anyOf: ids) AND v.device_owner NOT LIKE 'network:%' AND v.device_owner NOT LIKE 'compute:%'
                AND EXISTS (SELECT 1 FROM jsonb_array_elements(p.allowed_address_pairs) AS a (pair)
                    WHERE (a.pair->>'ip_address')::inet = f.ip_address::inet)
            """)
        {
            guard let address = IPAddress(try row.string("ip_address")) else { continue }
            state.ports[try row.uuid("id")]?.parents[address, default: []].append(try row.uuid("parent"))
        }
    }

    private func fixedIPs(_ ports: [UUID128]) throws -> Rows {
        try connection.query(
            """
            SELECT port_id, subnet_id, ip_address FROM port_fixed_ips WHERE port_id \(anyOf: ports)
            ORDER BY port_id, position, ip_address
            """)
    }

    private mutating func routers(_ ids: [UUID128]) throws {
        guard !ids.isEmpty else { return }
        var gateways: [UUID128: UUID128] = [:]
        for row in try connection.query(
            """
            SELECT r.*, p.network_id AS gateway_network FROM routers r LEFT JOIN ports p ON p.id = r.gateway_port_id
            WHERE r.id \(anyOf: ids)
            """)
        {
            let id = try row.uuid("id")
            var router = Router(
                id: id, name: try row.string("name"), adminStateUp: try row.bool("admin_state_up"),
                routes: try SubnetDraft.routes(try row.json("routes").arrayValue ?? []))
            if let port = try row.optionalUUID("gateway_port_id"), let network = try row.optionalUUID("gateway_network") {
                router.gateway = ExternalGateway(
                    portID: port, networkID: network, enableSNAT: try row.bool("enable_snat"), fixedIPs: [])
                gateways[port] = id
            }
            state.routers[id] = router
        }
        for row in try fixedIPs(Array(gateways.keys)) {
            guard let router = gateways[try row.uuid("port_id")], let address = IPAddress(try row.string("ip_address"))
            else { continue }
            state.routers[router]?.gateway?.fixedIPs.append(
                FixedIP(subnetID: try row.uuid("subnet_id"), address: address))
        }
        for row in try connection.query(
            """
            SELECT p.device_id, s.cidr FROM ports p JOIN port_fixed_ips f ON f.port_id = p.id
                JOIN subnets s ON s.id = f.subnet_id
            WHERE p.device_id = ANY(\(ids.map(\.description))::text[]) AND p.device_owner = \(DeviceOwner.routerInterface)
            """)
        {
            guard let id = UUID128(try row.string("device_id")), let cidr = IPNetwork(try row.string("cidr")) else { continue }
            state.inside[id, default: []].append(cidr)
        }
    }

    private mutating func floating(_ ids: [UUID128]) throws {
        guard !ids.isEmpty else { return }
        for row in try connection.query(
            """
            SELECT i.*, p.mac_address FROM floating_ips i JOIN ports p ON p.id = i.floating_port_id
            WHERE i.id \(anyOf: ids)
            """)
        {
            let id = try row.uuid("id")
            guard let address = IPAddress(try row.string("floating_ip_address")) else { continue }
            state.floating[id] = FloatingIP(
                id: id, address: address, mac: MACAddress(try row.string("mac_address")),
                routerID: try row.optionalUUID("router_id"), portID: try row.optionalUUID("port_id"),
                fixedAddress: try row.optionalString("fixed_ip_address").flatMap { IPAddress($0) })
        }
    }

    private mutating func subnets(_ ids: [UUID128]) throws {
        guard !ids.isEmpty else { return }
        for row in try connection.query("SELECT \(raw: SubnetRow.columns) FROM subnets WHERE id \(anyOf: ids)") {
            let subnet = try SubnetRow.subnet(row)
            state.subnets[subnet.id] = subnet
        }
    }

    private mutating func networks(_ ids: [UUID128]) throws {
        guard !ids.isEmpty else { return }
        for row in try connection.query(
            """
            SELECT id, project_id, name, admin_state_up, shared, external, mtu, port_security_enabled, provider_type,
                physical_network, segmentation_id
            FROM networks WHERE id \(anyOf: ids)
            """)
        {
            let id = try row.uuid("id")
            state.networks[id] = Network(
                id: id, projectID: try row.string("project_id"), name: try row.string("name"),
                adminStateUp: try row.bool("admin_state_up"), shared: try row.bool("shared"),
                external: try row.bool("external"), mtu: try row.int("mtu"),
                portSecurityEnabled: try row.bool("port_security_enabled"),
                provider: ProviderAttributes(
                    kind: ProviderAttributes.Kind(rawValue: try row.string("provider_type")) ?? .geneve,
                    physicalNetwork: try row.optionalString("physical_network"),
                    segmentationID: try row.optionalInt("segmentation_id")))
        }
    }

    private mutating func metadata(_ networks: [UUID128]) throws {
        guard !networks.isEmpty else { return }
        // Uses the metadata port of each network instead of all addresses of its subnets.
        for row in try connection.query(
            """
            SELECT f.subnet_id, f.ip_address
            FROM (SELECT id FROM ports WHERE network_id \(anyOf: networks) AND device_owner = \(DeviceOwner.metadata)
                OFFSET 0) p
            JOIN port_fixed_ips f ON f.port_id = p.id
            """)
        {
            state.metadata[try row.uuid("subnet_id")] = IPAddress(try row.string("ip_address"))
        }
    }

    /// All subjects of the database.
    static func all(_ connection: Connection) throws -> [NBSubject] {
        var subjects: [NBSubject] = [.global]
        func add(_ table: String, _ make: (UUID128) -> NBSubject) throws {
            for row in try connection.query("SELECT id FROM \(raw: table)") { subjects.append(make(try row.uuid("id"))) }
        }
        try add("security_groups") { .securityGroup($0) }
        try add("networks") { .network($0) }
        try add("subnets") { .subnet($0) }
        try add("routers") { .router($0) }
        try add("ports") { .port($0) }
        try add("floating_ips") { .floatingIP($0) }
        return subjects
    }
}
