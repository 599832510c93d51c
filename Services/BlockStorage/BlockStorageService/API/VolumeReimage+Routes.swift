import Authorization
import BlockStorageCore
import Database
import ImageAccess
import JSON
import Kernel
import WebAPI
import Workflow

/// `os-reimage`: replaces the content of an existing volume by an image.
extension BlockStorageHandlers {
    static let reimageAction = "volume:reimage"

    var reimageRoute: Route {
        .action(
            "/volumes/{volume_id}", key: "os-reimage", action: BlockStorageHandlers.reimageAction, rule: BlockStorageHandlers.write,
            versions: VersionRange(from: Microversion(3, 68)),
            schema: .object([.init("image_id", .uuid, required: true), .init("reimage_reserved", .nullable(.boolean))]),
            "Write an image to a volume that exists", handler: reimage)
    }

    private func reimage(_ context: RequestContext) async throws -> Response {
        let id = try context.identifier("volume_id", of: "Volume")
        let body = context.body["os-reimage"] ?? [:]
        let imageID = body["image_id"]?.stringValue.flatMap { UUID128($0)?.description } ?? ""
        return try await context.write(database) { connection in
            let decision = try volume(connection, context, id)
            let volume = try decision.value(for: BlockStorageHandlers.reimageAction)
            try requireReimageable(connection, context, volume, isReserved: body["reimage_reserved"]?.boolValue ?? false)
            try BlockStorageStore.requireIdle(connection, volume)
            guard let found = try workflows.images.image(connection, imageID, for: try context.caller) else {
                throw ResourceError.badRequest("Invalid image identifier or unable to access requested image: \(imageID)")
            }
            let image = SourceImage(found, as: ActingSubject(project: volume.projectID, user: volume.userID, grounds: .accepted))
            try image.check(volumeSize: volume.size)
            try BlockStorageStore.set(
                connection, decision, .downloading, for: BlockStorageHandlers.reimageAction, now: context.ambient.now)
            try Workflows.start(
                connection, workflows.reimage, subject: id, frame: VolumeWorkflows.Reimage(image: imageID, metadata: image.metadata),
                requestID: context.requestID, ambient: context.ambient)
            return Change(.empty(202), "volume", id, content: ["reimage": .string(imageID)])
        }
    }

    /// An attached volume may only be rewritten by Compute, which has stopped the guest.
    ///
    /// - Throws: 400 for another state.
    private func requireReimageable(_ connection: Connection, _ context: RequestContext, _ volume: Volume, isReserved: Bool) throws {
        let attachments = try BlockStorageStore.attachments(connection, of: volume.id)
        if !attachments.isEmpty {
            guard attachments.count == 1 else {
                throw ResourceError.badRequest(
                    "Invalid volume: Volume \(volume.id) has \(attachments.count) attachments: other servers use its content.")
            }
            let isComputes = try context.caller.has(role: "service")
            guard isReserved, isComputes, [.inUse, .reserved, .error].contains(volume.status) else {
                throw ResourceError.badRequest(
                    "Invalid volume: Volume \(volume.id) belongs to a server: rebuild the server to write an image to it.")
            }
            return
        }
        if isReserved, volume.status == .reserved || volume.status == .attaching { return }
        try volume.status.require(.reimage, of: volume.id)
    }
}
