import Authorization
import ComputeCore
import Database
import JSON
import Kernel
import WebAPI
import Workflow

extension ResourceKind {
    static let volumeAttachments = ResourceKind(
        "volumeAttachment",
        table: Table(
            "server_volumes t", key: "t.volume_id", defaultSort: [("place", false)],
            fields: [
                Field("id", .text, "t.volume_id", versions: .through(88)), Field("device"), Field("serverId", .text, "t.server_id"),
                Field("volumeId", .text, "t.volume_id"), Field("tag", versions: .from(70)),
                Field("delete_on_termination", .boolean, versions: .from(79)), Field("attachment_id", versions: .from(89)),
                Field("bdm_uuid", .text, "t.id", versions: .from(89)), .sortKey("place", "t.device"),
            ]), relation: "server_volumes",
        // Until Block Storage has created the attachment, the row only reserves the device name and is not visible to clients.
        visibility: Visibility { _ in "t.attachment_id IS NOT NULL" }, grammar: .compute(hasOffset: true)
    ) { .notFound("Volume \($0) is not attached.") }
}

/// A server's volumes: listing, attaching and detaching them.
struct VolumeAttachmentRoutes: Sendable {
    let compute: Compute

    private static let path = "/v2.1/servers/{server_id}/os-volume_attachments"
    private static let one = "/v2.1/servers/{server_id}/os-volume_attachments/{volume_id}"

    private static let schema = BodySchema.wrapped(
        "volumeAttachment",
        .object([
            .init("volumeId", .uuid, required: true), .init("device", .nullable(.text)),
            .init("tag", .nullable(.text(60)), versions: .from(49)),
            .init("delete_on_termination", .boolean, versions: .from(79)),
        ]))

    private static let update = BodySchema.wrapped(
        "volumeAttachment",
        .object([
            .init("volumeId", .uuid, required: true), .init("id", .uuid, versions: .from(85)),
            .init("device", .nullable(.text), versions: .from(85)),
            .init("serverId", .uuid, versions: .from(85)), .init("tag", .nullable(.text), versions: .from(85)),
            .init("delete_on_termination", .boolean, versions: .from(85)),
        ]))

    var resource: Resource {
        let path = VolumeAttachmentRoutes.path
        let one = VolumeAttachmentRoutes.one
        return Resource(
            "server-volume",
            routes: [
                Route(
                    .get, path, action: "os_compute_api:os-volumes-attachments:index", rule: Rule.reader, answer: .list(.volumeAttachments),
                    "List a server's volumes"
                ) { context in
                    let server = try await compute.authorizedServer(context).value
                    return try await compute.database.read { connection in
                        let kind = ResourceKind.volumeAttachments
                        return try kind.list(connection, context, where: ["t.server_id = \(server.id)", kind.visibility.rows(context)])
                    }
                },
                Route(
                    .get, one, action: "os_compute_api:os-volumes-attachments:show", rule: Rule.reader, answer: .one(.volumeAttachments),
                    "Show a server's volume"
                ) { context in
                    let server = try await compute.authorizedServer(context).value
                    let volume = try context.uuidParameter("volume_id", of: "Volume")
                    return try await compute.database.read { try VolumeAttachmentRoutes.response($0, context, server.id, volume) }
                },
                Route(
                    .post, path, action: "os_compute_api:os-volumes-attachments:create", rule: Rule.member, versions: .through(100),
                    body: .json(VolumeAttachmentRoutes.schema), answer: .one(.volumeAttachments), "Attach a volume"
                ) { try await attach($0, waits: true) },
                Route(
                    .post, path, action: "os_compute_api:os-volumes-attachments:create", rule: Rule.member, versions: .from(101),
                    body: .json(VolumeAttachmentRoutes.schema), status: 202, "Attach a volume without waiting for it"
                ) { try await attach($0, waits: false) },
                Route(
                    .put, one, action: "os_compute_api:os-volumes-attachments:update", rule: Rule.member,
                    body: .json(VolumeAttachmentRoutes.update), status: 202, "Change an attachment", handler: change),
                Route(
                    .delete, one, action: "os_compute_api:os-volumes-attachments:delete", rule: Rule.member, status: 202, "Detach a volume",
                    handler: detach),
            ])
    }

    private static let states: [VMState] = [.active, .paused, .stopped, .suspended]

    /// The states in which a server's volumes can change. From 2.20 on, shelved servers are included; their volumes are attached when they
    /// are unshelved.
    private static func states(_ context: RequestContext) -> [String] {
        (states + (context.version(atLeast: 2, 20) ? [.shelved, .shelvedOffloaded] : [])).map(\.rawValue)
    }

    private static func missing(_ server: String, _ volume: String) -> ResourceError {
        .notFound("Instance \(server) is not attached to volume \(volume).")
    }

    private static func response(_ connection: Connection, _ context: RequestContext, _ server: String, _ volume: String) throws -> Response
    {
        let kind = ResourceKind.volumeAttachments
        let condition: SQL = "t.server_id = \(server) AND t.volume_id = \(volume) AND \(try kind.visibility.rows(context))"
        guard let found = try kind.oneOrNone(connection, context, where: condition) else { throw missing(server, volume) }
        return found.response
    }

    /// - Parameter waits: whether to answer only when the volume is attached, and show the attachment.
    private func attach(_ context: RequestContext, waits: Bool) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: "os_compute_api:os-volumes-attachments:create")
        let body = context.body["volumeAttachment"] ?? [:]
        let volume = UUID128(body["volumeId"]?.stringValue ?? "")?.description ?? ""
        let ambient = compute.ambient
        let definition = VolumeAttachmentWorkflows(compute).attach
        let draft = VolumeAttachmentStore.Draft(
            id: ambient.newUUID().description, volume: volume,
            deletesOnTermination: body["delete_on_termination"]?.boolValue ?? false, tag: body["tag"]?.stringValue,
            knowsMultiattach: context.version(atLeast: 2, 60))
        return try await context.write(
            compute.database,
            begin: { connection in
                let current = try ServerRecord.find(connection, server.id, lock: true)
                try current.requireUnlocked(context)
                try current.require(states: VolumeAttachmentRoutes.states(context), for: "attach_volume")
                let device = try VolumeAttachmentStore.reserve(connection, draft, on: decision, at: ambient.now)
                try ServerActions.begin(
                    connection, context, of: decision, for: "os_compute_api:os-volumes-attachments:create", action: "attach_volume",
                    event: "compute_attach_volume", now: ambient.now)
                let workflow = try Workflows.start(
                    connection, definition, subject: draft.id,
                    frame: VolumeAttachmentWorkflows.Attachment(server: server.id, volume: volume, device: device),
                    requestID: context.requestID, ambient: ambient)
                return BegunWork(
                    .string(workflow.text), "server", server.id, content: ["volumeId": .string(volume), "device": .string(device)])
            },
            finish: { work in
                guard waits else { return .empty(202) }
                try await compute.await(workflow: WorkflowID(work.stringValue ?? ""), past: ["connect", "plug"])
                return try await compute.database.read { try VolumeAttachmentRoutes.response($0, context, server.id, volume) }
            })
    }

    private func change(_ context: RequestContext) async throws -> Response {
        let server = try await compute.authorizedServer(context)
        let volume = try context.uuidParameter("volume_id", of: "Volume")
        let body = context.body["volumeAttachment"] ?? [:]
        let wanted = UUID128(body["volumeId"]?.stringValue ?? "")?.description ?? ""
        let deletesOnTermination = body["delete_on_termination"]?.boolValue
        try await VolumeAttachmentRoutes.requireUnchanged(compute, body, server: server.value.id, volume: volume)
        let swaps =
            wanted == volume ? nil : try context.authorize(server.value, target: server.value.target, action: VolumeSwapStore.action)
        if swaps == nil, deletesOnTermination == nil {
            throw ResourceError.badRequest("Nothing to change. Only delete_on_termination and volumeId can be changed.")
        }
        let compute = compute
        return try await context.write(compute.database) { connection in
            if let deletesOnTermination {
                guard try VolumeAttachmentStore.setDeletesOnTermination(connection, deletesOnTermination, volume: volume, of: server) else {
                    throw VolumeAttachmentRoutes.missing(server.value.id, volume)
                }
            }
            if let swaps {
                let frame = try VolumeSwapStore.begin(connection, context, swaps, old: volume, new: wanted, ambient: compute.ambient)
                try ServerActions.begin(
                    connection, context, of: swaps, for: VolumeSwapStore.action, action: "swap_volume", event: "compute_swap_volume",
                    now: compute.ambient.now)
                try Workflows.start(
                    connection, VolumeSwap(compute).workflow, subject: server.value.id, frame: frame, requestID: context.requestID,
                    ambient: compute.ambient)
            }
            return Change(
                .empty(202), "server", server.value.id,
                content: [
                    "volumeId": .string(swaps == nil ? volume : wanted),
                    "delete_on_termination": deletesOnTermination.map { .bool($0) } ?? .null,
                ])
        }
    }

    /// A client may send the attachment back as it is; as in Nova, only some of its members can change.
    ///
    /// - Throws: 400 for another value than the attachment's.
    private static func requireUnchanged(_ compute: Compute, _ body: JSONValue, server: String, volume: String) async throws {
        let known = ["id", "device", "serverId", "tag"].filter { body[$0] != nil }
        guard !known.isEmpty else { return }
        guard let row = try await compute.database.read({ try VolumeAttachmentStore.place($0, of: volume, on: server) }) else {
            throw missing(server, volume)
        }
        let values: [String: JSONValue] = [
            "id": .string(volume), "device": .string(row.device), "serverId": .string(server), "tag": JSONValue(row.tag),
        ]
        for name in known {
            let value = body[name] ?? .null
            let same = UUID128(value.stringValue ?? "").map { JSONValue.string($0.description) } ?? value
            guard same == values[name] else {
                throw ResourceError.badRequest(
                    """
                    Invalid input for field/attribute volumeAttachment.\(name). Value: \(value.description.prefix(64)). It cannot be \
                    changed: it is \(values[name] ?? .null).
                    """)
            }
        }
    }

    private func detach(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: "os_compute_api:os-volumes-attachments:delete")
        let volume = try context.uuidParameter("volume_id", of: "Volume")
        let ambient = compute.ambient
        let definition = VolumeAttachmentWorkflows(compute).detach
        return try await context.write(compute.database) { connection in
            let current = try ServerRecord.find(connection, server.id, lock: true)
            try current.requireUnlocked(context)
            try current.require(states: VolumeAttachmentRoutes.states(context), for: "detach_volume")
            guard let attachment = try VolumeAttachmentStore.lock(connection, volume: volume, of: server.id) else {
                throw VolumeAttachmentRoutes.missing(server.id, volume)
            }
            guard !attachment.isSwapped else {
                throw ResourceError.conflict("Volume \(volume) is being swapped. Detach it after the swap has finished.")
            }
            if attachment.isRoot { throw ResourceError.forbidden("Cannot detach a root device volume") }
            try VolumeAttachmentStore.requireHotplug(connection, current)
            if attachment.state == "detaching" { return Change(.empty(202), "server", server.id) }
            if attachment.state == "attaching" {
                throw ResourceError.conflict("Volume \(volume) is still being attached. Try again when it is attached.")
            }
            guard try !HostJobs.copiesVolumes(connection, of: server.id) else {
                throw ResourceError.conflict("Volume \(volume) is being copied for a snapshot. Try again when the snapshot is complete.")
            }
            try VolumeAttachmentStore.markDetaching(connection, volume: volume, of: decision)
            let policy = "os_compute_api:os-volumes-attachments:delete"
            let generation = try DesiredState.change(connection, of: decision, for: policy, ambient: ambient)
            try ServerActions.begin(
                connection, context, of: decision, for: policy, action: "detach_volume", event: "compute_detach_volume",
                now: ambient.now)
            try Workflows.start(
                connection, definition, subject: attachment.id,
                frame: VolumeAttachmentWorkflows.Detachment(server: server.id, volume: volume, generation: generation),
                requestID: context.requestID, ambient: ambient)
            return Change(.empty(202), "server", server.id, content: ["detach_volume": .string(volume)])
        }
    }
}
