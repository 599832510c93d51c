import Database
import Kernel
import Logging

/// Finds what processes left behind that died: uploads that nobody continues, and data that no image names.
package struct ImageSweeper: Sendable {
    let database: Database
    let files: FileStore
    let ambient: Ambient
    let log: Logger

    /// Time between two rounds.
    package static let interval: Duration = .seconds(60)

    package init(database: Database, files: FileStore, ambient: Ambient, log: Logger) {
        self.database = database
        self.files = files
        self.ambient = ambient
        self.log = log
    }

    /// Sweeps at once and then again and again, until the task is cancelled.
    package func run() async throws {
        while true {
            do { try await sweep() } catch let error where !(error is CancellationError) {
                log.warning("the image store could not be swept", metadata: ["error": "\(error)"])
            }
            try await ambient.time.sleep(for: ImageSweeper.interval)
        }
    }

    /// One sweep.
    package func sweep() async throws {
        for upload in try await database.read({ try ImageStore.uploads($0) }) where try await !files.isHeld(upload) {
            let now = ambient.now
            log.notice("an interrupted upload is undone", metadata: ["file": "\(upload)"])
            _ = try await database.write { try ImageStore.abandonUpload($0, upload: upload, now: now) }
        }
        for file in try await files.ids() where try await !files.isHeld(file) {
            // Asked after the look at the lock: whoever let go of it has told the database before.
            let known = try await database.read { try ImageStore.known($0, [file]) }
            if known.isEmpty {
                log.notice("data without an image is removed", metadata: ["file": "\(file)"])
                try await files.removeLeftover(file)
            }
        }
    }
}
