import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

/// The requested association of a floating IP.
enum AssociationRequest: Sendable {
    case unchanged
    case none
    case port(UUID128, IPAddress?)
    /// Another address of the current port.
    case address(IPAddress)
}

struct FloatingIPDraft: Sendable {
    let id: UUID128
    let owner: Authorized<String>
    let network: UUID128
    let body: JSONObject
    let tags: [String]
    let association: AssociationRequest
}

extension NetworkAPI {
    func insertFloatingIP(_ connection: Connection, _ draft: FloatingIPDraft) throws {
        let project = try draft.owner.value(for: "create_floatingip")
        try reserve(connection, project, NetworkQuotas.floatingIPs)
        guard let row = try connection.query("SELECT external FROM networks WHERE id = \(draft.network) FOR SHARE").first
        else { throw ResourceKind.networks.notFound("\(draft.network)") }
        guard try row.bool("external") else {
            throw NetworkFault.badRequest("floatingip", "Network \(draft.network) is not a valid external network")
        }
        let port = try insertPort(
            connection,
            PortRow(
                id: ambient.newUUID(), network: draft.network, project: "", mac: nil, status: "N/A",
                deviceID: "\(draft.id)", deviceOwner: DeviceOwner.floatingIP))
        let address = try floatingAddress(connection, draft, port: port)
        let columns: Changes = [
            "id": "\(draft.id)", "project_id": "\(project)", "description": "\(draft.body.text("description") ?? "")",
            "floating_network_id": "\(draft.network)", "floating_ip_address": "\(address)", "floating_port_id": "\(port)",
            "tags": "\(draft.tags)::text[]",
        ]
        try connection.execute(columns.insertion("floating_ips", at: ambient.now))
        try associate(connection, draft.id, draft.association)
    }

    /// An IPv4 address on the external network: the requested one, or any.
    private func floatingAddress(_ connection: Connection, _ draft: FloatingIPDraft, port: UUID128) throws -> IPAddress {
        let allocator = allocator(connection)
        let subnet = try draft.body.uuid("subnet_id")
        let wanted = try draft.body.address("floating_ip_address")
        if wanted != nil || subnet != nil {
            let fixed = try allocator.allocate(
                AddressAllocator.Request(
                    port: port, network: draft.network, mac: MACAddress(value: 0),
                    fixedIPRequests: [AddressAllocator.FixedIPRequest(subnet: subnet, address: wanted)]))
            if let address = fixed.first?.address, address.version == .v4 { return address }
            throw NetworkFault.badRequest("floatingip", "A floating IP must be an IPv4 address")
        }
        for subnet in try allocator.subnets(of: draft.network) where subnet.cidr.version == .v4 {
            if let fixed = try allocator.take(in: subnet, [(port, MACAddress(value: 0), 0)]).first ?? nil {
                return fixed.address
            }
        }
        let hasSubnet = try allocator.subnets(of: draft.network).contains { $0.cidr.version == .v4 }
        throw hasSubnet
            ? NetworkFault.noAddresses(draft.network)
            : NetworkFault.badRequest("floatingip", "Network \(draft.network) does not contain any IPv4 subnet")
    }

    func updateFloatingIP(
        _ connection: Connection, _ floating: Authorized<Subject>, _ body: JSONObject, _ associationRequest: AssociationRequest
    ) throws {
        let id = try floating.value(for: "update_floatingip").id
        guard try !connection.query("SELECT id FROM floating_ips WHERE id = \(id) FOR UPDATE").isEmpty else {
            throw ResourceKind.floatingIPs.notFound("\(id)")
        }
        try ResourceKind.floatingIPs.changes(body).apply(connection, "floating_ips", id, at: ambient.now)
        try associate(connection, id, associationRequest)
    }

    func deleteFloatingIP(_ connection: Connection, _ floating: Authorized<Subject>) throws {
        let id = try floating.value(for: "delete_floatingip").id
        try announcePort(connection, of: id)
        let rows = try connection.query(
            "DELETE FROM floating_ips WHERE id = \(id) RETURNING floating_port_id, project_id")
        guard let row = rows.first else { throw ResourceKind.floatingIPs.notFound("\(id)") }
        try connection.execute("DELETE FROM ports WHERE id = \(row.uuid("floating_port_id"))")
        try release(connection, row.string("project_id"), NetworkQuotas.floatingIPs)
    }

    // MARK: association

    private func associate(_ connection: Connection, _ id: UUID128, _ associationRequest: AssociationRequest) throws {
        switch associationRequest {
        case .unchanged: return
        case .none:
            try announcePort(connection, of: id)
            try connection.execute(
                """
                UPDATE floating_ips SET port_id = NULL, fixed_ip_address = NULL, router_id = NULL, status = 'DOWN',
                    updated_at = \(ambient.now) WHERE id = \(id)
                """)
        case .address(let address):
            let row = try connection.query("SELECT port_id FROM floating_ips WHERE id = \(id)")[0]
            guard let port = try row.optionalUUID("port_id") else {
                throw NetworkFault.badRequest("floatingip", "fixed_ip_address cannot be specified without a port_id")
            }
            try associate(connection, id, port: port, fixed: address)
        case .port(let port, let fixed): try associate(connection, id, port: port, fixed: fixed)
        }
    }

    private func associate(_ connection: Connection, _ id: UUID128, port: UUID128, fixed wanted: IPAddress?) throws {
        let floating = try connection.query(
            "SELECT floating_network_id, floating_ip_address FROM floating_ips WHERE id = \(id)")[0]
        let network = try floating.uuid("floating_network_id")
        let place = try fixedAddress(connection, port, wanted)
        try announcePort(connection, of: id)
        let router = try connection.query(
            """
            SELECT r.id FROM ports p JOIN port_fixed_ips f ON f.port_id = p.id JOIN routers r ON r.id::text = p.device_id
                JOIN ports g ON g.id = r.gateway_port_id JOIN subnets s ON s.id = f.subnet_id
            WHERE p.device_owner = \(DeviceOwner.routerInterface) AND f.subnet_id = \(place.subnetID)
                AND g.network_id = \(network)
            ORDER BY (f.ip_address = s.gateway_ip) DESC, r.id LIMIT 1 FOR SHARE OF r
            """)
        guard let router = try router.first?.uuid("id") else {
            throw NetworkFault.notReachable(network: network, subnet: place.subnetID, port: port)
        }
        do {
            try connection.execute(
                """
                UPDATE floating_ips SET port_id = \(port), fixed_ip_address = \(place.address), router_id = \(router),
                    status = 'ACTIVE', updated_at = \(ambient.now) WHERE id = \(id)
                """)
        } catch let error as DatabaseError where error.isUniqueViolation {
            throw NetworkFault.alreadyAssociated(
                try floating.string("floating_ip_address"), port: port, fixed: "\(place.address)")
        }
        try announcePort(connection, of: id)
    }

    /// Guests see their floating IPs in their metadata.
    private func announcePort(_ connection: Connection, of floating: UUID128) throws {
        try ServerPorts.announce(
            connection, where: "id = (SELECT port_id FROM floating_ips WHERE id = \(floating))", ambient: ambient)
    }

    /// The fixed address to which a floating IP is translated.
    private func fixedAddress(_ connection: Connection, _ port: UUID128, _ wanted: IPAddress?) throws -> FixedIP {
        guard try !connection.query("SELECT id FROM ports WHERE id = \(port) FOR SHARE").isEmpty else {
            throw ResourceKind.ports.notFound("\(port)")
        }
        let fixed = try connection.query(
            "SELECT subnet_id, ip_address FROM port_fixed_ips WHERE port_id = \(port) ORDER BY position"
        ).compactMap { row -> FixedIP? in
            guard let address = IPAddress(try row.string("ip_address")), address.version == .v4 else { return nil }
            return FixedIP(subnetID: try row.uuid("subnet_id"), address: address)
        }
        if let wanted {
            guard let place = fixed.first(where: { $0.address == wanted }) else {
                throw NetworkFault.badRequest("floatingip", "Port \(port) does not have fixed ip \(wanted)")
            }
            return place
        }
        guard let place = fixed.first else {
            throw NetworkFault.badRequest("floatingip", "Cannot add floating IP to port \(port) that has no fixed IPv4 addresses")
        }
        guard fixed.count == 1 else {
            throw NetworkFault.badRequest(
                "floatingip",
                "Port \(port) has multiple fixed IPv4 addresses. Must provide a specific IPv4 address when assigning a floating IP")
        }
        return place
    }

    /// Disassociates floating IPs from a port, or from one of its addresses.
    func disassociate(_ connection: Connection, port: UUID128, fixed: IPAddress?) throws {
        let condition: SQL = fixed.map { "fixed_ip_address = \($0)" } ?? "TRUE"
        try ServerPorts.announce(
            connection, where: "id IN (SELECT port_id FROM floating_ips WHERE port_id = \(port) AND \(condition))", ambient: ambient)
        try connection.execute(
            """
            UPDATE floating_ips SET port_id = NULL, fixed_ip_address = NULL, router_id = NULL, status = 'DOWN',
                updated_at = \(ambient.now) WHERE port_id = \(port) AND \(condition)
            """)
    }
}
