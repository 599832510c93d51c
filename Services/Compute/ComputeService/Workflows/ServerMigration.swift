import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Workflow

/// Moves a server to another host while it is off, and back; also with another flavor.
///
/// One host must confirm that the guest is off before the other host may start it. The first host keeps its local disks until the move is
/// confirmed. If the move is undone or reverted, the other one keeps its disks until the first one has started the guest again.
struct ServerMigration: Sendable {
    static let kind = "server.migrate"
    let moves: MoveSteps
    let resize: ServerResize
    private let disks: DiskTransferSteps

    init(_ compute: Compute) {
        moves = MoveSteps(compute)
        disks = DiskTransferSteps(moves.steps)
        resize = ServerResize(compute)
    }

    var steps: ServerSteps { moves.steps }
    var compute: Compute { steps.compute }
    var database: Database { steps.database }
    private var ambient: Ambient { steps.ambient }

    // MARK: there

    struct Frame: MoveFrame {
        var migration: String
        var source: String
        var requested: String?
        /// The desired power after the move.
        var power: DesiredPower
        /// The server's local disks; nil in version 1, which moved only servers on volumes.
        var localDisks: [DiskTransfer]?
        /// The id of the new flavor's row; nil if the server keeps its flavor.
        var newFlavor: String?
        var target: String?

        enum CodingKeys: String, CodingKey {
            case migration, source, requested, power, target
            case localDisks = "disks"
            case newFlavor = "new_flavor"
        }

        var disks: [DiskTransfer] {
            get { localDisks ?? [] }
            set { localDisks = newValue }
        }

        var action: ServerChange { newFlavor == nil ? .migrate : .resize }
    }

    var workflow: Workflow<Frame> {
        Workflow(
            service: Compute.service, kind: ServerMigration.kind, version: 2, alsoRuns: [1],
            steps: [
                moves.hold(for: \.migration),
                moves.schedule { try await schedule(&$0, &$1) },
                .init(
                    "images", deadline: .seconds(60),
                    run: { try await disks.createImages(&$1.disks) }, undo: { try await disks.deleteImages($1.disks) }),
                .init("stop", deadline: ServerResize.hostDeadline, run: { context, _ in stop(&context) }) { context, frame in
                    try await moves.setPower(context.subjectID, frame.power, on: frame.source)
                    // The target keeps its disks until then.
                    try await resize.awaitReturn(context)
                },
                .init("stopped", deadline: ServerResize.hostDeadline) { context, _ in
                    try await isOff(context.subjectID) ? .next : .wait(.seconds(2))
                },
                .init(
                    "copy", deadline: .seconds(60), run: { disks.order(&$0, $1.disks, host: $1.source) },
                    undo: { try await disks.endJobs($1.disks, server: $0.subjectID) }),
                .init("copied", deadline: DiskCopySteps.deadline) { try await disks.awaitUploads($0, $1.disks) },
                moves.connecting(),
                .init(
                    "exchange", deadline: .seconds(60), run: { try await exchange(&$0, $1) }, undo: { try await takeBack($0.subjectID, $1) }
                ),
                .init("await", deadline: ServerResize.hostDeadline) { context, _ in
                    try await moves.awaitHost(context.subjectID, ServerResize.failureMessage)
                },
                .init("finish", deadline: .seconds(60)) { context, frame in
                    let (id, moved, requestID) = (context.subjectID, frame.disks, context.requestID)
                    context.commit { try DiskTransferSteps.end($0, server: id, moved, requestID: requestID, compute) }
                    return resize.finish(&context, frame.migration, action: frame.action)
                },
            ],
            interruptedBy: [ServerCreate.deleteIntent],
            failed: { try await resize.failed($0, $1.migration, $2, action: $1.action) })
    }

    private func schedule(_ context: inout StepContext, _ frame: inout Frame) async throws -> StepResult {
        let (id, now, compute) = (context.subjectID, context.now, compute)
        return try await moves.schedule(
            &context, &frame, newFlavor: frame.newFlavor != nil,
            excluding: { try MoveChecks($0, compute).unable(toKeep: id) },
            record: { try ServerResize.enter($0, id, .resizeMigrating, now: now) })
    }

    func stop(_ context: inout StepContext) -> StepResult {
        let id = context.subjectID
        let ambient = ambient
        context.commit { connection in
            try DesiredState.change(connection, server: id, power: .shutoff, operation: .null)
            try DesiredState.publish(connection, server: id, ambient: ambient)
        }
        return .nextAfter(.seconds(2))
    }

    /// - Throws: `StepFailure` if the host cannot turn the guest off.
    func isOff(_ id: String) async throws -> Bool {
        let server = try await steps.server(id)
        if let failure = server.hostFailure(of: server.generation), failure.isPermanent {
            throw failure.failure("The host could not stop the server")
        }
        if let host = server.host, try await steps.isFencedOff(host: host) {
            throw StepFailure("The server's host is down.", details: "host \(host) was forced down")
        }
        return server.isApplied && server.observedPower.map(VMState.init(reportedPower:)) == .stopped
    }

    private func exchange(_ context: inout StepContext, _ frame: Frame) async throws -> StepResult {
        let id = context.subjectID
        let sources = try await disks.sources(frame.disks)
        let target = try frame.target.recorded("target")
        let now = context.now
        let compute = compute
        context.commit { connection in
            try DiskTransferSteps.offer(connection, server: id, sources, of: frame.disks)
            if let flavor = frame.newFlavor { try MigrationStore.swapFlavors(connection, server: id, to: flavor) }
            try MigrationStore.move(
                connection, server: id, from: frame.source, to: target, power: frame.power, leavesDisks: true, compute)
            try ServerResize.enter(connection, id, .resizeFinish, now: now)
        }
        return .nextAfter(.seconds(5))
    }

    /// The target must have removed the guest before the source may start it, and removes its disks after that.
    private func takeBack(_ id: String, _ frame: Frame) async throws {
        try await moves.takeBack(id, frame, leavesDisks: true) { connection in
            try DiskTransferSteps.withdraw(connection, server: id)
            if let flavor = frame.newFlavor { try MigrationStore.returnFlavor(connection, server: id, from: flavor) }
        }
    }
}
