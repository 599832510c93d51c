import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Telemetry
import WebAPI
import Workflow

/// The action `os-migrateLive`, and a server's live migrations in progress.
struct ServerLiveMigrateRoutes: Sendable {
    let compute: Compute

    static let action = "os_compute_api:os-migrate-server:migrate_live"
    /// The policy action for naming the target host.
    static let hostAction = "os_compute_api:os-migrate-server:migrate_live:host"
    private static let abortAction = "os_compute_api:servers:migrations:delete"
    private static let completeAction = "os_compute_api:servers:migrations:force_complete"
    private static let path = "/v2.1/servers/{server_id}/migrations/{migration_id}"

    private static let host = BodySchema.Property("host", .nullable(.identifier), required: true)
    private static let autoOrFlag = BodySchema.oneOf([.boolean, .enumeration(["auto"])])

    var resource: Resource {
        Resource(
            "server-live-migrate",
            routes: [
                route(
                    .through(24),
                    [
                        ServerLiveMigrateRoutes.host, .init("block_migration", .boolean, required: true),
                        .init("disk_over_commit", .boolean, required: true),
                    ]),
                route(
                    .between(25, 29),
                    [ServerLiveMigrateRoutes.host, .init("block_migration", ServerLiveMigrateRoutes.autoOrFlag, required: true)]),
                route(
                    .between(30, 67),
                    [
                        ServerLiveMigrateRoutes.host, .init("block_migration", ServerLiveMigrateRoutes.autoOrFlag, required: true),
                        .init("force", .boolean),
                    ]),
                route(
                    .from(68),
                    [ServerLiveMigrateRoutes.host, .init("block_migration", ServerLiveMigrateRoutes.autoOrFlag, required: true)]),
                Route(
                    .delete, ServerLiveMigrateRoutes.path, action: ServerLiveMigrateRoutes.abortAction, rule: Rule.admin,
                    versions: .from(24), status: 202, "Abort a live migration", handler: abort),
                .action(
                    ServerLiveMigrateRoutes.path, key: "force_complete", action: ServerLiveMigrateRoutes.completeAction, rule: Rule.admin,
                    versions: .from(22), schema: .nullable(.object([])),
                    "Force a live migration to complete", handler: complete),
            ])
    }

    private func route(_ versions: VersionRange, _ members: [BodySchema.Property]) -> Route {
        .action(
            ServerActionRoutes.path, key: "os-migrateLive", action: ServerLiveMigrateRoutes.action, rule: Rule.admin, versions: versions,
            schema: .object(members), "Move a server to another host while it runs", handler: migrate)
    }

    private func migrate(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: ServerLiveMigrateRoutes.action)
        let body = context.body["os-migrateLive"] ?? [:]
        try MoveChecks.require(body, without: ["force", "disk_over_commit"])
        let host = body["host"]?.stringValue
        if host != nil, !context.allows(ServerLiveMigrateRoutes.hostAction, target: server.target) {
            throw ResourceError.forbidden("Policy doesn't allow \(ServerLiveMigrateRoutes.hostAction) to be performed.")
        }
        // "auto" is not a boolean.
        let copiesDisks = body["block_migration"].flatMap { BodySchema.boolean($0) }
        let owner = try ServerOwner(context, project: server.project)
        let compute = compute
        let preview = try await MovePreview.ask(about: server, to: host, compute)
        return try await context.write(compute.database) { connection in
            let current = try ServerChanges.locked(connection, context, server.id, for: .liveMigrate)
            try LiveMigrateRequest(
                connection: connection, compute: compute, owner: owner, host: host, copiesDisks: copiesDisks, preview: preview
            ).run(decision, current)
            return Change(.empty(202), "server", server.id, content: ["host": JSONValue(host)])
        }
    }

    private func abort(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let id = try decision.value(for: ServerLiveMigrateRoutes.abortAction).id
        let number = context.parameter("migration_id")
        let allowed = context.version(atLeast: 2, 65) ? MigrationStore.live : ["running"]
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            let live = try ServerLiveMigrateRoutes.find(connection, context, id, number, in: allowed, for: "abort live migration")
            try MigrationStore.requestAbort(connection, live.migration, of: decision, at: now)
            Workflows.wake(connection, service: Compute.service, subject: id)
            return Change(.empty(202), "migration", live.migration)
        }
    }

    private func complete(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let id = try decision.value(for: ServerLiveMigrateRoutes.completeAction).id
        let number = context.parameter("migration_id")
        let ambient = compute.ambient
        return try await context.write(compute.database) { connection in
            let live = try ServerLiveMigrateRoutes.find(connection, context, id, number, in: ["running"], for: "force_complete")
            try HostJobs.complete(connection, live.migration, of: decision, ambient: ambient)
            return Change(.empty(202), "migration", live.migration)
        }
    }

    /// - Throws: 404 without the migration; 409 if the server does not migrate; 400 in another status.
    private static func find(
        _ connection: Connection, _ context: RequestContext, _ id: String, _ number: String, in statuses: [String], for action: String
    ) throws -> MigrationStore.Live {
        let server = try ServerRecord.find(connection, id, lock: true)
        try server.requireUnlocked(context)
        let live = try MigrationStore.find(connection, number, server: id, lock: true)
        guard server.taskState == TaskState.migrating.rawValue || !MigrationStore.live.contains(live.status) else {
            throw ResourceError.conflict(
                "Cannot '\(action)' instance \(id) while it is in task_state \(server.taskState ?? "None")")
        }
        guard statuses.contains(live.status) else {
            throw ResourceError.badRequest(
                """
                Migration \(number.prefix(64)) state of instance \(id) is \(live.status). Cannot \(action) while the migration is in \
                this state.
                """
            )
        }
        return live
    }
}
