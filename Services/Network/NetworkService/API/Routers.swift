import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

extension ResourceKind {
    private static let gateway = """
        (SELECT json_build_object('network_id', p.network_id, 'enable_snat', t.enable_snat, 'external_fixed_ips',
            coalesce((SELECT json_agg(json_build_object('subnet_id', f.subnet_id, 'ip_address', f.ip_address)
                ORDER BY f.position) FROM port_fixed_ips f WHERE f.port_id = p.id), '[]'))
            FROM ports p WHERE p.id = t.gateway_port_id)
        """

    static let routers = ResourceKind.network(
        "router",
        table: Table(
            "routers t",
            fields: Field.standard + Field.history + Field.tags + [
                .text("status"), .flag("admin_state_up", isSettable: true), Field("external_gateway_info", .json, gateway),
                Field("routes", .json), Field("availability_zone_hints", .json),
            ])
    ) { .notFound("Router \($0) could not be found", type: "RouterNotFound") }
}

extension NetworkAPI {
    private static let gatewayBody = BodySchema.nullable(
        .object([
            .uuid("network_id"), .init("enable_snat", .boolean),
            .init(
                "external_fixed_ips",
                .array(
                    .object([
                        .uuid("subnet_id"), .init("ip_address", .string(min: 1, max: 64, format: .ip)),
                    ]), min: 0, max: NetworkLimits.fixedIPsPerPortMax)),
        ]))

    private static let common: [BodySchema.Property] = [
        .resourceName, .description, .adminStateUp, .init("external_gateway_info", gatewayBody),
        .init("routes", .nullable(.array(route, min: 0, max: 256))),
    ]

    private static let interfaceBody = BodySchema.object([.uuid("subnet_id"), .uuid("port_id")])
    private static let routesBody = BodySchema.wrapped(
        "router", .object([.init("routes", .array(route, min: 0, max: 256), required: true)]))

    var routers: Resource {
        let base = "/v2.0/routers/{id}"
        func action(_ name: String, _ body: BodySchema, handler: @escaping @Sendable (RequestContext) async throws -> Response) -> Route {
            Route(.put, "\(base)/\(name)", action: name, rule: NetworkPolicy.member, body: .json(body), name, handler: handler)
        }
        return Resource(
            "router",
            routes: routes(
                routerCollection,
                create: NetworkAPI.common + [
                    .projectID, .tenantID, .tags, .init("availability_zone_hints", .array(.name, min: 0, max: 8)),
                ], update: NetworkAPI.common, creating: createRouters, updating: updateRouter, deleting: deleteRouter) + [
                    action("add_router_interface", NetworkAPI.interfaceBody, handler: addInterface),
                    action("remove_router_interface", NetworkAPI.interfaceBody, handler: removeInterface),
                    action("add_extraroutes", NetworkAPI.routesBody) { try await changeRoutes($0, adding: true) },
                    action("remove_extraroutes", NetworkAPI.routesBody) { try await changeRoutes($0, adding: false) },
                ])
    }

    /// The requested gateway, after the required decisions.
    private func gateway(_ context: RequestContext, _ item: JSONObject, _ action: String, _ target: PolicyTarget) async throws
        -> GatewayRequest
    {
        guard let value = item["external_gateway_info"] else { return .unchanged }
        guard let info = value.objectValue, !info.isEmpty else { return .none }
        for name in ["enable_snat", "external_fixed_ips"] where info[name] != nil {
            if name == "enable_snat", info.bool(name) == true { continue }
            if name == "external_fixed_ips", info.list(name)?.isEmpty ?? true { continue }
            try context.authorize(target: target, action: "\(action):external_gateway_info:\(name)")
        }
        guard let id = try info.uuid("network_id") else {
            throw ResourceError.badRequest("Invalid input for external_gateway_info. Reason: 'network_id' is required.")
        }
        _ = try await database.read { try ResourceKind.networks.subject($0, context, id) }
        let fixed = info.list("external_fixed_ips").flatMap { $0.isEmpty ? nil : $0 }
        return .network(
            id, snat: info.bool("enable_snat"), fixedIPRequests: try fixed.map { try AddressAllocator.FixedIPRequest.parse($0) })
    }

    private func createRouters(_ context: RequestContext) async throws -> Response {
        let (items, isBulk) = context.items("router", plural: "routers")
        var drafts: [RouterDraft] = []
        for item in items {
            let owner = try context.authorizeCreate(item, "router")
            let gatewayRequest = try await gateway(context, item, "create_router", .project(owner.value))
            for zone in item.list("availability_zone_hints") ?? [] where zone.stringValue != options.availabilityZone {
                throw ResourceError.notFound(
                    "AvailabilityZone \(zone.stringValue ?? "") could not be found.", type: "AvailabilityZoneNotFound")
            }
            drafts.append(
                RouterDraft(id: ambient.newUUID(), owner: owner, body: item, gateway: gatewayRequest, tags: try item.tags() ?? []))
        }
        return try await context.write(database) { [drafts] connection in
            for draft in drafts { try insertRouter(connection, draft) }
            return try routerCollection.created(connection, context, drafts.map(\.id), isBulk: isBulk)
        }
    }

    private func updateRouter(_ context: RequestContext) async throws -> Response {
        let router = try await routerCollection.find(database, context)
        guard let body = context.body["router"]?.objectValue else { return .empty() }
        let gatewayRequest = try await gateway(context, body, "update_router", router.value.target)
        return try await context.write(database) { connection in
            try updateRouter(connection, router, body, gateway: gatewayRequest)
            return try routerCollection.changed(connection, context, router.value.id)
        }
    }

    private func deleteRouter(_ context: RequestContext) async throws -> Response {
        let router = try await routerCollection.find(database, context)
        return try await context.write(database) { connection in
            try deleteRouter(connection, router)
            return routerCollection.deleted(router.value.id)
        }
    }

    private func changeRoutes(_ context: RequestContext, adding: Bool) async throws -> Response {
        let router = try await routerCollection.find(database, context)
        let routes = try SubnetDraft.routes(context.body["router"]?["routes"]?.arrayValue ?? [])
        return try await context.write(database) { connection in
            try changeRoutes(connection, router, routes, adding: adding)
            return try routerCollection.changed(connection, context, router.value.id)
        }
    }

    // MARK: interfaces

    /// The `subnet_id` or `port_id` of a request; only a removal may contain both.
    private func interfaceIDs(_ context: RequestContext) throws -> (subnet: UUID128?, port: UUID128?) {
        let body = context.body.objectValue ?? [:]
        let ids = (subnet: try body.uuid("subnet_id"), port: try body.uuid("port_id"))
        guard ids.subnet != nil || ids.port != nil else {
            throw NetworkFault.badRequest("router", "Either subnet_id or port_id must be specified")
        }
        return ids
    }

    private func addInterface(_ context: RequestContext) async throws -> Response {
        let router = try await routerCollection.find(database, context)
        let ids = try interfaceIDs(context)
        guard ids.subnet == nil || ids.port == nil else {
            throw NetworkFault.badRequest("router", "Cannot specify both subnet-id and port-id")
        }
        if let id = ids.subnet {
            // The router takes the gateway's address, and with it the traffic of all ports in the network.
            let subnet = try await database.read { try ResourceKind.subnets.subject($0, context, id) }
            guard context.allows("update_subnet", target: subnet.target) else {
                throw NetworkFault.badRequest(
                    "router", "Cannot add interface to router because subnet \(id) is not owned by project making the request")
            }
        }
        if let id = ids.port {
            let port = try await database.read { try ResourceKind.ports.subject($0, context, id) }
            guard context.allows("update_port", target: port.target) else { throw ResourceKind.ports.notFound("\(id)") }
        }
        return try await context.write(database) { connection in
            let interface =
                if let subnet = ids.subnet { try addInterface(connection, router, subnet: subnet) } else {
                    try addInterface(connection, router, port: ids.port ?? UUID128(high: 0, low: 0))
                }
            return interfaceAnswer(router.value, interface)
        }
    }

    private func removeInterface(_ context: RequestContext) async throws -> Response {
        let router = try await routerCollection.find(database, context)
        let ids = try interfaceIDs(context)
        return try await context.write(database) { connection in
            let interface = try removeInterface(connection, router, subnet: ids.subnet, port: ids.port)
            return interfaceAnswer(router.value, interface)
        }
    }

    private func interfaceAnswer(_ router: Subject, _ interface: RouterInterface) -> Change {
        let body: JSONValue = [
            "id": .string(router.id.description), "tenant_id": .string(router.projectID),
            "project_id": .string(router.projectID), "port_id": .string(interface.port.description),
            "network_id": .string(interface.network.description),
            "subnet_id": JSONValue(interface.subnets.first?.description),
            "subnet_ids": JSONValue(interface.subnets.map(\.description)),
        ]
        return Change(.json(200, body), "router", router.id.description, content: body)
    }
}
