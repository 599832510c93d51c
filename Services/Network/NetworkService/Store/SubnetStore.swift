import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

/// A create request for a subnet, validated without regard to other subnets.
struct SubnetDraft: Sendable {
    let id: UUID128
    let network: Authorized<Subject>
    let project: String
    let body: JSONObject
    let cidr: IPNetwork
    let gateway: IPAddress?
    let pools: [AddressPool]
    let tags: [String]

    /// - Throws: 400 and 409 with Networking's error types.
    init(_ body: JSONObject, id: UUID128, network: Authorized<Subject>, project: String) throws {
        self.id = id
        self.network = network
        self.project = project
        self.body = body
        tags = try body.tags() ?? []
        cidr = try SubnetDraft.cidr(body.text("cidr") ?? "")
        let version = body.int("ip_version") ?? cidr.version.rawValue
        guard version == 4 || version == 6 else {
            throw ResourceError.badRequest("Invalid input for ip_version. Reason: '\(version)' is not in [4, 6].")
        }
        guard version == cidr.version.rawValue else {
            throw NetworkFault.invalidInput("cidr \(cidr) does not match the ip_version '\(version)'.")
        }
        try SubnetRules.validate(cidr: cidr)
        if body["gateway_ip"]?.isNull == true {
            gateway = nil
        } else {
            gateway = try body.address("gateway_ip") ?? SubnetRules.defaultGateway(cidr)
        }
        if let gateway, body.text("gateway_ip") != nil { try SubnetRules.validate(gateway: gateway, cidr: cidr) }
        pools =
            try body.list("allocation_pools").map { try SubnetDraft.pools($0) }
            ?? SubnetRules.defaultPools(cidr, gateway: gateway)
        try SubnetRules.validate(pools: pools, cidr: cidr, gateway: gateway)
        try SubnetRules.validate(
            hostRoutes: SubnetDraft.routes(body.list("host_routes") ?? []),
            dnsNameservers: SubnetDraft.addresses(body.list("dns_nameservers") ?? [], "dns_nameservers"), cidr: cidr)
        try SubnetDraft.checkModes(body, version)
    }

    private static func checkModes(_ body: JSONObject, _ version: Int) throws {
        let address = body.text("ipv6_address_mode")
        let router = body.text("ipv6_ra_mode")
        guard address != nil || router != nil else { return }
        guard version == 6 else {
            throw NetworkFault.invalidInput("ipv6_address_mode and ipv6_ra_mode are for ip_version 6 only.")
        }
        guard body.bool("enable_dhcp") ?? true else {
            throw ResourceError.badRequest(
                "ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False.",
                type: "DhcpDisabledIpv6Attributes")
        }
        if let address, let router, address != router {
            throw NetworkFault.invalidInput(
                """
                ipv6_ra_mode set to '\(router)' with ipv6_address_mode set to '\(address)' is not valid. If both \
                attributes are set, they must be the same value.
                """
            )
        }
    }

    /// Parses a CIDR; host bits are refused with a suggestion of the network.
    static func cidr(_ text: String) throws -> IPNetwork {
        guard let network = IPNetwork(text), let address = IPAddress(text.prefix { $0 != "/" }) else {
            throw ResourceError.badRequest("Invalid input for cidr. Reason: '\(text)' is not a valid IP subnet.")
        }
        guard network.network == address else {
            throw ResourceError.badRequest(
                "Invalid input for cidr. Reason: '\(text)' isn't a recognized IP subnet cidr, '\(network)' is recommended.")
        }
        return network
    }

    static func pools(_ values: [JSONValue]) throws -> [AddressPool] {
        try values.map { value in
            AddressPool(
                start: try JSONObject.address(value["start"]?.stringValue ?? "", "allocation_pools"),
                end: try JSONObject.address(value["end"]?.stringValue ?? "", "allocation_pools"))
        }
    }

    static func addresses(_ values: [JSONValue], _ name: String) throws -> [IPAddress] {
        try values.map { try JSONObject.address($0.stringValue ?? "", name) }
    }

    static func routes(_ values: [JSONValue]) throws -> [StaticRoute] {
        try values.map { value in
            let text = value["destination"]?.stringValue ?? ""
            guard let destination = IPNetwork(text) else {
                throw ResourceError.badRequest("Invalid input for routes. Reason: '\(text.prefix(64))' is not a CIDR.")
            }
            return StaticRoute(
                destination: destination, nexthop: try JSONObject.address(value["nexthop"]?.stringValue ?? "", "routes"))
        }
    }

    static func json(_ pools: [AddressPool]) -> JSONValue {
        .array(pools.map { ["start": .string($0.start.description), "end": .string($0.end.description)] })
    }

    static func json(_ routes: [StaticRoute]) -> JSONValue {
        .array(
            routes.map {
                ["destination": .string($0.destination.description), "nexthop": .string($0.nexthop.description)]
            })
    }
}

extension NetworkAPI {
    /// - Throws: 400 if it overlaps another subnet of the network; 409 over quota.
    func insertSubnet(_ connection: Connection, _ draft: SubnetDraft) throws {
        let network = try draft.network.value(for: "create_subnet").id
        try reserve(connection, draft.project, NetworkQuotas.subnets)
        guard try !connection.query("SELECT id FROM networks WHERE id = \(network) FOR UPDATE").isEmpty else {
            throw ResourceKind.networks.notFound("\(network)")
        }
        let others = try connection.query("SELECT cidr FROM subnets WHERE network_id = \(network)")
            .compactMap { IPNetwork(try $0.string("cidr")) }
        try SubnetRules.validateNoOverlap(draft.cidr, on: network, others: others)
        let body = draft.body
        let dns = JSONValue.array(
            try SubnetDraft.addresses(body.list("dns_nameservers") ?? [], "dns_nameservers").map { .string($0.description) })
        var row = ResourceKind.subnets.changes(body)
        row.set("id", draft.id)
        row.set("network_id", network)
        row.set("project_id", draft.project)
        row.set("ip_version", draft.cidr.version.rawValue)
        row.set("cidr", draft.cidr.description)
        row.set("gateway_ip", draft.gateway)
        row.set(json: "allocation_pools", SubnetDraft.json(draft.pools))
        row.set(json: "dns_nameservers", dns)
        row.set(json: "host_routes", SubnetDraft.json(try SubnetDraft.routes(body.list("host_routes") ?? [])))
        row.set("ipv6_address_mode", body.text("ipv6_address_mode"))
        row.set("ipv6_ra_mode", body.text("ipv6_ra_mode"))
        row.set("tags", sql: "\(draft.tags)::text[]")
        try connection.execute(row.insertion("subnets", at: ambient.now))
        let created = try subnet(connection, draft.id)
        if created.enableDHCP, draft.cidr.version == .v4 {
            try addMetadataAddress(connection, network: draft.network.value, subnet: created)
        }
        if created.isAutoAddressed { try addAutoAddresses(connection, network: network, subnet: created) }
    }

    /// The subnet as a value for rules and planner.
    ///
    /// - Throws: 404 if it does not exist.
    func subnet(_ connection: Connection, _ id: UUID128) throws -> Subnet {
        guard let row = try connection.query("SELECT * FROM subnets WHERE id = \(id)").first else {
            throw ResourceKind.subnets.notFound("\(id)")
        }
        return try SubnetRow.subnet(row)
    }

    func updateSubnet(_ connection: Connection, _ authorized: Authorized<Subject>, _ body: JSONObject) throws {
        let id = try authorized.value(for: "update_subnet").id
        guard let row = try connection.query("SELECT * FROM subnets WHERE id = \(id) FOR UPDATE").first else {
            throw ResourceKind.subnets.notFound("\(id)")
        }
        let old = try SubnetRow.subnet(row)
        var gateway = old.gatewayIP
        var changes = ResourceKind.subnets.changes(body)
        if body["gateway_ip"] != nil {
            gateway = try body.address("gateway_ip")
            if gateway != old.gatewayIP { try changeGateway(connection, old, to: gateway) }
            changes.set("gateway_ip", gateway)
        }
        let pools = try body.list("allocation_pools").map { try SubnetDraft.pools($0) }
        try SubnetRules.validate(pools: pools ?? old.allocationPools, cidr: old.cidr, gateway: gateway)
        if let pools { changes.set(json: "allocation_pools", SubnetDraft.json(pools)) }
        let dns = try SubnetDraft.addresses(body.list("dns_nameservers") ?? [], "dns_nameservers")
        let routes = try SubnetDraft.routes(body.list("host_routes") ?? [])
        try SubnetRules.validate(hostRoutes: routes, dnsNameservers: dns, cidr: old.cidr)
        if body["dns_nameservers"] != nil {
            changes.set(json: "dns_nameservers", JSONValue(dns.map(\.description)))
        }
        if body["host_routes"] != nil { changes.set(json: "host_routes", SubnetDraft.json(routes)) }
        try changes.apply(connection, "subnets", id, at: ambient.now)
        let newDNS = body["dns_nameservers"] == nil ? old.dnsNameservers : dns
        let dhcp = body.bool("enable_dhcp") ?? old.enableDHCP
        if gateway != old.gatewayIP || newDNS != old.dnsNameservers || dhcp != old.enableDHCP {
            // Guests see these in their metadata, which the hosts serve.
            let members: SQL = "id IN (SELECT f.port_id FROM port_fixed_ips f WHERE f.subnet_id = \(id))"
            try ServerPorts.announce(connection, where: members, ambient: ambient)
        }
        guard dhcp != old.enableDHCP, old.cidr.version == .v4 else { return }
        let owner = try connection.query("SELECT project_id FROM networks WHERE id = \(old.networkID)")[0]
        let network = Subject(
            id: old.networkID, projectID: try owner.string("project_id"), revision: 0, target: .none)
        if dhcp {
            try addMetadataAddress(connection, network: network, subnet: try subnet(connection, id))
        } else {
            try removeMetadataAddress(connection, network: old.networkID, subnet: id)
        }
    }

    private func changeGateway(_ connection: Connection, _ old: Subnet, to gateway: IPAddress?) throws {
        if let current = old.gatewayIP {
            let used = try connection.query(
                """
                SELECT p.id FROM port_fixed_ips f JOIN ports p ON p.id = f.port_id
                WHERE f.subnet_id = \(old.id) AND f.ip_address = \(current) AND p.device_owner = \(DeviceOwner.routerInterface)
                """)
            if let port = used.first { throw NetworkFault.gatewayInUse("\(current)", port: try port.string("id")) }
        }
        guard let gateway else { return }
        guard gateway.version == old.cidr.version else {
            throw NetworkFault.invalidInput("gateway_ip '\(gateway)' does not match the ip_version '\(old.cidr.version.rawValue)'")
        }
        try SubnetRules.validate(gateway: gateway, cidr: old.cidr)
    }

    /// - Throws: 409 `SubnetInUse` while ports other than the service's own have addresses in it.
    func deleteSubnet(_ connection: Connection, _ subnet: Authorized<Subject>) throws {
        let id = try subnet.value(for: "delete_subnet").id
        guard let row = try connection.query("SELECT * FROM subnets WHERE id = \(id) FOR UPDATE").first else {
            throw ResourceKind.subnets.notFound("\(id)")
        }
        if try SubnetRow.subnet(row).isAutoAddressed {
            // SLAAC addresses of guests are deleted with the subnet; an address of a router keeps the subnet in use.
            try connection.execute(
                """
                DELETE FROM port_fixed_ips f USING ports p WHERE p.id = f.port_id AND f.subnet_id = \(id)
                    AND p.device_owner NOT LIKE 'network:%'
                """)
        }
        let used = try connection.query(
            """
            SELECT 1 AS one FROM port_fixed_ips f JOIN ports p ON p.id = f.port_id
            WHERE f.subnet_id = \(id) AND p.device_owner <> \(DeviceOwner.metadata) LIMIT 1
            """)
        guard used.isEmpty else { throw NetworkFault.subnetInUse(id) }
        try removeMetadataAddress(connection, network: try row.uuid("network_id"), subnet: id)
        do { try connection.execute("DELETE FROM subnets WHERE id = \(id)") } catch let error as DatabaseError
            where error.isForeignKeyViolation
        { throw NetworkFault.subnetInUse(id) }
        try release(connection, subnet.value.projectID, NetworkQuotas.subnets)
    }
}

/// Converts rows of `subnets` to values.
enum SubnetRow {
    /// The columns that `subnet` reads.
    static let columns = """
        id, network_id, cidr, gateway_ip, enable_dhcp, allocation_pools, dns_nameservers, host_routes, ipv6_address_mode,
            ipv6_ra_mode
        """

    static func subnet(_ row: Row) throws -> Subnet {
        guard let cidr = IPNetwork(try row.string("cidr")) else {
            throw ResourceError.internalError("subnet \(try row.string("id")) has a malformed cidr")
        }
        return Subnet(
            id: try row.uuid("id"), networkID: try row.uuid("network_id"), cidr: cidr,
            gatewayIP: try row.optionalString("gateway_ip").flatMap { IPAddress($0) },
            enableDHCP: try row.bool("enable_dhcp"),
            allocationPools: try SubnetDraft.pools(try row.json("allocation_pools").arrayValue ?? []),
            dnsNameservers: try row.strings("dns_nameservers").compactMap { IPAddress($0) },
            hostRoutes: try SubnetDraft.routes(try row.json("host_routes").arrayValue ?? []),
            ipv6AddressMode: try row.optionalString("ipv6_address_mode").flatMap { IPv6Mode(rawValue: $0) },
            ipv6RouterMode: try row.optionalString("ipv6_ra_mode").flatMap { IPv6Mode(rawValue: $0) })
    }
}
