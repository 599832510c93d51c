import Database
import ImageCore
import Kernel
import WebAPI
import Workflow

/// Copies of an image's data to several stores, and the import method `copy-image`.
extension ImageWorkflows {
    /// The results for the stores.
    struct StoreOutcome: Codable, Sendable {
        var done: [String]
        var failed: [String]
        /// Why stores failed; empty if none did.
        var message: String
    }

    /// Data that is being copied to stores.
    struct Distribution: Sendable {
        let image: String
        let task: UUID128
        let file: String
        /// SHA-512 of the data.
        let hash: String
        let stores: [String]
        let needsAll: Bool
    }

    /// The parameters of a copy and its result.
    struct CopyFrame: Codable, Sendable {
        /// The task that clients see.
        var task: String
        var file: String
        var size: Int
        var hashValue: String
        var stores: [String]
        /// Whether a store without the data fails the copy.
        var needsAll: Bool
        var outcome: StoreOutcome?
    }

    var copyData: Workflow<CopyFrame> {
        Workflow(
            service: ImageWorkflows.service, kind: "image_copy",
            steps: [
                .init("stores", deadline: ImageWorkflows.timeMax) { context, frame in
                    let task = try taskID(frame.task)
                    guard let image = try await copying(context.subjectID, task) else { return .goto("end") }
                    let remaining = try await database.read { try quota.remaining($0, project: image.owner) }
                    if let remaining, ImageQuotas.mebibytes(frame.size, stores: frame.stores.count) << 20 > remaining, frame.needsAll {
                        throw StepFailure("The project's quota (image_size_total) allows \(remaining) more bytes.")
                    }
                    frame.outcome = try await distribute(
                        Distribution(
                            image: context.subjectID, task: task, file: frame.file, hash: frame.hashValue, stores: frame.stores,
                            needsAll: frame.needsAll)
                    ) {
                        let (data, driver) = try await stores.open(image)
                        return (data, driver.threads)
                    }
                    return .next
                } undo: { _, frame in
                    try await withdraw(frame.file, from: frame.stores)
                },
                .init("publish") { context, frame in
                    let (id, task, now) = (context.subjectID, try taskID(frame.task), ambient.now)
                    let (outcome, size) = (try frame.outcome.recorded("outcome"), frame.size)
                    try await database.write { connection in
                        guard let image = try ImageImportStore.importing(connection, id, task: task, locked: true) else { return }
                        try reserve(connection, image, size, stores: outcome.done.count)
                        try ImageStoreStore.join(connection, image, outcome.done, failed: outcome.failed, now: now)
                        try ImageImportStore.end(connection, task: task, isSuccess: true, message: outcome.message, now: now)
                    }
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

    private func copying(_ id: String, _ task: UUID128) async throws -> Image? {
        try await database.read { try ImageImportStore.importing($0, id, task: task) }
    }

    /// Copies data to stores, one after the other.
    ///
    /// - Parameter source: opens the data; not called if it is in all stores already.
    /// - Throws: `StepFailure` if a store failed and all are needed, or if all failed.
    func distribute(
        _ order: Distribution, source: () async throws -> (any StoredData, WorkerThreads)
    ) async throws -> StoreOutcome {
        var outcome = StoreOutcome(done: [], failed: [], message: "")
        var problems: [ImageCopyFailure] = []
        let progress = ProgressRecord(interval: ImageWorkflows.progressInterval, ambient: ambient)
        for name in order.stores {
            do {
                try await copy(order, to: name, source, progress)
                outcome.done.append(name)
            } catch let problem as ImageCopyFailure {
                outcome.failed.append(name)
                problems.append(problem)
                if order.needsAll { break }
            }
        }
        outcome.message = problems.map { "The store '\($0.store)' did not get the data: \($0.reason)." }.joined(separator: " ")
        if outcome.done.isEmpty || (order.needsAll && !problems.isEmpty) {
            throw StepFailure(outcome.message, details: problems.map(\.details).joined(separator: "; "))
        }
        return outcome
    }

    private func copy(
        _ order: Distribution, to name: String, _ source: () async throws -> (any StoredData, WorkerThreads), _ progress: ProgressRecord
    ) async throws {
        guard let store = stores.all.first(where: { $0.name == name }) else {
            throw ImageCopyFailure(store: name, reason: "it is not configured any more")
        }
        let (data, threads) = try await source()
        // An import has its data in the base store.
        if name == StoreDeclaration.base, try await isPresent(order) { return }
        try await stores.copy(order.file, data, on: threads, to: store, hash: order.hash) { bytes in
            guard let count = progress.due(adding: bytes) else { return }
            try await record(count, order.image, order.task)
        }
    }

    /// Whether the data of an import is in the base store.
    private func isPresent(_ order: Distribution) async throws -> Bool {
        let (id, task) = (order.image, order.task)
        return try await database.read { try ImageImportStore.importing($0, id, task: task) }?.fileID == nil
    }

    /// Removes data from stores, unless an image refers to it there.
    func withdraw(_ file: String, from names: [String]) async throws {
        for name in names {
            guard let store = stores[name] else { continue }
            // The process may have died after the image got the data.
            guard try await database.read({ try !ImageStore.hasData($0, file, in: name) }) else { continue }
            do { try await store.removeLeftover(file) } catch let error where !(error is CancellationError) {
                // A store that does not work must not hold up the image. The cleanup task removes the data when the store is back.
                continue
            }
        }
    }
}
