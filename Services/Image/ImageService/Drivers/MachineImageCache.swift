import Database
import ImageCore
import Inspections
import Kernel
import Logging
package import ServiceKit
import WebAPI

/// The images that one machine of the control plane caches in a local directory, so that downloads do not read a slower store.
///
/// The database lists the contents of the directory. The directory can be emptied at any time.
package actor MachineImageCache {
    let store: ImageCacheStore
    nonisolated let files: FileStore
    private let stores: ImageStores
    private let bytesMax: Int
    private let database: Database
    private let ambient: Ambient
    private let log: Logger
    /// Downloads since they were last recorded, by id of the data.
    private var hits: [String: (count: Int, last: Timestamp)] = [:]
    /// Data that is complete or being received, but not recorded yet.
    private var incoming: String?

    /// Time between two checks of the queue.
    private static let interval: Duration = .seconds(5)

    /// - Parameters:
    ///   - files: the directory, which must not be shared with other machines.
    ///   - bytesMax: the size to which the cache is pruned.
    package init(files: FileStore, bytesMax: Int, stores: ImageStores, _ surroundings: ServiceSurroundings) {
        store = ImageCacheStore(machine: surroundings.machine)
        self.files = files
        self.bytesMax = bytesMax
        self.stores = stores
        database = surroundings.database
        ambient = surroundings.ambient
        log = surroundings.log
    }

    /// Opens the data of an image if the cache has it.
    func open(_ image: Image) async -> (any StoredData)? {
        guard let file = image.fileID else { return nil }
        do {
            let data = try await files.open(file)
            guard data.size == image.size else { return nil }
            hits[file] = ((hits[file]?.count ?? 0) + 1, ambient.now)
            return data
        } catch {
            // The cache does not have the data or cannot be read; the store has it.
            return nil
        }
    }

    // MARK: work

    /// Runs until the task is cancelled.
    package func run() async throws {
        try await PeriodicTask.repeating(every: MachineImageCache.interval, ambient, log, failure: "the image cache could not be kept") {
            try await self.runOnce()
        }
    }

    /// Records the hits, fetches what is queued, and removes the images that exceed the size of the cache.
    package func runOnce() async throws {
        try await recordHits()
        while try await fetchNext() {}
        _ = try await prune()
        try await clean()
    }

    private func recordHits() async throws {
        let (counted, store) = (hits, store)
        hits = [:]
        guard !counted.isEmpty else { return }
        try await database.write { connection in
            for (file, entry) in counted.sorted(by: { $0.key < $1.key }) {
                try store.count(connection, file: file, hits: entry.count, at: entry.last)
            }
        }
    }

    /// - Returns: whether there was an image in the queue.
    private func fetchNext() async throws -> Bool {
        let store = store
        guard let image = try await database.read({ try store.next($0) }) else { return false }
        let id = image.id.text
        do {
            guard image.status == .active, let file = image.fileID, let hash = image.hashValue512, let size = image.size else {
                throw ImageCopyFailure(store: "cache", reason: "it is not active")
            }
            guard size <= bytesMax else { throw ImageCopyFailure(store: "cache", reason: "it is larger than the cache") }
            let (data, driver) = try await stores.open(image)
            incoming = file
            defer { incoming = nil }
            try await stores.copy(file, data, on: driver.threads, to: NamedStore(name: "cache", driver: files), hash: hash) { _ in }
            let now = ambient.now
            try await database.write { try store.finish($0, id, file: file, size: size, now: now) }
        } catch let error where !(error is CancellationError) {
            let reason = (error as? ImageCopyFailure)?.reason ?? "\(error)"
            log.warning("an image is not cached", metadata: ["image": "\(id)", "reason": "\(reason)"])
            try await database.write { try store.drop($0, id) }
        }
        return true
    }

    /// Removes images until the cache fits its size.
    ///
    /// - Returns: the number of images and bytes.
    func prune() async throws -> (files: Int, bytes: Int) {
        let (store, bytesMax) = (store, bytesMax)
        let pruned = try await database.write { try store.prune($0, to: bytesMax) }
        for entry in pruned { try await files.remove(entry.file) }
        return (pruned.count, pruned.reduce(0) { $0 + $1.size })
    }

    /// Removes data that does not belong in the cache: data of deleted images, and leftovers of dead processes. Queues lost data again.
    func clean() async throws {
        let store = store
        let recorded = try await database.read { try store.files($0) }
        let present = try await files.ids()
        let lost = recorded.subtracting(present).sorted()
        if !lost.isEmpty { try await database.write { try store.requeue($0, files: lost) } }
        try await removeUnknown()
    }

    /// Removes data that does not belong in the cache.
    func removeUnknown() async throws {
        let store = store
        for file in try await files.ids() where file != incoming {
            guard try await !files.isHeld(file), try await database.read({ try !store.files($0).contains(file) }) else { continue }
            try await files.removeLeftover(file)
        }
    }
}
