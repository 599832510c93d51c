package import BlockStorageCore
import Commands
import Contracts
import ServiceKit
package import Settings

/// Settings of the operator.
package struct BlockStorageSettings: Sendable {
    /// Default limits of projects, by quota; quotas that are missing have the preset limit.
    package var quotaLimits: [String: Int] = [:]
    /// The name under which this service's disks are known to operators.
    package var host = "wolke"
    package var availabilityZone = "nova"
    package var defaultType = "__DEFAULT__"
    package var format = VolumeFormat.raw
    package var sandboxUser = Sandbox.defaultUser

    package init() {}

    init(_ settings: Settings) {
        quotaLimits = QuotaDeclaration.limits(BlockStorageQuotas.all, in: settings)
        host = settings.string("block_storage.host")
        availabilityZone = settings.string("block_storage.availability_zone")
        defaultType = settings.string("block_storage.default_type")
        format = VolumeFormat(rawValue: settings.string("block_storage.format")) ?? .raw
        sandboxUser = settings.integer("block_storage.sandbox_user")
    }

    /// All keys of the section `block_storage`.
    package static let keys: [SettingsKey] =
        [
            .string("directory", default: "/var/lib/wolke/volumes", "Directory of the volumes; replicas and compute hosts share it."),
            .choice("format", VolumeFormat.allCases.map(\.rawValue), default: "raw", "Format of new volumes."),
            .integer(
                "sandbox_user", default: Sandbox.defaultUser, in: 1...65_533,
                "Numeric user and group id, used by nothing else, of the tools that read images."),
            .string("host", default: "wolke", "Name of this backend for operators: `host@file#file`."),
            .string("availability_zone", default: "nova", "The availability zone of the volumes."),
            .string("default_type", default: "__DEFAULT__", "Name of the default volume type."),
        ] + QuotaDeclaration.settingsKeys(BlockStorageQuotas.all)

    /// `host@file`, as lists of services show it.
    var serviceHost: String { host + "@file" }
    /// `host@file#file`, as volumes show it.
    var pool: String { host + "@file#file" }
}
