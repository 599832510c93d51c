import Authorization
import BlockStorageCore
import Contracts
import Database
import JSON
import Kernel
import WebAPI

/// An attachment's record.
struct Attachment: StoredRow {
    var id: AttachmentID
    var volumeID: VolumeID
    var projectID: String
    var serverID: String?
    var status: AttachmentStatus

    static let relation = "volume_attachments"
    static let blank = Attachment(
        id: ID(UUID128(high: 0, low: 0)), volumeID: ID(UUID128(high: 0, low: 0)), projectID: "", status: .reserved)
    static let columns: [Column<Attachment>] = [
        Column("id", \.id, .once), Column("volume_id", \.volumeID, .once), Column("project_id", \.projectID, .once),
        Column("server_id", \.serverID, .once), Column("status", \.status),
    ]
}

extension AttachmentStatus: ColumnValue {}

/// The statements about attachments.
extension BlockStorageStore {
    static func attachment(_ connection: Connection, _ id: String) throws -> Attachment? {
        try connection.query(
            "SELECT \(raw: Attachment.selection) FROM volume_attachments t WHERE t.id = \(id)::uuid"
        ).first.map { try Attachment($0) }
    }

    static func attachments(_ connection: Connection, of volume: VolumeID) throws -> [Attachment] {
        try connection.query(
            "SELECT \(raw: Attachment.selection) FROM volume_attachments t WHERE t.volume_id = \(volume)::uuid ORDER BY t.id"
        ).map { try Attachment($0) }
    }

    /// Whether Compute records the volume for the attachment's server, and the attachment has a connection or belongs to an offloaded
    /// server.
    static func isRecordedByCompute(_ connection: Connection, _ attachment: Attachment) throws -> Bool {
        try connection.query(
            """
            SELECT EXISTS (SELECT 1 FROM volume_attachments a JOIN published_server_volumes s ON s.volume_id = a.volume_id
                    AND s.server_id = a.server_id
                WHERE a.id = \(attachment.id)::uuid AND (a.connection IS NOT NULL OR a.status = 'attached')) AS used
            """)[0].bool("used")
    }

    // MARK: changes

    static let createAction = "volume:attachment_create"
    static let updateAction = "volume:attachment_update"
    static let completeAction = "volume:attachment_complete"
    static let deleteAction = "volume:attachment_delete"
    /// The policy actions from before Cinder had attachments.
    static let attachAction = "volume_extension:volume_actions:attach"
    static let detachAction = "volume_extension:volume_actions:detach"

    /// Derives the state of the attachment's volume from all its attachments, and wakes workflows of the server. While an image is being
    /// written to the volume, its state does not change.
    static func settle(_ connection: Connection, _ decision: Authorized<Attachment>, now: Timestamp) throws {
        let attachment = try decision.value(
            for: createAction, updateAction, completeAction, deleteAction, attachAction, detachAction)
        let volume = attachment.volumeID
        let writes = try connection.query("SELECT 1 AS one FROM volumes WHERE id = \(volume)::uuid AND status = 'downloading'")
        if writes.isEmpty { try settle(connection, written: volume, now: now) }
        if let server = attachment.serverID { try connection.notify(.wake, Wake(subject: server)) }
    }

    /// Derives the state of a volume after an image was written to it; for workflows.
    static func settle(_ connection: Connection, written volume: VolumeID, now: Timestamp) throws {
        let status = AttachmentStatus.volumeStatus(try attachments(connection, of: volume).map(\.status))
        try set(connection, volume: volume, status, now: now)
    }

    static func insert(_ connection: Connection, _ decision: Authorized<Attachment>, mode: String?, at now: Timestamp) throws {
        var row = try decision.value(for: createAction).values()
        row.set("mode", mode)
        try connection.execute(row.insertion(Attachment.relation, at: now))
    }

    /// Records an attachment that exists, as `os-attach` does.
    static func insert(
        _ connection: Connection, attached decision: Authorized<Attachment>, mode: String, device: String?, host: String?,
        connection info: JSONObject, at now: Timestamp
    ) throws {
        var row = try decision.value(for: attachAction).values()
        row.merge([
            "mode": "\(mode)", "device": "\(device)", "host": "\(host)", "connection": "\(info)::jsonb", "attached_at": "\(now)",
        ])
        try connection.execute(row.insertion(Attachment.relation, at: now))
    }

    /// Stores the connection that a host got.
    static func connect(
        _ connection: Connection, _ attachment: Authorized<Attachment>, host: String, mode: String, connector: JSONObject,
        connection info: JSONObject, at now: Timestamp
    ) throws {
        let id = try attachment.value(for: createAction, updateAction).id
        let changes: Changes = [
            "status": "CASE WHEN status = 'attached' THEN status ELSE 'attaching' END", "mode": "\(mode)", "host": "\(host)",
            "device": "coalesce(\(connector["mountpoint"]?.stringValue), device)", "connector": "\(connector)::jsonb",
            "connection": "\(info)::jsonb",
        ]
        try changes.apply(connection, Attachment.relation, id, at: now, isCounted: true)
    }

    static func complete(_ connection: Connection, _ attachment: Authorized<Attachment>, at now: Timestamp) throws {
        let id = try attachment.value(for: completeAction).id
        let changes: Changes = ["status": "'attached'", "attached_at": "coalesce(attached_at, \(now))"]
        try changes.apply(connection, Attachment.relation, id, at: now, isCounted: true)
    }

    static func delete(_ connection: Connection, _ attachment: Authorized<Attachment>) throws {
        let id = try attachment.value(for: deleteAction, detachAction).id
        try connection.execute("DELETE FROM volume_attachments WHERE id = \(id)::uuid")
    }

    // MARK: servers

    /// Server ids unknown to Compute are accepted, because a volume may be used by a machine outside the cloud.
    ///
    /// - Throws: 404 for another project's server.
    static func refuseForeign(_ connection: Connection, server: String, project: String) throws {
        let rows = try connection.query("SELECT 1 AS one FROM published_servers WHERE id = \(server)::uuid AND project_id <> \(project)")
        if !rows.isEmpty { throw ResourceError.notFound("Instance \(server) could not be found.") }
    }
}
