import Authorization
import BlockStorageCore
import Database
import JSON
import Kernel

/// The statements about snapshots.
extension BlockStorageStore {
    static func snapshot(_ connection: Connection, _ id: String, locked: Bool = false) throws -> Snapshot? {
        try connection.query(
            """
            SELECT s.id, s.volume_id, s.project_id, s.status, s.size, s.format, s.metadata, s.host_copy FROM volume_snapshots s
            WHERE s.id = \(id)::uuid \(raw: locked ? "FOR UPDATE" : "")
            """
        ).first.map(snapshot)
    }

    static func snapshots(_ connection: Connection, of volume: VolumeID, locked: Bool = true) throws -> [Snapshot] {
        try connection.query(
            """
            SELECT s.id, s.volume_id, s.project_id, s.status, s.size, s.format, s.metadata, s.host_copy FROM volume_snapshots s
            WHERE s.volume_id = \(volume)::uuid ORDER BY s.id \(raw: locked ? "FOR UPDATE" : "")
            """
        ).map(snapshot)
    }

    private static func snapshot(_ row: Row) throws -> Snapshot {
        Snapshot(
            id: try row.id("id"), volumeID: try row.id("volume_id"), projectID: try row.string("project_id"),
            status: try word(row, "status"), size: try row.int("size"), format: try word(row, "format"),
            metadata: try row.object("metadata"), hostCopy: try row.optionalString("host_copy").flatMap(HostCopyState.init))
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
        try connection.execute(
            """
            INSERT INTO volume_snapshots (id, volume_id, project_id, user_id, name, description, status, size, metadata, format, host_copy,
                created_at, updated_at)
            VALUES (\(id)::uuid, \(volume.id)::uuid, \(volume.projectID), \(decision.caller.userID), \(name), \(description),
                'creating', \(volume.size), \(metadata)::jsonb, \(volume.format.rawValue), \(hostCopy?.rawValue), \(now), \(now))
            """)
    }
}
