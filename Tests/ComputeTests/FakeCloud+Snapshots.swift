import ComputeService
import Database
import JSON
import Kernel
import Synchronization
import TestKit

/// Snapshots and the images of volumes in Block Storage.
extension FakeCloud {
    /// Block Storage refuses the next snapshots with this error.
    func refuseSnapshots(_ error: ResourceError?) { state.withLock { $0.snapshotRefusal = error } }

    func createSnapshot(_ snapshot: JSONObject, as subject: ActingSubject, operation: String) async throws -> String {
        state.withLock { $0.subjects.append(subject) }
        return try await probe.effect("createSnapshot") {
            if let error = state.withLock({ $0.snapshotRefusal }) { throw error }
            if let known = state.withLock({ $0.keys["snapshot " + operation] }) { return known }
            let id = ambient.newUUID().description
            let volume = snapshot["volume_id"]?.stringValue
            let now = ambient.now
            let creation = try await database.write { connection in
                try connection.execute(
                    """
                    INSERT INTO volume_snapshots (id, volume_id, project_id, user_id, name, status, size, format, host_copy, created_at,
                        updated_at)
                    SELECT \(id), id, project_id, \(subject.user), \(snapshot["name"]?.stringValue), 'creating', size, format,
                        CASE WHEN status = 'in-use' THEN 'pending' END, \(now), \(now)
                    FROM volumes WHERE id = \(volume)::uuid AND project_id = \(subject.project)
                    """)
            }
            guard creation > 0 else { throw ResourceError.notFound("Volume \(volume ?? "") could not be found.") }
            state.withLock { $0.keys["snapshot " + operation] = id }
            return id
        }
    }

    func reimage(_ volume: String, image: String, as subject: ActingSubject, operation: String) async throws {
        state.withLock { $0.subjects.append(subject) }
        try await probe.effect("reimage") {
            if let error = state.withLock({ $0.snapshotRefusal }) { throw error }
            _ = try await database.write {
                try $0.execute("UPDATE volumes SET source_image_id = \(image)::uuid WHERE id = \(volume)::uuid")
            }
        }
    }

    func deleteSnapshot(_ id: String, as subject: ActingSubject) async throws {
        state.withLock { $0.subjects.append(subject) }
        try await probe.effect("deleteSnapshot") {
            _ = try await database.write { try $0.execute("DELETE FROM volume_snapshots WHERE id = \(id)::uuid") }
        }
    }

    func reportCopy(ofSnapshot id: String, isComplete: Bool, as subject: ActingSubject) async throws {
        state.withLock { $0.subjects.append(subject) }
        try await probe.effect("reportCopy") {
            _ = try await database.write { connection in
                try connection.execute(
                    """
                    UPDATE volume_snapshots SET status = \(isComplete ? "available" : "error"),
                        host_copy = \(isComplete ? "done" : "failed") WHERE id = \(id)::uuid AND host_copy = 'pending'
                    """)
            }
        }
    }
}
