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
                // Flavors have no numbers.
                Field("old_instance_type_id", .number, "NULL::bigint"), Field("new_instance_type_id", .number, "NULL::bigint"),
                Field("user_id", filter: .equals.from(Microversion(2, 80)), versions: .from(80)),
                Field("project_id", filter: .equals.from(Microversion(2, 80)), versions: .from(80)),
                Field("created_at", .timestampMicroseconds, sortable: true), Field("updated_at", .timestampMicroseconds),
                .filter("host") { "\($0) IN (t.source_host, t.dest_host)" },
                // None is hidden.
                .filter("hidden") { BodySchema.boolean($0) == true ? "false" : "true" },
                .filter("changes-since", .time { "t.updated_at >= \($0)" }.from(Microversion(2, 59))),
                .filter("changes-before", .time { "t.updated_at <= \($0)" }.from(Microversion(2, 66))),
            ]), relation: "server_migrations", visibility: .everything, grammar: .compute(), pages: .next.from(Microversion(2, 59))
    ) { .notFound("Migration \($0.prefix(64)) could not be found.") }
}

/// The record of migrations, and the migrations under way of one server.
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
                    versions: .from(23), answer: .form(.wrapped("migrations", .array(.any, min: 0, max: 0))),
                    "List a server's live migrations under way"
                ) { context in
                    _ = try await compute.authorizedServer(context).value
                    _ = try context.listRequest(filters: []).page(of: [])
                    return .json(200, ["migrations": []])
                },
                Route(
                    .get, MigrationRoutes.ofServer + "/{migration_id}", action: "os_compute_api:servers:migrations:show", rule: Rule.admin,
                    versions: .from(23), answer: .form(.object([], additional: .allowed)), "Show a live migration under way"
                ) { context in
                    let server = try await compute.authorizedServer(context).value
                    let id = context.parameter("migration_id")
                    let isKnown = try await compute.database.read { try MigrationStore.exists($0, number: id, server: server.id) }
                    throw ResourceError.notFound(
                        isKnown
                            ? "Migration \(id.prefix(64)) for server \(server.id) is not live-migration."
                            : "Migration \(id.prefix(64)) could not be found.")
                },
            ])
    }
}
