import Authorization
import ComputeCore
import Contracts
import Database
import ImageAccess
import JSON
import Kernel
import Messaging
import WebAPI

extension ResourceKind {
    static let aggregates = ResourceKind(
        "aggregate", path: "os-aggregates",
        table: Table(
            "aggregates t", keyType: .integer, defaultSort: [("number", false)],
            fields: [
                Field("id", .number), Field("uuid", versions: .from(41)), Field("name"), Field("availability_zone"),
                Field(
                    "hosts", .json,
                    "(SELECT coalesce(json_agg(h.host ORDER BY h.host), '[]') FROM aggregate_hosts h WHERE h.aggregate_id = t.id)",
                    shape: .many(.anyText)),
                Field(
                    "metadata", .json,
                    """
                    CASE WHEN t.availability_zone IS NULL THEN t.metadata
                        ELSE t.metadata || jsonb_build_object('availability_zone', t.availability_zone) END
                    """, shape: .textMap),
                Field("created_at", .timestampMicroseconds), Field("updated_at", .timestampMicroseconds),
                Field("deleted", .boolean, "false"), Field("deleted_at", .json, "NULL"), .sortKey("number", "t.id"),
            ]), visibility: .everything, grammar: .compute()
    ) { .notFound("Aggregate \($0.prefix(64)) could not be found.") }

    /// The response to creating an aggregate has neither hosts nor metadata.
    static let newAggregates = aggregates.hiding(["hosts", "metadata"])
}

/// Aggregates: hosts that belong together, with metadata and perhaps a zone.
struct AggregateRoutes: Sendable {
    let compute: Compute

    private static let path = "/v2.1/os-aggregates"
    private static let one = "/v2.1/os-aggregates/{aggregate_id}"

    private func action(
        _ key: String, _ name: String, _ schema: BodySchema, _ handler: @escaping @Sendable (RequestContext) async throws -> Response
    ) -> Route {
        .action(
            AggregateRoutes.one, key: key, action: "os_compute_api:os-aggregates:\(name)", rule: Rule.admin, schema: schema, status: 200,
            answer: .one(.aggregates), "Change an aggregate", handler: handler)
    }

    private static let host = BodySchema.object([.init("host", .identifier, required: true)])

    var resource: Resource {
        let path = AggregateRoutes.path
        let one = AggregateRoutes.one
        return Resource(
            "aggregate",
            routes: [
                Route(
                    .get, path, action: "os_compute_api:os-aggregates:index", rule: Rule.admin, answer: .list(.aggregates),
                    "List aggregates"
                ) { try await ResourceKind.aggregates.list(compute.database, $0) },
                Route(
                    .post, path, action: "os_compute_api:os-aggregates:create", rule: Rule.admin,
                    body: .json(
                        .wrapped(
                            "aggregate",
                            .object([
                                .init("name", .trimmedName, required: true), .init("availability_zone", .nullable(.trimmedName)),
                            ]))), answer: .one(.newAggregates), "Create an aggregate", handler: create),
                Route(
                    .get, one, action: "os_compute_api:os-aggregates:show", rule: Rule.admin, answer: .one(.aggregates),
                    "Show an aggregate"
                ) { context in
                    try context.authorize(target: .none)
                    let id = context.parameter("aggregate_id")
                    return try await compute.database.read { try AggregateRoutes.response($0, context, id) }
                },
                Route(
                    .put, one, action: "os_compute_api:os-aggregates:update", rule: Rule.admin,
                    body: .json(
                        .wrapped(
                            "aggregate",
                            .object([
                                .init("name", .trimmedName), .init("availability_zone", .nullable(.trimmedName)),
                            ]))), answer: .one(.aggregates), "Change an aggregate", handler: update),
                Route(
                    .delete, one, action: "os_compute_api:os-aggregates:delete", rule: Rule.admin, status: 200, "Delete an aggregate",
                    handler: delete),
                action("add_host", "add_host", AggregateRoutes.host, addHost),
                action("remove_host", "remove_host", AggregateRoutes.host, removeHost),
                action(
                    "set_metadata", "set_metadata",
                    .object([.init("metadata", .object([], additional: .values(.nullable(.text))), required: true)]), setMetadata),
                Route(
                    .post, one + "/images", action: "compute:aggregate:images", rule: Rule.admin, versions: .from(81),
                    body: .json(
                        .object([
                            .init("cache", .array(.object([.init("id", .uuid, required: true)]), min: 1, max: 100), required: true)
                        ])), status: 202, "Load images on all hosts of an aggregate", handler: cacheImages),
            ])
    }

    private static func response(_ connection: Connection, _ context: RequestContext, _ id: String) throws -> Response {
        guard Int32(id) != nil else { throw ResourceKind.aggregates.notFound(id) }
        return try ResourceKind.aggregates.one(connection, context, where: "t.id = \(id)::int", id: id)
    }

    private func create(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let aggregate = context.body["aggregate"] ?? [:]
        let zone = aggregate["availability_zone"]?.stringValue
        try AggregateRoutes.check(zone: zone)
        let draft = HostAggregateStore.Draft(uuid: compute.ambient.newUUID(), name: aggregate["name"]?.stringValue ?? "", zone: zone)
        let decision = try context.authorize(draft, target: .none)
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            let id = try HostAggregateStore.insert(connection, decision, at: now)
            let response = try ResourceKind.newAggregates.one(connection, context, where: "t.id = \(id)::int", id: id)
            return Change(answer: response, "aggregate", id, member: "aggregate")
        }
    }

    /// - Throws: 400 for a zone with a colon.
    static func check(zone: String?) throws {
        if let zone, zone.contains(":") {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute availability_zone. Value: \(zone.prefix(64)). It must not have a colon.")
        }
    }

    private func update(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let aggregate = context.body["aggregate"] ?? [:]
        guard aggregate["name"] != nil || aggregate["availability_zone"] != nil else {
            throw ResourceError.badRequest("Invalid input for field/attribute aggregate. It needs a name or an availability_zone.")
        }
        try AggregateRoutes.check(zone: aggregate["availability_zone"]?.stringValue)
        return try await changeAggregate(context) { try HostAggregateStore.update($0, $1, aggregate, at: $2) }
    }

    /// Changes an aggregate, and answers with the changed aggregate.
    private func changeAggregate(
        _ context: RequestContext, _ change: @escaping @Sendable (Connection, Authorized<String>, Timestamp) throws -> Void
    ) async throws -> Response {
        let decision = try context.authorize(context.parameter("aggregate_id"), target: .none)
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            try change(connection, decision, now)
            let id = decision.value
            return Change(answer: try AggregateRoutes.response(connection, context, id), "aggregate", id, member: "aggregate")
        }
    }

    private func delete(_ context: RequestContext) async throws -> Response {
        let decision = try context.authorize(context.parameter("aggregate_id"), target: .none)
        return try await context.write(compute.database) { connection in
            try HostAggregateStore.delete(connection, decision)
            return Change(.empty(200), "aggregate", decision.value)
        }
    }

    private func addHost(_ context: RequestContext) async throws -> Response {
        let host = context.body["add_host"]?["host"]?.stringValue ?? ""
        return try await changeAggregate(context) {
            try HostAggregateStore.add($0, host: host, to: $1, at: $2)
        }
    }

    private func removeHost(_ context: RequestContext) async throws -> Response {
        let host = context.body["remove_host"]?["host"]?.stringValue ?? ""
        return try await changeAggregate(context) {
            try HostAggregateStore.remove($0, host: host, from: $1, at: $2)
        }
    }

    private func setMetadata(_ context: RequestContext) async throws -> Response {
        let changes = context.body["set_metadata"]?["metadata"]?.objectValue ?? [:]
        let decision = try context.authorize(context.parameter("aggregate_id"), target: .none)
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            try HostAggregateStore.setMetadata(connection, of: decision, changes, at: now)
            let id = decision.value
            return Change(answer: try AggregateRoutes.response(connection, context, id), "aggregate", id, member: "aggregate")
        }
    }

    /// Hosts that are down or disabled are skipped, as in Nova.
    private func cacheImages(_ context: RequestContext) async throws -> Response {
        let decision = try context.authorize(context.parameter("aggregate_id"), target: .none)
        let aggregate = try decision.value(for: "compute:aggregate:images")
        let ids = (context.body["cache"]?.arrayValue ?? []).compactMap { $0["id"]?.stringValue.flatMap { UUID128($0)?.description } }
        guard ids.uniqued.count == ids.count else { throw ResourceError.badRequest("Duplicate images in request") }
        let caller = try context.caller
        let subject = ActingSubject(project: try caller.requireProject(), user: caller.userID, grounds: .user)
        let compute = compute
        return try await context.write(compute.database) { connection in
            _ = try AggregateRoutes.response(connection, context, aggregate)
            let images = try ids.map { id in
                guard let image = try compute.images.image(connection, id, for: caller), image.status == "active" else {
                    throw ResourceError.badRequest("Image \(id) could not be found, or is not active.")
                }
                return try image.spec(administrator: subject)
            }
            let hosts = try HostAggregateStore.readyHosts(connection, aggregate, compute)
            let order = CacheImages(projectID: subject.project, userID: subject.user, images: images)
            for host in hosts { try Outbox.add(connection, order, to: .agent(host: host), ambient: compute.ambient) }
            return Change(.empty(202), "aggregate", aggregate, content: ["cache": JSONValue(ids)])
        }
    }
}
