package import Database
import Inspections
package import Kernel
package import Logging

/// Removes leftovers of crashed processes: interrupted uploads, and data to which no image refers.
package struct ImageCleanupTask: Sendable {
    let database: Database
    let stores: ImageStores
    let ambient: Ambient
    let log: Logger

    /// Time between two runs.
    package static let interval: Duration = .seconds(60)

    package init(database: Database, stores: ImageStores, ambient: Ambient, log: Logger) {
        self.database = database
        self.stores = stores
        self.ambient = ambient
        self.log = log
    }

    /// Runs immediately and then at the interval, until the task is cancelled.
    package func run() async throws {
        try await PeriodicTask.repeating(every: ImageCleanupTask.interval, ambient, log, failure: "the image store could not be cleaned up")
        {
            try await runOnce()
        }
    }

    /// Runs once.
    package func runOnce() async throws {
        for upload in try await database.read({ try ImageStore.uploads($0) }) where try await !isHeld(upload) {
            let now = ambient.now
            log.notice("an interrupted upload is abandoned", metadata: ["file": "\(upload)"])
            _ = try await database.write { try ImageStore.abandonUpload($0, upload: upload, now: now) }
        }
        for staging in try await database.read({ try ImageImportStore.stagings($0) }) where try await !stores.base.isHeld(staging) {
            let now = ambient.now
            log.notice("interrupted staging is abandoned", metadata: ["file": "\(staging)"])
            _ = try await database.write { try ImageImportStore.abandonStaging($0, staging: staging, now: now) }
        }
        let now = ambient.now
        try await database.write { try ImageImportStore.expire($0, now: now) }
        for store in stores.all {
            do { try await removeLeftovers(of: store) } catch let error where !(error is CancellationError) {
                log.warning("an image store could not be cleaned up", metadata: ["store": "\(store.name)", "error": "\(error)"])
            }
        }
    }

    /// An upload goes to one store, but the database does not record which one.
    private func isHeld(_ file: String) async throws -> Bool {
        for store in stores.all where try await store.driver.isHeld(file) { return true }
        return false
    }

    private func removeLeftovers(of store: NamedStore) async throws {
        for file in try await store.driver.ids() where try await !store.driver.isHeld(file) {
            // Read after checking the lock, because a process writes to the database before it releases the lock.
            let known = try await database.read { try ImageStore.known($0, [file], in: store.name) }
            if known.isEmpty {
                log.notice("data without an image is removed", metadata: ["file": "\(file)", "store": "\(store.name)"])
                try await store.driver.removeLeftover(file)
            }
        }
    }
}
