import ComputeService
import Database
import JSON
import Kernel
import Synchronization
import TestKit

/// The Image service.
extension FakeCloud {
    /// The queries and changes that Image received.
    var imageQueries: [[String]] { state.withLock(\.imageQueries) }
    var imagePatches: [JSONValue] { state.withLock(\.imagePatches) }

    /// Image refuses the next images with this error.
    func refuseImages(_ error: ResourceError?) { state.withLock { $0.imageRefusal = error } }
    /// Hosts end their jobs with this error; if nil, jobs succeed.
    func failJobs(_ reason: String?) { state.withLock { $0.jobFailure = reason } }
    /// Hosts start jobs but do not complete them.
    func holdJobs(_ isHeld: Bool) { state.withLock { $0.holdsJobs = isHeld } }

    func createImage(_ image: JSONObject, as subject: ActingSubject) async throws {
        state.withLock { $0.subjects.append(subject) }
        try await probe.effect("createImage") {
            if let error = state.withLock({ $0.imageRefusal }) { throw error }
            let readOnly = [
                "size", "virtual_size", "checksum", "status", "os_hash_algo", "os_hash_value", "created_at", "updated_at", "file",
            ]
            if let name = image.names.first(where: readOnly.contains) {
                throw ResourceError.forbidden("Attribute '\(name)' is read-only.")
            }
            let core = ["id", "name", "visibility", "disk_format", "container_format", "min_disk", "min_ram"]
            let properties = JSONObject(image.members.filter { !core.contains($0.name) })
            let now = ambient.now
            _ = try await database.write { connection in
                try connection.execute(
                    """
                    INSERT INTO images (id, project_id, name, status, visibility, disk_format, container_format, min_disk, min_ram,
                        properties, created_at, updated_at)
                    VALUES (\(image["id"]?.stringValue), \(subject.project), \(image["name"]?.stringValue), 'queued',
                        \(image["visibility"]?.stringValue), 'qcow2', 'bare', \(image["min_disk"]?.intValue ?? 0),
                        \(image["min_ram"]?.intValue ?? 0), \(properties)::jsonb, \(now), \(now)) ON CONFLICT DO NOTHING
                    """)
            }
        }
    }

    func activateEmpty(_ id: String, as subject: ActingSubject) async throws {
        state.withLock { $0.subjects.append(subject) }
        try await probe.effect("activateEmpty") {
            _ = try await database.write {
                try $0.execute(
                    """
                    UPDATE images SET status = 'active', size = 0, file_id = id, checksum = 'c', os_hash_algo = 'sha512',
                        os_hash_value = 'h' WHERE id = \(id)::uuid AND status = 'queued'
                    """)
            }
        }
    }

    func deleteImage(_ id: String, as subject: ActingSubject) async throws {
        state.withLock { $0.subjects.append(subject) }
        try await probe.effect("deleteImage") {
            try await database.write { connection in
                let isProtected = try connection.query("SELECT protected FROM images WHERE id = \(id)::uuid").first?.bool("protected")
                if isProtected == true { throw ResourceError.forbidden("Image \(id) is protected and cannot be deleted.") }
                try connection.execute("DELETE FROM images WHERE id = \(id)::uuid AND project_id = \(subject.project)")
            }
        }
    }

    func image(_ id: String, as subject: ActingSubject) async throws -> JSONObject {
        guard let image = try await images([("id", id)], as: subject).images.first else { throw ResourceError.notFound("No image \(id)") }
        return image
    }

    func images(_ query: [(String, String)], as subject: ActingSubject) async throws -> ImagePage {
        state.withLock {
            $0.subjects.append(subject)
            $0.imageQueries.append(query.map { "\($0.0)=\($0.1)" })
        }
        let id = query.first { $0.0 == "id" }?.1
        // Administrators see every project's.
        let project = subject.grounds == .user ? nil : subject.project
        let rows = try await database.read {
            try $0.query(
                """
                SELECT id, name, status, min_disk, min_ram, size, properties FROM images
                WHERE project_id = coalesce(\(project), project_id) AND (\(id)::uuid IS NULL OR id = \(id)::uuid) ORDER BY created_at DESC, id
                """
            ).map { row -> JSONObject in
                var image: JSONObject = try row.object("properties")
                image["id"] = .string(try row.string("id"))
                image["name"] = JSONValue(try row.optionalString("name"))
                image["status"] = .string(try row.string("status"))
                image["min_disk"] = JSONValue(try row.int("min_disk"))
                image["min_ram"] = JSONValue(try row.int("min_ram"))
                image["size"] = try row.optionalInt("size").map { JSONValue($0) } ?? .null
                image["created_at"] = "2026-01-01T00:00:00Z"
                image["updated_at"] = "2026-01-02T00:00:00Z"
                return image
            }
        }
        let marker = query.first { $0.0 == "marker" }?.1
        let from = marker.flatMap { marker in rows.firstIndex { $0["id"] == .string(marker) } }.map { $0 + 1 } ?? 0
        let limit = query.first { $0.0 == "limit" }.flatMap { Int($0.1) } ?? rows.count
        let page = rows[from...].prefix(limit)
        return ImagePage(images: Array(page), hasMore: from + page.count < rows.count)
    }

    func changeImage(_ id: String, _ patch: [JSONValue], as subject: ActingSubject) async throws {
        state.withLock {
            $0.subjects.append(subject)
            $0.imagePatches += patch
        }
        guard let flag = patch.first(where: { $0["path"] == "/protected" })?["value"]?.boolValue else { return }
        _ = try await database.write {
            try $0.execute("UPDATE images SET protected = \(flag) WHERE id = \(id)::uuid AND project_id = \(subject.project)")
        }
    }

    func address(of id: String) async throws -> String { "http://image.test/v2/images/\(id)" }
}
