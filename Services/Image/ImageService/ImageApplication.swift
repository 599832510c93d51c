import Authorization
import Database
import ImageAccess
import Kernel
import Logging
import ServiceKit
import Settings
import Telemetry
import WebAPI

/// The image API, put together.
package enum ImageAPI {
    /// - Throws: for a policy rule that cannot be read.
    package static func make(
        database: Database, files: FileStore, limits: ImageServiceLimits, publicURL: String,
        policyOverrides: [String: String] = [:], authenticator: any Authenticating, ambient: Ambient, log: Logger,
        metrics: Metrics
    ) throws -> API {
        let handlers = ImageHandlers(database: database, files: files, limits: limits)
        return try API(
            service: ServiceDescription(.image, publicURL: publicURL, subjectActions: ["download_image"]),
            resources: [
                handlers.discoveryResource, handlers.metadataDefinitionResource, handlers.resource, handlers.fileResource,
                handlers.memberResource,
            ],
            rules: ImageRules.defaults, policyOverrides: policyOverrides, database: database,
            authenticator: authenticator, ambient: ambient, log: log, metrics: metrics)
    }
}

/// `wolke-image`.
package struct ImageApplication: Sendable {
    private let process: ServiceProcess

    package init(_ process: ServiceProcess) { self.process = process }

    /// The keys of the section `image`.
    package static let settingsKeys: [SettingsKey] = [
        .string("directory", default: "/var/lib/wolke/images", "Directory of the image data; replicas share it."),
        .integer("size_limit_gb", default: 1024, in: 1...65_536, "Largest upload, in GiB."),
        .integer("quota_images", default: 100, in: -1...Int(Int32.max), "Images that a project may have; -1 means no limit."),
        .integer(
            "quota_size_mb", default: 1 << 20, in: -1...Int(Int32.max), "MiB of image data that a project may keep; -1 means no limit."),
    ]

    /// Runs until the process is told to stop.
    package func run() async throws {
        let settings = process.settings
        let files = try FileStore(directory: settings.string("image.directory"))
        let authenticator = try process.makeAuthenticator()
        let limits = ImageServiceLimits(
            imagesPerProjectMax: settings.integer("image.quota_images"),
            mebibytesPerProjectMax: settings.integer("image.quota_size_mb"),
            uploadBytesMax: settings.integer("image.size_limit_gb") << 30)
        let api = try ImageAPI.make(
            database: process.database, files: files, limits: limits, publicURL: process.publicURL,
            policyOverrides: process.policyOverrides(), authenticator: authenticator, ambient: process.ambient,
            log: process.log, metrics: process.metrics)
        let cleanupTask = ImageCleanupTask(
            database: process.database, files: files, ambient: process.ambient, log: process.log)
        try await process.run(api, services: [authenticator, BackgroundLoop { try await cleanupTask.run() }])
    }
}
