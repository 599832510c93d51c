import Contracts
import ImageCore
package import ServiceKit
package import Settings

/// The executable `wolke-image`.
package struct ImageApplication: Sendable {
    private let process: ServiceProcess

    package init(_ process: ServiceProcess) { self.process = process }

    /// The keys of the section `image`.
    package static let settingsKeys: [SettingsKey] =
        [
            .string("directory", default: "/var/lib/wolke/images", "Directory of the image data; replicas share it."),
            .integer("size_limit_gb", default: 1024, in: 1...65_536, "Largest upload, in GiB."),
        ] + QuotaDeclaration.settingsKeys(ImageQuotas.all)

    /// Runs until the process is stopped.
    package func run() async throws {
        let settings = process.settings
        let files = try FileStore(directory: settings.string("image.directory"))
        let limits = ImageServiceLimits(
            quotas: QuotaDeclaration.limits(ImageQuotas.all, in: settings), uploadBytesMax: settings.integer("image.size_limit_gb") << 30)
        try await process.run { try ImageModule.make(files: files, limits: limits, $0) }
    }
}
