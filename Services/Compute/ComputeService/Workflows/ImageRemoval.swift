import ComputeCore
import Database
import ImageAccess
import JSON
import Kernel
import Logging
import Workflow

/// Deletes images that Compute made and that are no longer needed: of servers that are no longer shelved, and backups beyond the
/// rotation. The subject is the image of which this follows. It begins when nothing can be undone any more.
struct ImageRemoval: Sendable {
    let compute: Compute

    init(_ compute: Compute) { self.compute = compute }

    struct Images: Codable, Sendable {
        /// Whose images they are.
        var project: String
        var user: String
        /// One image; nil for backups.
        var image: String?
        /// Backups of a server beyond the newest `rotation` of a type.
        var server: String?
        var backupType: String?
        var rotation: Int?

        enum CodingKeys: String, CodingKey {
            case project, user, image, server, rotation
            case backupType = "backup_type"
        }
    }

    var workflow: Workflow<Images> {
        Workflow(
            service: Compute.service, kind: "image.remove", steps: [.init("remove", run: { try await remove($1) })],
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
            do {
                try await compute.clients.images.deleteImage(id, as: .accepted(project: frame.project, user: frame.user))
            } catch let error as ResourceError where !error.isRetryable {
                // Its owner has protected it, so it stays.
                compute.log.warning("an image is not deleted", metadata: ["image": "\(id)", "error": "\(error.message)"])
            }
        }
        return .next
    }
}
