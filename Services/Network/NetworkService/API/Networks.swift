import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

extension ResourceKind {
    static let networks = ResourceKind.network(
        "network",
        table: Table(
            "networks t",
            fields: Field.standard + Field.history + Field.tags + [
                .text("status"), .flag("admin_state_up", isSettable: true), .flag("shared"),
                .flag("router:external", "t.external"), .flag("port_security_enabled", isSettable: true), .number("mtu"),
                Field(
                    "subnets", .json,
                    "coalesce((SELECT json_agg(s.id ORDER BY s.created_at, s.id) FROM subnets s WHERE s.network_id = t.id), '[]')"),
                Field("availability_zone_hints", .json), Field("l2_adjacency", .boolean, "true"),
                .text("provider:network_type", "t.provider_type", visibleBy: "get_network:provider:network_type"),
                .text(
                    "provider:physical_network", "t.physical_network", visibleBy: "get_network:provider:physical_network"),
                .number(
                    "provider:segmentation_id", "t.segmentation_id", visibleBy: "get_network:provider:segmentation_id"),
            ]),
        targets: [("shared", "t.shared")],
        shared: { _ in "(t.shared OR t.external)" }
    ) { .notFound("Network \($0) could not be found.", type: "NetworkNotFound") }
}

extension NetworkAPI {
    private static let common: [BodySchema.Property] = [
        .resourceName, .description, .adminStateUp, .init("shared", .boolean), .init("router:external", .boolean),
        .init("port_security_enabled", .boolean),
        .init("mtu", .integer(min: 0, max: NetworkLimits.mtuMax)),
    ]

    private static let create: [BodySchema.Property] =
        common + [
            .projectID, .tenantID, .tags, .init("availability_zone_hints", .array(.name, min: 0, max: 8)),
            .init("provider:network_type", .nullable(.text(32))),
            .init("provider:physical_network", .nullable(.text(64))),
            .init("provider:segmentation_id", .nullable(.integer(min: 1, max: 16_777_215))),
        ]

    var networks: Resource {
        Resource(
            "network",
            routes: routes(
                networkCollection, create: NetworkAPI.create, update: NetworkAPI.common, creating: createNetworks,
                updating: updateNetwork, deleting: deleteNetwork))
    }

    private func createNetworks(_ context: RequestContext) async throws -> Response {
        let (items, isBulk) = context.items("network", plural: "networks")
        let drafts = try items.map { item in
            let owner = try context.authorizeCreate(
                item, "network",
                attributes: [
                    ("shared", false), ("router:external", false), ("provider:network_type", .null),
                    ("provider:physical_network", .null), ("provider:segmentation_id", .null),
                ])
            return try NetworkDraft(item, id: ambient.newUUID(), owner: owner, options)
        }
        return try await context.write(database) { connection in
            for draft in drafts { try insertNetwork(connection, draft) }
            return try networkCollection.created(connection, context, drafts.map(\.id), isBulk: isBulk)
        }
    }

    private func updateNetwork(_ context: RequestContext) async throws -> Response {
        let network = try await networkCollection.find(database, context)
        guard let body = context.body["network"]?.objectValue else { return .empty() }
        try context.authorizeAttributes(
            body, "network", ["shared", "router:external"], target: network.value.target)
        let mtu = try body.int("mtu").map { try NetworkDraft.mtu($0, most: options.physicalMTU) }
        return try await context.write(database) { connection in
            try updateNetwork(connection, network, body, mtu: mtu)
            return try networkCollection.changed(connection, context, network.value.id)
        }
    }

    private func deleteNetwork(_ context: RequestContext) async throws -> Response {
        let network = try await networkCollection.find(database, context)
        return try await context.write(database) { connection in
            try deleteNetwork(connection, network)
            return networkCollection.deleted(network.value.id)
        }
    }
}
