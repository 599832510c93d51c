package import Contracts

/// The quotas of Block Storage. Operators set the defaults in the section `block_storage`.
package enum BlockStorageQuotas {
    package static let volumes = QuotaDeclaration(
        section, "volumes", default: 10, "Volumes that a project may have", absolute: .init("maxTotalVolumes", used: "totalVolumesUsed"),
        .counted("SELECT project_id AS owner, count(*) AS amount FROM volumes GROUP BY project_id"))

    package static let snapshots = QuotaDeclaration(
        section, "snapshots", default: 10, "Snapshots that a project may have",
        absolute: .init("maxTotalSnapshots", used: "totalSnapshotsUsed"),
        .counted("SELECT project_id AS owner, count(*) AS amount FROM volume_snapshots GROUP BY project_id"))

    /// A volume that is being extended counts with its new size.
    package static let gigabytes = QuotaDeclaration(
        section, "gigabytes", default: 1000, unit: .gibibytes, "volumes and snapshots that a project may have",
        absolute: .init("maxTotalVolumeGigabytes", used: "totalGigabytesUsed"),
        .counted(
            """
            SELECT project_id AS owner, sum(size)::bigint AS amount FROM (
                SELECT project_id, CASE WHEN status = 'extending' THEN coalesce(extending_to, size) ELSE size END AS size FROM volumes
                UNION ALL SELECT project_id, size FROM volume_snapshots) held
            GROUP BY project_id
            """))

    package static let perVolume = QuotaDeclaration(
        section, "per_volume_gigabytes", default: -1, unit: .gibibytes, "one volume at most", .each)

    /// Quotas of resources that this service does not have.
    private static let absent = [
        QuotaDeclaration(
            section, "backups", default: 0, "Backups", absolute: .init("maxTotalBackups", used: "totalBackupsUsed"), .none),
        QuotaDeclaration(
            section, "backup_gigabytes", default: 0, unit: .gibibytes, "backups",
            absolute: .init("maxTotalBackupGigabytes", used: "totalBackupGigabytesUsed"), .none),
        QuotaDeclaration(section, "groups", default: 0, "Volume groups", .none),
    ]

    /// In the order in which answers show them.
    package static let all = [volumes, snapshots, gigabytes, perVolume] + absent

    private static let section = "block_storage"
}
