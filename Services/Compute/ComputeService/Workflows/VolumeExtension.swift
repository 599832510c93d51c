import Authorization
import ComputeCore
import Database
import Kernel
import Workflow

/// Tells a host that Block Storage has extended a volume of a server, and waits until the guest's disk has the new size. The subject is the
/// attachment.
struct VolumeExtension: Sendable {
    static let action = "extend_volume"
    let compute: Compute

    init(_ compute: Compute) { self.compute = compute }

    struct Frame: Codable, Sendable {
        var server: String
        /// The server's generation with the new size.
        var generation: Int
    }

    var workflow: Workflow<Frame> {
        Workflow(
            service: Compute.service, kind: "volume.extend",
            steps: [
                .init("await", deadline: .seconds(3600)) { _, frame in
                    let result = try await compute.awaitApplied(frame.generation, server: frame.server, what: "disks")
                    if case .next = result { try await compute.finish(VolumeExtension.action, server: frame.server) }
                    return result
                }
            ],
            failed: { _, frame, failure in try await compute.finish(VolumeExtension.action, server: frame.server, error: failure) })
    }

    /// Starts the workflow for attached volumes with another size than their hosts were told of. A volume that is being swapped follows
    /// when the swap has ended.
    ///
    /// - Returns: how many.
    func begin(limit: Int) async throws -> Int {
        let (ambient, workflow) = (compute.ambient, workflow)
        return try await compute.database.write { connection in
            let rows = try connection.query(
                """
                SELECT v.id, v.server_id, p.size, s.host IS NOT NULL AS is_on_host, s.project_id, s.user_id
                FROM server_volumes v JOIN servers s ON s.id = v.server_id JOIN published_volumes p ON p.id = v.volume_id
                WHERE v.size_gb <> p.size AND v.state = 'attached' AND v.swap_volume_id IS NULL AND NOT s.deleted
                    AND NOT EXISTS (SELECT 1 FROM server_volumes o WHERE o.swap_volume_id = v.volume_id)
                    AND \(Workflows.isIdle("v.id")) ORDER BY v.id LIMIT \(limit) FOR UPDATE OF v SKIP LOCKED
                """)
            for row in rows {
                let (id, server) = (try row.string("id"), try row.string("server_id"))
                try connection.execute("UPDATE server_volumes SET size_gb = \(try row.int("size")) WHERE id = \(id)")
                // A server without a host gets its volumes with their sizes when it has one.
                guard try row.bool("is_on_host") else { continue }
                let request = "req-" + ambient.newUUID().description
                try ServerActions.begin(
                    connection, server: server, action: VolumeExtension.action, event: "compute_extend_volume", requestID: request,
                    user: try row.string("user_id"), project: try row.string("project_id"), now: ambient.now)
                let generation = try DesiredState.change(connection, server: server)
                try DesiredState.publish(connection, server: server, ambient: ambient)
                try Workflows.start(
                    connection, workflow, subject: id, frame: Frame(server: server, generation: generation), requestID: request,
                    ambient: ambient)
            }
            return rows.count
        }
    }

    /// Has the sizes of volumes sent to their servers' hosts again, because events report that they were extended.
    ///
    /// - Parameter servers: with the decision that events about them may be reported.
    static func send(
        _ connection: Connection, _ extended: [(server: String, volume: String)], of servers: Authorized<[String]>
    ) throws {
        let known = Set(try servers.value(for: "os_compute_api:os-server-external-events:create"))
        for (server, volume) in extended where known.contains(server) {
            try connection.execute(
                "UPDATE server_volumes SET size_gb = 0 WHERE server_id = \(server) AND volume_id = \(volume) AND state = 'attached'")
        }
    }
}
