import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

/// The external gateway in a request.
enum GatewayRequest: Sendable {
    case unchanged
    case none
    case network(UUID128, snat: Bool?, fixedIPRequests: [AddressAllocator.FixedIPRequest]?)
}

struct RouterDraft: Sendable {
    let id: UUID128
    let owner: Authorized<String>
    let body: JSONObject
    let gateway: GatewayRequest
    let tags: [String]
}

struct RouterInterface: Sendable {
    let port: UUID128
    let network: UUID128
    let subnets: [UUID128]
}

extension NetworkAPI {
    func insertRouter(_ connection: Connection, _ draft: RouterDraft) throws {
        let project = try draft.owner.value(for: "create_router")
        try reserve(connection, project, NetworkQuotas.routers)
        var row = ResourceKind.routers.changes(draft.body)
        row.set("id", draft.id)
        row.set("project_id", project)
        row.set(json: "availability_zone_hints", draft.body["availability_zone_hints"] ?? [])
        row.set("tags", sql: "\(draft.tags)::text[]")
        try connection.execute(row.insertion("routers", at: ambient.now))
        try setGateway(connection, draft.id, draft.gateway)
        if let routes = draft.body.list("routes"), !routes.isEmpty {
            try setRoutes(connection, draft.id, try SubnetDraft.routes(routes))
        }
    }

    /// The router's row, locked, so that changes to the router's interfaces and routes are serialized.
    private func lock(_ connection: Connection, _ id: UUID128) throws -> Row {
        guard let row = try connection.query("SELECT * FROM routers WHERE id = \(id) FOR UPDATE").first else {
            throw ResourceKind.routers.notFound("\(id)")
        }
        return row
    }

    func updateRouter(
        _ connection: Connection, _ router: Authorized<Subject>, _ body: JSONObject, gateway: GatewayRequest
    ) throws {
        let id = try router.value(for: "update_router").id
        _ = try lock(connection, id)
        try setGateway(connection, id, gateway)
        if body["routes"] != nil { try setRoutes(connection, id, try SubnetDraft.routes(body.list("routes") ?? [])) }
        try ResourceKind.routers.changes(body).apply(connection, "routers", id, at: ambient.now)
    }

    /// - Throws: 409 `RouterInUse` while it has interfaces.
    func deleteRouter(_ connection: Connection, _ router: Authorized<Subject>) throws {
        let id = try router.value(for: "delete_router").id
        _ = try lock(connection, id)
        let used = try connection.query(
            """
            SELECT 1 AS one FROM ports WHERE device_id = \("\(id)") AND device_owner = \(DeviceOwner.routerInterface) LIMIT 1
            """)
        guard used.isEmpty else { throw NetworkFault.routerInUse(id) }
        try setGateway(connection, id, .none)
        try connection.execute("DELETE FROM routers WHERE id = \(id)")
        try release(connection, router.value.projectID, NetworkQuotas.routers)
    }

    // MARK: gateway

    private func setGateway(_ connection: Connection, _ router: UUID128, _ gatewayRequest: GatewayRequest) throws {
        switch gatewayRequest {
        case .unchanged: return
        case .none: try clearGateway(connection, router)
        case .network(let network, let snat, let fixedIPRequests):
            let current = try connection.query(
                "SELECT p.network_id FROM routers r JOIN ports p ON p.id = r.gateway_port_id WHERE r.id = \(router)"
            ).first
            if try current?.uuid("network_id") == network, fixedIPRequests == nil {
                try connection.execute(
                    "UPDATE routers SET enable_snat = \(snat ?? true), updated_at = \(ambient.now) WHERE id = \(router)")
                return
            }
            try clearGateway(connection, router)
            try openGateway(connection, router, network, snat ?? true, fixedIPRequests)
        }
    }

    private func clearGateway(_ connection: Connection, _ router: UUID128) throws {
        guard
            let port = try connection.query("SELECT gateway_port_id FROM routers WHERE id = \(router)").first?
                .optionalUUID("gateway_port_id")
        else { return }
        let used = try connection.query("SELECT 1 AS one FROM floating_ips WHERE router_id = \(router) LIMIT 1")
        guard used.isEmpty else { throw NetworkFault.gatewayUsedByFloatingIP(router) }
        try connection.execute(
            "UPDATE routers SET gateway_port_id = NULL, updated_at = \(ambient.now) WHERE id = \(router)")
        try connection.execute("DELETE FROM ports WHERE id = \(port)")
    }

    private func openGateway(
        _ connection: Connection, _ router: UUID128, _ network: UUID128, _ snat: Bool, _ fixedIPRequests: [AddressAllocator.FixedIPRequest]?
    ) throws {
        guard let row = try connection.query("SELECT external FROM networks WHERE id = \(network) FOR SHARE").first else {
            throw ResourceKind.networks.notFound("\(network)")
        }
        guard try row.bool("external") else {
            throw NetworkFault.badRequest("router", "Network \(network) is not an external network")
        }
        let inside = try interfaceSubnets(connection, router)
        for subnet in try allocator(connection).subnets(of: network) {
            try SubnetRules.validateRouterInterface(subnet.cidr, subnetID: subnet.id, routerSubnets: inside)
        }
        let port = try insertPort(
            connection,
            PortRow(
                id: ambient.newUUID(), network: network, project: "", mac: nil, deviceID: "\(router)",
                deviceOwner: DeviceOwner.routerGateway))
        let fixed = try routerAllocator(connection).allocate(
            AddressAllocator.Request(port: port, network: network, mac: MACAddress(value: 0), fixedIPRequests: fixedIPRequests))
        guard !fixed.isEmpty else {
            throw NetworkFault.badRequest("router", "No IPs available for external network \(network)")
        }
        try connection.execute(
            """
            UPDATE routers SET gateway_port_id = \(port), enable_snat = \(snat), updated_at = \(ambient.now)
            WHERE id = \(router)
            """)
    }

    // MARK: routes

    func changeRoutes(
        _ connection: Connection, _ router: Authorized<Subject>, _ routes: [StaticRoute], adding: Bool
    ) throws {
        let id = try router.value(for: adding ? "add_extraroutes" : "remove_extraroutes").id
        let row = try lock(connection, id)
        let current = try SubnetDraft.routes(row.json("routes").arrayValue ?? [])
        let next =
            adding ? current + routes.filter { !current.contains($0) } : current.filter { !routes.contains($0) }
        try setRoutes(connection, id, next)
    }

    private func setRoutes(_ connection: Connection, _ router: UUID128, _ routes: [StaticRoute]) throws {
        let text = SubnetDraft.json(routes).description
        guard routes.count <= NetworkLimits.routesPerRouterMax else {
            throw ResourceError.badRequest(
                "Unable to complete operation for \(router). The number of routes exceeds the maximum \(NetworkLimits.routesPerRouterMax).",
                type: "RoutesExhausted")
        }
        guard Set(routes).count == routes.count else { throw NetworkFault.invalidRoutes(text, "Duplicate route") }
        let ports = try connection.query(
            """
            SELECT f.ip_address, s.cidr FROM ports p JOIN port_fixed_ips f ON f.port_id = p.id
                JOIN subnets s ON s.id = f.subnet_id
            WHERE p.device_id = \("\(router)")
                AND p.device_owner IN (\(DeviceOwner.routerInterface), \(DeviceOwner.routerGateway))
            """)
        let own = Set(try ports.map { try $0.string("ip_address") })
        let reachable = try ports.compactMap { IPNetwork(try $0.string("cidr")) }
        try SubnetRules.validate(routes: routes, field: "routes")
        for route in routes {
            guard route.destination.version == route.nexthop.version else {
                throw NetworkFault.invalidRoutes(text, "the versions of destination and nexthop differ")
            }
            guard reachable.contains(where: { $0.contains(route.nexthop) }) else {
                throw NetworkFault.invalidRoutes(text, "the nexthop is not connected with router")
            }
            guard !own.contains("\(route.nexthop)") else {
                throw NetworkFault.invalidRoutes(text, "the nexthop is used by router")
            }
        }
        try connection.execute(
            "UPDATE routers SET routes = \(SubnetDraft.json(routes))::jsonb, updated_at = \(ambient.now) WHERE id = \(router)")
    }

    // MARK: interfaces

    private func interfaceSubnets(_ connection: Connection, _ router: UUID128) throws -> [(id: UUID128, cidr: IPNetwork)] {
        try connection.query(
            """
            SELECT s.id, s.cidr FROM ports p JOIN port_fixed_ips f ON f.port_id = p.id JOIN subnets s ON s.id = f.subnet_id
            WHERE p.device_id = \("\(router)") AND p.device_owner = \(DeviceOwner.routerInterface)
            """
        ).compactMap { row in
            guard let cidr = IPNetwork(try row.string("cidr")) else { return nil }
            return (try row.uuid("id"), cidr)
        }
    }

    /// Refuses a subnet that the router is already connected to, or that overlaps one of its own or its gateway's subnets.
    private func requireFree(_ connection: Connection, _ router: UUID128, _ row: Row, _ subnet: Subnet) throws {
        var others = try interfaceSubnets(connection, router)
        if let gateway = try row.optionalUUID("gateway_port_id") {
            for row in try connection.query(
                "SELECT s.id, s.cidr FROM port_fixed_ips f JOIN subnets s ON s.id = f.subnet_id WHERE f.port_id = \(gateway)")
            {
                if let cidr = IPNetwork(try row.string("cidr")) { others.append((try row.uuid("id"), cidr)) }
            }
        }
        try SubnetRules.validateRouterInterface(subnet.cidr, subnetID: subnet.id, routerSubnets: others)
    }

    func addInterface(
        _ connection: Connection, _ router: Authorized<Subject>, subnet id: UUID128
    ) throws -> RouterInterface {
        let row = try lock(connection, router.value(for: "add_router_interface").id)
        let subnet = try self.subnet(connection, id)
        guard let address = subnet.gatewayIP else {
            throw NetworkFault.badRequest("router", "Subnet for router interface must have a gateway IP")
        }
        try requireFree(connection, router.value.id, row, subnet)
        try reserve(connection, router.value.projectID, NetworkQuotas.ports)
        let port = try insertPort(
            connection,
            PortRow(
                id: ambient.newUUID(), network: subnet.networkID, project: router.value.projectID, mac: nil,
                deviceID: "\(router.value.id)", deviceOwner: DeviceOwner.routerInterface))
        try routerAllocator(connection).allocate(
            AddressAllocator.Request(
                port: port, network: subnet.networkID, mac: MACAddress(value: 0),
                fixedIPRequests: [AddressAllocator.FixedIPRequest(subnet: id, address: address)]))
        return RouterInterface(port: port, network: subnet.networkID, subnets: [id])
    }

    func addInterface(
        _ connection: Connection, _ router: Authorized<Subject>, port id: UUID128
    ) throws -> RouterInterface {
        let row = try lock(connection, router.value(for: "add_router_interface").id)
        guard let port = try connection.query("SELECT * FROM ports WHERE id = \(id) FOR UPDATE").first else {
            throw ResourceKind.ports.notFound("\(id)")
        }
        let network = try port.uuid("network_id")
        let device = try port.string("device_id")
        guard device.isEmpty, try port.string("device_owner").isEmpty else {
            throw NetworkFault.portInUse(id, network: network, device: device)
        }
        let subnets = try connection.query("SELECT subnet_id FROM port_fixed_ips WHERE port_id = \(id) ORDER BY position")
            .map { try $0.uuid("subnet_id") }
        guard !subnets.isEmpty else { throw NetworkFault.badRequest("router", "Router port must have at least one fixed IP") }
        var versions: [IPAddress.Version] = []
        for subnetID in subnets {
            let subnet = try self.subnet(connection, subnetID)
            try requireFree(connection, router.value.id, row, subnet)
            versions.append(subnet.cidr.version)
        }
        guard versions.filter({ $0 == .v4 }).count <= 1 else {
            throw NetworkFault.badRequest("router", "Cannot have multiple IPv4 subnets on router port")
        }
        try connection.execute(
            """
            UPDATE ports SET device_id = \("\(router.value.id)"), device_owner = \(DeviceOwner.routerInterface),
                updated_at = \(ambient.now) WHERE id = \(id)
            """)
        try connection.execute("DELETE FROM port_security_groups WHERE port_id = \(id)")
        return RouterInterface(port: id, network: network, subnets: subnets)
    }

    /// - Throws: 404 if there is no such interface; 409 while floating IPs or routes need it.
    func removeInterface(
        _ connection: Connection, _ router: Authorized<Subject>, subnet: UUID128?, port: UUID128?
    ) throws -> RouterInterface {
        let id = try router.value(for: "remove_router_interface").id
        let row = try lock(connection, id)
        let found = try connection.query(
            """
            SELECT p.id, p.network_id, f.subnet_id, s.cidr FROM ports p JOIN port_fixed_ips f ON f.port_id = p.id
                JOIN subnets s ON s.id = f.subnet_id
            WHERE p.device_id = \("\(id)") AND p.device_owner = \(DeviceOwner.routerInterface) ORDER BY f.position
            """)
        var wanted: UUID128?
        for candidate in found {
            let isPort = try port == nil || candidate.uuid("id") == port
            let isSubnet = try subnet == nil || candidate.uuid("subnet_id") == subnet
            if isPort, isSubnet { wanted = try candidate.uuid("id") }
        }
        guard let wanted else {
            throw port.map { NetworkFault.interfaceNotFound(id, port: "\($0)") }
                ?? NetworkFault.interfaceNotFound(id, subnet: subnet?.description ?? "")
        }
        let own = try found.filter { try $0.uuid("id") == wanted }
        let routes = try SubnetDraft.routes(row.json("routes").arrayValue ?? [])
        for place in own {
            let subnet = try place.uuid("subnet_id")
            let used = try connection.query(
                """
                SELECT 1 AS one FROM floating_ips i JOIN port_fixed_ips f ON f.port_id = i.port_id
                    AND f.ip_address = i.fixed_ip_address
                WHERE i.router_id = \(id) AND f.subnet_id = \(subnet) LIMIT 1
                """)
            guard used.isEmpty else { throw NetworkFault.interfaceUsedByFloatingIP(id, subnet: subnet) }
            if let cidr = IPNetwork(try place.string("cidr")), routes.contains(where: { cidr.contains($0.nexthop) }) {
                throw NetworkFault.interfaceUsedByRoute(id, subnet: subnet)
            }
        }
        let network = try own[0].uuid("network_id")
        let subnets = try own.map { try $0.uuid("subnet_id") }
        try removePort(connection, wanted)
        return RouterInterface(port: wanted, network: network, subnets: subnets)
    }
}
