import ServiceKit
import Settings

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
        let limits = ImageServiceLimits(
            imagesPerProjectMax: settings.integer("image.quota_images"),
            mebibytesPerProjectMax: settings.integer("image.quota_size_mb"),
            uploadBytesMax: settings.integer("image.size_limit_gb") << 30)
        try await process.run { try ImageModule.make(files: files, limits: limits, $0) }
    }
}
