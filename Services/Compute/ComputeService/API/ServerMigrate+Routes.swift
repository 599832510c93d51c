import Authorization
import ComputeCore
import Database
import JSON
import Kernel
import Telemetry
import WebAPI

/// The action `migrate`: moves a server to another host while it is off.
struct ServerMigrateRoutes: Sendable {
    let compute: Compute

    private static let action = "os_compute_api:os-migrate-server:migrate"
    /// The policy action for naming the target host.
    static let hostAction = "os_compute_api:os-migrate-server:migrate:host"

    var resource: Resource {
        Resource("server-migrate", routes: [route(.through(55), .noMembers), route(.from(56), ServerMigrateRoutes.withHost)])
    }

    private static let withHost = BodySchema.nullable(.object([.init("host", .nullable(.identifier))]))

    private func route(_ versions: VersionRange, _ body: BodySchema) -> Route {
        .action(
            ServerActionRoutes.path, key: "migrate", action: ServerMigrateRoutes.action, rule: Rule.admin, versions: versions,
            schema: body, "Move a server to another host", handler: migrate)
    }

    private func migrate(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: ServerMigrateRoutes.action)
        let host = context.version(atLeast: 2, 56) ? context.body["migrate"]?["host"]?.stringValue : nil
        if host != nil, !context.allows(ServerMigrateRoutes.hostAction, target: server.target) {
            throw ResourceError.forbidden("Policy doesn't allow \(ServerMigrateRoutes.hostAction) to be performed.")
        }
        let owner = try ServerOwner(context, project: server.project)
        let compute = compute
        return try await context.write(compute.database) { connection in
            let current = try ServerChanges.locked(connection, context, server.id, for: .migrate)
            try MigrateRequest(connection: connection, compute: compute, owner: owner, host: host).run(decision, current)
            return Change(.empty(202), "server", server.id, content: ["host": JSONValue(host)])
        }
    }
}
