import BlockStorageCore
import Contracts
import Database
import JSON
import Kernel
import WebAPI

/// An attachment's record.
struct Attachment: Sendable {
    let id: AttachmentID
    let volumeID: VolumeID
    let projectID: String
    let serverID: String?
    let status: AttachmentStatus
}

/// The statements about attachments.
extension BlockStorageStore {
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

    /// Whether Compute has the volume on the attachment's server, and a connection was handed out or the server is offloaded and waits
    /// for one.
    static func isServers(_ connection: Connection, _ attachment: Attachment) throws -> Bool {
        try connection.query(
            """
            SELECT EXISTS (SELECT 1 FROM volume_attachments a JOIN published_server_volumes s ON s.volume_id = a.volume_id
                    AND s.server_id = a.server_id
                WHERE a.id = \(attachment.id)::uuid AND (a.connection IS NOT NULL OR a.status = 'attached')) AS used
            """)[0].bool("used")
    }

    /// Derives the volume's state from its attachments, and wakes workflows of the server.
    ///
    /// - Parameter isWritten: whether an image has just been written to the volume. While that goes on, its state stays.
    static func settle(
        _ connection: Connection, _ volume: VolumeID, server: String?, isWritten: Bool = false, now: Timestamp
    ) throws {
        let writes = try connection.query("SELECT 1 AS one FROM volumes WHERE id = \(volume)::uuid AND status = 'downloading'")
        if isWritten || writes.isEmpty {
            let status = AttachmentStatus.volumeStatus(try attachments(connection, of: volume).map(\.status))
            try set(connection, volume: volume, status: status, now: now)
        }
        if let server { try connection.notify(.wake, Wake(subject: server)) }
    }

    static func insertAttachment(
        _ connection: Connection, _ id: AttachmentID, of volume: Volume, server: String?, mode: String?, at now: Timestamp
    ) throws {
        try connection.execute(
            """
            INSERT INTO volume_attachments (id, volume_id, project_id, server_id, status, mode, created_at, updated_at)
            VALUES (\(id)::uuid, \(volume.id)::uuid, \(volume.projectID), \(server)::uuid, 'reserved', \(mode), \(now), \(now))
            """)
    }

    /// Records an attachment that exists, as `os-attach` does.
    static func insertAttached(
        _ connection: Connection, _ id: UUID128, to server: String, of volume: Volume, mode: String, device: String?, host: String?,
        connection info: JSONObject, at now: Timestamp
    ) throws {
        try connection.execute(
            """
            INSERT INTO volume_attachments (id, volume_id, project_id, server_id, status, mode, device, host, connection,
                attached_at, created_at, updated_at)
            VALUES (\(id), \(volume.id)::uuid, \(volume.projectID), \(server)::uuid, 'attached', \(mode), \(device), \(host),
                \(info)::jsonb, \(now), \(now), \(now))
            """)
    }

    /// Stores the connection that a host got.
    static func connect(
        _ connection: Connection, attachment id: String, host: String, mode: String, connector: JSONObject, connection info: JSONObject,
        at now: Timestamp
    ) throws {
        try connection.execute(
            """
            UPDATE volume_attachments SET status = CASE WHEN status = 'attached' THEN status ELSE 'attaching' END,
                mode = \(mode), host = \(host), device = coalesce(\(connector["mountpoint"]?.stringValue), device),
                connector = \(connector)::jsonb, connection = \(info)::jsonb, updated_at = \(now),
                generation = generation + 1
            WHERE id = \(id)::uuid
            """)
    }

    static func complete(_ connection: Connection, attachment id: String, at now: Timestamp) throws {
        try connection.execute(
            """
            UPDATE volume_attachments SET status = 'attached', attached_at = coalesce(attached_at, \(now)),
                updated_at = \(now), generation = generation + 1
            WHERE id = \(id)::uuid
            """)
    }

    static func delete(_ connection: Connection, attachment id: String) throws {
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
