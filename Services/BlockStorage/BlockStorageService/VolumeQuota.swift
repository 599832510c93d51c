import BlockStorageCore
import Database
import Kernel
import WebAPI

/// The quota of a project, counted exactly in the transactions that add and remove volumes and snapshots.
struct VolumeQuota: Sendable {
    let quota: Quota

    init(_ limits: [String: Int]) {
        quota = Quota(BlockStorageQuotas.all, limits: limits) { name, asked, used, limit in
            switch name {
            case "gigabytes":
                ResourceError(
                    .tooLarge,
                    """
                    Requested volume or snapshot exceeds allowed gigabytes quota. Requested \(asked)G, quota is \
                    \(limit)G and \(used)G has been consumed.
                    """,
                    retryAfter: 0)
            case "snapshots":
                ResourceError(.tooLarge, "Maximum number of snapshots allowed (\(limit)) exceeded", retryAfter: 0)
            default:
                ResourceError(.tooLarge, "Maximum number of volumes allowed (\(limit)) exceeded for quota '\(name)'.", retryAfter: 0)
            }
        }
    }

    func reserveVolume(_ connection: Connection, project: String, size: Int) throws {
        try requireSize(connection, project: project, size: size)
        try quota.reserve(connection, project: project, [(BlockStorageQuotas.volumes, 1), (BlockStorageQuotas.gigabytes, size)])
    }

    /// - Throws: 413 when one volume may not be so large.
    func requireSize(_ connection: Connection, project: String, size: Int) throws {
        let limit = try quota.state(connection, project: project, BlockStorageQuotas.perVolume).limit
        guard limit < 0 || size <= limit else {
            throw ResourceError(
                .tooLarge, "Requested volume size \(size)G is larger than maximum allowed limit \(limit)G.")
        }
    }

    func releaseVolume(_ connection: Connection, project: String, size: Int) throws {
        try Quota.release(connection, project: project, [(BlockStorageQuotas.volumes, 1), (BlockStorageQuotas.gigabytes, size)])
    }

    func reserveSnapshot(_ connection: Connection, project: String, size: Int) throws {
        try quota.reserve(connection, project: project, [(BlockStorageQuotas.snapshots, 1), (BlockStorageQuotas.gigabytes, size)])
    }

    func releaseSnapshot(_ connection: Connection, project: String, size: Int) throws {
        try Quota.release(connection, project: project, [(BlockStorageQuotas.snapshots, 1), (BlockStorageQuotas.gigabytes, size)])
    }
}
