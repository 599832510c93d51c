import Authorization
import Database
import JSON
import Kernel
import PlacementCore
import WebAPI

extension Placement {
    private static func since(_ minor: Int, through: Int? = nil) -> VersionRange {
        VersionRange(from: Microversion(1, minor), through: through.map { Microversion(1, $0) })
    }

    private static let amounts = BodySchema.object([], additional: .values(.integer(min: 1, max: Int(Int32.max))))
    private static let owner = BodySchema.string(min: 1, max: 255, format: nil)

    private static func owners(_ versions: VersionRange) -> [BodySchema.Property] {
        [
            .init("project_id", owner, required: true, versions: versions),
            .init("user_id", owner, required: true, versions: versions),
        ]
    }

    /// The allocations of one consumer in requests since 1.12.
    private static let byProvider = BodySchema.object(
        [
            .init(
                "allocations",
                .object(
                    [],
                    additional: .values(
                        .object([.init("resources", amounts, required: true), .init("generation", .integer(min: 0, max: Int.max))]))),
                required: true),
            .init("consumer_generation", .nullable(.integer(min: 0, max: Int.max)), required: true, versions: since(28)),
            .init("mappings", .object([], additional: .allowed), versions: since(34)),
            .init("consumer_type", .string(min: 1, max: 255, format: nil), required: true, versions: since(38)),
        ] + owners(.all))

    /// The allocations of one consumer in requests before 1.12.
    private static let asList = BodySchema.object(
        [
            .init(
                "allocations",
                .array(
                    .object([
                        .init("resource_provider", .object([.init("uuid", .uuid, required: true)]), required: true),
                        .init("resources", amounts, required: true),
                    ]), min: 1, max: 1000), required: true)
        ] + owners(since(8)))

    var allocationResource: Resource {
        let path = "/allocations/{consumer}"
        let action = "placement:allocations:"
        return Resource(
            "allocation",
            routes: [
                Route(
                    .get, path, action: action + "list", rule: Placement.rule, answer: .form(PlacementForms.consumerAllocations),
                    "List a consumer's allocations", handler: showAllocations),
                Route(
                    .put, path, action: action + "update", rule: Placement.rule, versions: VersionRange(through: Microversion(1, 11)),
                    body: .json(Placement.asList), status: 204, "Replace a consumer's allocations", handler: putAllocations),
                Route(
                    .put, path, action: action + "update", rule: Placement.rule, versions: Placement.since(12),
                    body: .json(Placement.byProvider), status: 204, "Replace a consumer's allocations", handler: putAllocations),
                Route(
                    .delete, path, action: action + "delete", rule: Placement.rule, status: 204, "Delete a consumer's allocations",
                    handler: deleteAllocations),
                Route(
                    .post, "/allocations", action: "placement:allocations:manage", rule: Placement.rule, versions: Placement.since(13),
                    body: .json(.object([], additional: .values(Placement.byProvider))), status: 204,
                    "Replace the allocations of several consumers together", handler: postAllocations),
                Route(
                    .get, "/resource_providers/{uuid}/allocations", action: "placement:resource_providers:allocations:list",
                    rule: Placement.rule, answer: .form(PlacementForms.providerAllocations), "List the allocations on a provider",
                    handler: listProviderAllocations),
                .unavailable(
                    .post, "/reshaper", action: "placement:reshaper:reshape", rule: Placement.rule, versions: Placement.since(30),
                    body: .json(.any), "Moving inventories and allocations between providers in one step is not supported."
                ) { try $0.authorize(target: .none) },
            ])
    }

    // MARK: reading

    private func consumerID(_ context: RequestContext) throws -> String {
        let text = context.parameter("consumer")
        guard let id = UUID128(text) else {
            throw ResourceError.badRequest("Malformed consumer_uuid: \(text.prefix(64)) is not a uuid.")
        }
        return id.description
    }

    private func showAllocations(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = try consumerID(context)
        return try await database.read { connection in
            let table = ResourceKind.consumers.table
            let fields = table.visible(context)
            let consumers = try table.query(
                connection, fields, where: AllocationStore.consumer(id))
            let response = try ResourceKind.allocations.all(
                connection, context, where: "t.consumer_id = \(id)::uuid",
                tail: {
                    if !consumers.isEmpty { try RowWriter(fields, context).members(consumers, row: 0, into: &$0) }
                })
            return context.dated(response, try table.newest(consumers, count: consumers.count))
        }
    }

    private func listProviderAllocations(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = try context.providerID
        return try await database.read { connection in
            let generation = try Placement.generation(connection, provider: id)
            return context.dated(
                try ResourceKind.providerAllocations.all(
                    connection, context, where: "t.resource_provider_id = \(id)::uuid",
                    tail: {
                        $0.field("resource_provider_generation", generation)
                    }))
        }
    }

    // MARK: writing

    private static func amounts(_ value: JSONValue?) -> [ResourceAmount] {
        (value?.objectValue ?? [:]).members.map { ResourceAmount($0.name, $0.value.intValue ?? 0) }
    }

    private func change(_ context: RequestContext, consumer: String, _ body: JSONValue) throws -> AllocationChange {
        var resources: [String: [ResourceAmount]] = [:]
        func add(_ provider: String, _ value: JSONValue?) throws {
            guard let id = UUID128(provider)?.description else {
                throw ResourceError.badRequest(
                    "Invalid input for allocations. Value: \(provider.prefix(64)). It must be a provider's uuid.")
            }
            let amounts = Placement.amounts(value)
            guard resources[id] == nil, !amounts.isEmpty else {
                throw ResourceError.badRequest(
                    "Invalid input for allocations of provider \(id): each provider must be listed once, with at least one resource.")
            }
            resources[id] = amounts
        }
        for item in body["allocations"]?.arrayValue ?? [] {
            try add(item["resource_provider"]?["uuid"]?.stringValue ?? "", item["resources"])
        }
        for member in body["allocations"]?.objectValue?.members ?? [] { try add(member.name, member.value["resources"]) }
        var expectation = AllocationChange.Expectation.unspecified
        if context.version(atLeast: 1, 28) {
            expectation = body["consumer_generation"]?.intValue.map { .generation($0) } ?? .new
        }
        let type = body["consumer_type"]?.stringValue
        if let type, !PlacementName.isWord(type) {
            throw ResourceError.badRequest(
                "Invalid input for consumer_type. Value: \(type.prefix(64)). It must have capital letters, digits and underscores only.")
        }
        return AllocationChange(
            consumer: consumer, resources: resources, project: body["project_id"]?.stringValue ?? AllocationStore.incomplete,
            user: body["user_id"]?.stringValue ?? AllocationStore.incomplete, type: type, expectation: expectation)
    }

    private func putAllocations(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = try consumerID(context)
        let change = try change(context, consumer: id, context.body)
        guard !change.resources.isEmpty || context.version(atLeast: 1, 28) else {
            throw ResourceError.badRequest("Invalid input for allocations. Value: {}. It must not be empty before version 1.28.")
        }
        return try await apply(context, context.authorize([change], target: .none))
    }

    private func postAllocations(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let changes = try (context.body.objectValue ?? [:]).members.map { member in
            guard let id = UUID128(member.name) else {
                throw ResourceError.badRequest("Invalid input: '\(member.name.prefix(64))' is not a consumer's uuid.")
            }
            return try change(context, consumer: id.description, member.value)
        }
        guard !changes.isEmpty else { throw ResourceError.badRequest("The body must name at least one consumer.") }
        guard Set(changes.map(\.consumer)).count == changes.count else {
            throw ResourceError.badRequest("Invalid input: the body contains a consumer twice (the spelling of a UUID does not matter).")
        }
        return try await apply(context, context.authorize(changes, target: .none))
    }

    private func apply(_ context: RequestContext, _ changes: Authorized<[AllocationChange]>) async throws -> Response {
        let now = ambient.now
        return try await write(context) { connection, changedProviders in
            changedProviders.add(try AllocationStore.replace(connection, changes, at: now))
            return Change(.empty(), "allocation", changes.value.first?.consumer, content: .array(changes.value.map(\.record)))
        }
    }

    private func deleteAllocations(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let consumer = try context.authorize(consumerID(context), target: .none)
        let id = try consumer.value(for: "placement:allocations:delete")
        let now = ambient.now
        return try await write(context) { connection, changedProviders in
            guard let providers = try AllocationStore.remove(connection, of: consumer, at: now) else {
                throw ResourceError.notFound("No allocations for consumer '\(id)'")
            }
            changedProviders.add(providers)
            return Change(.empty(), "allocation", id)
        }
    }

    private func write(
        _ context: RequestContext, _ body: @escaping @Sendable (Connection, ChangedProviders) throws -> Change
    ) async throws -> Response {
        let changedProviders = ChangedProviders()
        let response = try await context.write(database) { try body($0, changedProviders) }
        fleet.markStale(changedProviders.all)
        fleet.tell(changedProviders.all)
        return response
    }
}
