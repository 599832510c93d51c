import Authorization
import BlockStorageCore
import Database
import ImageAccess
import JSON
import Kernel
import WebAPI
import Workflow

/// `os-volume_upload_image`: an image with the content of a volume.
extension BlockStorageHandlers {
    static let uploadAction = "volume_extension:volume_actions:upload_image"
    static let uploadPublicAction = "volume_extension:volume_actions:upload_public"

    static let uploadSchema = BodySchema.object([
        .init("image_name", .string(min: 1, max: 255, format: nil), required: true), .init("force", .nullable(.boolean)),
        .init("disk_format", .nullable(.text)), .init("container_format", .nullable(.text)),
        .init("visibility", .enumeration(["public", "private", "shared", "community"]), versions: VersionRange(from: Microversion(3, 1))),
        .init("protected", .boolean, versions: VersionRange(from: Microversion(3, 1))),
    ])

    static let uploadAnswer = BodySchema.wrapped(
        "os-volume_upload_image",
        .object([
            .init("id", .uuid, required: true), .init("updated_at", .text, required: true), .init("status", .text, required: true),
            .init("display_description", .nullable(.text), required: true), .init("size", .integer, required: true),
            .init("volume_type", .object([], additional: .allowed), required: true), .init("image_id", .uuid, required: true),
            .init("container_format", .text, required: true), .init("disk_format", .text, required: true),
            .init("image_name", .text, required: true), .init("visibility", .text), .init("protected", .boolean),
        ]))

    func uploadImage(_ context: RequestContext) async throws -> Response {
        let id = try context.identifier("volume_id", of: "Volume")
        let request = try ImageOfVolume(context)
        return try await context.write(
            database,
            begin: { connection in
                let decision = try volume(connection, context, id)
                let volume = try decision.value(for: BlockStorageHandlers.uploadAction)
                if request.visibility == "public" {
                    try context.authorize(target: .project(volume.projectID), action: BlockStorageHandlers.uploadPublicAction)
                }
                try volume.status.require(.upload, of: volume.id)
                try BlockStorageStore.requireIdle(connection, volume)
                let now = context.ambient.now
                try BlockStorageStore.set(connection, decision, .uploading, for: BlockStorageHandlers.uploadAction, now: now)
                let image = context.ambient.newUUID().description
                let frame = try VolumeWorkflows.Upload(request, image: image, of: volume, caller: context.caller)
                try checkProperties(connection, context, frame, of: volume)
                let workflow = try Workflows.start(
                    connection, workflows.upload, subject: id, frame: frame, requestID: context.requestID, ambient: context.ambient)
                let answer = try answer(connection, volume, request, image: image, now: now)
                return BegunWork(
                    ["workflow": .string(workflow.text), "answer": answer], "volume", id, content: ["image_id": .string(image)])
            },
            finish: { work in
                try await workflows.await(workflow: WorkflowID(work["workflow"]?.stringValue ?? ""), past: "image")
                return .json(202, ["os-volume_upload_image": work["answer"] ?? [:]])
            })
    }

    /// The new image may inherit the properties of the volume's image, and may have further ones that the caller may set.
    ///
    /// - Throws: 403 naming the property.
    private func checkProperties(
        _ connection: Connection, _ context: RequestContext, _ frame: VolumeWorkflows.Upload, of volume: Volume
    ) throws {
        var inherited: JSONObject = [:]
        if let id = volume.imageMetadata?["image_id"]?.stringValue, UUID128(id) != nil {
            let known = try workflows.images.properties(connection, of: id) ?? [:]
            for member in known.members where frame.properties[member.name] == member.value { inherited[member.name] = member.value }
        }
        try workflows.images.checkProperties(frame.properties, before: inherited, for: try context.caller)
    }

    private func answer(
        _ connection: Connection, _ volume: Volume, _ request: ImageOfVolume, image: String, now: Timestamp
    ) throws -> JSONValue {
        let (description, type) = try BlockStorageStore.descriptions(connection, of: volume)
        var answer: JSONObject = [
            "id": .string(volume.id.text), "updated_at": .string(now.iso8601), "status": "uploading",
            "display_description": JSONValue(description), "size": JSONValue(volume.size), "volume_type": type,
            "image_id": .string(image), "container_format": "bare", "disk_format": .string(request.format.rawValue),
            "image_name": .string(request.name),
        ]
        if let visibility = request.visibility { answer["visibility"] = .string(visibility) }
        if let isProtected = request.isProtected { answer["protected"] = .bool(isProtected) }
        return .object(answer)
    }
}

/// The request for an image of a volume.
struct ImageOfVolume: Sendable {
    let name: String
    let format: VolumeFormat
    /// Nil before 3.1.
    let visibility: String?
    let isProtected: Bool?

    /// - Throws: 400 for a format in which volumes cannot be uploaded.
    init(_ context: RequestContext) throws {
        let body = context.body["os-volume_upload_image"] ?? [:]
        name = body["image_name"]?.stringValue ?? ""
        let format = body["disk_format"]?.stringValue ?? VolumeFormat.raw.rawValue
        guard let known = VolumeFormat(rawValue: format) else {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute disk_format. Value: \(format.prefix(64)). Images of volumes are raw or qcow2.")
        }
        self.format = known
        let container = body["container_format"]?.stringValue ?? "bare"
        guard container == "bare" else {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute container_format. Value: \(container.prefix(64)). Images of volumes are bare.")
        }
        let hasVisibility = context.version(atLeast: 3, 1)
        visibility = hasVisibility ? body["visibility"]?.stringValue ?? "private" : nil
        isProtected = hasVisibility ? body["protected"]?.boolValue ?? false : nil
    }
}
