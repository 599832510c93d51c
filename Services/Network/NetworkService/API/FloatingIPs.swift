import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

extension ResourceKind {
    static let floatingIPs = ResourceKind.network(
        "floatingip",
        table: Table(
            "floating_ips t",
            fields: [
                .uuid("id"), .text("tenant_id", "t.project_id"), .text("project_id"),
                .text("description", isSettable: true),
                .uuid("floating_network_id"), .address("floating_ip_address"), .uuid("port_id"), .address("fixed_ip_address"),
                .uuid("router_id"), .text("status"),
                Field(
                    "port_details", .json,
                    """
                    (SELECT json_build_object('name', p.name, 'network_id', p.network_id, 'mac_address', p.mac_address,
                        'admin_state_up', p.admin_state_up, 'status', p.status, 'device_id', p.device_id,
                        'device_owner', p.device_owner) FROM ports p WHERE p.id = t.port_id)
                    """),
            ] + Field.history + Field.tags),
        relation: "floating_ips"
    ) { .notFound("Floating IP \($0) could not be found", type: "FloatingIPNotFound") }
}

extension NetworkAPI {
    private static let common: [BodySchema.Property] = [
        .description, .uuid("port_id", nullable: true),
        .init("fixed_ip_address", .nullable(.string(min: 1, max: 64, format: .ip))),
    ]

    var floatingIPs: Resource {
        Resource(
            "floatingip",
            routes: routes(
                .floatingIPs,
                create: NetworkAPI.common + [
                    .projectID, .tenantID, .tags, .uuid("floating_network_id", required: true),
                    .uuid("subnet_id", nullable: true),
                    .init("floating_ip_address", .nullable(.string(min: 1, max: 64, format: .ip))),
                ], update: NetworkAPI.common, creating: createFloatingIPs, updating: updateFloatingIP,
                deleting: deleteFloatingIP))
    }

    private func createFloatingIPs(_ context: RequestContext) async throws -> Response {
        let (items, isBulk) = context.items("floatingip", plural: "floatingips")
        var drafts: [FloatingIPDraft] = []
        for item in items {
            let owner = try context.authorizeCreate(item, "floatingip", attributes: [("floating_ip_address", .null)])
            guard let network = try item.uuid("floating_network_id") else { continue }
            _ = try await database.read { try ResourceKind.networks.subject($0, context, network) }
            drafts.append(
                FloatingIPDraft(
                    id: ambient.newUUID(), owner: owner, network: network, body: item, tags: try item.tags() ?? [],
                    association: try await association(context, item, project: owner.value)))
        }
        return try await context.write(database) { [drafts] connection in
            for draft in drafts { try insertFloatingIP(connection, draft) }
            return try ResourceKind.floatingIPs.created(connection, context, drafts.map(\.id), isBulk: isBulk)
        }
    }

    /// The port that a request names, if the caller may use it.
    private func association(_ context: RequestContext, _ item: JSONObject, project: String) async throws -> AssociationRequest {
        let fixed = try item.address("fixed_ip_address")
        guard item["port_id"] != nil else { return fixed.map { .address($0) } ?? .unchanged }
        guard let id = try item.uuid("port_id") else {
            guard fixed == nil else {
                throw NetworkFault.badRequest("floatingip", "fixed_ip_address cannot be specified without a port_id")
            }
            return .none
        }
        let port = try await database.read { try ResourceKind.ports.subject($0, context, id) }
        guard port.projectID == project || context.allows("get_port") else {
            throw NetworkFault.badRequest(
                "floatingip", "Port \(id) is associated with a different tenant than Floating IP and therefore cannot be bound.")
        }
        return .port(id, fixed)
    }

    private func updateFloatingIP(_ context: RequestContext) async throws -> Response {
        let floating = try await ResourceKind.floatingIPs.find(database, context)
        guard let body = context.body["floatingip"]?.objectValue else { return .empty() }
        let associationRequest = try await association(context, body, project: floating.value.projectID)
        return try await context.write(database) { connection in
            try updateFloatingIP(connection, floating, body, associationRequest)
            return try ResourceKind.floatingIPs.changed(connection, context, floating.value.id)
        }
    }

    private func deleteFloatingIP(_ context: RequestContext) async throws -> Response {
        let floating = try await ResourceKind.floatingIPs.find(database, context)
        return try await context.write(database) { connection in
            try deleteFloatingIP(connection, floating)
            return ResourceKind.floatingIPs.deleted(floating.value.id)
        }
    }
}
