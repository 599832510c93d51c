package import Database
package import Kernel
package import Logging

/// Removes leftovers of crashed processes: interrupted uploads, and data to which no image refers.
package struct ImageCleanupTask: Sendable {
    let database: Database
    let files: FileStore
    let ambient: Ambient
    let log: Logger

    /// Time between two runs.
    package static let interval: Duration = .seconds(60)

    package init(database: Database, files: FileStore, ambient: Ambient, log: Logger) {
        self.database = database
        self.files = files
        self.ambient = ambient
        self.log = log
    }

    /// Runs immediately and then at the interval, until the task is cancelled.
    package func run() async throws {
        while true {
            do { try await runOnce() } catch let error where !(error is CancellationError) {
                log.warning("the image store could not be cleaned up", metadata: ["error": "\(error)"])
            }
            try await ambient.time.sleep(for: ImageCleanupTask.interval)
        }
    }

    /// Runs once.
    package func runOnce() async throws {
        for upload in try await database.read({ try ImageStore.uploads($0) }) where try await !files.isHeld(upload) {
            let now = ambient.now
            log.notice("an interrupted upload is abandoned", metadata: ["file": "\(upload)"])
            _ = try await database.write { try ImageStore.abandonUpload($0, upload: upload, now: now) }
        }
        for staging in try await database.read({ try ImageImportStore.stagings($0) }) where try await !files.isHeld(staging) {
            let now = ambient.now
            log.notice("interrupted staging is abandoned", metadata: ["file": "\(staging)"])
            _ = try await database.write { try ImageImportStore.abandonStaging($0, staging: staging, now: now) }
        }
        let now = ambient.now
        try await database.write { try ImageImportStore.expire($0, now: now) }
        for file in try await files.ids() where try await !files.isHeld(file) {
            // Read after checking the lock, because a process writes to the database before it releases the lock.
            let known = try await database.read { try ImageStore.known($0, [file]) }
            if known.isEmpty {
                log.notice("data without an image is removed", metadata: ["file": "\(file)"])
                try await files.removeLeftover(file)
            }
        }
    }
}
