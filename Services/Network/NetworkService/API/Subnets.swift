import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

extension ResourceKind {
    static let subnets = ResourceKind.network(
        "subnet",
        table: Table(
            "subnets t JOIN networks n ON n.id = t.network_id",
            fields: Field.standard + Field.history + Field.tags + [
                .uuid("network_id"), .number("ip_version"), .network("cidr"), .address("gateway_ip"),
                .flag("enable_dhcp", isSettable: true),
                Field("allocation_pools", .json), Field("dns_nameservers", .json), Field("host_routes", .json),
                .text("ipv6_address_mode"), .text("ipv6_ra_mode"), Field("subnetpool_id", .text, "NULL", filter: .equals),
                .filter("shared") { BodySchema.boolean($0).map { "n.shared = \($0)" } ?? "FALSE" },
                .filter("router:external") { BodySchema.boolean($0).map { "n.external = \($0)" } ?? "FALSE" },
            ]),
        targets: [("network:project_id", "n.project_id")],
        shared: { "(n.shared OR n.project_id = \($0))" }
    ) { .notFound("Subnet \($0) could not be found.", type: "SubnetNotFound") }
}

extension NetworkAPI {
    private static let pool = BodySchema.object([
        .init("start", .string(min: 1, max: 64, format: .ip), required: true),
        .init("end", .string(min: 1, max: 64, format: .ip), required: true),
    ])
    static let route = BodySchema.object([
        .init("destination", .string(min: 1, max: 64, format: .cidr), required: true),
        .init("nexthop", .string(min: 1, max: 64, format: .ip), required: true),
    ])

    private static let common: [BodySchema.Property] = [
        .resourceName, .description, .init("gateway_ip", .nullable(.string(min: 1, max: 64, format: .ip))),
        .init("allocation_pools", .array(pool, min: 0, max: NetworkLimits.poolsPerSubnetMax)),
        .init("dns_nameservers", .nullable(.array(.string(min: 1, max: 64, format: .ip), min: 0, max: 64))),
        .init("host_routes", .nullable(.array(route, min: 0, max: 64))), .init("enable_dhcp", .boolean),
    ]

    private static let modes = BodySchema.nullable(.enumeration(IPv6Mode.allCases.map(\.rawValue)))

    private static let create: [BodySchema.Property] =
        common + [
            .projectID, .tenantID, .tags, .uuid("network_id", required: true),
            .init("ip_version", .integer(min: 0, max: 255)), .init("cidr", .string(min: 1, max: 64, format: .cidr), required: true),
            .init("ipv6_address_mode", modes), .init("ipv6_ra_mode", modes),
        ]

    var subnets: Resource {
        Resource(
            "subnet",
            routes: routes(
                .subnets, create: NetworkAPI.create, update: NetworkAPI.common, creating: createSubnets,
                updating: updateSubnet, deleting: deleteSubnet))
    }

    private func createSubnets(_ context: RequestContext) async throws -> Response {
        let (items, isBulk) = context.items("subnet", plural: "subnets")
        let networks = try await networkSubjects(context, items)
        let drafts = try items.map { item in
            let network = try NetworkAPI.network(of: item, among: networks)
            var target = network.target
            target.attributes["network:project_id"] = network.projectID
            let decision = try context.authorize(network, target: target)
            let project = item.text("project_id") ?? item.text("tenant_id") ?? network.projectID
            // A subnet belongs to the owner of its network and not to its creator, unless an administrator sets another project.
            if project != network.projectID { try context.authorize(target: [:], action: "create_subnet:project_id") }
            return try SubnetDraft(item, id: ambient.newUUID(), network: decision, project: project)
        }
        return try await context.write(database) { connection in
            for draft in drafts { try insertSubnet(connection, draft) }
            return try ResourceKind.subnets.created(connection, context, drafts.map(\.id), isBulk: isBulk)
        }
    }

    /// The networks of the items that the caller may see.
    func networkSubjects(_ context: RequestContext, _ items: [JSONObject]) async throws -> [UUID128: Subject] {
        let ids = Set(items.compactMap { $0.text("network_id").flatMap { UUID128($0) } })
        return try await database.read { try ResourceKind.networks.subjects($0, context, Array(ids)) }
    }

    /// The network of an item, if the caller may see it.
    static func network(of item: JSONObject, among networks: [UUID128: Subject]) throws -> Subject {
        guard let id = try item.uuid("network_id") else {
            throw ResourceError.badRequest("Invalid input: 'network_id' is a required property")
        }
        guard let network = networks[id] else { throw ResourceKind.networks.notFound("\(id)") }
        return network
    }

    private func updateSubnet(_ context: RequestContext) async throws -> Response {
        let subnet = try await ResourceKind.subnets.find(database, context)
        guard let body = context.body["subnet"]?.objectValue else { return .empty() }
        return try await context.write(database) { connection in
            try updateSubnet(connection, subnet, body)
            return try ResourceKind.subnets.changed(connection, context, subnet.value.id)
        }
    }

    private func deleteSubnet(_ context: RequestContext) async throws -> Response {
        let subnet = try await ResourceKind.subnets.find(database, context)
        return try await context.write(database) { connection in
            try deleteSubnet(connection, subnet)
            return ResourceKind.subnets.deleted(subnet.value.id)
        }
    }
}
