import ComputeCore
import Database
import JSON
import Kernel
import Workflow

/// Giving a server a volume, and taking one away. The subject is the attachment.
struct VolumeWorkflows: Sendable {
    let steps: ServerSteps

    init(_ compute: Compute) { steps = ServerSteps(compute: compute) }

    private var database: Database { steps.database }
    private var compute: Compute { steps.compute }

    private static func text(_ context: StepContext, _ name: String) -> String { context.frame[name]?.stringValue ?? "" }

    // MARK: attach

    /// Frame: server, volume, device. The row of `server_volumes` is there; its id is the subject.
    var attach: WorkflowDefinition {
        WorkflowDefinition(
            service: Compute.service, kind: "volume.attach",
            steps: [
                WorkflowStep("connect", deadline: .seconds(60), run: { try await connect(&$0) }, undo: { try await disconnect($0) }),
                WorkflowStep("plug", deadline: .seconds(60), run: { try await plug(&$0) }, undo: { try await unplug($0) }),
                WorkflowStep("await", deadline: .seconds(180), run: { try await awaitApplied($0) }),
                WorkflowStep("complete", deadline: .seconds(120), run: { try await complete(&$0) }),
            ],
            failed: { context, failure in try await finish(context, "attach_volume", error: failure) })
    }

    private func connect(_ context: inout StepContext) async throws -> StepResult {
        let server = try await steps.server(VolumeWorkflows.text(context, "server"))
        let answer = try await compute.neighbours.volumes.attach(
            VolumeAttachRequest(
                volumeID: VolumeWorkflows.text(context, "volume"), serverID: server.id, subject: server.subject,
                host: server.host ?? "", device: VolumeWorkflows.text(context, "device"), operation: context.operationID()))
        let id = context.subjectID
        _ = try await database.write { connection in
            try connection.execute(
                "UPDATE server_volumes SET attachment_id = \(answer.attachmentID), connection = \(answer.connection)::jsonb WHERE id = \(id)")
        }
        return .next
    }

    private func disconnect(_ context: StepContext) async throws {
        let id = context.subjectID
        let (server, volume) = (VolumeWorkflows.text(context, "server"), VolumeWorkflows.text(context, "volume"))
        let found = try await database.read { connection in
            try connection.query(
                """
                SELECT a.id, s.project_id, s.user_id FROM servers s, LATERAL (
                    SELECT id FROM volume_attachments WHERE server_id = s.id AND volume_id = \(volume)
                    UNION SELECT attachment_id FROM server_volumes WHERE id = \(id) AND attachment_id IS NOT NULL) a
                WHERE s.id = \(server)
                """
            ).map { (try $0.string("id"), try ServerSteps.subject($0)) }
        }
        for (attachment, subject) in found {
            try await compute.neighbours.volumes.detach(attachment: attachment, as: subject)
        }
        _ = try await database.write { try $0.execute("DELETE FROM server_volumes WHERE id = \(id)") }
    }

    private func plug(_ context: inout StepContext) async throws -> StepResult {
        let id = VolumeWorkflows.text(context, "server")
        let ambient = compute.ambient
        let generation = try await database.write { connection -> Int in
            let server = try ServerRecord.find(connection, id, lock: true)
            guard server.taskState != "deleting" else { throw StepFailure("The server is being deleted.") }
            let generation = try DesiredState.change(connection, server: id)
            try DesiredState.publish(connection, server: id, ambient: ambient)
            return generation
        }
        context.frame["generation"] = JSONValue(generation)
        return .next
    }

    private func unplug(_ context: StepContext) async throws {
        let id = VolumeWorkflows.text(context, "server")
        let row = context.subjectID
        let ambient = compute.ambient
        try await database.write { connection in
            try connection.execute("UPDATE server_volumes SET state = 'detaching' WHERE id = \(row)")
            try DesiredState.change(connection, server: id)
            try DesiredState.publish(connection, server: id, ambient: ambient)
        }
    }

    private func awaitApplied(_ context: StepContext) async throws -> StepResult {
        try await compute.awaitApplied(context, server: VolumeWorkflows.text(context, "server"), what: "disks")
    }

    private func complete(_ context: inout StepContext) async throws -> StepResult {
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
            try await compute.neighbours.volumes.complete(attachment: attachment, as: subject)
        }
        _ = try await database.write { connection in
            try connection.execute("UPDATE server_volumes SET state = 'attached' WHERE id = \(id) AND state = 'attaching'")
        }
        try await finish(context, "attach_volume", error: nil)
        return .next
    }

    private func finish(_ context: StepContext, _ action: String, error: StepFailure?) async throws {
        try await compute.finish(action, server: VolumeWorkflows.text(context, "server"), error: error)
    }

    // MARK: detach

    /// Frame: server, volume, generation. The request has already taken the volume from the desired state.
    var detach: WorkflowDefinition {
        WorkflowDefinition(
            service: Compute.service, kind: "volume.detach",
            steps: [
                WorkflowStep("await", run: { try await awaitApplied($0) }),
                WorkflowStep("release", run: { context in
                    try await disconnect(context)
                    try await finish(context, "detach_volume", error: nil)
                    return .next
                }),
            ], retriesForever: true, failed: { _, _ in })
    }
}
