import Authorization
import ComputeCore
import Contracts
import Database
import ImageAccess
import JSON
import Kernel
import Telemetry
import WebAPI

/// The actions `rescue` and `unrescue`: boot a server from another image to repair its own disks.
struct ServerRescueRoutes: Sendable {
    let compute: Compute

    private static let rescue = "os_compute_api:os-rescue"
    private static let unrescue = "os_compute_api:os-unrescue"

    var resource: Resource {
        Resource(
            "server-rescue",
            routes: [
                .action(
                    ServerActionRoutes.path, key: "rescue", action: ServerRescueRoutes.rescue, rule: Rule.member,
                    schema: .nullable(.object([.init("adminPass", .text), .init("rescue_image_ref", .identifier)])), status: 200,
                    answer: .form(.object([.required("adminPass", .anyText)])), "Boot a server from a rescue image", handler: rescue),
                .action(
                    ServerActionRoutes.path, key: "unrescue", action: ServerRescueRoutes.unrescue, rule: Rule.member,
                    "Boot a rescued server into its own system again",
                    handler: unrescue),
            ])
    }

    private func rescue(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: ServerRescueRoutes.rescue)
        let body = context.body["rescue"] ?? [:]
        let owner = try ServerOwner(context, project: server.project)
        let password = body["adminPass"]?.stringValue ?? compute.ambient.newSecret(length: 12)
        let allowsVolumes = context.version(atLeast: 2, 87)
        let compute = compute
        return try await context.write(compute.database) { connection in
            _ = try ServerChanges.locked(connection, context, server.id, for: .rescue)
            let rescue = try ServerRescue(
                connection: connection, images: compute.images, owner: owner, imageRef: body["rescue_image_ref"]?.stringValue,
                allowsVolumes: allowsVolumes
            ).choose(for: server.id)
            try ServerChanges.set(connection, decision, rescue: try JSONValue(encoding: rescue), for: ServerRescueRoutes.rescue)
            try ServerChanges.begin(
                connection, context, decision, for: ServerRescueRoutes.rescue, .rescue, power: .running,
                operation: .init(id: compute.ambient.newUUID().description, kind: .rescue),
                ambient: compute.ambient)
            return Change(
                .json(200, ["adminPass": .string(password)]), "server", server.id, content: ["image": .string(rescue.image.id)])
        }
    }

    private func unrescue(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: ServerRescueRoutes.unrescue)
        let ambient = compute.ambient
        return try await context.write(compute.database) { connection in
            _ = try ServerChanges.locked(connection, context, server.id, for: .unrescue)
            try ServerChanges.set(connection, decision, rescue: nil, for: ServerRescueRoutes.unrescue)
            try ServerChanges.begin(
                connection, context, decision, for: ServerRescueRoutes.unrescue, .unrescue, power: .running,
                operation: .init(id: ambient.newUUID().description, kind: .unrescue), ambient: ambient)
            return Change(.empty(202), "server", server.id)
        }
    }
}
