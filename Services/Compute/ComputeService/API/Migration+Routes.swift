import Authorization
import Database
import JSON
import Kernel
import WebAPI

extension ResourceKind {
    /// Resizes and moves of servers.
    static let migrations = ResourceKind(
        "migration",
        table: Table(
            "server_migrations t", key: "t.uuid", defaultSort: [("created_at", true)],
            fields: [
                Field("id", .number), Field("uuid", .text, "t.uuid", versions: .from(59)),
                Field("instance_uuid", .text, "t.server_id", filter: .uuid("t.server_id")), Field("status", filter: .equals),
                Field("migration_type", .text, "t.type", filter: .equals.from(Microversion(2, 23)), versions: .from(23)),
                Field("source_compute", .text, "t.source_host", filter: .equals), Field("source_node", .text, "t.source_host"),
                Field("dest_compute", .text, "t.dest_host"), Field("dest_node", .text, "t.dest_host"), Field("dest_host", .text, "NULL"),
                // Flavors have no numeric ids here.
                Field("old_instance_type_id", .number, "NULL::bigint"), Field("new_instance_type_id", .number, "NULL::bigint"),
                Field("user_id", filter: .equals.from(Microversion(2, 80)), versions: .from(80)),
                Field("project_id", filter: .equals.from(Microversion(2, 80)), versions: .from(80)),
                Field("created_at", .timestampMicroseconds, sortable: true), Field("updated_at", .timestampMicroseconds),
                .filter("host") { "\($0) IN (t.source_host, t.dest_host)" },
                // No migration is ever hidden.
                .filter("hidden") { BodySchema.boolean($0) == true ? "false" : "true" },
                .filter("changes-since", .time { "t.updated_at >= \($0)" }.from(Microversion(2, 59))),
                .filter("changes-before", .time { "t.updated_at <= \($0)" }.from(Microversion(2, 66))),
            ]), relation: "server_migrations", visibility: .everything, grammar: .compute(), pages: .next.from(Microversion(2, 59))
    ) { .notFound("Migration \($0.prefix(64)) could not be found.") }
}

/// The list of all migrations, and the migrations in progress of one server.
struct MigrationRoutes: Sendable {
    let compute: Compute

    private static let ofServer = "/v2.1/servers/{server_id}/migrations"

    var resource: Resource {
        Resource(
            "migration",
            routes: [
                Route(
                    .get, "/v2.1/os-migrations", action: "os_compute_api:os-migrations:index", rule: Rule.admin,
                    answer: .list(.migrations), "List migrations"
                ) { context in
                    try context.authorize(target: .none)
                    return try await compute.database.read { try ResourceKind.migrations.list($0, context, where: []) }
                },
                Route(
                    .get, MigrationRoutes.ofServer, action: "os_compute_api:servers:migrations:index", rule: Rule.admin,
                    versions: .from(23), answer: .form(.wrapped("migrations", .many(.object([], additional: .allowed)))),
                    "List a server's live migrations in progress"
                ) { context in
                    let server = try await compute.authorizedServer(context).value
                    _ = try context.listRequest(filters: []).page(of: [])
                    let list = try await compute.database.read { connection in
                        try MigrationStore.liveRows(connection, server: server.id, number: nil).map {
                            try LiveMigrations.document($0, context)
                        }
                    }
                    return .json(200, ["migrations": .array(list)])
                },
                Route(
                    .get, MigrationRoutes.ofServer + "/{migration_id}", action: "os_compute_api:servers:migrations:show", rule: Rule.admin,
                    versions: .from(23), answer: .form(.object([], additional: .allowed)), "Show a live migration in progress"
                ) { context in
                    let server = try await compute.authorizedServer(context).value
                    let id = context.parameter("migration_id")
                    let found = try await compute.database.read { connection -> JSONValue? in
                        _ = try MigrationStore.find(connection, id, server: server.id)
                        return try MigrationStore.liveRows(connection, server: server.id, number: id).first.map {
                            try LiveMigrations.document($0, context)
                        }
                    }
                    guard let found else {
                        throw ResourceError.notFound("Live migration \(id.prefix(64)) for server \(server.id) is not in progress.")
                    }
                    return .json(200, ["migration": found])
                },
            ])
    }
}

/// Live migrations in progress, as Compute's API shows them.
private enum LiveMigrations {
    static func document(_ row: Row, _ context: RequestContext) throws -> JSONValue {
        let target = JSONValue(try row.optionalString("dest_host"))
        let source = JSONValue.string(try row.string("source_host"))
        func bytes(_ name: String) throws -> JSONValue { try row.optionalInt(name).map { JSONValue($0) } ?? .null }
        var document: JSONObject = [
            "id": JSONValue(try row.int("id")), "status": .string(try row.string("status")),
            "server_uuid": .string(try row.string("server_id")), "source_compute": source, "source_node": source,
            "dest_compute": target, "dest_node": target, "dest_host": .null,
            "memory_total_bytes": try bytes("memory_total"), "memory_processed_bytes": try bytes("memory_processed"),
            "memory_remaining_bytes": try bytes("memory_remaining"), "disk_total_bytes": try bytes("disk_total"),
            "disk_processed_bytes": try bytes("disk_processed"), "disk_remaining_bytes": try bytes("disk_remaining"),
            "created_at": .string(try row.timestamp("created_at").iso8601), "updated_at": .string(try row.timestamp("updated_at").iso8601),
        ]
        if context.version(atLeast: 2, 59) { document["uuid"] = .string(try row.string("uuid")) }
        if context.version(atLeast: 2, 80) {
            document["user_id"] = .string(try row.string("user_id"))
            document["project_id"] = JSONValue(try row.optionalString("project_id"))
        }
        return .object(document)
    }
}
