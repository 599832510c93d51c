import Database
import JSON
import Synchronization

/// Long-running jobs of hosts.
extension FakeCloud {
    /// Does what a host does with a job: the image gets its data.
    func jobReports(_ server: JSONValue) async throws -> JSONValue {
        let (failure, isHeld) = state.withLock { ($0.jobFailure, $0.holdsJobs) }
        var reports: [JSONValue] = []
        for job in server["jobs"]?.arrayValue ?? [] {
            let id = job["id"] ?? .null
            if let order = job["migration"] {
                reports.append(await moveReport(server["id"]?.stringValue ?? "", id, order, failure: failure, isHeld: isHeld))
            } else if let failure {
                reports.append(["id": id, "state": "failed", "progress": 0, "error": .string(failure), "reason": .string(failure)])
            } else if isHeld {
                reports.append(["id": id, "state": "running", "phase": "uploading", "progress": 40])
            } else if let swap = job["swap"] {
                let isDone = swap["completes"] == true
                reports.append(
                    ["id": id, "state": isDone ? "done" : "running", "phase": "synchronized", "progress": 100])
            } else {
                let image = job["upload"]?["image_id"]?.stringValue
                _ = try await database.write {
                    try $0.execute(
                        """
                        UPDATE images SET status = 'active', file_id = id, size = 10, virtual_size = 1073741824, checksum = 'c',
                            os_hash_algo = 'sha512', os_hash_value = 'h' WHERE id = \(image)::uuid AND status = 'queued'
                        """)
                }
                reports.append(["id": id, "state": "done", "phase": "uploading", "progress": 100])
            }
        }
        return reports.isEmpty ? .null : .array(reports)
    }
}
