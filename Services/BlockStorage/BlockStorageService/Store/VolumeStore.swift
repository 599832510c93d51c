import Authorization
import BlockStorageCore
import Database
import JSON
import Kernel
import WebAPI

/// A volume that a request creates.
struct NewVolume: Sendable {
    let id: VolumeID
    let project: String
    let user: String
    var name: String?
    var description: String?
    var size = 0
    var isBootable = false
    var typeID: String
    var isMultiattach = false
    var metadata: JSONObject = [:]
    var imageMetadata: JSONObject?
    var source = VolumeSource.blank
}

/// The statements about volumes.
extension BlockStorageStore {
    private static let volumeColumns = """
        v.id, v.project_id, v.user_id, v.name, v.status, v.size, v.bootable,
        coalesce(v.read_only, false) AS read_only, v.multiattach, v.volume_type_id, v.format,
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
            isMultiattach: try row.bool("multiattach"), typeID: try row.string("volume_type_id"), format: try word(row, "format"),
            source: source,
            metadata: try row.object("metadata"), imageMetadata: try row.optionalJSON("image_metadata")?.objectValue)
    }

    /// Sets a volume's state if its present state is one of `from`; for workflows.
    ///
    /// - Returns: whether the state was one of them.
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

    /// Sets the state of a volume.
    ///
    /// - Parameter action: of the decision.
    static func set(
        _ connection: Connection, _ volume: Authorized<Volume>, _ status: VolumeStatus, for action: String, now: Timestamp
    ) throws {
        try set(connection, volume: volume.value(for: action).id, status, now: now)
    }

    static func set(_ connection: Connection, volume id: VolumeID, _ status: VolumeStatus, now: Timestamp) throws {
        try connection.execute(
            """
            UPDATE volumes SET status = \(status.rawValue), updated_at = \(now), generation = generation + 1
            WHERE id = \(id)::uuid
            """)
    }

    /// The volume and its snapshots are to be deleted.
    static func beginDeletion(_ connection: Connection, _ volume: Authorized<Volume>, now: Timestamp) throws {
        let id = try volume.value(for: "volume:delete", "volume:force_delete").id
        try connection.execute(
            """
            UPDATE volume_snapshots SET status = \(SnapshotStatus.deleting.rawValue), fault = NULL, updated_at = \(now),
                generation = generation + 1
            WHERE volume_id = \(id)::uuid
            """)
        try set(connection, volume: id, .deleting, now: now)
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
            throw ResourceError.badRequest("Invalid volume: Volume \(volume.id) is being copied. Try again when the copy is complete.")
        }
    }

    /// A volume's description, and its type as the answer to an upload shows it.
    static func descriptions(_ connection: Connection, of volume: Volume) throws -> (description: String?, type: JSONValue) {
        let row = try connection.query(
            """
            SELECT v.description, y.id, y.name, y.description AS type_description, y.is_public FROM volumes v
            JOIN volume_types y ON y.id = v.volume_type_id WHERE v.id = \(volume.id)::uuid
            """)[0]
        return (
            try row.optionalString("description"),
            [
                "id": .string(try row.string("id")), "name": .string(try row.string("name")),
                "description": JSONValue(try row.optionalString("type_description")), "is_public": .bool(try row.bool("is_public")),
                "deleted": false, "qos_specs_id": .null, "extra_specs": [:],
            ]
        )
    }

    // MARK: requests

    static func insert(
        _ connection: Connection, _ decision: Authorized<Void>, _ volume: NewVolume, _ settings: BlockStorageSettings, at now: Timestamp
    ) throws {
        try decision.value(for: "volume:create")
        var row = Changes()
        row.set("id", volume.id)
        row.set("project_id", volume.project)
        row.set("user_id", volume.user)
        row.set("name", volume.name)
        row.set("description", volume.description)
        row.set("status", VolumeStatus.creating.rawValue)
        row.set("size", volume.size)
        row.set("bootable", volume.isBootable)
        row.set("multiattach", volume.isMultiattach)
        row.set("volume_type_id", sql: uuid(volume.typeID))
        row.set("availability_zone", settings.availabilityZone)
        row.set(json: "metadata", .object(volume.metadata))
        if let metadata = volume.imageMetadata { row.set(json: "image_metadata", .object(metadata)) }
        switch volume.source {
        case .blank: break
        case .image(let id): row.set("source_image_id", sql: uuid(id))
        case .snapshot(let id): row.set("source_snapshot_id", sql: uuid(id))
        case .volume(let id): row.set("source_volume_id", sql: uuid(id))
        }
        row.set("service_host", settings.serviceHost)
        let format = volume.isMultiattach && !settings.format.canBeShared ? VolumeFormat.raw : settings.format
        row.set("format", format.rawValue)
        try connection.execute(row.insertion("volumes", at: now))
    }

    /// The number and total size of the volumes in `scope`, a condition on `t`.
    static func sum(_ connection: Connection, scope: SQL) throws -> (count: Int, size: Int) {
        let row = try connection.query("SELECT count(*) AS n, coalesce(sum(t.size), 0) AS size FROM volumes t WHERE \(scope)")[0]
        return (try row.int("n"), try row.int("size"))
    }

    /// The values of each metadata key among the volumes in `scope`.
    static func metadataValues(_ connection: Connection, scope: SQL) throws -> JSONObject {
        let rows = try connection.query(
            """
            SELECT m.key, json_agg(DISTINCT m.value) AS values FROM volumes t, jsonb_each_text(t.metadata) m
            WHERE \(scope) GROUP BY m.key ORDER BY m.key
            """)
        return JSONObject(try rows.map { (try $0.string("key"), try $0.json("values")) })
    }

    /// The ids that are volumes of the project or, with `all`, of any project.
    static func known(_ connection: Connection, _ ids: [String], project: String, all: Bool) throws -> Set<String> {
        Set(
            try connection.query(
                "SELECT id FROM volumes WHERE id = ANY(\(ids)::uuid[]) AND (project_id = \(project) OR \(all))"
            ).map { try $0.string("id") })
    }

    /// The total size of all volumes and snapshots, in GiB.
    static func allocated(_ connection: Connection) throws -> Int {
        try connection.query(
            "SELECT coalesce((SELECT sum(size) FROM volumes), 0) + coalesce((SELECT sum(size) FROM volume_snapshots), 0) AS gb"
        )[0].int("gb")
    }
}
