import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Telemetry
import WebAPI
import Workflow

/// The action `rebuild`: new disks for a server that keeps its id, its ports and its volumes.
struct ServerRebuildRoutes: Sendable {
    let compute: Compute
    private let servers: ServerRoutes

    init(compute: Compute) {
        self.compute = compute
        servers = ServerRoutes(compute: compute)
    }

    private static let action = "os_compute_api:servers:rebuild"

    var resource: Resource {
        Resource(
            "server-rebuild",
            routes: [
                .action(
                    ServerActionRoutes.path, key: "rebuild", action: ServerRebuildRoutes.action, rule: Rule.member,
                    schema: ServerRebuildRoutes.schema,
                    answer: .one(servers.kind.adding(ServerRebuildRoutes.added)), "Rebuild a server from an image", handler: rebuild)
            ])
    }

    private static let schema = BodySchema.object([
        .init("imageRef", .identifier, required: true), .init("name", .trimmedName), .init("adminPass", .text),
        .init("metadata", ServerSchema.metadata), .init("preserve_ephemeral", .boolean),
        .init("OS-DCF:diskConfig", .enumeration(["AUTO", "MANUAL"])),
        .init("accessIPv4", .nullable(.text(15))), .init("accessIPv6", .nullable(.text(45))),
        .init("personality", .array(ServerSchema.file, min: 0, max: 1024), versions: .through(56)),
        .init("description", .nullable(.text), versions: .from(19)), .init("key_name", .nullable(.identifier), versions: .from(54)),
        .init("user_data", .nullable(.string(min: 0, max: 65_535, format: .base64)), versions: .from(57)),
        // Certificates cannot be verified here, so the only valid value is null.
        .init("trusted_image_certificates", .nullable(.array(.any, min: 0, max: 0)), versions: .from(63)),
        .init("hostname", .string(min: 1, max: 63, format: .hostLabel), versions: .between(90, 93)),
        .init("hostname", .string(min: 1, max: 255, format: .hostname), versions: .from(94)),
    ])

    /// Members that only the answer to a rebuild has.
    private static let added = [
        Field("adminPass", .text, "NULL", presence: .whenSet), Field("user_data", .text, "t.user_data", versions: .from(57)),
    ]

    private func rebuild(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: ServerRebuildRoutes.action)
        let body = context.body["rebuild"] ?? [:]
        try ServerRequest.checkAccessAddresses(body)
        let owner = try ServerOwner(context, project: server.project)
        let writesVolumes = context.version(atLeast: 2, 93)
        let password = body["adminPass"]?.stringValue ?? compute.ambient.newSecret(length: 12)
        let compute = compute
        return try await context.write(compute.database) { connection in
            let current = try ServerChanges.locked(connection, context, server.id, for: .rebuild)
            let accepted = try ServerRebuild(
                connection: connection, compute: compute, owner: owner, body: body, writesVolumes: writesVolumes
            ).run(decision)
            let power: DesiredPower = current.vmState == VMState.stopped.rawValue ? .shutoff : .running
            if let volume = accepted.volume {
                try beginOnVolume(connection, context, decision, accepted, volume: volume, power: power)
            } else {
                try ServerChanges.begin(
                    connection, context, decision, for: ServerRebuildRoutes.action, .rebuild, power: power,
                    operation: accepted.operation, ambient: compute.ambient)
            }
            return Change(
                try response(connection, context, server.id, password: password), "server", server.id,
                content: ["image": .string(accepted.image)])
        }
    }

    private func beginOnVolume(
        _ connection: Connection, _ context: RequestContext, _ decision: Authorized<ServerRecord>, _ accepted: ServerRebuild.Accepted,
        volume: String, power: DesiredPower
    ) throws {
        let id = try decision.value(for: ServerRebuildRoutes.action).id
        guard try !Workflows.isActive(connection, subject: id) else {
            throw ResourceError.conflict("Cannot 'rebuild' instance \(id) while an earlier operation on it is ending")
        }
        let ambient = compute.ambient
        try ServerTasks.enter(connection, decision, for: ServerRebuildRoutes.action, .rebuilding, ambient: ambient)
        try ServerActions.begin(
            connection, context, of: decision, for: ServerRebuildRoutes.action, action: ServerChange.rebuild.name,
            event: ServerChange.rebuild.event, now: ambient.now)
        try Workflows.start(
            connection, VolumeRebuild(compute).workflow, subject: id,
            frame: VolumeRebuild.Rebuild(volume: volume, image: accepted.image, power: power, operation: accepted.operation),
            requestID: context.requestID, ambient: ambient)
    }

    private func response(
        _ connection: Connection, _ context: RequestContext, _ id: String, password: String
    ) throws -> Response {
        var added = context.version(atLeast: 2, 57) ? [Field("user_data", .text, "t.user_data")] : []
        if context.version(atLeast: 2, 54), !context.version(atLeast: 2, 75) { added.append(Field("key_name")) }
        let (fields, rows) = try servers.row(
            connection, context, id: id, isChange: true, adding: added, without: ["OS-EXT-SRV-ATTR:user_data"])
        var response = try Response.object(202, capacity: 4096) { writer in
            try writer.objectField("server") { server in
                try RowWriter(fields, context).members(rows, row: 0, into: &server)
                server.field("adminPass", password)
            }
        }
        response.headers["location"] = "\(context.publicURL)/v2.1/servers/\(id)"
        return response
    }
}
