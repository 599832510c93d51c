import Client
import Contracts
import ImageCore
import Kernel
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
            .list(
                "import_methods", default: ["glance-direct", "web-download"],
                "How images can be imported: glance-direct, web-download, copy-image."),
            .list("download_ports", default: ["80", "443"], "Ports from which web-download may read."),
            .list("download_hosts", default: [], "Hosts from which web-download may read; empty for all."),
            .list("download_denied_hosts", default: [], "Hosts from which web-download may not read."),
            .list(
                "download_networks", default: [],
                "Networks from which web-download may read although their addresses are not public, such as 192.0.2.0/24."),
        ] + QuotaDeclaration.settingsKeys(ImageQuotas.all)

    /// Runs until the process is stopped.
    package func run() async throws {
        let settings = process.settings
        let files = try FileStore(directory: settings.string("image.directory"))
        let limits = ImageServiceLimits(
            quotas: QuotaDeclaration.limits(ImageQuotas.all, in: settings), uploadBytesMax: settings.integer("image.size_limit_gb") << 30,
            importMethods: try settings.values("image.import_methods", "an import method") { ImageImport.Method(rawValue: $0) },
            download: try ImageApplication.download(settings))
        try await process.run { try ImageModule.make(files: files, limits: limits, $0) }
    }

    /// From where images can be downloaded.
    ///
    /// - Throws: `SettingsError` naming key and value.
    private static func download(_ settings: Settings) throws -> PublicDownload.Rules {
        var rules = PublicDownload.Rules()
        rules.ports = Set(
            try settings.values("image.download_ports", "a port") { Int($0).flatMap { (1...65_535).contains($0) ? $0 : nil } })
        let hosts = settings.list("image.download_hosts").map { $0.lowercased() }
        rules.hosts = hosts.isEmpty ? nil : Set(hosts)
        rules.deniedHosts = Set(settings.list("image.download_denied_hosts").map { $0.lowercased() })
        rules.addresses = PublicAddresses(allowing: try settings.values("image.download_networks", "a network") { IPNetwork($0) })
        return rules
    }
}

extension Settings {
    /// - Throws: `SettingsError` naming key and value if `read` returns nil.
    fileprivate func values<Value>(_ key: String, _ rule: String, _ read: (String) -> Value?) throws -> [Value] {
        try list(key).map { text in
            guard let value = read(text) else { throw SettingsError(["\(key): '\(text)' is not \(rule)"]) }
            return value
        }
    }
}
