import ComputeCore
import Contracts
import Database
import ImageAccess
import JSON
import Kernel
import Workflow

/// An image of a server's root disk: part of the frames of `server.snapshot` and `server.shelve`.
struct DiskCopy: Codable, Sendable {
    /// The image's id, and the body of the request that creates it.
    var image: String
    var body: JSONObject
    /// The owner of the image.
    var project: String
    var user: String
    /// The id of the host's job.
    var job: String
    var quiesce: ServerJob.DiskUpload.Quiesce
    /// Whether the image was created.
    var isCreated: Bool?
    /// The status with which Image refused to create the image.
    var refusal: Int?

    enum CodingKeys: String, CodingKey {
        case image, body, project, user, job, quiesce, refusal
        case isCreated = "created"
    }

    var subject: ActingSubject { .accepted(project: project, user: user) }
}

/// Steps that create an image of a server's root disk. Each has an undo, so that a failure leaves neither an image nor a job.
struct DiskCopySteps: Sendable {
    let steps: ServerSteps

    /// A host's transfer may take as long as it needs; one that makes no progress is ended by the host.
    static let deadline = Duration.seconds(7 * 86_400)
    private static let interval = Duration.seconds(2)
    /// After this time without a report, the desired state is sent again; the host answers with a report.
    private static let patience = Duration.seconds(60)

    private var compute: Compute { steps.compute }
    private var database: Database { steps.database }
    private var ambient: Ambient { steps.ambient }

    func createImage(_ copy: inout DiskCopy) async throws -> StepResult {
        do { try await compute.clients.images.createImage(copy.body, as: copy.subject) } catch let error as ResourceError
            where !error.isRetryable
        {
            copy.refusal = error.code.rawValue
            throw StepFailure(error.message, details: error.context)
        }
        copy.isCreated = true
        return .next
    }

    /// Undoes `createImage`.
    func deleteImage(_ copy: DiskCopy) async throws {
        try await ImageRemoval(compute).delete(copy.image, as: copy.subject, isTemporary: copy.body["os_hidden"] == true)
    }

    /// Orders the host to copy and upload the disk.
    func order(_ context: inout StepContext, _ copy: DiskCopy, task: TaskState, from tasks: [TaskState]) async throws -> StepResult {
        let job = ServerJob(
            id: copy.job,
            upload: .init(imageID: copy.image, projectID: copy.project, userID: copy.user, quiesce: copy.quiesce))
        return try await order(&context, job, task: task, from: tasks)
    }

    /// Gives the server's host a job.
    func order(_ context: inout StepContext, _ job: ServerJob, task: TaskState, from tasks: [TaskState]) async throws -> StepResult {
        let server = try await steps.server(context.subjectID)
        guard let host = server.host else { throw StepFailure("The server is not on a host.") }
        let ambient = ambient
        context.commit { connection in
            try HostJobs.order(connection, job, server: server.id, host: host, ambient: ambient)
            try DiskCopySteps.enter(connection, server.id, task, from: tasks, progress: 0, now: ambient.now)
        }
        return .next
    }

    func endJob(_ copy: DiskCopy, server: String) async throws { try await endJob(copy.job, server: server) }

    func endJob(_ id: String, server: String) async throws {
        let ambient = ambient
        try await database.write { try HostJobs.end($0, id, server: server, ambient: ambient) }
    }

    /// Waits until the image has its data.
    ///
    /// - Parameters:
    ///   - copying: the task while the host copies the disk, and while it uploads the copy.
    ///   - tasks: the tasks that these may replace.
    /// - Throws: `StepFailure` if the host gives up or is down, and if the image was deleted.
    func awaitUpload(
        _ context: StepContext, _ copy: DiskCopy, copying: TaskState, uploading: TaskState, from tasks: [TaskState]
    ) async throws -> StepResult {
        let images = compute.images
        guard try await database.read({ try images.status($0, of: copy.image) }) != nil else {
            throw StepFailure("Image \(copy.image) was deleted.")
        }
        let isDone = try await isDone(
            context, job: copy.job, message: "The host could not make the image", copying: copying, uploading: uploading, from: tasks)
        guard isDone else { return .wait(DiskCopySteps.interval) }
        // The host's result is compared with the state of the image at that time.
        let status = try await database.read { try images.status($0, of: copy.image) }
        guard status != "active" else { return .next }
        throw StepFailure("The data of image \(copy.image) is not complete: its status is \(status ?? "deleted").")
    }

    /// Ends the action that requested an image of a server, and removes the host's job.
    func recordImageCreated(_ connection: Connection, _ copy: DiskCopy, of server: String, action: String) throws {
        try HostJobs.end(connection, copy.job, server: server, ambient: ambient)
        try DiskCopySteps.settle(connection, server, from: TaskState.snapshot, ambient: ambient)
        try ServerActions.finish(connection, server: server, action: action, now: ambient.now)
    }

    /// Ends the failed action that requested an image of a server.
    func imageFailed(of server: String, action: String, _ failure: StepFailure) async throws {
        let ambient = ambient
        compute.log(failure, of: server, "an image of a server failed")
        try await database.write { connection in
            try DiskCopySteps.settle(connection, server, from: TaskState.snapshot, ambient: ambient)
            try ServerActions.finish(connection, server: server, action: action, failure: failure, now: ambient.now)
        }
    }

    /// Whether the host has completed a job. Shows the progress in the server's task.
    ///
    /// - Parameter message: a sentence about the failure, without its full stop.
    /// - Throws: `StepFailure` if the host gives up or is down.
    func isDone(
        _ context: StepContext, job: String, message: String, copying: TaskState, uploading: TaskState, from tasks: [TaskState]
    ) async throws -> Bool {
        let server = try await steps.server(context.subjectID)
        guard let state = try await database.read({ try HostJobs.state($0, job) }) else {
            throw StepFailure("\(message): it no longer works on it.")
        }
        if let failure = state.failure(message, host: server.host) { throw failure.failure(message) }
        if state.isDone { return true }
        guard state.host == server.host else { throw StepFailure("\(message): the server was moved to another host.") }
        guard let host = server.host, try await steps.isUp(host: host) else { throw StepFailure("The server's host is down.") }
        if let failure = server.hostFailure(of: server.generation), failure.isPermanent { throw failure.failure(message) }
        try await show(server.id, job, state, task: state.phase == "uploading" ? uploading : copying, from: tasks)
        return false
    }

    private func show(_ server: String, _ job: String, _ state: HostJobs.State, task: TaskState, from tasks: [TaskState]) async throws {
        let ambient = ambient
        try await database.write { connection in
            if state.state == ServerJobReport.State.running.rawValue {
                try DiskCopySteps.enter(connection, server, task, from: tasks, progress: state.progress, now: ambient.now)
            }
            try HostJobs.repeatOrder(connection, job, server: server, patience: DiskCopySteps.patience, ambient: ambient)
        }
    }

    /// Shows the progress as the server's task, unless the server is being deleted or an administrator has reset its state.
    static func enter(
        _ connection: Connection, _ server: String, _ task: TaskState, from tasks: [TaskState], progress: Int, now: Timestamp
    ) throws {
        try connection.execute(
            """
            UPDATE servers SET task_state = \(task.rawValue), progress = \(progress), updated_at = \(now)
            WHERE id = \(server) AND task_state = ANY(\(tasks.map(\.rawValue))::text[])
                AND (task_state, progress) IS DISTINCT FROM (\(task.rawValue)::text, \(progress)::integer)
            """)
    }

    /// Ends the task of a server whose state has not changed.
    static func settle(_ connection: Connection, _ server: String, from tasks: [TaskState], ambient: Ambient) throws {
        let changed = try connection.execute(
            """
            UPDATE servers SET task_state = NULL, progress = 100, updated_at = \(ambient.now)
            WHERE id = \(server) AND task_state = ANY(\(tasks.map(\.rawValue))::text[])
            """)
        // The host reported it while the server had the task, and will not do so again.
        if changed > 0, let server = try WorkflowServer.load(connection, server), server.hasStopped {
            try Observations.stop(connection, server.id, ambient: ambient)
        }
    }
}
