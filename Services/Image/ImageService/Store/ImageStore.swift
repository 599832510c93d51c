import Authorization
import Database
package import ImageCore
import JSON
import Kernel
package import WebAPI

/// An image found for a caller.
struct FoundImage: Sendable {
    let image: Image
    /// The caller's project, if the image is shared with it.
    let memberID: String?
}

extension Image: StoredRow {
    package static let relation = "images"
    package static let blank = Image(id: ID(UUID128(high: 0, low: 0)), owner: "")
    package static let columns: [Column<Image>] = [
        Column("id", \.id, .once), Column("project_id", \.owner), Column("name", \.name), Column("status", \.status, .once),
        Column("visibility", \.visibility), Column("disk_format", \.diskFormat), Column("container_format", \.containerFormat),
        Column("min_disk", \.minDisk), Column("min_ram", \.minRAM), Column("size", \.size, .never),
        Column("virtual_size", \.virtualSize, .never), Column("checksum", \.checksum, .never),
        Column("os_hash_value", \.hashValue512, .never), Column("protected", \.isProtected), Column("hidden", \.isHidden),
        Column("tags", \.tags), Column("properties", \.properties), Column("file_id", \.fileID, .never),
        Column("stores", \.stores, .never), Column("staging_id", \.stagingID, .never), Column("staging_size", \.stagingSize, .never),
        Column("staging_checksum", \.stagingChecksum, .never), Column("staging_hash", \.stagingHash, .never),
        Column("import_task", \.importTask, .never),
    ]
}

extension ImageStatus: ColumnValue {}
extension ImageVisibility: ColumnValue {}
extension DiskFormat: ColumnValue {}
extension ContainerFormat: ColumnValue {}

/// The SQL for images, which runs inside the transaction of the request.
enum ImageStore {
    /// - Parameters:
    ///   - project: the caller's project, whose membership is looked up.
    ///   - locked: whether the row is locked until the transaction ends.
    static func find(_ connection: Connection, _ id: String, project: String?, locked: Bool = false) throws -> FoundImage? {
        let rows = try connection.query(
            """
            SELECT \(raw: Image.selection), m.member_id FROM images t
            LEFT JOIN image_members m ON m.image_id = t.id AND m.member_id = \(project)
            WHERE t.id = \(id)::uuid \(raw: locked ? "FOR UPDATE OF t" : "")
            """)
        guard let row = rows.first else { return nil }
        return FoundImage(image: try Image(row), memberID: try row.optionalString("member_id"))
    }

    /// - Throws: 409 if the id is taken.
    static func insert(_ connection: Connection, _ image: Authorized<Image>, now: Timestamp) throws {
        let image = try image.value(for: "add_image")
        let rows = try connection.query("\(image.insertion(at: now)) ON CONFLICT (id) DO NOTHING RETURNING id")
        guard !rows.isEmpty else { throw ResourceError.conflict("Image ID \(image.id) already exists!") }
    }

    /// Writes the attributes that clients may change.
    ///
    /// - Parameter image: the new values.
    static func update(_ connection: Connection, _ before: Authorized<Image>, to image: Image, now: Timestamp) throws {
        let before = try before.value(for: "modify_image", "modify_image_tag", "delete_image_tag")
        // A request that changes nothing still counts as an update, as in Glance.
        try before.changes(to: image).apply(connection, Image.relation, before.id, at: now, isCounted: true, touching: true)
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

    /// A project's images whose data is being received, and the size of the staged data that waits for an import.
    static func incoming(_ connection: Connection, project: String) throws -> (uploads: Int, stagedMiB: Int) {
        let row = try connection.query(
            """
            SELECT count(*) FILTER (WHERE status IN ('saving', 'uploading', 'importing')) AS uploads,
                coalesce(sum((staging_size + 1048575) >> 20), 0) AS staged
            FROM images WHERE project_id = \(project)
            """)[0]
        return (try row.int("uploads"), try row.int("staged"))
    }

    /// Changes the state from queued to saving.
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

    /// Changes the state from saving to active.
    ///
    /// - Returns: the owner; nil if the image was deleted in the meantime.
    static func finishUpload(
        _ connection: Connection, _ image: Authorized<Image>, upload: String, _ content: ReceivedContent, store: String, now: Timestamp
    ) throws -> String? {
        let id = try image.value(for: "upload_image").id
        return try connection.query(
            """
            UPDATE images SET status = 'active', upload_id = NULL, file_id = \(upload)::uuid, size = \(content.size),
                virtual_size = \(content.virtualSize), checksum = \(content.checksum), os_hash_algo = 'sha512',
                os_hash_value = \(content.hashValue), stores = \([store])::text[], updated_at = \(now), generation = generation + 1
            WHERE id = \(id)::uuid AND upload_id = \(upload)::uuid RETURNING project_id
            """
        ).first?.string("project_id")
    }

    /// Changes the state from saving to queued, for a failed upload or by the cleanup task.
    static func abandonUpload(_ connection: Connection, upload: String, now: Timestamp) throws {
        try connection.execute(
            """
            UPDATE images SET status = 'queued', upload_id = NULL, updated_at = \(now), generation = generation + 1
            WHERE upload_id = \(upload)::uuid
            """)
    }

    /// The uploads that are in progress according to the database.
    static func uploads(_ connection: Connection) throws -> [String] {
        try connection.query("SELECT upload_id FROM images WHERE upload_id IS NOT NULL").map { try $0.string("upload_id") }
    }

    /// The ids among `ids` to which an image refers.
    ///
    /// - Parameter store: only in this store, or in any while data is copied.
    static func known(_ connection: Connection, _ ids: [String], in store: String? = nil) throws -> Set<String> {
        let stores = store.map { [$0] } ?? []
        return Set(
            try connection.query(
                """
                SELECT file_id::text AS id FROM images WHERE file_id = ANY(\(ids)::uuid[])
                    AND (cardinality(\(stores)::text[]) = 0 OR import_task IS NOT NULL
                        OR CASE WHEN stores = '{}' THEN ARRAY[\(StoreDeclaration.base)] ELSE stores END && \(stores)::text[])
                UNION SELECT upload_id::text FROM images WHERE upload_id = ANY(\(ids)::uuid[])
                UNION SELECT staging_id::text FROM images WHERE staging_id = ANY(\(ids)::uuid[])
                UNION SELECT import_file::text FROM images WHERE import_file = ANY(\(ids)::uuid[])
                UNION SELECT convert_file::text FROM images WHERE convert_file = ANY(\(ids)::uuid[])
                """
            ).map { try $0.string("id") })
    }

    /// Whether an image has this data.
    static func hasData(_ connection: Connection, _ file: String) throws -> Bool {
        try !connection.query("SELECT 1 FROM images WHERE file_id = \(file)::uuid").isEmpty
    }

    /// Whether an image has this data in the store.
    static func hasData(_ connection: Connection, _ file: String, in store: String) throws -> Bool {
        try !connection.query(
            """
            SELECT 1 FROM images WHERE file_id = \(file)::uuid
                AND \(store) = ANY(CASE WHEN stores = '{}' THEN ARRAY[\(StoreDeclaration.base)] ELSE stores END)
            """
        ).isEmpty
    }
}

/// The SQL for members, the projects with which an image is shared.
enum MemberStore {
    /// - Throws: 413 if the image has the maximum number of members, 409 if the project is already a member.
    static func add(_ connection: Connection, _ image: Authorized<Image>, _ member: String, now: Timestamp) throws {
        let id = try image.value(for: "add_member").id
        let count = try connection.query("SELECT count(*) AS n FROM image_members WHERE image_id = \(id)::uuid")[0].int("n")
        guard count < ImageLimits.membersMax else {
            throw ResourceError(
                .tooLarge,
                """
                The limit has been exceeded on the number of allowed image members. Attempted: \(count + 1), \
                Maximum: \(ImageLimits.membersMax)
                """
            )
        }
        let added = try connection.query(
            """
            INSERT INTO image_members (image_id, member_id, created_at, updated_at)
            VALUES (\(id)::uuid, \(member), \(now), \(now)) ON CONFLICT DO NOTHING RETURNING member_id
            """)
        guard !added.isEmpty else {
            throw ResourceError.conflict("Project \(member.prefix(64)) is already a member of image \(id)")
        }
    }

    /// - Returns: whether the member exists.
    static func setStatus(
        _ connection: Connection, _ image: Authorized<Image>, _ member: String, _ status: String, now: Timestamp
    ) throws -> Bool {
        let id = try image.value(for: "modify_member").id
        return try connection.execute(
            """
            UPDATE image_members SET status = \(status), updated_at = \(now)
            WHERE image_id = \(id)::uuid AND member_id = \(member)
            """) == 1
    }

    /// - Returns: whether the member existed.
    static func remove(_ connection: Connection, _ image: Authorized<Image>, _ member: String) throws -> Bool {
        let id = try image.value(for: "delete_member").id
        return try connection.execute("DELETE FROM image_members WHERE image_id = \(id)::uuid AND member_id = \(member)") == 1
    }
}

/// The SQL for the stores of images.
enum ImageStoreStore {
    /// Removes a store from an image that has others.
    static func leave(_ connection: Connection, _ image: Authorized<Image>, _ store: String, now: Timestamp) throws {
        let image = try image.value(for: "delete_image_location")
        let rest = image.storeNames.filter { $0 != store }
        try connection.execute(
            """
            UPDATE images SET stores = \(rest)::text[], updated_at = \(now), generation = generation + 1 WHERE id = \(image.id)::uuid
            """)
    }

    /// Ends a copy: adds the stores that have the data now.
    static func join(_ connection: Connection, _ image: Image, _ added: [String], failed: [String], now: Timestamp) throws {
        let all = image.storeNames + added.filter { !image.storeNames.contains($0) }
        try connection.execute(
            """
            UPDATE images SET stores = \(all)::text[], import_task = NULL, importing_to = '{}', failed_import = \(failed)::text[],
                updated_at = \(now), generation = generation + 1
            WHERE id = \(image.id)::uuid
            """)
    }
}
