import Client
import Commands
import Contracts
import Foundation
import ImageAccess
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
            .list("stores", default: [], "Further stores: NAME=file:DIRECTORY, such as archive=file:/srv/archive."),
            .string("default_store", default: "file", "The store for images whose request names none; file is that of directory."),
            .string(
                "cache_directory", default: nil, "Directory of this machine for images that are downloaded often; none if it is not set."),
            .integer("cache_size_gb", default: 10, in: 1...65_536, "Size to which the cache is pruned, in GiB."),
            .integer("size_limit_gb", default: 1024, in: 1...65_536, "Largest upload, in GiB."),
            .list(
                "import_methods", default: ["glance-direct", "web-download"],
                "How images can be imported: glance-direct, web-download, copy-image."),
            PropertyProtections.key,
            .choice(
                "import_format", ["unchanged", "raw", "qcow2"], default: "unchanged",
                "Format to which imports convert raw, qcow2, vmdk, vdi and vhd images."),
            .integer(
                "sandbox_user", default: Sandbox.defaultUser, in: 1...65_533,
                "Numeric user and group id, used by nothing else, of the tools that read images."),
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
        let stores = try ImageApplication.stores(settings)
        let limits = ImageServiceLimits(
            quotas: QuotaDeclaration.limits(ImageQuotas.all, in: settings), uploadBytesMax: settings.integer("image.size_limit_gb") << 30,
            importMethods: try settings.values("image.import_methods", "an import method") { ImageImport.Method(rawValue: $0) },
            download: try ImageApplication.download(settings),
            converter: DiskFormat(rawValue: settings.string("image.import_format")).flatMap {
                ImageConverter(to: $0, in: Sandbox(user: settings.integer("image.sandbox_user")))
            }, protections: try PropertyProtections(settings))
        let cacheFiles = try settings.optionalString("image.cache_directory").map { try FileStore(directory: $0) }
        let cacheBytes = settings.integer("image.cache_size_gb") << 30
        try await process.run { surroundings in
            let cache = cacheFiles.map {
                MachineImageCache(files: $0, bytesMax: cacheBytes, stores: stores, surroundings)
            }
            return try ImageModule.make(stores: stores, limits: limits, cache: cache, surroundings)
        }
    }

    /// - Throws: `SettingsError` naming key and value; `FileError` for a directory that cannot be used.
    private static func stores(_ settings: Settings) throws -> ImageStores {
        let base = try FileStore(directory: settings.string("image.directory"))
        let declared = try settings.values("image.stores", "a store: NAME=file:DIRECTORY") { StoreDeclaration($0) }
        do {
            return try ImageStores(base: base, declared, default: settings.string("image.default_store"))
        } catch let error as ResourceError { throw SettingsError(["image.stores: \(error.message)"]) }
    }

    /// The sources that images can be downloaded from.
    ///
    /// - Throws: `SettingsError` naming key and value.
    private static func download(_ settings: Settings) throws -> PublicDownload.Rules {
        var rules = PublicDownload.Rules()
        // As long as an import may take.
        rules.timeMax = ImageWorkflows.timeMax
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
