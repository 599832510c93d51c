import BlockStorageCore
import Commands
import Contracts
import Database
import ImageAccess
import ImageFormat
import JSON
import Kernel
import Workflow

/// Writing an image to a volume that exists.
extension VolumeWorkflows {
    struct Reimage: Codable, Sendable {
        var image: String
        /// The volume's image metadata afterwards.
        var metadata: JSONObject
    }

    /// The volume keeps its content until the image is complete.
    var reimage: Workflow<Reimage> {
        Workflow(
            service: VolumeWorkflows.service, kind: "volume_reimage",
            steps: [
                .init("data", deadline: BlockStorageLimits.copyTimeMax) { context, frame in
                    guard let volume = try await volume(context) else { return .done }
                    let id = frame.image
                    guard
                        let source = try await database.read({
                            try images.source($0, id, project: volume.projectID, user: volume.userID)
                        })
                    else { throw StepFailure("Image \(id) no longer exists.") }
                    do {
                        let image = SourceImage(source.image, as: source.subject)
                        return try await driver.fill(VolumeWorkflows.renewed(volume), from: image) ? .next : .wait(VolumeWorkflows.poll)
                    } catch let error as ImageRefusal {
                        throw StepFailure("The image cannot be written to the volume: \(error.reason).")
                    } catch let error as SandboxError {
                        throw StepFailure("The storage host cannot read the image safely.", details: error.description)
                    } catch let error as CommandError {
                        throw StepFailure("The volume's data could not be written.", details: error.description)
                    }
                } undo: { context, _ in
                    guard let volume = try await volume(context) else { return }
                    try await driver.delete(VolumeWorkflows.renewed(volume))
                },
                .init("exchange") { context, _ in
                    guard let volume = try await volume(context) else { return .done }
                    try await driver.replace(volume.object, by: VolumeWorkflows.renewed(volume))
                    return .next
                },
                .init("publish") { context, frame in
                    let (id, now) = (context.subjectID, context.now)
                    let (image, metadata) = (frame.image, frame.metadata)
                    try await database.write { connection in
                        let changed = try connection.execute(
                            """
                            UPDATE volumes SET source_image_id = \(image)::uuid, image_metadata = \(metadata)::jsonb,
                                bootable = true, fault = NULL WHERE id = \(id)::uuid AND status = 'downloading'
                            """)
                        if changed > 0 { try BlockStorageStore.settle(connection, written: ID(id), now: now) }
                    }
                    return .next
                },
            ]
        ) { context, _, failure in
            let (id, now) = (context.subjectID, ambient.now)
            try await database.write {
                try BlockStorageStore.move($0, volume: id, from: [.downloading], to: .error, fault: failure.message, now: now)
            }
        }
    }

    /// The disk that will replace the volume's.
    static func renewed(_ volume: Volume) -> StoredObject {
        StoredObject(.renewal, volume.id.text, project: volume.projectID, format: volume.format, size: volume.size)
    }
}
