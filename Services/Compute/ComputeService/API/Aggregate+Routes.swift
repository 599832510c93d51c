import Database
import JSON
import Kernel
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
        Route(
            .post, AggregateRoutes.one + "/action", key: key, action: "os_compute_api:os-aggregates:\(name)", rule: Rule.admin,
            body: .json(.wrapped(key, schema)), answer: .one(.aggregates), "Change an aggregate", handler: handler)
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
                .unavailable(
                    .post, one + "/images", action: "compute:aggregate:images", rule: Rule.admin, versions: .from(81),
                    body: .json(.object([.init("cache", .any, required: true)])), "Fetching images ahead is not available in this cloud."
                ) { try $0.authorize(target: .none) },
            ])
    }

    private static func response(_ connection: Connection, _ context: RequestContext, _ id: String) throws -> Response {
        guard Int32(id) != nil else { throw ResourceKind.aggregates.notFound(id) }
        return try ResourceKind.aggregates.one(connection, context, where: "t.id = \(id)::int", id: id)
    }

    /// Locks an aggregate's row.
    private static func lock(_ connection: Connection, _ id: String) throws -> Row {
        guard Int32(id) != nil,
            let row = try connection.query("SELECT id, name, availability_zone, metadata FROM aggregates WHERE id = \(id)::int FOR UPDATE")
                .first
        else { throw ResourceKind.aggregates.notFound(id) }
        return row
    }

    private func create(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "os_compute_api:os-aggregates:create")
        let aggregate = context.body["aggregate"] ?? [:]
        let name = aggregate["name"]?.stringValue ?? ""
        let zone = aggregate["availability_zone"]?.stringValue
        try AggregateRoutes.check(zone: zone)
        let ambient = compute.ambient
        return try await context.write(compute.database) { connection in
            let rows = try connection.query(
                """
                INSERT INTO aggregates (uuid, name, availability_zone, created_at)
                VALUES (\(ambient.newUUID()), \(name), \(zone), \(ambient.now)) ON CONFLICT DO NOTHING RETURNING id
                """)
            guard let id = try rows.first?.string("id") else {
                throw ResourceError.conflict("Aggregate \(name) already exists.")
            }
            let response = try ResourceKind.newAggregates.one(connection, context, where: "t.id = \(id)::int", id: id)
            return Change(response, "aggregate", id, content: aggregate)
        }
    }

    private static func check(zone: String?) throws {
        if let zone, zone.contains(":") {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute availability_zone. Value: \(zone.prefix(64)). It must not have a colon.")
        }
    }

    private func update(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "os_compute_api:os-aggregates:update")
        let id = context.parameter("aggregate_id")
        let aggregate = context.body["aggregate"] ?? [:]
        guard aggregate["name"] != nil || aggregate["availability_zone"] != nil else {
            throw ResourceError.badRequest("Invalid input for field/attribute aggregate. It needs a name or an availability_zone.")
        }
        try AggregateRoutes.check(zone: aggregate["availability_zone"]?.stringValue)
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            let row = try AggregateRoutes.lock(connection, id)
            let name = aggregate["name"]?.stringValue
            if let name, name != (try row.string("name")) {
                let taken = try connection.query("SELECT 1 AS one FROM aggregates WHERE name = \(name)")
                if !taken.isEmpty { throw ResourceError.conflict("Aggregate \(name) already exists.") }
            }
            let zone = try aggregate["availability_zone"].map { $0.stringValue } ?? row.optionalString("availability_zone")
            try AggregateRoutes.checkZone(connection, id, from: row.optionalString("availability_zone"), to: zone)
            var changes = Changes()
            if let name { changes.set("name", name) }
            changes.set("availability_zone", zone)
            try changes.apply(connection, "aggregates", where: "id = \(id)::int", at: now)
            return Change(try AggregateRoutes.response(connection, context, id), "aggregate", id, content: aggregate)
        }
    }

    /// A zone cannot change under servers that run in it.
    private static func checkZone(_ connection: Connection, _ id: String, from old: String?, to new: String?) throws {
        guard old != new else { return }
        let busy = try connection.query(
            """
            SELECT 1 AS one FROM servers s JOIN aggregate_hosts h ON h.host = s.host
            WHERE h.aggregate_id = \(id)::int AND NOT s.deleted LIMIT 1
            """)
        if !busy.isEmpty {
            throw ResourceError.badRequest("Cannot update aggregate \(id). Reason: One or more hosts contain instances in this zone.")
        }
    }

    private func delete(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "os_compute_api:os-aggregates:delete")
        let id = context.parameter("aggregate_id")
        return try await context.write(compute.database) { connection in
            _ = try AggregateRoutes.lock(connection, id)
            let hosts = try connection.query("SELECT 1 AS one FROM aggregate_hosts WHERE aggregate_id = \(id)::int LIMIT 1")
            if !hosts.isEmpty { throw ResourceError.badRequest("Cannot remove aggregate \(id). Reason: Host aggregate is not empty.") }
            try connection.execute("DELETE FROM aggregates WHERE id = \(id)::int")
            return Change(.empty(200), "aggregate", id)
        }
    }

    private func addHost(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "os_compute_api:os-aggregates:add_host")
        let id = context.parameter("aggregate_id")
        let host = context.body["add_host"]?["host"]?.stringValue ?? ""
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            let row = try AggregateRoutes.lock(connection, id)
            let known = try connection.query("SELECT 1 AS one FROM compute_services WHERE host = \(host)")
            if known.isEmpty { throw ResourceError.notFound("Compute host \(host.prefix(255)) could not be found.") }
            let zone = try row.optionalString("availability_zone")
            let others = try connection.query(
                """
                SELECT a.availability_zone FROM aggregates a JOIN aggregate_hosts h ON h.aggregate_id = a.id
                WHERE h.host = \(host) AND a.availability_zone IS NOT NULL AND a.availability_zone <> \(zone)
                """)
            if zone != nil, !others.isEmpty {
                throw ResourceError.conflict(
                    "Cannot add host to aggregate \(id). Reason: One or more hosts already in different availability zone(s).")
            }
            let added = try connection.execute(
                "INSERT INTO aggregate_hosts (aggregate_id, host) VALUES (\(id)::int, \(host)) ON CONFLICT DO NOTHING")
            if added == 0 { throw ResourceError.conflict("Aggregate \(id) already has host \(host).") }
            try connection.execute("UPDATE aggregates SET updated_at = \(now) WHERE id = \(id)::int")
            return Change(try AggregateRoutes.response(connection, context, id), "aggregate", id, content: ["add_host": .string(host)])
        }
    }

    private func removeHost(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "os_compute_api:os-aggregates:remove_host")
        let id = context.parameter("aggregate_id")
        let host = context.body["remove_host"]?["host"]?.stringValue ?? ""
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            _ = try AggregateRoutes.lock(connection, id)
            let removed = try connection.execute("DELETE FROM aggregate_hosts WHERE aggregate_id = \(id)::int AND host = \(host)")
            if removed == 0 { throw ResourceError.notFound("Aggregate \(id) has no host \(host.prefix(255)).") }
            try connection.execute("UPDATE aggregates SET updated_at = \(now) WHERE id = \(id)::int")
            return Change(try AggregateRoutes.response(connection, context, id), "aggregate", id, content: ["remove_host": .string(host)])
        }
    }

    private func setMetadata(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "os_compute_api:os-aggregates:set_metadata")
        let id = context.parameter("aggregate_id")
        let changes = context.body["set_metadata"]?["metadata"]?.objectValue ?? [:]
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            let row = try AggregateRoutes.lock(connection, id)
            var metadata = try row.object("metadata")
            var zone = try row.optionalString("availability_zone")
            for member in changes.members {
                if member.name == "availability_zone" {
                    try AggregateRoutes.check(zone: member.value.stringValue)
                    try AggregateRoutes.checkZone(connection, id, from: zone, to: member.value.stringValue)
                    zone = member.value.stringValue
                } else {
                    // A null removes the item. `nil` in a conditional of JSON values would be a null, not its absence.
                    let value: JSONValue? = member.value.isNull ? .none : member.value
                    metadata[member.name] = value
                }
            }
            guard metadata.count <= 128 else { throw ResourceError.badRequest("An aggregate has at most 128 metadata items.") }
            try connection.execute(
                """
                UPDATE aggregates SET metadata = \(metadata)::jsonb, availability_zone = \(zone), updated_at = \
                \(now) WHERE id = \(id)::int
                """
            )
            return Change(try AggregateRoutes.response(connection, context, id), "aggregate", id, content: ["metadata": .object(metadata)])
        }
    }
}
