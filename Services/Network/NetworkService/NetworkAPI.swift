import Authorization
import Contracts
package import Database
import JSON
package import Kernel
import Logging
import NetworkCore
import ServiceCatalog
import ServiceKit
import Telemetry
package import WebAPI

/// Networking v2.0: the resources, their rules and the handlers' dependencies.
package struct NetworkAPI: Sendable {
    let database: Database
    let ambient: Ambient
    let options: NetworkOptions
    let fleet: any FleetView
    let networkCollection: ResourceKind
    let routerCollection: ResourceKind

    /// - Parameter fleet: the known hypervisors, for agents and availability zones.
    package init(database: Database, ambient: Ambient, options: NetworkOptions, fleet: any FleetView) {
        self.database = database
        self.ambient = ambient
        self.options = options
        self.fleet = fleet
        networkCollection = ResourceKind.networks.served(in: options.availabilityZone)
        routerCollection = ResourceKind.routers.served(in: options.availabilityZone)
    }

    /// - Throws: 400 for an operator's policy rule that cannot be parsed.
    func make(_ surroundings: ServiceSurroundings) throws -> API {
        try surroundings.api(
            .network,
            subjectActions: [
                "create_port", "update_port", "delete_port", "update_port_security_groups",
                "create_port_binding", "delete_port_binding", "activate_port_binding",
            ],
            resources: resources, rules: NetworkPolicy.rules)
    }

    package var resources: [Resource] {
        [
            versions, networks, subnets, ports, portBindings, portGroups, routers, floatingIPs, securityGroups, securityGroupRules, quotas,
            extensions, serviceProviders, agents, availabilityZones, ipAvailabilities,
        ] + tags
    }

    // MARK: routes

    /// The routes for create, list, show, update and delete, which all collections have.
    func routes(
        _ collection: ResourceKind, create: [BodySchema.Property], update: [BodySchema.Property]?,
        creating: @escaping @Sendable (RequestContext) async throws -> Response,
        updating: @escaping @Sendable (RequestContext) async throws -> Response = { _ in .empty() },
        deleting: @escaping @Sendable (RequestContext) async throws -> Response
    ) -> [Route] {
        let base = "/v2.0/\(collection.path)"
        let name = collection.name
        let create = create.map(\.optional)
        let update = update?.map(\.optional)
        let many = BodySchema.array(.object(create), min: 1, max: NetworkLimits.bulkMax)
        var routes = [
            Route(.get, base, action: "get_\(name)", rule: NetworkPolicy.reader, answer: .list(collection), "List \(collection.plural)") {
                try await collection.list(database, $0)
            },
            Route(
                .post, base, key: name, action: "create_\(name)", rule: NetworkPolicy.member,
                body: .json(.wrapped(name, .object(create))), status: 201, answer: .one(collection), "Create a \(name)", handler: creating),
            Route(
                .post, base, key: collection.plural, action: "create_\(name)", rule: NetworkPolicy.member,
                body: .json(.object([.init(collection.plural, many, required: true)])), status: 201,
                answer: .list(collection), "Create several \(collection.plural)", handler: creating),
            Route(.get, base + "/{id}", action: "get_\(name)", rule: NetworkPolicy.reader, answer: .one(collection), "Show a \(name)") {
                try await collection.show(database, $0)
            },
            Route(
                .delete, base + "/{id}", action: "delete_\(name)", rule: NetworkPolicy.member, status: 204,
                "Delete a \(name)", handler: deleting),
        ]
        if let update {
            routes.append(
                Route(
                    .put, base + "/{id}", action: "update_\(name)", rule: NetworkPolicy.member,
                    body: .json(.wrapped(name, .object(update))), answer: .one(collection), "Update a \(name)", handler: updating))
        }
        return routes
    }

    // MARK: quota

    /// The default quotas of projects.
    var quota: Quota { options.quota }

    func reserve(_ connection: Connection, _ project: String, _ declaration: QuotaDeclaration, _ amount: Int = 1) throws {
        guard !project.isEmpty else { return }
        try quota.reserve(connection, project: project, [(declaration, amount)])
    }

    func release(_ connection: Connection, _ project: String, _ declaration: QuotaDeclaration, _ amount: Int = 1) throws {
        guard !project.isEmpty else { return }
        try Quota.release(connection, project: project, [(declaration, amount)])
    }
}

extension BodySchema.Property {
    /// Unless the member is required, null is allowed for "not given", because clients send both.
    var optional: BodySchema.Property {
        if required { return self }
        if case .nullable = schema { return self }
        return BodySchema.Property(self.name, .nullable(schema), versions: versions)
    }

    static let projectID = BodySchema.Property("project_id", .identifier)
    static let tenantID = BodySchema.Property("tenant_id", .identifier)
    static let resourceName = BodySchema.Property("name", .text)
    static let description = BodySchema.Property("description", .text)
    static let adminStateUp = BodySchema.Property("admin_state_up", .boolean)
    static let tags = BodySchema.Property("tags", .array(Tags.schema, min: 0, max: Tags.countMax))
    static func uuid(_ name: String, required: Bool = false, nullable: Bool = false) -> BodySchema.Property {
        BodySchema.Property(name, nullable ? .nullable(.uuid) : .uuid, required: required)
    }
}
