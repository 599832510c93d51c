import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Logging
import Workflow

/// Swaps a volume of a running server for another one, keeping its content.
///
/// The host copies the volume while the guest runs, and reports when every write of the guest goes to both. From then on it pauses
/// changes to the guest until it is told to switch the guest to the new volume. The swap can be cancelled until that order; afterwards
/// the host reports which volume the guest has.
struct VolumeSwap: Sendable {
    let steps: ServerSteps

    static let kind = "server.swap_volume"
    /// The action of the server.
    static let action = "swap_volume"
    private static let failureMessage = "The host could not swap the volume"
    private static let interval = Duration.seconds(1)
    private static let patience = Duration.seconds(30)

    init(_ compute: Compute) { steps = ServerSteps(compute: compute) }

    private var compute: Compute { steps.compute }
    private var database: Database { steps.database }
    private var ambient: Ambient { steps.ambient }

    struct Swap: Codable, Sendable {
        /// The row of the attachment.
        var row: String
        var old: String
        var new: String
        var device: String
        /// GiB of the new volume.
        var size: Int
        /// The id of the host's job.
        var job: String
        /// Of the new volume, once there is one.
        var attachment: String?
        var connection: JSONValue?

        enum CodingKeys: String, CodingKey {
            case row, old, new, device, size, job, attachment, connection
        }
    }

    var workflow: Workflow<Swap> {
        Workflow(
            service: Compute.service, kind: VolumeSwap.kind,
            steps: [
                .init(
                    "connect", deadline: .seconds(60), run: { try await connect($0, &$1) },
                    undo: { try await disconnect($0, $1) }),
                .init(
                    "copy", deadline: .seconds(60), run: { try await copy(&$0, $1) },
                    undo: { try await takeBack($0.subjectID, $1) }),
                .init("synchronized", deadline: DiskCopySteps.deadline) { context, frame in
                    try await isIn(ServerJobReport.synchronized, context, frame) ? .next : .wait(VolumeSwap.interval)
                },
                .init("pivot", deadline: .seconds(60), run: { try await pivot(&$0, $1) }, undo: { try await settle($0, $1) }),
                .init("pivoted", deadline: DiskCopySteps.deadline) { context, frame in
                    try await hasPivoted(context, frame) ? .next : .wait(VolumeSwap.interval)
                },
                .init("exchange", deadline: .seconds(60), run: { try await exchange(&$0, $1) }),
                .init("release", deadline: DiskCopySteps.deadline, run: { try await release($0, $1) }),
            ],
            interruptedBy: [ServerCreate.deleteIntent], failed: { try await failed($0, $1, $2) })
    }

    private func connect(_ context: StepContext, _ frame: inout Swap) async throws -> StepResult {
        let server = try await steps.server(context.subjectID)
        guard let host = server.host else { throw StepFailure("The server is not on a host.") }
        do {
            let answer = try await compute.clients.volumes.attach(
                VolumeAttachRequest(
                    volumeID: frame.new, serverID: server.id, subject: server.subject, host: host, device: frame.device,
                    operation: context.operationID()))
            frame.attachment = answer.attachmentID
            frame.connection = answer.connection
        } catch let error as ResourceError where !error.isRetryable {
            throw StepFailure(error.message, details: error.context)
        }
        return .next
    }

    /// Frees the new volume, unless the guest has it already.
    private func disconnect(_ context: StepContext, _ frame: Swap) async throws {
        let id = context.subjectID
        let found = try await database.read { connection in
            try connection.query(
                """
                SELECT a.id, s.project_id, s.user_id FROM servers s, LATERAL (
                    SELECT id FROM published_volume_attachments WHERE server_id = s.id AND volume_id = \(frame.new)
                    UNION SELECT \(frame.attachment)::uuid WHERE \(frame.attachment)::uuid IS NOT NULL) a
                WHERE s.id = \(id) AND NOT EXISTS (SELECT 1 FROM server_volumes v WHERE v.server_id = s.id AND v.volume_id = \(frame.new))
                """
            ).map { (try $0.string("id"), try ServerSteps.subject($0)) }
        }
        for (attachment, subject) in found {
            try await tolerate(context, "the attachment \(attachment) of volume \(frame.new)") {
                try await compute.clients.volumes.detach(attachment: attachment, as: subject)
            }
        }
        try await database.write { connection in
            _ = try connection.execute("UPDATE server_volumes SET swap_volume_id = NULL WHERE id = \(frame.row)")
        }
    }

    /// Ignores a permanent refusal of a release, so that the undo and the deletion of the server can end.
    private func tolerate(_ context: StepContext, _ what: String, _ body: () async throws -> Void) async throws {
        try await steps.tolerate(Refusals(context), of: context.subjectID, action: VolumeSwap.action, what, body)
    }

    private func copy(_ context: inout StepContext, _ frame: Swap) async throws -> StepResult {
        let server = try await steps.server(context.subjectID)
        guard let host = server.host else { throw StepFailure("The server is not on a host.") }
        let job = ServerJob(
            id: frame.job,
            swap: .init(
                volumeID: frame.old,
                replacement: .init(
                    id: frame.new, attachmentID: try frame.attachment.recorded("attachment"), device: frame.device, bootIndex: nil,
                    connection: Enclosed(document: try frame.connection.recorded("connection"))), sizeGiB: frame.size))
        let ambient = ambient
        context.commit { try HostJobs.order($0, job, server: server.id, host: host, ambient: ambient) }
        return .next
    }

    /// Cancels the copy and waits for the host, which writes to the new volume until then, even if it is unreachable. Does not wait for
    /// a host that an operator has fenced.
    private func takeBack(_ id: String, _ frame: Swap) async throws {
        let ambient = ambient
        try await database.write { try HostJobs.end($0, frame.job, server: id, ambient: ambient) }
        guard let server = try await database.read({ try WorkflowServer.load($0, id) }), let host = server.host, !server.isApplied,
            server.hostFailure(of: server.generation)?.isPermanent != true, try await !steps.isFencedOff(host: host)
        else { return }
        throw UndoWait(VolumeSwap.interval)
    }

    /// Whether the host's job has come to a phase; sends the order again to a host that does not answer.
    ///
    /// - Throws: `StepFailure` if the host has given up or is down.
    private func isIn(_ phase: String, _ context: StepContext, _ frame: Swap) async throws -> Bool {
        let server = try await steps.server(context.subjectID)
        let state = try await state(server, frame)
        if state.isDone || state.phase == phase { return true }
        guard state.host == server.host, try await steps.isUp(host: state.host) else { throw StepFailure("The server's host is down.") }
        try await repeatOrder(server.id, frame)
        return false
    }

    private func state(_ server: WorkflowServer, _ frame: Swap) async throws -> HostJobs.State {
        guard let state = try await database.read({ try HostJobs.state($0, frame.job) }) else {
            throw StepFailure("\(VolumeSwap.failureMessage): it no longer works on it.")
        }
        if let failure = state.failure(VolumeSwap.failureMessage, host: server.host) { throw failure.failure(VolumeSwap.failureMessage) }
        return state
    }

    private func repeatOrder(_ server: String, _ frame: Swap) async throws {
        let ambient = ambient
        try await database.write {
            try HostJobs.repeatOrder($0, frame.job, server: server, patience: VolumeSwap.patience, ambient: ambient)
        }
    }

    private func pivot(_ context: inout StepContext, _ frame: Swap) async throws -> StepResult {
        let (id, ambient) = (context.subjectID, ambient)
        context.commit { connection in
            try HostJobs.revise(connection, frame.job, server: id, ambient: ambient) { $0.swap?.completes = true }
        }
        return .next
    }

    /// Whether the guest has the new volume. A host that is down reports it when it returns. If the operator has confirmed that the host
    /// does not run, the guest is started again with the new volume, which has every write.
    private func hasPivoted(_ context: StepContext, _ frame: Swap) async throws -> Bool {
        let server = try await steps.server(context.subjectID)
        if try await state(server, frame).isDone { return true }
        if let host = server.host, try await steps.isFencedOff(host: host) { return true }
        try await repeatOrder(server.id, frame)
        return false
    }

    /// Finds out which volume the guest has after the order, before anything else is undone.
    private func settle(_ context: StepContext, _ frame: Swap) async throws {
        let id = context.subjectID
        guard let server = try await database.read({ try WorkflowServer.load($0, id) }) else { return }
        let (state, isOrdered) = try await database.read { connection in
            (try HostJobs.state(connection, frame.job), try HostJobs.job(connection, frame.job)?.swap?.completes == true)
        }
        if let state, isOrdered, state.failure(VolumeSwap.failureMessage, host: server.host) == nil {
            let isFenced = if let host = server.host { try await steps.isFencedOff(host: host) } else { true }
            guard state.isDone || isFenced else {
                try await repeatOrder(id, frame)
                throw UndoWait(VolumeSwap.interval)
            }
            let ambient = ambient
            try await database.write { try VolumeSwap.exchange($0, id, frame, ambient: ambient) }
        }
        let isExchanged = try await database.read {
            try !$0.query("SELECT 1 AS one FROM server_volumes WHERE id = \(frame.row) AND volume_id = \(frame.new)").isEmpty
        }
        if isExchanged { try await release(server, context, frame) }
    }

    private func exchange(_ context: inout StepContext, _ frame: Swap) async throws -> StepResult {
        let (id, ambient) = (context.subjectID, ambient)
        context.commit { try VolumeSwap.exchange($0, id, frame, ambient: ambient) }
        return .next
    }

    private static func exchange(_ connection: Connection, _ id: String, _ frame: Swap, ambient: Ambient) throws {
        try connection.execute(
            """
            UPDATE server_volumes SET volume_id = \(frame.new), attachment_id = \(try frame.attachment.recorded("attachment")),
                connection = \(try frame.connection.recorded("connection"))::jsonb, swap_volume_id = NULL
            WHERE id = \(frame.row) AND volume_id = \(frame.old)
            """)
        // In one desired state, so that the host never sees the old volume without the job.
        try HostJobs.end(connection, frame.job, server: id, ambient: ambient)
    }

    private func release(_ context: StepContext, _ frame: Swap) async throws -> StepResult {
        try await release(try await steps.server(context.subjectID), context, frame)
        try await compute.finish(VolumeSwap.action, server: context.subjectID)
        return .next
    }

    /// Frees the old volume.
    private func release(_ server: WorkflowServer, _ context: StepContext, _ frame: Swap) async throws {
        let old = try await database.read { connection in
            try connection.query("SELECT id FROM published_volume_attachments WHERE server_id = \(server.id) AND volume_id = \(frame.old)")
                .map { try $0.string("id") }
        }
        let new = try frame.attachment.recorded("attachment")
        try await tolerate(context, "the end of the attachment \(new) of volume \(frame.new)") {
            try await compute.clients.volumes.complete(attachment: new, as: server.subject)
        }
        for attachment in old {
            try await tolerate(context, "the attachment \(attachment) of volume \(frame.old)") {
                try await compute.clients.volumes.detach(attachment: attachment, as: server.subject)
            }
        }
    }

    private func failed(_ context: StepContext, _ frame: Swap, _ failure: StepFailure) async throws {
        compute.log.warning(
            "a volume is not swapped",
            metadata: ["server": "\(context.subjectID)", "message": "\(failure.message)", "details": "\(failure.details ?? "")"])
        try await compute.finish(VolumeSwap.action, server: context.subjectID, error: failure)
    }
}
