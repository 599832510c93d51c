import Authorization
import Database
import ImageCore
import JSON
import Kernel
import WebAPI

/// The SQL for the caches of the machines.
struct ImageCacheStore: Sendable {
    let machine: String

    /// An image in the cache.
    struct Entry: Sendable {
        let imageID: String
        let file: String
        let size: Int
    }

    // MARK: requests

    /// The cached images as the API shows them, and the ids of the queued ones in their order.
    func state(_ connection: Connection) throws -> (cached: [JSONValue], queued: [String]) {
        let rows = try connection.query(
            """
            SELECT image_id, file_id IS NOT NULL AS is_cached, size, hits, extract(epoch FROM accessed_at)::float8 AS accessed,
                extract(epoch FROM cached_at)::float8 AS modified
            FROM image_cache WHERE machine = \(machine) ORDER BY queued_at, image_id
            """)
        var (cached, queued): ([JSONValue], [String]) = ([], [])
        for row in rows {
            let id = try row.string("image_id")
            guard try row.bool("is_cached") else {
                queued.append(id)
                continue
            }
            let modified = try row.double("modified")
            cached.append([
                "image_id": .string(id), "hits": JSONValue(try row.int("hits")), "size": JSONValue(try row.int("size")),
                "last_accessed": .double(try row.optionalDouble("accessed") ?? modified), "last_modified": .double(modified),
            ])
        }
        return (cached, queued)
    }

    /// Queues an image for the machine; does nothing if it is cached or queued.
    func queue(_ connection: Connection, _ image: Authorized<Image>, now: Timestamp) throws {
        let id = try image.value(for: "cache_image").id
        try connection.execute(
            """
            INSERT INTO image_cache (machine, image_id, queued_at) VALUES (\(machine), \(id)::uuid, \(now)) ON CONFLICT DO NOTHING
            """)
    }

    /// Removes an image from the cache and the queue.
    func remove(_ connection: Connection, _ image: Authorized<Image>) throws {
        let id = try image.value(for: "cache_delete").id
        try connection.execute("DELETE FROM image_cache WHERE machine = \(machine) AND image_id = \(id)::uuid")
    }

    /// Removes all images from the cache, the queue, or both.
    func clear(_ connection: Connection, _ target: Authorized<CacheTarget>) throws {
        let target = try target.value(for: "cache_delete")
        try connection.execute(
            """
            DELETE FROM image_cache WHERE machine = \(machine)
                AND (\(target != .queue) AND file_id IS NOT NULL OR \(target != .cache) AND file_id IS NULL)
            """)
    }

    // MARK: work

    /// The image that has waited longest.
    func next(_ connection: Connection) throws -> Image? {
        try connection.query(
            """
            SELECT \(raw: Image.selection) FROM image_cache c JOIN images t ON t.id = c.image_id
            WHERE c.machine = \(machine) AND c.file_id IS NULL ORDER BY c.queued_at, c.image_id LIMIT 1
            """
        ).first.map { try Image($0) }
    }

    /// Records that the cache has the data.
    func finish(_ connection: Connection, _ image: String, file: String, size: Int, now: Timestamp) throws {
        try connection.execute(
            """
            UPDATE image_cache SET file_id = \(file)::uuid, size = \(size), cached_at = \(now), accessed_at = \(now)
            WHERE machine = \(machine) AND image_id = \(image)::uuid AND file_id IS NULL
            """)
    }

    /// Forgets an image that cannot be cached.
    func drop(_ connection: Connection, _ image: String) throws {
        try connection.execute("DELETE FROM image_cache WHERE machine = \(machine) AND image_id = \(image)::uuid AND file_id IS NULL")
    }

    /// Records the hits since the last call.
    func count(_ connection: Connection, file: String, hits: Int, at time: Timestamp) throws {
        try connection.execute(
            """
            UPDATE image_cache SET hits = hits + \(hits), accessed_at = greatest(accessed_at, \(time))
            WHERE machine = \(machine) AND file_id = \(file)::uuid
            """)
    }

    /// The ids of the data that belongs in the cache.
    func files(_ connection: Connection) throws -> Set<String> {
        Set(
            try connection.query(
                """
                SELECT c.file_id FROM image_cache c JOIN images i ON i.id = c.image_id AND i.file_id = c.file_id
                WHERE c.machine = \(machine)
                """
            ).map { try $0.string("file_id") })
    }

    /// Queues images again whose data the cache has lost.
    func requeue(_ connection: Connection, files: [String]) throws {
        try connection.execute(
            """
            UPDATE image_cache SET file_id = NULL, size = NULL, cached_at = NULL
            WHERE machine = \(machine) AND file_id = ANY(\(files)::uuid[])
            """)
    }

    /// Removes images from the cache until the others fit, least recently used first.
    func prune(_ connection: Connection, to bytesMax: Int) throws -> [Entry] {
        try connection.query(
            """
            DELETE FROM image_cache c USING (
                SELECT image_id, sum(size) OVER (ORDER BY accessed_at DESC, image_id) AS total
                FROM image_cache WHERE machine = \(machine) AND file_id IS NOT NULL
            ) r
            WHERE c.machine = \(machine) AND c.image_id = r.image_id AND r.total > \(bytesMax)
            RETURNING c.image_id, c.file_id, c.size
            """
        ).map { Entry(imageID: try $0.string("image_id"), file: try $0.string("file_id"), size: try $0.int("size")) }
    }
}

/// The part of the cache that a request clears.
enum CacheTarget: String, Sendable {
    case cache, queue
    case all = ""
}
