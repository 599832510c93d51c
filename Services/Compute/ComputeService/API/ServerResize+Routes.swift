import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Telemetry
import WebAPI
import Workflow

/// The actions `resize`, `confirmResize` and `revertResize`.
struct ServerResizeRoutes: Sendable {
    let compute: Compute

    private static let resize = "os_compute_api:servers:resize"
    private static let confirm = "os_compute_api:servers:confirm_resize"
    private static let revert = "os_compute_api:servers:revert_resize"

    var resource: Resource {
        Resource(
            "server-resize",
            routes: [
                .action(
                    ServerActionRoutes.path, key: "resize", action: ServerResizeRoutes.resize, rule: Rule.member,
                    schema: .object([
                        .init("flavorRef", .oneOf([.identifier, .integer]), required: true),
                        .init("OS-DCF:diskConfig", .enumeration(["AUTO", "MANUAL"])),
                    ]), "Change a server's flavor", handler: resize),
                .action(
                    ServerActionRoutes.path, key: "confirmResize", action: ServerResizeRoutes.confirm, rule: Rule.member, status: 204,
                    "Keep a server's new flavor", handler: confirm),
                .action(
                    ServerActionRoutes.path, key: "revertResize", action: ServerResizeRoutes.revert, rule: Rule.member,
                    "Revert the resize of a server", handler: revert),
            ])
    }

    private func resize(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: ServerResizeRoutes.resize)
        let body = context.body["resize"] ?? [:]
        let flavor = body["flavorRef"]?.stringValue ?? body["flavorRef"]?.intValue.map(String.init) ?? ""
        let owner = try ServerOwner(context, project: server.project)
        let compute = compute
        return try await context.write(compute.database) { connection in
            let current = try ServerChanges.locked(connection, context, server.id, for: .resize)
            try ResizeRequest(
                connection: connection, compute: compute, owner: owner, flavorRef: flavor,
                diskConfig: body["OS-DCF:diskConfig"]?.stringValue
            ).run(decision, current)
            return Change(.empty(202), "server", server.id, content: ["flavor": .string(flavor)])
        }
    }

    private func confirm(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: ServerResizeRoutes.confirm)
        let compute = compute
        return try await context.write(compute.database) { connection in
            _ = try ServerChanges.locked(connection, context, server.id, for: .confirmResize)
            try MigrationStore.confirm(connection, context, decision, compute)
            return Change(.empty(204), "server", server.id)
        }
    }

    private func revert(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: ServerResizeRoutes.revert)
        let compute = compute
        return try await context.write(compute.database) { connection in
            _ = try ServerChanges.locked(connection, context, server.id, for: .revertResize)
            try MigrationStore.revert(connection, context, decision, compute)
            return Change(.empty(202), "server", server.id)
        }
    }
}
