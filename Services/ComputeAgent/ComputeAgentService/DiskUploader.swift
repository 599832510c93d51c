import ComputeAgentCore
import Contracts
import FileTransfer
import Kernel
import Logging
import Synchronization

/// The job `upload-disk`: copies a server's disk at one point in time, and uploads the copy as the data of an image.
struct DiskUploader: Sendable {
    let tools: ServerTools

    enum Phase: String, Sendable { case copying, uploading }

    private static let copyAttempts = 4
    private static let uploadAttempts = 12
    /// An upload that makes no progress for this long is restarted.
    private static let stall = Duration.seconds(300)
    private static let interval = Duration.seconds(1)

    /// Runs the job from the start, after removing the leftovers of earlier attempts.
    ///
    /// - Parameter progress: called with the phase and the percentage.
    /// - Throws: `PermanentFailure` with the reason for the server's owner; other errors after the last attempt has failed;
    ///   `CancellationError`.
    func run(
        _ id: String, _ upload: ServerJob.DiskUpload, of server: DesiredServer, _ progress: @escaping @Sendable (Phase, Int) async -> Void
    ) async throws {
        switch upload.disk ?? .root {
        case .root: guard server.hasLocalRoot else { throw PermanentFailure("the server has no local root disk") }
        case .ephemeral: guard server.ephemeralGiB > 0 else { throw PermanentFailure("the server has no ephemeral disk") }
        }
        let path = tools.disks.files(server.id).copy(id)
        try await clear(id, upload, serverID: server.id)
        try await tools.repeating(DiskUploader.copyAttempts) {
            await progress(.copying, 0)
            try await tools.copies.run { try await copy(id, upload, server, to: path) { await progress(.copying, $0) } }
        }
        try await tools.repeating(DiskUploader.uploadAttempts) {
            await progress(.uploading, 0)
            try await send(path, upload) { await progress(.uploading, $0) }
        }
        try await tools.disks.removeCopy(path)
    }

    /// Cleans up after an attempt of this process or an earlier one.
    func clear(_ id: String, _ upload: ServerJob.DiskUpload?, serverID: String) async throws {
        try await tools.domains.clearBackup(serverID, mayBeFrozen: upload.map { $0.quiesce != .never } ?? true)
        try await tools.disks.removeCopy(tools.disks.files(serverID).copy(id))
    }

    // MARK: copying

    private func copy(
        _ id: String, _ upload: ServerJob.DiskUpload, _ server: DesiredServer, to path: String,
        _ progress: @Sendable (Int) async -> Void
    ) async throws {
        try await clear(id, upload, serverID: server.id)
        if upload.disk == .ephemeral {
            // Only for servers that are off: a running guest's QEMU locks the disk, and the copy fails.
            try await tools.disks.copyEphemeral(server, to: path)
        } else if try await !tools.domains.backUp(server.id, [.root(into: path)], quiesce: upload.quiesce, progress) {
            // If the guest has started in the meantime, its QEMU locks the disk, and the copy fails.
            try await tools.disks.copyRoot(server, to: path)
        }
        try await tools.disks.takeBack(path)
    }

    // MARK: uploading

    private func send(_ path: String, _ upload: ServerJob.DiskUpload, _ progress: @escaping @Sendable (Int) async -> Void) async throws {
        let subject = ActingSubject.accepted(project: upload.projectID, user: upload.userID)
        let size = Files.size(path) ?? 0
        do {
            try await watched(size, progress) { sent in
                try await tools.images.upload(upload.imageID, from: path, as: subject) { bytes in sent.withLock { $0 = bytes } }
            }
        } catch let error as ResourceError {
            try await judge(error, upload, subject, size)
        }
    }

    /// Runs an upload, reports its progress, and ends one that is stuck.
    private func watched(
        _ size: Int, _ progress: @escaping @Sendable (Int) async -> Void, _ body: @escaping @Sendable (Bytes) async throws -> Void
    ) async throws {
        let sent = Bytes()
        let ambient = tools.ambient
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await body(sent) }
            group.addTask {
                var (last, since) = (-1, ambient.time.monotonicNanoseconds())
                while true {
                    try await ambient.time.sleep(for: DiskUploader.interval)
                    let (bytes, now) = (sent.withLock { $0 }, ambient.time.monotonicNanoseconds())
                    if bytes != last {
                        (last, since) = (bytes, now)
                        await progress(size > 0 ? min(100, bytes * 100 / size) : 100)
                    } else if now - since > UInt64(DiskUploader.stall.microseconds) * 1000 {
                        throw ResourceError.unavailable("Image takes no data")
                    }
                }
            }
            defer { group.cancelAll() }
            try await group.next()
        }
    }

    private final class Bytes: Sendable {
        private let value = Mutex(0)
        func withLock<Result: Sendable>(_ body: (inout sending Int) -> sending Result) -> Result { value.withLock(body) }
    }

    /// Decides what to do after Image has refused an upload.
    ///
    /// - Returns: normally if an earlier attempt succeeded and only its answer was lost.
    private func judge(_ error: ResourceError, _ upload: ServerJob.DiskUpload, _ subject: ActingSubject, _ size: Int) async throws {
        let id = upload.imageID
        switch error.code {
        case .notFound, .gone: throw PermanentFailure("image \(id) was deleted")
        case .conflict:
            // An earlier upload may not have ended yet.
            let image: UploadedImageState
            do { image = try await look(id, subject) } catch let error as ResourceError where error.code == .notFound {
                throw PermanentFailure("image \(id) was deleted")
            }
            switch image {
            case .complete(let found) where found == size: return
            case .pending: throw error
            case .complete: throw PermanentFailure("image \(id) has got other data")
            }
        case .badRequest, .forbidden, .tooLarge, .unsupportedMediaType:
            throw PermanentFailure("Image refused the data of image \(id): \(error.message)")
        default: throw error
        }
    }

    private enum UploadedImageState { case pending, complete(Int?) }

    private func look(_ id: String, _ subject: ActingSubject) async throws -> UploadedImageState {
        let image = try await tools.images.look(id, as: subject)
        return ["queued", "saving"].contains(image.status) ? .pending : .complete(image.size)
    }
}
