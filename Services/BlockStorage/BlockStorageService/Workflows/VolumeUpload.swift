import Authorization
import BlockStorageCore
import Commands
import Contracts
import Database
import FileTransfer
import JSON
import Kernel
import Workflow

/// Uploads a volume as an image.
extension VolumeWorkflows {
    struct Upload: Codable, Sendable {
        var image: String
        /// The body of the request that creates the image.
        var body: JSONObject
        var format: String
        /// The owner of the image. With `asUser` the Image service applies the user's roles, otherwise those of a project member.
        var project: String
        var user: String
        var asUser: Bool

        enum CodingKeys: String, CodingKey {
            case image, body, format, project, user
            case asUser = "as_user"
        }

        /// Members of a volume's image metadata that describe the data of the image that it was made from.
        static let uninherited: Set<String> = [
            "image_id", "image_name", "checksum", "container_format", "disk_format", "min_disk", "min_ram", "size", "signature_verified",
            "block_device_mapping", "bdm_v2", "root_device_name",
        ]

        init(_ request: ImageOfVolume, image: String, of volume: Volume, caller: Caller) {
            self.image = image
            format = request.format.rawValue
            project = caller.projectID ?? volume.projectID
            user = caller.userID
            // A member cannot make a public image.
            asUser = request.visibility == "public" && caller.projectID != nil
            let inherited = volume.imageMetadata ?? [:]
            var body: JSONObject = [
                "id": .string(image), "name": .string(request.name), "disk_format": .string(request.format.rawValue),
                "container_format": "bare", "visibility": .string(request.visibility ?? "private"),
                "protected": .bool(request.isProtected ?? false),
            ]
            for name in ["min_disk", "min_ram"] {
                if let value = inherited[name]?.stringValue.flatMap({ Int($0) }) { body[name] = JSONValue(value) }
            }
            for (name, value) in inherited.members where body[name] == nil && !Upload.uninherited.contains(name) { body[name] = value }
            self.body = body
        }

        /// The properties of the image, without the attributes that every image has.
        var properties: JSONObject {
            JSONObject(body.members.filter { !Upload.attributes.contains($0.name) }.map { ($0.name, $0.value) })
        }

        private static let attributes: Set<String> = [
            "id", "name", "disk_format", "container_format", "visibility", "protected", "min_disk", "min_ram",
        ]

        var subject: ActingSubject { ActingSubject(project: project, user: user, grounds: asUser ? .user : .accepted) }
    }

    var upload: Workflow<Upload> {
        Workflow(
            service: VolumeWorkflows.service, kind: "volume_upload",
            steps: [
                .init("image", deadline: .seconds(60)) { _, frame in
                    do { try await uploads.createImage(frame.body, as: frame.subject) } catch let error as ResourceError
                        where !error.isRetryable
                    {
                        throw StepFailure(error.message, details: error.context)
                    }
                    return .next
                } undo: { _, frame in
                    try await deleteImage(frame)
                },
                .init("copy", deadline: BlockStorageLimits.copyTimeMax) { context, frame in
                    guard let volume = try await volume(context) else { throw StepFailure("The volume was deleted.") }
                    guard let copy = VolumeWorkflows.copy(frame, of: volume) else { return .next }
                    do { return try await driver.copy(volume.object, to: copy) ? .next : .wait(VolumeWorkflows.poll) } catch let error
                        as CommandError
                    {
                        throw StepFailure("The volume's data could not be read.", details: error.description)
                    }
                } undo: { context, frame in
                    try await removeCopy(context, frame)
                },
                .init("send", deadline: BlockStorageLimits.copyTimeMax) { context, frame in
                    guard let volume = try await volume(context) else { throw StepFailure("The volume was deleted.") }
                    try await send(VolumeWorkflows.copy(frame, of: volume) ?? volume.object, frame)
                    return .next
                },
                .init("finish") { context, frame in
                    try await removeCopy(context, frame)
                    let (id, now) = (context.subjectID, context.now)
                    try await database.write {
                        try BlockStorageStore.move($0, volume: id, from: [.uploading], to: .available, now: now)
                    }
                    return .next
                },
            ]
        ) { context, frame, failure in
            let (id, now) = (context.subjectID, ambient.now)
            try await database.write {
                try BlockStorageStore.move($0, volume: id, from: [.uploading], to: .available, fault: failure.message, now: now)
            }
        }
    }

    /// Deletes the image. A protected one cannot be deleted and stays without data.
    private func deleteImage(_ frame: Upload) async throws {
        do { try await uploads.deleteImage(frame.image, as: frame.subject) } catch let error as ResourceError where error.code == .forbidden
        {
            return
        }
    }

    /// The copy that is uploaded; nil where the volume itself has the image's format.
    private static func copy(_ frame: Upload, of volume: Volume) -> StoredObject? {
        let format = VolumeFormat(rawValue: frame.format) ?? .raw
        guard format != volume.format else { return nil }
        return StoredObject(.upload, frame.image, project: volume.projectID, format: format, size: volume.size)
    }

    private func removeCopy(_ context: StepContext, _ frame: Upload) async throws {
        guard let volume = try await volume(context), let copy = VolumeWorkflows.copy(frame, of: volume) else { return }
        try await driver.delete(copy)
    }

    /// Uploads a disk. A repeated call after a success succeeds as well.
    private func send(_ object: StoredObject, _ frame: Upload) async throws {
        let path = driver.file(of: object)
        do { try await uploads.upload(frame.image, from: path, as: frame.subject) { _ in } } catch let error as ResourceError {
            switch error.code {
            case .notFound, .gone: throw StepFailure("Image \(frame.image) was deleted.")
            case .conflict:
                // An earlier upload may have succeeded, or may still be ending.
                let image = try await uploads.look(frame.image, as: frame.subject)
                if image.status == "active" { return }
                throw ResourceError.unavailable("image \(frame.image) takes no data now: it is \(image.status)")
            case .badRequest, .forbidden, .tooLarge, .unsupportedMediaType:
                throw StepFailure("Image refused the volume's data: \(error.message)")
            default: throw error
            }
        }
    }

    /// Waits until a workflow has completed its first step.
    ///
    /// - Throws: the reason why it unwinds; 503 if it takes too long, in which case it continues.
    func await(workflow: WorkflowID, past step: String, timeout: Duration = .seconds(30)) async throws {
        let deadline = ambient.deadline(in: timeout)
        while true {
            guard let progress = try await database.read({ try Workflows.progress($0, workflow) }), !progress.isDone else { return }
            if let failure = progress.failure { throw ResourceError.badRequest(failure) }
            if progress.step != step { return }
            guard ambient.time.monotonicNanoseconds() < deadline else {
                throw ResourceError.unavailable("workflow \(workflow) is still at \(progress.step)")
            }
            try await ambient.time.sleep(for: .milliseconds(30))
        }
    }
}
