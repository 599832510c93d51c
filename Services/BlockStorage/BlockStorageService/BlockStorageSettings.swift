import BlockStorageCore
import Commands
import Settings

/// What the operator decides.
package struct BlockStorageSettings: Sendable {
    /// Default limits of a project; -1 means none.
    package struct Quotas: Sendable {
        package var volumes = 10
        package var gigabytes = 1000
        package var snapshots = 10
        package var perVolumeGigabytes = -1

        package init() {}
    }

    package var quotas = Quotas()
    /// The name under which this service's disks are known to operators.
    package var host = "wolke"
    package var availabilityZone = "nova"
    package var defaultType = "__DEFAULT__"
    package var format = VolumeFormat.raw
    package var sandboxUser = Sandbox.defaultUser

    package init() {}

    init(_ settings: Settings) {
        quotas.volumes = settings.integer("block_storage.quota_volumes")
        quotas.gigabytes = settings.integer("block_storage.quota_gigabytes")
        quotas.snapshots = settings.integer("block_storage.quota_snapshots")
        quotas.perVolumeGigabytes = settings.integer("block_storage.quota_per_volume_gigabytes")
        host = settings.string("block_storage.host")
        availabilityZone = settings.string("block_storage.availability_zone")
        defaultType = settings.string("block_storage.default_type")
        format = VolumeFormat(rawValue: settings.string("block_storage.format")) ?? .raw
        sandboxUser = settings.integer("block_storage.sandbox_user")
    }

    /// All keys of the section `block_storage`.
    package static let keys: [SettingsKey] = [
        .string("directory", default: "/var/lib/wolke/volumes", "Directory of the volumes; replicas and compute hosts share it."),
        .choice("format", VolumeFormat.allCases.map(\.rawValue), default: "raw", "How new volumes are stored."),
        .integer(
            "sandbox_user", default: Sandbox.defaultUser, in: 1...65_533,
            "Numeric user and group id, used by nothing else, of the tools that read images."),
        .string("host", default: "wolke", "Name of this backend for operators: `host@file#file`."),
        .string("availability_zone", default: "nova", "The availability zone of the volumes."),
        .string("default_type", default: "__DEFAULT__", "Name of the volume type of volumes for which none was asked."),
        .integer("quota_volumes", default: 10, in: -1...Int(Int32.max), "Volumes that a project may have; -1 means no limit."),
        .integer(
            "quota_gigabytes", default: 1000, in: -1...Int(Int32.max),
            "GiB of volumes and snapshots that a project may have; -1 means no limit."),
        .integer("quota_snapshots", default: 10, in: -1...Int(Int32.max), "Snapshots that a project may have; -1 means no limit."),
        .integer("quota_per_volume_gigabytes", default: -1, in: -1...Int(Int32.max), "GiB of one volume at most; -1 means no limit."),
    ]

    /// `host@file`, as lists of services show it.
    var serviceHost: String { host + "@file" }
    /// `host@file#file`, as volumes show it.
    var pool: String { host + "@file#file" }
}
