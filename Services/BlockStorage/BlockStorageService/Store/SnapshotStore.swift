import Authorization
package import BlockStorageCore
import Database
import JSON
import Kernel
package import WebAPI

extension Snapshot: StoredRow {
    package static let relation = "volume_snapshots"
    package static let blank = Snapshot(
        id: ID(UUID128(high: 0, low: 0)), volumeID: ID(UUID128(high: 0, low: 0)), projectID: "", status: .creating, size: 0, format: .raw)
    package static let columns: [Column<Snapshot>] = [
        Column("id", \.id, .once), Column("volume_id", \.volumeID, .once), Column("project_id", \.projectID, .once),
        Column("status", \.status), Column("size", \.size), Column("format", \.format), Column("metadata", \.metadata),
        Column("host_copy", \.hostCopy),
    ]
}

extension SnapshotStatus: ColumnValue {}
extension VolumeFormat: ColumnValue {}
extension HostCopyState: ColumnValue {}

/// The statements about snapshots.
extension BlockStorageStore {
    static func snapshot(_ connection: Connection, _ id: String, locked: Bool = false) throws -> Snapshot? {
        try connection.query(
            """
            SELECT \(raw: Snapshot.selection) FROM volume_snapshots t WHERE t.id = \(id)::uuid \(raw: locked ? "FOR UPDATE" : "")
            """
        ).first.map { try Snapshot($0) }
    }

    static func snapshots(_ connection: Connection, of volume: VolumeID, locked: Bool = true) throws -> [Snapshot] {
        try connection.query(
            """
            SELECT \(raw: Snapshot.selection) FROM volume_snapshots t
            WHERE t.volume_id = \(volume)::uuid ORDER BY t.id \(raw: locked ? "FOR UPDATE" : "")
            """
        ).map { try Snapshot($0) }
    }

    /// Whether exactly one server uses the volume and nobody else, so that the server's host can copy the volume. Volumes of a type with
    /// `multiattach` can also have attachments that Compute does not know.
    static func canBeCopiedByHost(_ connection: Connection, _ id: VolumeID) throws -> Bool {
        try connection.query(
            """
            SELECT count(*) = 1 AND NOT EXISTS (SELECT 1 FROM volume_attachments a WHERE a.volume_id = \(id)::uuid
                AND a.server_id IS DISTINCT FROM min(s.server_id::text)::uuid) AS one
            FROM published_server_volumes s WHERE s.volume_id = \(id)::uuid
            """)[0].bool("one")
    }

    /// Reserved to services: only they know whether a host's copy is complete.
    static let reportHostCopyAction = "volume:report_host_copy"

    /// Records a host's report about its copy.
    ///
    /// - Returns: whether the copy was pending.
    static func reportHostCopy(
        _ connection: Connection, _ decision: Authorized<Snapshot>, _ state: HostCopyState, now: Timestamp
    ) throws -> Bool {
        let id = try decision.value(for: reportHostCopyAction).id
        return try connection.execute(
            """
            UPDATE volume_snapshots SET host_copy = \(state.rawValue), updated_at = \(now)
            WHERE id = \(id)::uuid AND status = 'creating' AND host_copy = 'pending'
            """) == 1
    }

    /// Sets the state of a snapshot.
    ///
    /// - Parameter progress: nil for no change.
    static func set(
        _ connection: Connection, _ snapshot: Authorized<Snapshot>, _ status: SnapshotStatus, progress: Int? = nil, now: Timestamp
    ) throws {
        let id = try snapshot.value(
            for: "volume:delete_snapshot", "volume_extension:snapshot_admin_actions:force_delete",
            "volume_extension:snapshot_actions:update_snapshot_status", "volume_extension:snapshot_admin_actions:reset_status"
        ).id
        try connection.execute(
            """
            UPDATE volume_snapshots SET status = \(status.rawValue), progress = coalesce(\(progress)::smallint, progress),
                fault = NULL, updated_at = \(now), generation = generation + 1
            WHERE id = \(id)::uuid
            """)
    }

    /// Sets a snapshot's state if its present state is one of `from`; for workflows.
    ///
    /// - Returns: whether the state was one of them.
    @discardableResult
    static func move(
        _ connection: Connection, snapshot id: String, from: [SnapshotStatus], to: SnapshotStatus, fault: String? = nil, now: Timestamp
    ) throws -> Bool {
        try connection.execute(
            """
            UPDATE volume_snapshots SET status = \(to.rawValue), fault = \(fault), updated_at = \(now), generation = generation + 1
            WHERE id = \(id)::uuid AND status = ANY(\(from.map(\.rawValue))::text[])
            """) == 1
    }

    /// Whether a volume is being created from the snapshot.
    static func isBeingCopied(_ connection: Connection, _ id: SnapshotID) throws -> Bool {
        try connection.query(
            "SELECT EXISTS (SELECT 1 FROM volumes WHERE source_snapshot_id = \(id)::uuid AND status = 'creating') AS copied"
        )[0].bool("copied")
    }

    static func insertSnapshot(
        _ connection: Connection, _ id: SnapshotID, of decision: Authorized<Volume>, name: String?, description: String?,
        metadata: JSONObject, hostCopy: HostCopyState?, at now: Timestamp
    ) throws {
        let volume = try decision.value(for: "volume:create_snapshot")
        let snapshot = Snapshot(
            id: id, volumeID: volume.id, projectID: volume.projectID, status: .creating, size: volume.size, format: volume.format,
            metadata: metadata, hostCopy: hostCopy)
        var row = snapshot.values()
        row.merge(["user_id": "\(decision.caller.userID)", "name": "\(name)", "description": "\(description)"])
        try connection.execute(row.insertion(Snapshot.relation, at: now))
    }
}
