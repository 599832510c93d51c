import Authorization
import Database
import ImageCore
import JSON
import Kernel
import WebAPI

/// The SQL for staged data and imports.
enum ImageImportStore {
    // MARK: staging

    /// Changes the state from queued to uploading.
    static func beginStaging(_ connection: Connection, _ image: Authorized<Image>, staging: String, now: Timestamp) throws {
        let id = try image.value(for: "stage_image").id
        try connection.execute(
            """
            UPDATE images SET status = 'uploading', staging_id = \(staging)::uuid, updated_at = \(now), generation = generation + 1
            WHERE id = \(id)::uuid
            """)
    }

    /// Records staged data.
    ///
    /// - Returns: the owner; nil if the image was deleted in the meantime.
    static func finishStaging(
        _ connection: Connection, _ image: Authorized<Image>, staging: String, _ content: ReceivedContent, now: Timestamp
    ) throws -> String? {
        let id = try image.value(for: "stage_image").id
        return try connection.query(
            """
            UPDATE images SET staging_size = \(content.size), staging_checksum = \(content.checksum), staging_hash = \(content.hashValue),
                updated_at = \(now), generation = generation + 1
            WHERE id = \(id)::uuid AND staging_id = \(staging)::uuid AND staging_size IS NULL RETURNING project_id
            """
        ).first?.string("project_id")
    }

    /// Changes the state from uploading to queued, for data that was not received completely.
    static func abandonStaging(_ connection: Connection, staging: String, now: Timestamp) throws {
        try connection.execute(
            """
            UPDATE images SET status = 'queued', staging_id = NULL, updated_at = \(now), generation = generation + 1
            WHERE staging_id = \(staging)::uuid AND staging_size IS NULL
            """)
    }

    /// The data that is being staged according to the database.
    static func stagings(_ connection: Connection) throws -> [String] {
        try connection.query("SELECT staging_id FROM images WHERE staging_id IS NOT NULL AND staging_size IS NULL").map {
            try $0.string("staging_id")
        }
    }

    // MARK: imports

    /// A task as recorded with its import.
    struct NewTask: Sendable {
        let id: UUID128
        var type = "api_image_import"
        let imageID: String
        let project: String
        let user: String
        let requestID: String
        let input: JSONValue
    }

    /// Records the task, and the stores to which the image is imported.
    ///
    /// - Parameters:
    ///   - file: the id of new data; nil for a copy of present data.
    ///   - converted: the id for the converted data.
    static func begin(
        _ connection: Connection, _ image: Authorized<Image>, _ task: NewTask, file: String?, converted: String?, stores: [String],
        now: Timestamp
    ) throws {
        let id = try image.value(for: "import_image").id
        let row: Changes = [
            "id": "\(task.id)", "image_id": "\(id)", "type": "\(task.type)", "status": "'pending'", "project_id": "\(task.project)",
            "user_id": "\(task.user)", "request_id": "\(task.requestID)", "input": "\(task.input)::jsonb",
        ]
        try connection.execute(row.insertion("image_tasks", at: now))
        let status: SQL = file == nil ? "status" : "'importing'"
        try connection.execute(
            """
            UPDATE images SET status = \(status), import_task = \(task.id), import_file = \(file)::uuid, convert_file = \(converted)::uuid,
                importing_to = \(stores)::text[], failed_import = '{}', updated_at = \(now), generation = generation + 1
            WHERE id = \(id)::uuid
            """)
    }

    /// The image of an import that is in progress; nil if it was deleted, or the task is no longer its import.
    static func importing(_ connection: Connection, _ id: String, task: UUID128, locked: Bool = false) throws -> Image? {
        try connection.query(
            """
            SELECT \(raw: Image.selection) FROM images t WHERE t.id = \(id)::uuid AND t.import_task = \(task)
            \(raw: locked ? "FOR UPDATE" : "")
            """
        ).first.map { try Image($0) }
    }

    /// Changes the state from importing to active.
    static func finish(
        _ connection: Connection, _ image: Image, file: String, _ content: ReceivedContent, format: String?, stores: [String],
        failed: [String], now: Timestamp
    ) throws {
        try connection.execute(
            """
            UPDATE images SET status = 'active', file_id = \(file)::uuid, size = \(content.size), virtual_size = \(content.virtualSize),
                checksum = \(content.checksum), os_hash_algo = 'sha512', os_hash_value = \(content.hashValue), stores = \(stores)::text[],
                staging_id = NULL, staging_size = NULL, staging_checksum = NULL, staging_hash = NULL, import_file = NULL,
                convert_file = NULL, disk_format = coalesce(\(format), disk_format), import_task = NULL, importing_to = '{}',
                failed_import = \(failed)::text[], updated_at = \(now),
                generation = generation + 1
            WHERE id = \(image.id)::uuid
            """)
    }

    /// Changes the state from importing to queued, without data.
    static func fail(_ connection: Connection, _ image: Image, stores: [String], now: Timestamp) throws {
        try connection.execute(
            """
            UPDATE images SET status = CASE status WHEN 'importing' THEN 'queued' ELSE status END, staging_id = NULL,
                staging_size = NULL, staging_checksum = NULL, staging_hash = NULL, import_file = NULL, convert_file = NULL,
                import_task = NULL, importing_to = '{}', failed_import = \(stores)::text[], updated_at = \(now), generation = generation + 1
            WHERE id = \(image.id)::uuid
            """)
    }

    // MARK: tasks

    /// How long a finished task is shown, in seconds: 48 hours, as in Glance.
    static let taskLifetimeSeconds = 48 * 3600

    /// Records the progress of the task.
    static func progress(_ connection: Connection, task: UUID128, message: String, now: Timestamp) throws {
        try connection.execute(
            """
            UPDATE image_tasks SET status = 'processing', message = \(message), updated_at = \(now)
            WHERE id = \(task) AND status IN ('pending', 'processing')
            """)
    }

    /// Records the end of the task; has no effect on a task that has ended.
    static func end(_ connection: Connection, task: UUID128, isSuccess: Bool, message: String, now: Timestamp) throws {
        let status = isSuccess ? "success" : "failure"
        try connection.execute(
            """
            UPDATE image_tasks SET status = \(status), message = \(message), updated_at = \(now),
                result = CASE WHEN \(isSuccess) THEN jsonb_build_object('image_id', image_id) END,
                expires_at = \(now)::timestamptz + make_interval(secs => \(taskLifetimeSeconds))
            WHERE id = \(task) AND status IN ('pending', 'processing')
            """)
    }

    /// Forgets tasks that ended long ago.
    static func expire(_ connection: Connection, now: Timestamp) throws {
        try connection.execute("DELETE FROM image_tasks WHERE expires_at < \(now)")
    }
}
