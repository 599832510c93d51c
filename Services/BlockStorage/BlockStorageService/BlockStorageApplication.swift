import Commands
import Contracts
import Database
import DiskTool
import FileTransfer
import ImageAccess
import Kernel
import Logging
package import ServiceKit
package import Settings

/// `wolke-block-storage`.
package struct BlockStorageApplication: Sendable {
    private let process: ServiceProcess

    package init(_ process: ServiceProcess) { self.process = process }

    /// The keys of the section `block_storage`.
    package static let settingsKeys = BlockStorageSettings.keys

    /// The settings of other sections that the service reads.
    package static let borrowedSettings = ImageAccess.settings

    /// Runs until the process is stopped.
    package func run() async throws {
        let settings = BlockStorageSettings(process.settings)
        let sandbox = Sandbox(user: settings.sandboxUser)
        let watch = SandboxWatch(sandbox, time: process.ambient.time)
        let driver = try FileDriver(
            directory: process.settings.string("block_storage.directory"), images: RESTImageSource(client: process.makeClient()),
            sandbox: sandbox, ended: { subject in await wake(subject) })
        let uploads = RESTVolumeImages(client: process.makeClient(), threads: WorkerThreads(name: "uploads", count: 2))
        try await process.run { surroundings in
            try BlockStorageModule.make(
                driver: driver, images: try ImageAccess(process.settings), uploads: uploads, settings: settings, sandbox: watch,
                surroundings)
        }
    }

    /// Wakes the workflow that waits for a copy.
    private func wake(_ subject: String) async {
        do { try await process.database.autocommit { try $0.notify(.wake, Wake(subject: subject)) } } catch {
            process.log.info("a workflow was not woken; it will poll instead", metadata: ["subject": "\(subject)", "error": "\(error)"])
        }
    }
}
