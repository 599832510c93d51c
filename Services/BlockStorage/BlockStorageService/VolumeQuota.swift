import BlockStorageCore
import Database
import Kernel
import WebAPI

/// What a project may have: counted exactly, in the transactions that add and remove.
struct VolumeQuota: Sendable {
    static let prefix = "block_storage:"
    static let volumes = "block_storage:volumes"
    static let gigabytes = "block_storage:gigabytes"
    static let snapshots = "block_storage:snapshots"
    static let perVolume = "block_storage:per_volume_gigabytes"
    /// Limits that clients read and set, of things that this service does not have.
    private static let absent = ["block_storage:backups": 0, "block_storage:backup_gigabytes": 0, "block_storage:groups": 0]

    let quota: Quota

    init(_ limits: BlockStorageSettings.Quotas) {
        quota = Quota(
            defaults: [
                VolumeQuota.volumes: limits.volumes, VolumeQuota.gigabytes: limits.gigabytes,
                VolumeQuota.snapshots: limits.snapshots, VolumeQuota.perVolume: limits.perVolumeGigabytes,
            ].merging(VolumeQuota.absent) { limit, _ in limit }
        ) { resource, asked, used, limit in
            switch resource {
            case "gigabytes":
                ResourceError(
                    .tooLarge,
                    "Requested volume or snapshot exceeds allowed gigabytes quota. Requested \(asked)G, quota is \(limit)G and \(used)G has been consumed.",
                    retryAfter: 0)
            case "snapshots":
                ResourceError(.tooLarge, "Maximum number of snapshots allowed (\(limit)) exceeded", retryAfter: 0)
            default:
                ResourceError(.tooLarge, "Maximum number of volumes allowed (\(limit)) exceeded for quota '\(resource)'.", retryAfter: 0)
            }
        }
    }

    func reserveVolume(_ connection: Connection, project: String, size: Int) throws {
        try requireSize(connection, project: project, size: size)
        try quota.reserve(connection, project: project, [(VolumeQuota.volumes, 1), (VolumeQuota.gigabytes, size)])
    }

    /// - Throws: 413 when one volume may not be so large.
    func requireSize(_ connection: Connection, project: String, size: Int) throws {
        let limit = try quota.state(connection, project: project, resource: VolumeQuota.perVolume).limit
        guard limit < 0 || size <= limit else {
            throw ResourceError(
                .tooLarge, "Requested volume size \(size)G is larger than maximum allowed limit \(limit)G.")
        }
    }

    func releaseVolume(_ connection: Connection, project: String, size: Int) throws {
        try Quota.release(connection, project: project, [(VolumeQuota.volumes, 1), (VolumeQuota.gigabytes, size)])
    }

    func reserveSnapshot(_ connection: Connection, project: String, size: Int) throws {
        try quota.reserve(connection, project: project, [(VolumeQuota.snapshots, 1), (VolumeQuota.gigabytes, size)])
    }

    func releaseSnapshot(_ connection: Connection, project: String, size: Int) throws {
        try Quota.release(connection, project: project, [(VolumeQuota.snapshots, 1), (VolumeQuota.gigabytes, size)])
    }
}
