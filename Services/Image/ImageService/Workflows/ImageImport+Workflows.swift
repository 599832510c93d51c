import Client
import Database
import ImageCore
import Kernel
import NIOCore
import ServiceCatalog
import WebAPI
package import Workflow

/// Imports of images. A process may die at any point: each step checks what exists, and starts again or continues.
package struct ImageWorkflows: Sendable {
    static let service = CloudService.image.section
    /// The longest time of an import: downloads and decompression of large images take a long time.
    static let timeMax: Duration = .seconds(4 * 3600)
    /// Time between two records of a download's progress, in nanoseconds.
    static let progressInterval: UInt64 = 2_000_000_000

    let database: Database
    let stores: ImageStores
    let quota: ImageQuota
    let download: PublicDownload
    let limits: ImageServiceLimits
    let ambient: Ambient

    package var definitions: [WorkflowDefinition] { [importData.definition, copyData.definition] }
    /// The store of downloads, staged data and converted data.
    var files: FileStore { stores.base }

    /// The parameters of an import, and the data that it found or wrote.
    struct Frame: Codable, Sendable {
        /// The task that clients see.
        var task: String
        var method: String
        var uri: String?
        /// The id of the data that the import may write.
        var file: String
        var stores: [String]
        /// Whether a store without the data fails the import.
        var needsAll: Bool
        /// The data in the base store, once it is complete.
        var content: Content?
        /// The id of the data that a conversion may write, and the format of the image after it.
        var converted: String
        var diskFormat: String?
        /// The stores that have the data, and those that could not be written.
        var outcome: StoreOutcome?

        struct Content: Codable, Sendable {
            var file: String
            var size: Int
            var virtualSize: Int?
            var checksum: String
            var hashValue: String
        }
    }

    var importData: Workflow<Frame> {
        Workflow(
            service: ImageWorkflows.service, kind: "image_import",
            steps: [
                .init("data", deadline: ImageWorkflows.timeMax) { context, frame in
                    guard let image = try await image(context, frame) else { return .goto("end") }
                    frame.content = try await data(image, frame)
                    return .next
                } undo: { _, frame in
                    let file = frame.file
                    // The process may have died after the image got the data.
                    guard try await !database.read({ try ImageStore.hasData($0, file) }) else { return }
                    try await files.removeLeftover(file)
                },
                .init("convert", deadline: ImageWorkflows.timeMax) { context, frame in
                    guard let image = try await image(context, frame) else { return .goto("end") }
                    try await convert(image, &frame)
                    return .next
                } undo: { _, frame in
                    try await withdraw(frame.converted, from: [StoreDeclaration.base])
                },
                .init("stores", deadline: ImageWorkflows.timeMax) { context, frame in
                    guard try await image(context, frame) != nil else { return .goto("end") }
                    let (task, content) = (try taskID(frame.task), try frame.content.recorded("content"))
                    frame.outcome = try await distribute(
                        Distribution(
                            image: context.subjectID, task: task, file: content.file, hash: content.hashValue, stores: frame.stores,
                            needsAll: frame.needsAll), source: { (try await files.open(content.file), files.threads) })
                    return .next
                } undo: { _, frame in
                    // The undo of the step before removes the data of the base store.
                    guard let file = frame.content?.file else { return }
                    try await withdraw(file, from: frame.stores.filter { $0 != StoreDeclaration.base })
                },
                .init("publish") { context, frame in
                    try await publish(context.subjectID, frame)
                    return .next
                },
                .init("end") { _, frame in
                    // If the image was deleted in the meantime, its data is left for the cleanup task, and the task has failed.
                    try await end(frame.task)
                    return .next
                },
            ]
        ) { context, frame, failure in
            try await fail(context.subjectID, frame.task, stores: frame.stores, failure)
        }
    }

    /// Records that the image was deleted, unless the task has ended already.
    func end(_ task: String) async throws {
        let (task, now) = (try taskID(task), ambient.now)
        try await database.write {
            try ImageImportStore.end($0, task: task, isSuccess: false, message: "The image was deleted.", now: now)
        }
    }

    /// Records the failure with the task, and resets an image without data to queued.
    func fail(_ id: String, _ task: String, stores: [String], _ failure: StepFailure) async throws {
        let (task, now) = (try taskID(task), ambient.now)
        try await database.write { connection in
            try ImageImportStore.end(connection, task: task, isSuccess: false, message: failure.message, now: now)
            guard let image = try ImageImportStore.importing(connection, id, task: task, locked: true) else { return }
            if let size = image.staging?.size {
                try Quota.release(connection, project: image.owner, [(ImageQuotas.size, ImageQuota.mebibytes(size))])
            }
            try ImageImportStore.fail(connection, image, stores: stores, now: now)
        }
    }

    func taskID(_ task: String) throws -> UUID128 {
        guard let id = UUID128(task) else { throw WorkflowMismatch("'\(task)' is not the id of a task") }
        return id
    }

    private func image(_ context: StepContext, _ frame: Frame) async throws -> Image? {
        let (id, task) = (context.subjectID, try taskID(frame.task))
        return try await database.read { try ImageImportStore.importing($0, id, task: task) }
    }

    /// Makes the image active. Its staged data was counted for the quota when it arrived.
    private func publish(_ id: String, _ frame: Frame) async throws {
        let (task, content) = (try taskID(frame.task), try frame.content.recorded("content"))
        let (outcome, now) = (try frame.outcome.recorded("outcome"), ambient.now)
        let staged = try await database.write { connection -> String? in
            guard let image = try ImageImportStore.importing(connection, id, task: task, locked: true) else { return nil }
            let received = ReceivedContent(
                size: content.size, virtualSize: content.virtualSize, checksum: content.checksum, hashValue: content.hashValue)
            if let staged = image.staging?.size {
                try Quota.release(connection, project: image.owner, [(ImageQuotas.size, ImageQuota.mebibytes(staged))])
            }
            try reserve(connection, image, content.size, stores: outcome.done.count)
            try ImageImportStore.finish(
                connection, image, file: content.file, received, format: frame.diskFormat, stores: outcome.done, failed: outcome.failed,
                now: now)
            try ImageImportStore.end(connection, task: task, isSuccess: true, message: outcome.message, now: now)
            return image.staging?.id
        }
        for file in [staged, frame.file] {
            if let file, file != content.file { try await files.remove(file) }
        }
        if !outcome.done.contains(StoreDeclaration.base) { try await files.remove(content.file) }
    }

    /// - Throws: `StepFailure` if the project has not enough quota.
    func reserve(_ connection: Connection, _ image: Image, _ size: Int, stores: Int) throws {
        do {
            try quota.quota.reserve(
                connection, project: image.owner, [(ImageQuotas.size, ImageQuotas.mebibytes(size, stores: stores))])
        } catch let error as ResourceError where error.code == .tooLarge {
            throw StepFailure(error.message)
        }
    }

    // MARK: data

    /// Brings the data into the store.
    private func data(_ image: Image, _ frame: Frame) async throws -> Frame.Content {
        do {
            // Remove the leftovers of an interrupted attempt.
            try await files.removeLeftover(frame.file)
            if let uri = frame.uri { return try await fetch(image, uri, frame) }
            return try await adopt(image, frame)
        } catch let error as DownloadRefusal {
            throw StepFailure("The data could not be downloaded: \(error.reason).")
        } catch let error as ResourceError where [.unsupportedMediaType, .tooLarge, .badRequest].contains(error.code) {
            throw StepFailure(error.message, details: error.context)
        }
    }

    /// The largest data that the project and the service allow.
    func bytesMax(_ image: Image) async throws -> (bytes: Int, error: ResourceError) {
        let remaining = try await database.read { try quota.remaining($0, project: image.owner) }
        let staged = image.staging?.size.map { ImageQuota.mebibytes($0) << 20 } ?? 0
        return quota.limit(remaining: remaining.map { $0 + staged }, uploadBytesMax: limits.uploadBytesMax)
    }

    private func intake(_ image: Image, _ frame: Frame) async throws -> ImageIntake {
        let limit = try await bytesMax(image)
        let declared = image.containerFormat?.holdsBareDisk == true ? image.diskFormat : nil
        return ImageIntake(
            files, try await files.receive(frame.file),
            ContentInspector(declared: declared, sizeMax: limit.bytes, tooLarge: limit.error), decompresses: declared != nil)
    }

    private func fetch(_ image: Image, _ uri: String, _ frame: Frame) async throws -> Frame.Content {
        let bytesMax = try await bytesMax(image).bytes
        return try await receive(image, frame) { append in
            _ = try await download.download(uri, bytesMax: bytesMax) { try await append($0) }
        }
    }

    /// Receives the data of the frame, and records the progress.
    ///
    /// - Parameter body: passes all pieces to its argument.
    private func receive(
        _ image: Image, _ frame: Frame, _ body: (_ append: @escaping @Sendable (ByteBuffer) async throws -> Void) async throws -> Void
    ) async throws -> Frame.Content {
        let intake = try await intake(image, frame)
        defer { intake.file.release() }
        let progress = ProgressRecord(interval: ImageWorkflows.progressInterval, ambient: ambient)
        try await body { piece in
            try await intake.append(piece)
            if let count = progress.due(adding: piece.readableBytes) { try await record(count, image.id.text, try taskID(frame.task)) }
        }
        return Frame.Content(frame.file, try await intake.finish(expected: nil))
    }

    /// - Throws: `StepFailure` if the image was deleted, so that nobody waits for the rest.
    func record(_ count: Int, _ image: String, _ task: UUID128) async throws {
        let now = ambient.now
        let isWanted = try await database.write { connection -> Bool in
            try ImageImportStore.progress(connection, task: task, message: "Copied \(count >> 20) MiB", now: now)
            return try ImageImportStore.importing(connection, image, task: task) != nil
        }
        guard isWanted else { throw StepFailure("The image was deleted.") }
    }

    /// Inspects staged data, which becomes the image's data as it is; compressed data is decompressed into a new file.
    private func adopt(_ image: Image, _ frame: Frame) async throws -> Frame.Content {
        guard let staging = image.staging, let size = staging.size, let checksum = staging.checksum, let hash = staging.hashValue else {
            throw StepFailure("The image has no staged data.")
        }
        let stored = try await files.open(staging.id)
        guard stored.size == size else {
            throw StepFailure("The staged data is damaged.", details: "\(staging.id) has \(stored.size) bytes instead of \(size)")
        }
        let declared = image.containerFormat?.holdsBareDisk == true ? image.diskFormat : nil
        let isCompressed = try await files.threads.run { () throws -> Bool in
            try declared != nil && size >= 2 && Array(stored.read(0, 2).readableBytesView) == GzipInflater.magic
        }
        guard isCompressed else {
            let virtualSize = try await files.threads.run { try ContentInspector.inspect(stored, declared: declared) }
            return Frame.Content(
                file: staging.id, size: size, virtualSize: virtualSize, checksum: checksum, hashValue: hash)
        }
        return try await receive(image, frame) { append in
            var offset = 0
            while offset < size {
                let (start, count) = (offset, min(FileStore.chunkBytes, size - offset))
                try await append(try await files.threads.run { try stored.read(start, count) })
                offset += count
            }
        }
    }
}

extension ImageWorkflows.Frame.Content {
    init(_ file: String, _ content: ReceivedContent) {
        self.init(
            file: file, size: content.size, virtualSize: content.virtualSize, checksum: content.checksum, hashValue: content.hashValue)
    }
}
