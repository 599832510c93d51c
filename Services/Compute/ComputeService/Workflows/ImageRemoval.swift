import ComputeCore
import Database
import ImageAccess
import JSON
import Kernel
import Logging
import Workflow

/// Deletes images that Compute created and no longer needs: images of servers that are no longer shelved, and backups beyond the rotation.
/// The subject is the image whose creation or use triggers the removal. The workflow starts when nothing can be undone any more.
struct ImageRemoval: Sendable {
    let compute: Compute

    init(_ compute: Compute) { self.compute = compute }

    struct Images: Codable, Sendable {
        /// The owner of the images.
        var project: String
        var user: String
        /// One image; nil for backups.
        var image: String?
        /// Backups of a server beyond the newest `rotation` of a type.
        var server: String?
        var backupType: String?
        var rotation: Int?
        /// Whether only Compute uses them.
        var isTemporary: Bool?

        enum CodingKeys: String, CodingKey {
            case project, user, image, server, rotation
            case backupType = "backup_type"
            case isTemporary = "temporary"
        }
    }

    var workflow: Workflow<Images> {
        Workflow(
            service: Compute.service, kind: "image.remove", version: 2, alsoRuns: [1],
            steps: [.init("remove", run: { try await remove($1) })],
            retriesForever: true, failed: { _, _, _ in })
    }

    private func remove(_ frame: Images) async throws -> StepResult {
        var ids = frame.image.map { [$0] } ?? []
        if let server = frame.server, let type = frame.backupType, let rotation = frame.rotation {
            let images = compute.images
            let all = try await compute.database.read {
                try images.ids($0, project: frame.project, with: ServerImages.backups(of: server, type: type))
            }
            ids += all.dropFirst(rotation).reversed()
        }
        for id in ids {
            try await delete(id, as: .accepted(project: frame.project, user: frame.user), isTemporary: frame.isTemporary ?? false)
        }
        return .next
    }

    /// Deletes an image. A protected image stays, and this is logged.
    ///
    /// - Parameter isTemporary: whether it is hidden and only Compute uses it, so that its protection is ignored.
    func delete(_ id: String, as subject: ActingSubject, isTemporary: Bool) async throws {
        let images = compute.clients.images
        do {
            do { try await images.deleteImage(id, as: subject) } catch let error as ResourceError
                where isTemporary && error.code == .forbidden
            {
                try await images.changeImage(id, [["op": "replace", "path": "/protected", "value": false]], as: subject)
                try await images.deleteImage(id, as: subject)
            }
        } catch let error as ResourceError where !error.isRetryable {
            compute.log.warning("an image is not deleted", metadata: ["image": "\(id)", "error": "\(error.message)"])
        }
    }
}
