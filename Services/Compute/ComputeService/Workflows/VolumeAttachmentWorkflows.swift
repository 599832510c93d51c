import ComputeCore
import Database
import JSON
import Kernel
import Workflow

/// Attaching a volume to a server, and detaching one. The subject is the attachment.
struct VolumeAttachmentWorkflows: Sendable {
    let steps: ServerSteps

    init(_ compute: Compute) { steps = ServerSteps(compute: compute) }

    private var database: Database { steps.database }
    private var compute: Compute { steps.compute }

    // MARK: attach

    /// A requested volume. The row of `server_volumes` exists; its id is the subject.
    struct Attachment: Codable, Sendable {
        var server: String
        var volume: String
        var device: String
        /// The server's generation that has the volume; nil for an offloaded server, which gets it when it is unshelved.
        var generation: Int?
    }

    var attach: Workflow<Attachment> {
        Workflow(
            service: Compute.service, kind: "volume.attach",
            steps: [
                .init(
                    "connect", deadline: .seconds(60), run: { try await connect($0, $1) },
                    undo: { try await disconnect($0, server: $1.server, volume: $1.volume) }),
                .init("plug", deadline: .seconds(60), run: { try await plug(&$1) }, undo: { try await unplug($0, $1) }),
                .init("await", deadline: .seconds(180)) { _, frame in
                    guard let generation = frame.generation else { return .next }
                    return try await awaitApplied(generation, frame.server)
                },
                .init("complete", deadline: .seconds(120), run: { try await complete($0, $1) }),
            ],
            failed: { _, frame, failure in try await compute.finish("attach_volume", server: frame.server, error: failure) })
    }

    private func connect(_ context: StepContext, _ frame: Attachment) async throws -> StepResult {
        let server = try await steps.server(frame.server)
        let id = context.subjectID
        let answer = try await compute.clients.volumes.attach(
            VolumeAttachRequest(
                volumeID: frame.volume, serverID: server.id, subject: server.subject,
                host: server.host, device: frame.device, operation: context.operationID()))
        // An offloaded server may get a host at any time. `unshelve` connects the attachments that are recorded when it has chosen
        // one; one that comes later is connected here.
        let host = try await database.write { connection in
            let host = try connection.query("SELECT host FROM servers WHERE id = \(server.id) FOR UPDATE").first?.optionalString("host")
            try connection.execute(
                """
                UPDATE server_volumes SET attachment_id = \(answer.attachmentID), connection = \(answer.connection)::jsonb
                WHERE id = \(id)
                """)
            return host
        }
        if answer.connection == nil, let host {
            try await connect(row: id, to: host, attachment: answer.attachmentID, device: frame.device, as: server.subject)
        }
        return .next
    }

    private func connect(
        row: String, to host: String, attachment: String, device: String, as subject: ActingSubject
    ) async throws {
        let answer = try await compute.clients.volumes.connect(attachment: attachment, host: host, device: device, as: subject)
        _ = try await database.write { try $0.execute("UPDATE server_volumes SET connection = \(answer)::jsonb WHERE id = \(row)") }
    }

    /// Detaches the volume, and then deletes the attachment's row. If the row is gone, this was done before, and the server may have
    /// the volume again through another attachment.
    private func disconnect(_ context: StepContext, server: String, volume: String) async throws {
        let id = context.subjectID
        let found = try await database.read { connection in
            try connection.query(
                """
                SELECT a.id, s.project_id, s.user_id FROM servers s, LATERAL (
                    SELECT id FROM published_volume_attachments WHERE server_id = s.id AND volume_id = \(volume)
                    UNION SELECT attachment_id FROM server_volumes WHERE id = \(id) AND attachment_id IS NOT NULL) a
                WHERE s.id = \(server) AND EXISTS (SELECT 1 FROM server_volumes v WHERE v.id = \(id))
                """
            ).map { (try $0.string("id"), try ServerSteps.subject($0)) }
        }
        for (attachment, subject) in found {
            try await compute.clients.volumes.detach(attachment: attachment, as: subject)
        }
        _ = try await database.write { try $0.execute("DELETE FROM server_volumes WHERE id = \(id)") }
    }

    private func plug(_ frame: inout Attachment) async throws -> StepResult {
        let server = frame.server
        let generation = try await steps.plug(into: server) { _ in }
        let isOffloaded = try await database.read { connection in
            try connection.query("SELECT vm_state FROM servers WHERE id = \(server)").first?.string("vm_state")
                == VMState.shelvedOffloaded.rawValue
        }
        frame.generation = isOffloaded ? nil : generation
        return .next
    }

    private func unplug(_ context: StepContext, _ frame: Attachment) async throws {
        let row = context.subjectID
        try await steps.unplug(
            from: frame.server,
            state: { try $0.query("SELECT state FROM server_volumes WHERE id = \(row)").first?.string("state") },
            order: { try $0.execute("UPDATE server_volumes SET state = 'detaching' WHERE id = \(row)") })
    }

    private func awaitApplied(_ generation: Int, _ server: String) async throws -> StepResult {
        try await compute.awaitApplied(generation, server: server, what: "disks")
    }

    private func complete(_ context: StepContext, _ frame: Attachment) async throws -> StepResult {
        let id = context.subjectID
        let row = try await database.read { connection in
            try connection.query(
                """
                SELECT v.attachment_id, s.project_id, s.user_id FROM server_volumes v JOIN servers s ON s.id = v.server_id
                WHERE v.id = \(id) AND v.attachment_id IS NOT NULL
                """
            ).first.map { (try $0.string("attachment_id"), try ServerSteps.subject($0)) }
        }
        if let (attachment, subject) = row {
            try await compute.clients.volumes.complete(attachment: attachment, as: subject)
        }
        _ = try await database.write { connection in
            try connection.execute("UPDATE server_volumes SET state = 'attached' WHERE id = \(id) AND state = 'attaching'")
        }
        try await compute.finish("attach_volume", server: frame.server)
        return .next
    }

    // MARK: detach

    /// Block Storage refuses to detach the volume, so it remains the server's and is attached again.
    private func giveBack(_ context: StepContext, _ server: String) async throws {
        let (row, ambient) = (context.subjectID, compute.ambient)
        try await database.write { connection in
            try connection.execute("UPDATE server_volumes SET state = 'attached' WHERE id = \(row) AND state = 'detaching'")
            try DesiredState.change(connection, server: server)
            try DesiredState.publish(connection, server: server, ambient: ambient)
        }
    }

    /// A volume that the request has already removed from the desired state.
    struct Detachment: Codable, Sendable {
        var server: String
        var volume: String
        /// The server's generation without the volume.
        var generation: Int
    }

    var detach: Workflow<Detachment> {
        Workflow(
            service: Compute.service, kind: "volume.detach",
            steps: [
                .init("await") { _, frame in try await awaitApplied(frame.generation, frame.server) },
                .init("release") { context, frame in
                    do { try await disconnect(context, server: frame.server, volume: frame.volume) } catch let error as ResourceError
                        where !error.isRetryable && Refusals(context).areFinal
                    {
                        try await giveBack(context, frame.server)
                        try await compute.finish(
                            "detach_volume", server: frame.server, error: StepFailure(error.message, details: error.context))
                        return .next
                    }
                    try await compute.finish("detach_volume", server: frame.server)
                    return .next
                },
            ], retriesForever: true, failed: { _, _, _ in })
    }
}
