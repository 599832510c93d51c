import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Telemetry
import WebAPI
import Workflow

/// The action `evacuate`: starts a server on another host when its own is down.
struct ServerEvacuateRoutes: Sendable {
    let compute: Compute

    static let action = "os_compute_api:os-evacuate"

    private static let common: [BodySchema.Property] = [.init("host", .nullable(.identifier)), .init("adminPass", .text)]

    var resource: Resource {
        Resource(
            "server-evacuate",
            routes: [
                route(.through(13), [.init("onSharedStorage", .boolean, required: true)]),
                route(.between(14, 28), []), route(.between(29, 67), [.init("force", .boolean)]), route(.from(68), []),
            ])
    }

    private func route(_ versions: VersionRange, _ members: [BodySchema.Property]) -> Route {
        .action(
            ServerActionRoutes.path, key: "evacuate", action: ServerEvacuateRoutes.action, rule: Rule.admin, versions: versions,
            schema: .object(ServerEvacuateRoutes.common + members), status: 200,
            answer: .form(.object([.init("adminPass", .anyText)])), "Start a server of a host that is down on another one",
            handler: evacuate)
    }

    private func evacuate(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: ServerEvacuateRoutes.action)
        let body = context.body["evacuate"] ?? [:]
        try MoveChecks.require(body, without: ["force"])
        let host = body["host"]?.stringValue
        let onSharedStorage = body["onSharedStorage"].flatMap { BodySchema.boolean($0) }
        let owner = try ServerOwner(context, project: server.project)
        // As for a rebuild, the password is only part of the answer; it is not passed to the guest.
        let password = context.version(atLeast: 2, 14) ? nil : body["adminPass"]?.stringValue ?? compute.ambient.newSecret(length: 12)
        let staysOff = context.version(atLeast: 2, 95)
        let compute = compute
        return try await context.write(compute.database) { connection in
            let current = try ServerChanges.locked(connection, context, server.id, for: .evacuate)
            try EvacuateRequest(
                connection: connection, compute: compute, owner: owner, host: host, onSharedStorage: onSharedStorage, staysOff: staysOff
            ).run(decision, current)
            return Change(
                .json(200, password.map { ["adminPass": .string($0)] } ?? [:]), "server", server.id, content: ["host": JSONValue(host)])
        }
    }
}
