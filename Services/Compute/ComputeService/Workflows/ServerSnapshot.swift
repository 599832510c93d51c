import ComputeCore
import Database
import JSON
import Kernel
import Workflow

/// `createImage` and `createBackup` of a server whose root disk is on its host.
struct ServerSnapshot: Sendable {
    let steps: ServerSteps
    private let copies: DiskCopySteps

    static let kind = "server.snapshot"

    init(_ compute: Compute) {
        steps = ServerSteps(compute: compute)
        copies = DiskCopySteps(steps: steps)
    }

    private var compute: Compute { steps.compute }

    struct Copy: Codable, Sendable {
        var copy: DiskCopy
        /// `createImage` or `createBackup`.
        var action: String
        var backup: Backup?

        struct Backup: Codable, Sendable {
            var type: String
            /// Backups of this type that are kept.
            var rotation: Int
        }
    }

    var workflow: Workflow<Copy> {
        Workflow(
            service: Compute.service, kind: ServerSnapshot.kind,
            steps: [
                .init(
                    "image", deadline: .seconds(60), run: { try await copies.createImage(&$1.copy) },
                    undo: { try await copies.deleteImage($1.copy) }),
                .init(
                    "copy", deadline: .seconds(60),
                    run: { context, frame in
                        let task: TaskState = frame.backup == nil ? .imageSnapshot : .imageBackup
                        return try await copies.order(&context, frame.copy, task: task, from: TaskState.snapshot)
                    },
                    undo: { try await copies.endJob($1.copy, server: $0.subjectID) }),
                .init("await", deadline: DiskCopySteps.deadline) { context, frame in
                    try await copies.awaitUpload(
                        context, frame.copy, copying: .imagePendingUpload, uploading: .imageUploading, from: TaskState.snapshot)
                },
                .init("finish", deadline: .seconds(60), run: { try await finish(&$0, $1) }),
            ],
            interruptedBy: [ServerCreate.deleteIntent], failed: { try await failed($0, $1, $2) })
    }

    private func finish(_ context: inout StepContext, _ frame: Copy) async throws -> StepResult {
        let id = context.subjectID
        let ambient = steps.ambient
        let (removal, requestID) = (ImageRemoval(compute).workflow, context.requestID)
        context.commit { connection in
            if let backup = frame.backup {
                let old = ImageRemoval.Images(
                    project: frame.copy.project, user: frame.copy.user, server: id, backupType: backup.type, rotation: backup.rotation)
                try Workflows.start(connection, removal, subject: frame.copy.image, frame: old, requestID: requestID, ambient: ambient)
            }
            try copies.recordImageCreated(connection, frame.copy, of: id, action: frame.action)
        }
        return .next
    }

    private func failed(_ context: StepContext, _ frame: Copy, _ failure: StepFailure) async throws {
        try await copies.imageFailed(of: context.subjectID, action: frame.action, failure)
    }
}
