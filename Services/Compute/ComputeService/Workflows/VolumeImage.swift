import ComputeCore
import Contracts
import Database
import ImageAccess
import JSON
import Kernel
import Workflow

/// `createImage` of a server that boots from a volume: snapshots of all its volumes at one point in time, and an image without data that
/// lists the snapshots to boot from.
struct VolumeImage: Sendable {
    let steps: ServerSteps
    private let copies: DiskCopySteps

    init(_ compute: Compute) {
        steps = ServerSteps(compute: compute)
        copies = DiskCopySteps(steps: steps)
    }

    private var compute: Compute { steps.compute }
    private var database: Database { steps.database }

    struct Copy: Codable, Sendable {
        /// The image; its body has no mapping until the snapshots are known.
        var copy: DiskCopy
        var volumes: [Volume]

        struct Volume: Codable, Sendable {
            var id: String
            /// The body of the snapshot, for Block Storage.
            var snapshot: JSONObject
            /// The entry of the image's `block_device_mapping`, without the snapshot.
            var mapping: JSONObject
            var snapshotID: String?

            enum CodingKeys: String, CodingKey {
                case id, snapshot, mapping
                case snapshotID = "snapshot_id"
            }
        }

        var snapshots: [String] { volumes.compactMap(\.snapshotID) }
    }

    private static let failureMessage = "The host could not copy the server's volumes"

    var workflow: Workflow<Copy> {
        Workflow(
            service: Compute.service, kind: "server.volume_image",
            steps: [
                .init(
                    "snapshots", deadline: .seconds(60), run: { try await makeSnapshots($0, &$1) },
                    undo: { try await undoSnapshots($0, $1) }),
                .init(
                    "image", deadline: .seconds(60), run: { try await createImage(&$1) },
                    undo: { try await copies.deleteImage($1.copy) }),
                .init(
                    "copy", deadline: .seconds(60), run: { try await order(&$0, $1) },
                    undo: { try await copies.endJob($1.copy, server: $0.subjectID) }),
                .init("await", deadline: DiskCopySteps.deadline, run: { try await awaitCopies($0, $1) }),
                .init("publish", deadline: .seconds(3600), run: { try await publish($1) }),
                .init("activate", deadline: .seconds(120)) { _, frame in
                    try await compute.clients.images.activateEmpty(frame.copy.image, as: frame.copy.subject)
                    return .next
                },
                .init("finish", deadline: .seconds(60)) { context, frame in
                    let (id, copy) = (context.subjectID, frame.copy)
                    context.commit { try copies.recordImageCreated($0, copy, of: id, action: "createImage") }
                    return .next
                },
            ],
            interruptedBy: [ServerCreate.deleteIntent], failed: { try await failed($0, $1, $2) })
    }

    // MARK: snapshots

    private func makeSnapshots(_ context: StepContext, _ frame: inout Copy) async throws -> StepResult {
        let server = try await steps.server(context.subjectID)
        for index in frame.volumes.indices {
            do {
                frame.volumes[index].snapshotID = try await compute.clients.volumes.createSnapshot(
                    frame.volumes[index].snapshot, as: server.subject, operation: context.operationID(index))
            } catch let error as ResourceError where !error.isRetryable {
                frame.copy.refusal = error.code.rawValue
                throw StepFailure(error.message, details: error.context)
            }
        }
        return .next
    }

    /// If the creation of a snapshot was not recorded, repeating the request with the same operation id returns it.
    private func undoSnapshots(_ context: StepContext, _ frame: Copy) async throws {
        guard let server = try await database.read({ [id = context.subjectID] in try WorkflowServer.load($0, id) }) else { return }
        for (index, volume) in frame.volumes.enumerated() {
            do {
                var snapshot = volume.snapshotID
                if snapshot == nil {
                    snapshot = try await compute.clients.volumes.createSnapshot(
                        volume.snapshot, as: server.subject, operation: context.operationID(index))
                }
                if let snapshot { try await compute.clients.volumes.deleteSnapshot(snapshot, as: server.subject) }
            } catch let error as ResourceError where !error.isRetryable {
                // Its creation was refused before as well; or a volume is already being created from it, so it stays.
            }
        }
    }

    // MARK: image

    private func createImage(_ frame: inout Copy) async throws -> StepResult {
        let mapping = frame.volumes.map { volume -> JSONValue in
            var entry = volume.mapping
            entry["snapshot_id"] = JSONValue(volume.snapshotID)
            return .object(entry)
        }
        frame.copy.body["block_device_mapping"] = .string(String(decoding: JSONValue.array(mapping).encoded, as: UTF8.self))
        return try await copies.createImage(&frame.copy)
    }

    private func order(_ context: inout StepContext, _ frame: Copy) async throws -> StepResult {
        let id = context.subjectID
        let volumes = try await database.read { try HostCopies.volumes($0, server: id, snapshots: frame.snapshots) }
        // None is pending if the storage copies the volumes itself, or if an earlier job has copied them.
        if volumes.isEmpty { return .next }
        let job = ServerJob(id: frame.copy.job, copies: .init(volumes: volumes, quiesce: frame.copy.quiesce))
        return try await copies.order(&context, job, task: .imageSnapshot, from: TaskState.snapshot)
    }

    private func awaitCopies(_ context: StepContext, _ frame: Copy) async throws -> StepResult {
        let images = compute.images
        let (status, isOrdered) = try await database.read { connection in
            (try images.status(connection, of: frame.copy.image), try HostJobs.job(connection, frame.copy.job) != nil)
        }
        guard status != nil else { throw StepFailure("Image \(frame.copy.image) was deleted.") }
        guard isOrdered else { return .next }
        try await requireSnapshots(frame)
        let isDone = try await copies.isDone(
            context, job: frame.copy.job, message: VolumeImage.failureMessage, copying: .imagePendingUpload, uploading: .imagePendingUpload,
            from: TaskState.snapshot)
        guard isDone else { return .wait(.seconds(2)) }
        let server = try await steps.server(context.subjectID)
        for snapshot in frame.snapshots {
            try await compute.clients.volumes.reportCopy(ofSnapshot: snapshot, isComplete: true, as: server.subject)
        }
        return .next
    }

    /// The snapshots' states.
    ///
    /// - Throws: `StepFailure` if one was deleted or has failed.
    @discardableResult
    private func requireSnapshots(_ frame: Copy) async throws -> [String: String] {
        let states = try await database.read { try HostCopies.states($0, frame.snapshots) }
        for snapshot in frame.snapshots {
            guard let state = states[snapshot], state != "deleting" else { throw StepFailure("Snapshot \(snapshot) was deleted.") }
            guard !state.hasPrefix("error") else { throw StepFailure("Snapshot \(snapshot) could not be created.") }
        }
        return states
    }

    private func publish(_ frame: Copy) async throws -> StepResult {
        try await requireSnapshots(frame).values.allSatisfy { $0 == "available" } ? .next : .wait(.seconds(1))
    }

    // MARK: the end

    private func failed(_ context: StepContext, _ frame: Copy, _ failure: StepFailure) async throws {
        try await copies.imageFailed(of: context.subjectID, action: "createImage", failure)
    }
}
