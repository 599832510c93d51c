import ComputeCore
import Contracts
import Database
import Inspections
import JSON
import Kernel
import Logging
import Workflow

/// Orders hosts to copy attached volumes for snapshots.
package struct VolumeCopyTask: Sendable {
    private let compute: Compute

    private static let interval: Duration = .seconds(2)
    private static let batchMax = 50

    package init(_ compute: Compute) { self.compute = compute }

    /// Runs until the task is cancelled.
    package func run() async throws {
        try await PeriodicTask.repeating(
            every: VolumeCopyTask.interval, compute.ambient, compute.log, failure: "snapshots of volumes in use are not begun"
        ) {
            try await runOnce()
        }
    }

    /// Starts the copies that are waiting.
    ///
    /// - Returns: the servers whose hosts start copying, and the snapshots that no host can make.
    @discardableResult
    package func runOnce() async throws -> Int {
        let ambient = compute.ambient
        let workflow = VolumeCopy(compute).workflow
        let orphans = try await compute.database.read { try HostCopies.orphans($0, limit: VolumeCopyTask.batchMax) }
        for orphan in orphans {
            try await compute.clients.volumes.reportCopy(ofSnapshot: orphan.snapshot, isComplete: false, as: orphan.subject)
        }
        let isNeeded = try await compute.database.read {
            try !HostCopies.servers($0, idle: Workflows.isIdle("s.id"), isLocking: false, limit: 1).isEmpty
        }
        guard isNeeded else { return orphans.count }
        return try await compute.database.write { connection in
            let servers = try HostCopies.servers(
                connection, idle: Workflows.isIdle("s.id"), isLocking: true, limit: VolumeCopyTask.batchMax)
            for server in servers {
                let source = try ServerImages.source(connection, server, images: compute.images)
                let snapshots = try HostCopies.pending(connection, server: server).map(\.snapshot)
                let frame = VolumeCopy.Copy(
                    job: ambient.newUUID().description, snapshots: snapshots, quiesce: ServerImages.quiesce(source))
                try Workflows.start(connection, workflow, subject: server, frame: frame, requestID: nil, ambient: ambient)
            }
            return servers.count + orphans.count
        }
    }
}

/// Copies volumes of a server for snapshots that tenants requested from Block Storage.
struct VolumeCopy: Sendable {
    let steps: ServerSteps
    private let copies: DiskCopySteps

    init(_ compute: Compute) {
        steps = ServerSteps(compute: compute)
        copies = DiskCopySteps(steps: steps)
    }

    struct Copy: Codable, Sendable {
        /// The id of the host's job.
        var job: String
        var snapshots: [String]
        var quiesce: ServerJob.DiskUpload.Quiesce
    }

    private static let failureMessage = "The host could not copy the volume"

    var workflow: Workflow<Copy> {
        Workflow(
            service: Compute.service, kind: "server.copy_volumes",
            steps: [
                .init(
                    "copy", deadline: .seconds(60), run: { try await order(&$0, $1) },
                    undo: { try await copies.endJob($1.job, server: $0.subjectID) }),
                .init("await", deadline: DiskCopySteps.deadline) { context, frame in
                    // When nothing waits for the copies any more, ending the job makes the host stop and remove them.
                    let snapshots = frame.snapshots
                    if try await steps.database.read({ try HostCopies.stillPending($0, snapshots) }).isEmpty { return .next }
                    let isDone = try await copies.isDone(
                        context, job: frame.job, message: VolumeCopy.failureMessage, copying: .imageSnapshot, uploading: .imageSnapshot,
                        from: [])
                    return isDone ? .next : .wait(.seconds(2))
                },
                .init("finish", run: { try await finish(&$0, $1) }),
            ],
            interruptedBy: [ServerCreate.deleteIntent], failed: { try await failed($0, $1, $2) })
    }

    private func order(_ context: inout StepContext, _ frame: Copy) async throws -> StepResult {
        let id = context.subjectID
        let volumes = try await steps.database.read { try HostCopies.volumes($0, server: id, snapshots: frame.snapshots) }
        if volumes.isEmpty { return .done }
        let job = ServerJob(id: frame.job, copies: .init(volumes: volumes, quiesce: frame.quiesce))
        return try await copies.order(&context, job, task: .imageSnapshot, from: [])
    }

    /// The snapshots that the job has copied.
    private func copied(_ frame: Copy) async throws -> [String] {
        try await steps.database.read { connection in
            guard try HostJobs.state(connection, frame.job)?.isDone == true, let job = try HostJobs.job(connection, frame.job) else {
                return []
            }
            let names = Set((job.copies?.volumes ?? []).map(\.path).compactMap { $0.split(separator: "/").last.map(String.init) })
            return frame.snapshots.filter { names.contains(ServerJob.VolumeCopies.fileName(ofSnapshot: $0)) }
        }
    }

    private func finish(_ context: inout StepContext, _ frame: Copy) async throws -> StepResult {
        let id = context.subjectID
        let ambient = steps.ambient
        let server = try await steps.server(id)
        for snapshot in try await copied(frame) {
            try await steps.compute.clients.volumes.reportCopy(ofSnapshot: snapshot, isComplete: true, as: server.subject)
        }
        context.commit { try HostJobs.end($0, frame.job, server: id, ambient: ambient) }
        return .next
    }

    private func failed(_ context: StepContext, _ frame: Copy, _ failure: StepFailure) async throws {
        let id = context.subjectID
        steps.compute.log(failure, of: id, "volumes of a server are not copied")
        let waiting = try await steps.database.read { connection in
            (try HostCopies.stillPending(connection, frame.snapshots), try WorkflowServer.load(connection, id)?.subject)
        }
        guard let subject = waiting.1 else { return }
        for snapshot in waiting.0.sorted() {
            try await steps.compute.clients.volumes.reportCopy(ofSnapshot: snapshot, isComplete: false, as: subject)
        }
    }
}
