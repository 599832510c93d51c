import Authorization
import Database
import ImageCore
import JSON
import Kernel
import WebAPI

/// An image as found for a caller.
struct FoundImage: Sendable {
    let image: Image
    /// The caller's project, where the image is shared with it.
    let memberID: String?
}

/// The SQL of images. Bodies run inside the transaction of the request.
enum ImageStore {
    private static let columns = """
        t.id, t.project_id, t.name, t.status, t.visibility, t.disk_format, t.container_format, t.min_disk, t.min_ram,
        t.size, t.virtual_size, t.checksum, t.os_hash_value, t.protected, t.hidden, to_json(t.tags) AS tags,
        t.properties, t.file_id
        """

    /// - Parameters:
    ///   - project: of the caller, whose membership is looked up.
    ///   - locked: until the transaction ends.
    static func find(_ connection: Connection, _ id: String, project: String?, locked: Bool = false) throws -> FoundImage? {
        let rows = try connection.query(
            """
            SELECT \(raw: columns), m.member_id FROM images t
            LEFT JOIN image_members m ON m.image_id = t.id AND m.member_id = \(project)
            WHERE t.id = \(id)::uuid \(raw: locked ? "FOR UPDATE OF t" : "")
            """)
        guard let row = rows.first else { return nil }
        return FoundImage(image: try image(row), memberID: try row.optionalString("member_id"))
    }

    private static func image(_ row: Row) throws -> Image {
        Image(
            id: try row.id("id"), owner: try row.string("project_id"), name: try row.optionalString("name"),
            status: try word(row, "status"), visibility: try word(row, "visibility"),
            diskFormat: try row.optionalString("disk_format").flatMap(DiskFormat.init),
            containerFormat: try row.optionalString("container_format").flatMap(ContainerFormat.init),
            minDisk: try row.int("min_disk"), minRAM: try row.int("min_ram"), size: try row.optionalInt("size"),
            virtualSize: try row.optionalInt("virtual_size"), checksum: try row.optionalString("checksum"),
            hashValue512: try row.optionalString("os_hash_value"), isProtected: try row.bool("protected"),
            isHidden: try row.bool("hidden"), tags: try row.strings("tags"), properties: try row.object("properties"),
            fileID: try row.optionalString("file_id"))
    }

    private static func word<Word: RawRepresentable>(_ row: Row, _ name: String) throws -> Word
    where Word.RawValue == String {
        let text = try row.string(name)
        guard let word = Word(rawValue: text) else { throw ResourceError.internalError("column \(name) is '\(text)'") }
        return word
    }

    /// - Throws: 409 when the id is taken.
    static func insert(_ connection: Connection, _ image: Authorized<Image>, now: Timestamp) throws {
        let image = try image.value(for: "add_image")
        let rows = try connection.query(
            """
            INSERT INTO images (id, project_id, name, status, visibility, disk_format, container_format, min_disk,
                min_ram, protected, hidden, tags, properties, created_at, updated_at)
            VALUES (\(image.id)::uuid, \(image.owner), \(image.name), \(image.status.rawValue),
                \(image.visibility.rawValue), \(image.diskFormat?.rawValue), \(image.containerFormat?.rawValue),
                \(image.minDisk), \(image.minRAM), \(image.isProtected), \(image.isHidden), \(image.tags)::text[],
                \(image.properties)::jsonb, \(now), \(now))
            ON CONFLICT (id) DO NOTHING RETURNING id
            """)
        guard !rows.isEmpty else { throw ResourceError.conflict("Image ID \(image.id) already exists!") }
    }

    /// Writes what clients may change.
    ///
    /// - Parameter image: as it is to be.
    static func update(_ connection: Connection, _ before: Authorized<Image>, to image: Image, now: Timestamp) throws {
        let id = try before.value(for: "modify_image", "modify_image_tag", "delete_image_tag").id
        try connection.execute(
            """
            UPDATE images SET project_id = \(image.owner), name = \(image.name), visibility = \(image.visibility.rawValue),
                disk_format = \(image.diskFormat?.rawValue), container_format = \(image.containerFormat?.rawValue),
                min_disk = \(image.minDisk), min_ram = \(image.minRAM), protected = \(image.isProtected),
                hidden = \(image.isHidden), tags = \(image.tags)::text[], properties = \(image.properties)::jsonb,
                updated_at = \(now), generation = generation + 1
            WHERE id = \(id)::uuid
            """)
    }

    static func setStatus(
        _ connection: Connection, _ image: Authorized<Image>, _ status: ImageStatus, now: Timestamp
    ) throws {
        let id = try image.value(for: "deactivate", "reactivate").id
        try connection.execute(
            """
            UPDATE images SET status = \(status.rawValue), updated_at = \(now), generation = generation + 1
            WHERE id = \(id)::uuid
            """)
    }

    static func delete(_ connection: Connection, _ image: Authorized<Image>) throws {
        let id = try image.value(for: "delete_image").id
        try connection.execute("DELETE FROM images WHERE id = \(id)::uuid")
    }

    // MARK: data

    /// queued → saving.
    static func beginUpload(
        _ connection: Connection, _ image: Authorized<Image>, upload: String, now: Timestamp
    ) throws {
        let id = try image.value(for: "upload_image").id
        try connection.execute(
            """
            UPDATE images SET status = 'saving', upload_id = \(upload)::uuid, updated_at = \(now),
                generation = generation + 1
            WHERE id = \(id)::uuid
            """)
    }

    /// saving → active.
    ///
    /// - Returns: the owner; nil when the image was deleted meanwhile.
    static func finishUpload(
        _ connection: Connection, _ image: Authorized<Image>, upload: String, _ content: ReceivedContent, now: Timestamp
    ) throws -> String? {
        let id = try image.value(for: "upload_image").id
        return try connection.query(
            """
            UPDATE images SET status = 'active', upload_id = NULL, file_id = \(upload)::uuid, size = \(content.size),
                virtual_size = \(content.virtualSize), checksum = \(content.checksum), os_hash_algo = 'sha512',
                os_hash_value = \(content.hashValue), updated_at = \(now), generation = generation + 1
            WHERE id = \(id)::uuid AND upload_id = \(upload)::uuid RETURNING project_id
            """
        ).first?.string("project_id")
    }

    /// saving → queued, by the request that uploads or by the sweep after it.
    static func abandonUpload(_ connection: Connection, upload: String, now: Timestamp) throws {
        try connection.execute(
            """
            UPDATE images SET status = 'queued', upload_id = NULL, updated_at = \(now), generation = generation + 1
            WHERE upload_id = \(upload)::uuid
            """)
    }

    /// The uploads that the database believes to be under way.
    static func uploads(_ connection: Connection) throws -> [String] {
        try connection.query("SELECT upload_id FROM images WHERE upload_id IS NOT NULL").map { try $0.string("upload_id") }
    }

    /// Those of `ids` that some image names.
    static func known(_ connection: Connection, _ ids: [String]) throws -> Set<String> {
        Set(
            try connection.query(
                """
                SELECT coalesce(file_id, upload_id)::text AS id FROM images
                WHERE file_id = ANY(\(ids)::uuid[]) OR upload_id = ANY(\(ids)::uuid[])
                """
            ).map { try $0.string("id") })
    }
}
