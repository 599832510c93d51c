import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Workflow

/// `rebuild` of a server that boots from a volume (2.93): the guest is stopped, Block Storage writes the image to the volume, and the
/// guest is started again with new ephemeral and swap disks.
struct VolumeRebuild: Sendable {
    let steps: ServerSteps

    static let kind = "server.rebuild_volume"

    init(_ compute: Compute) { steps = ServerSteps(compute: compute) }

    private var compute: Compute { steps.compute }
    private var database: Database { steps.database }
    private var ambient: Ambient { steps.ambient }

    struct Rebuild: Codable, Sendable {
        var volume: String
        var image: String
        /// The power of the rebuilt server.
        var power: DesiredPower
        /// The agent's operation, once the volume is written.
        var operation: ServerSpec.Operation
        /// The generation of the server that was ordered last.
        var generation: Int?
    }

    var workflow: Workflow<Rebuild> {
        Workflow(
            service: Compute.service, kind: VolumeRebuild.kind,
            steps: [
                .init("stop", deadline: .seconds(60), run: { try await order(&$0, &$1, power: .shutoff, operation: nil) }),
                .init("stopped", deadline: .seconds(600)) { context, frame in
                    try await isApplied(context, frame, power: .shutoff) ? .next : .wait(.seconds(1))
                },
                .init("write", deadline: DiskCopySteps.deadline, run: { try await writeImage($0, $1) }),
                .init("written", deadline: DiskCopySteps.deadline, run: { try await awaitVolume($0, $1) }),
                .init("start", deadline: .seconds(60)) { context, frame in
                    let (power, operation) = (frame.power, frame.operation)
                    return try await order(&context, &frame, power: power, operation: operation)
                },
                .init("started", deadline: .seconds(900)) { context, frame in
                    try await isApplied(context, frame, power: frame.power) ? .next : .wait(.seconds(1))
                },
                .init("finish", deadline: .seconds(60), run: { try await finish(&$0, $1) }),
            ],
            interruptedBy: [ServerCreate.deleteIntent], failed: { try await failed($0, $1, $2) })
    }

    private func order(
        _ context: inout StepContext, _ frame: inout Rebuild, power: DesiredPower, operation: ServerSpec.Operation?
    ) async throws -> StepResult {
        let id = context.subjectID
        let ambient = ambient
        let document = try operation.map { try JSONValue(encoding: $0) } ?? .null
        frame.generation = try await database.write { connection in
            guard try ServerRecord.find(connection, id, lock: true).taskState == TaskState.rebuilding.rawValue else {
                throw StepFailure("The server is being deleted.")
            }
            let generation = try DesiredState.change(connection, server: id, power: power, operation: document)
            try DesiredState.publish(connection, server: id, ambient: ambient)
            return generation
        }
        return .next
    }

    /// Whether the host has applied the order.
    private func isApplied(_ context: StepContext, _ frame: Rebuild, power: DesiredPower) async throws -> Bool {
        let server = try await steps.server(context.subjectID)
        // The host's report has ended the rebuild, as success or failure.
        if server.task != TaskState.rebuilding.rawValue { return true }
        let generation = try frame.generation.recorded("generation")
        if let failure = server.hostFailure(of: generation), failure.isPermanent {
            throw failure.failure("The host could not rebuild the server")
        }
        return server.observedGeneration >= generation && server.observedState == "applied" && server.observedPower == ReportedPower(power)
    }

    private func writeImage(_ context: StepContext, _ frame: Rebuild) async throws -> StepResult {
        let server = try await steps.server(context.subjectID)
        guard server.task == TaskState.rebuilding.rawValue else { throw StepFailure("The server is no longer being rebuilt.") }
        // The host copies no volumes during a rebuild, so a snapshot that was requested in between cannot be made.
        for copy in try await database.read({ try HostCopies.pending($0, server: server.id, volume: frame.volume) }) {
            try await compute.clients.volumes.reportCopy(ofSnapshot: copy.snapshot, isComplete: false, as: copy.subject)
        }
        if try await isBeingCopied(frame) { return try await goOn(server.id) }
        do {
            try await compute.clients.volumes.reimage(
                frame.volume, image: frame.image, as: server.subject, operation: context.operationID())
        } catch let error as ResourceError where !error.isRetryable {
            if try await isBeingCopied(frame) { return try await goOn(server.id) }
            throw StepFailure(error.message, details: error.context)
        }
        return .next
    }

    private func isBeingCopied(_ frame: Rebuild) async throws -> Bool {
        try await database.read { try ServerVolumes.isBeingCopied($0, frame.volume) }
    }

    /// Waits. The task does not time out while Block Storage is working.
    private func goOn(_ id: String) async throws -> StepResult {
        let ambient = ambient
        try await database.write {
            _ = try $0.execute("UPDATE servers SET updated_at = \(ambient.databaseNow) WHERE id = \(id) AND task_state = 'rebuilding'")
        }
        return .wait(.seconds(2))
    }

    private func awaitVolume(_ context: StepContext, _ frame: Rebuild) async throws -> StepResult {
        let status = try await database.read { connection in
            try connection.query("SELECT status FROM published_volumes WHERE id = \(frame.volume)").first?.string("status")
        }
        switch status {
        case "downloading": return try await goOn(context.subjectID)
        case "error", nil: throw StepFailure("The image could not be written to volume \(frame.volume).")
        default: return .next
        }
    }

    private func finish(_ context: inout StepContext, _ frame: Rebuild) async throws -> StepResult {
        let (id, now) = (context.subjectID, context.now)
        let state: VMState = frame.power == .running ? .active : .stopped
        context.commit { connection in
            try connection.execute(
                """
                UPDATE servers SET vm_state = \(state.rawValue), task_state = NULL, updated_at = \(now)
                WHERE id = \(id) AND task_state = 'rebuilding'
                """)
            try ServerActions.finish(connection, server: id, action: "rebuild", now: now)
        }
        return .next
    }

    /// The server stays off until it is rebuilt again: its volume may contain neither image completely.
    private func failed(_ context: StepContext, _ frame: Rebuild, _ failure: StepFailure) async throws {
        let (id, ambient) = (context.subjectID, ambient)
        compute.log(failure, of: id, "a server is not rebuilt")
        let fault = failure.fault(at: ambient.now)
        try await database.write { connection in
            let changed = try connection.execute(
                """
                UPDATE servers SET vm_state = 'error', task_state = NULL, fault = \(fault)::jsonb, updated_at = \(ambient.now)
                WHERE id = \(id) AND task_state = 'rebuilding'
                """)
            if changed > 0 {
                try DesiredState.change(connection, server: id, power: .shutoff, operation: .null)
                try DesiredState.publish(connection, server: id, ambient: ambient)
            }
            try ServerActions.finish(connection, server: id, action: "rebuild", failure: failure, now: ambient.now)
        }
    }
}
