import BlockStorageCore
import Contracts
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// The SQL of volumes, snapshots and attachments. Bodies run inside the transaction of the request or step.
enum BlockStorageStore {
    // MARK: volumes

    private static let volumeColumns = """
        v.id, v.project_id, v.user_id, v.name, v.status, v.size, v.bootable,
        coalesce(v.read_only, false) AS read_only, v.volume_type_id, v.format,
        v.metadata, v.image_metadata, v.source_image_id, v.source_snapshot_id, v.source_volume_id
        """

    static func volume(_ connection: Connection, _ id: String, locked: Bool = false) throws -> Volume? {
        try connection.query(
            "SELECT \(raw: volumeColumns) FROM volumes v WHERE v.id = \(id)::uuid \(raw: locked ? "FOR UPDATE" : "")"
        ).first.map(volume)
    }

    private static func volume(_ row: Row) throws -> Volume {
        let source: VolumeSource
        if let id = try row.optionalString("source_snapshot_id") {
            source = .snapshot(id)
        } else if let id = try row.optionalString("source_volume_id") {
            source = .volume(id)
        } else if let id = try row.optionalString("source_image_id") {
            source = .image(id)
        } else {
            source = .blank
        }
        return Volume(
            id: try row.id("id"), projectID: try row.string("project_id"), userID: try row.string("user_id"),
            name: try row.optionalString("name"), status: try word(row, "status"), size: try row.int("size"),
            isBootable: try row.bool("bootable"), isReadOnly: try row.bool("read_only"),
            typeID: try row.string("volume_type_id"), format: try word(row, "format"), source: source,
            metadata: try row.object("metadata"), imageMetadata: try row.optionalJSON("image_metadata")?.objectValue)
    }

    static func word<Word: RawRepresentable>(_ row: Row, _ name: String) throws -> Word where Word.RawValue == String {
        let text = try row.string(name)
        guard let word = Word(rawValue: text) else { throw ResourceError.internalError("column \(name) is '\(text)'") }
        return word
    }

    /// Sets a volume's state if its present state is one of `from`.
    ///
    /// - Returns: whether it had.
    @discardableResult
    static func move(
        _ connection: Connection, volume id: String, from: [VolumeStatus], to: VolumeStatus, fault: String? = nil,
        now: Timestamp
    ) throws -> Bool {
        try connection.execute(
            """
            UPDATE volumes SET status = \(to.rawValue), fault = \(fault), updated_at = \(now), generation = generation + 1
            WHERE id = \(id)::uuid AND status = ANY(\(from.map(\.rawValue))::text[])
            """) == 1
    }

    static func set(_ connection: Connection, volume id: VolumeID, status: VolumeStatus, now: Timestamp) throws {
        try connection.execute(
            """
            UPDATE volumes SET status = \(status.rawValue), updated_at = \(now), generation = generation + 1
            WHERE id = \(id)::uuid
            """)
    }

    /// Whether the volume's data is being read to make a snapshot or another volume.
    static func isBeingCopied(_ connection: Connection, _ id: VolumeID) throws -> Bool {
        try connection.query(
            """
            SELECT EXISTS (SELECT 1 FROM volume_snapshots WHERE volume_id = \(id)::uuid AND status = 'creating')
                OR EXISTS (SELECT 1 FROM volumes WHERE source_volume_id = \(id)::uuid AND status = 'creating') AS copied
            """)[0].bool("copied")
    }

    /// - Throws: 400 while it is being copied.
    static func requireIdle(_ connection: Connection, _ volume: Volume) throws {
        if try isBeingCopied(connection, volume.id) {
            throw ResourceError.badRequest("Invalid volume: Volume \(volume.id) is being copied; try again when that has ended.")
        }
    }

    // MARK: snapshots

    static func snapshot(_ connection: Connection, _ id: String, locked: Bool = false) throws -> Snapshot? {
        try connection.query(
            """
            SELECT s.id, s.volume_id, s.project_id, s.status, s.size, s.format, s.metadata FROM volume_snapshots s
            WHERE s.id = \(id)::uuid \(raw: locked ? "FOR UPDATE" : "")
            """
        ).first.map(snapshot)
    }

    static func snapshots(_ connection: Connection, of volume: VolumeID, locked: Bool = true) throws -> [Snapshot] {
        try connection.query(
            """
            SELECT s.id, s.volume_id, s.project_id, s.status, s.size, s.format, s.metadata FROM volume_snapshots s
            WHERE s.volume_id = \(volume)::uuid ORDER BY s.id \(raw: locked ? "FOR UPDATE" : "")
            """
        ).map(snapshot)
    }

    private static func snapshot(_ row: Row) throws -> Snapshot {
        Snapshot(
            id: try row.id("id"), volumeID: try row.id("volume_id"), projectID: try row.string("project_id"),
            status: try word(row, "status"), size: try row.int("size"), format: try word(row, "format"),
            metadata: try row.object("metadata"))
    }

    @discardableResult
    static func move(
        _ connection: Connection, snapshot id: String, from: [SnapshotStatus], to: SnapshotStatus,
        progress: Int? = nil, fault: String? = nil, now: Timestamp
    ) throws -> Bool {
        try connection.execute(
            """
            UPDATE volume_snapshots SET status = \(to.rawValue), progress = coalesce(\(progress)::smallint, progress),
                fault = \(fault), updated_at = \(now), generation = generation + 1
            WHERE id = \(id)::uuid AND status = ANY(\(from.map(\.rawValue))::text[])
            """) == 1
    }

    /// Whether a volume is being created from the snapshot.
    static func isBeingCopied(_ connection: Connection, _ id: SnapshotID) throws -> Bool {
        try connection.query(
            "SELECT EXISTS (SELECT 1 FROM volumes WHERE source_snapshot_id = \(id)::uuid AND status = 'creating') AS copied"
        )[0].bool("copied")
    }

    // MARK: attachments

    static func attachment(_ connection: Connection, _ id: String) throws -> Attachment? {
        try connection.query(
            "SELECT id, volume_id, project_id, server_id, status FROM volume_attachments WHERE id = \(id)::uuid"
        ).first.map(attachment)
    }

    static func attachments(_ connection: Connection, of volume: VolumeID) throws -> [Attachment] {
        try connection.query(
            """
            SELECT id, volume_id, project_id, server_id, status FROM volume_attachments
            WHERE volume_id = \(volume)::uuid ORDER BY id
            """
        ).map(attachment)
    }

    private static func attachment(_ row: Row) throws -> Attachment {
        Attachment(
            id: try row.id("id"), volumeID: try row.id("volume_id"), projectID: try row.string("project_id"),
            serverID: try row.optionalString("server_id"), status: try word(row, "status"))
    }

    /// Whether a connection was handed out and Compute has the volume on the attachment's server.
    static func isServers(_ connection: Connection, _ attachment: Attachment) throws -> Bool {
        try connection.query(
            """
            SELECT EXISTS (SELECT 1 FROM volume_attachments a JOIN published_server_volumes s ON s.volume_id = a.volume_id
                    AND s.server_id = a.server_id
                WHERE a.id = \(attachment.id)::uuid AND a.connection IS NOT NULL) AS used
            """)[0].bool("used")
    }

    /// Derives the volume's state from its attachments, and wakes workflows of the server.
    static func settle(_ connection: Connection, _ volume: VolumeID, server: String?, now: Timestamp) throws {
        let status = AttachmentStatus.volumeStatus(try attachments(connection, of: volume).map(\.status))
        try set(connection, volume: volume, status: status, now: now)
        if let server { try connection.notify(.wake, Wake(subject: server)) }
    }

    // MARK: neighbours

    /// Server ids unknown to Compute are accepted, because a volume may be used by a machine outside the cloud.
    ///
    /// - Throws: 404 for another project's server.
    static func refuseForeign(_ connection: Connection, server: String, project: String) throws {
        let rows = try connection.query("SELECT 1 AS one FROM published_servers WHERE id = \(server)::uuid AND project_id <> \(project)")
        if !rows.isEmpty { throw ResourceError.notFound("Instance \(server) could not be found.") }
    }
}

/// An attachment's record.
struct Attachment: Sendable {
    let id: AttachmentID
    let volumeID: VolumeID
    let projectID: String
    let serverID: String?
    let status: AttachmentStatus
}
