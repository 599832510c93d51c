import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// Resizes a server on its host; confirms and reverts resizes.
///
/// The server's allocations move to the migration, and the server claims allocations for its new flavor in addition. It has both until the
/// resize is confirmed or reverted.
struct ServerResize: Sendable {
    static let revertKind = "server.revert_resize"
    static let confirmKind = "server.confirm_resize"
    static let kind = "server.resize"
    private let moves: MoveSteps

    init(_ compute: Compute) { moves = MoveSteps(compute) }

    private var steps: ServerSteps { moves.steps }
    private var compute: Compute { steps.compute }
    private var database: Database { steps.database }
    private var ambient: Ambient { steps.ambient }

    static let failureMessage = "The host could not resize the server"
    /// How long a host may take without reporting progress; it may have to copy a large disk.
    static let hostDeadline: Duration = .seconds(3600)

    // MARK: resize

    struct Frame: Codable, Sendable {
        /// The consumer of the server's allocations before the resize.
        var migration: String
        /// The id of the new flavor's row.
        var newFlavor: String
        /// How the server moves if its host lacks capacity; nil if it cannot leave its host.
        var move: ServerMigration.Frame?

        enum CodingKeys: String, CodingKey {
            case migration, move
            case newFlavor = "new_flavor"
        }
    }

    var workflow: Workflow<Frame> {
        Workflow(
            service: Compute.service, kind: ServerResize.kind, version: 2, alsoRuns: [1],
            steps: [
                moves.hold(for: \.migration),
                moves.schedule { try await schedule(&$0, $1) },
                .init("exchange", deadline: ServerResize.hostDeadline, run: { exchange(&$0, $1) }, undo: { try await takeBack($0, $1) }),
                .init("await", deadline: ServerResize.hostDeadline) { context, _ in
                    try await moves.awaitHost(context.subjectID, ServerResize.failureMessage)
                },
                .init("finish", deadline: .seconds(60)) { finish(&$0, $1) },
            ],
            interruptedBy: [ServerCreate.deleteIntent],
            failed: { try await failed($0, $1, $2) })
    }

    /// Local disks stay in place if the host has capacity.
    private func schedule(_ context: inout StepContext, _ frame: Frame) async throws -> StepResult {
        let current = try await steps.server(context.subjectID).host
        do { _ = try await steps.schedule(context, newFlavor: true) { $1.host = current } } catch let failure as StepFailure {
            guard let move = frame.move else { throw failure }
            let (id, requestID) = (context.subjectID, context.requestID)
            context.commit { connection in
                try Workflows.start(
                    connection, ServerMigration(compute).workflow, subject: id, frame: move, requestID: requestID, ambient: ambient)
            }
            return .done
        }
        return .next
    }

    private func exchange(_ context: inout StepContext, _ frame: Frame) -> StepResult {
        let id = context.subjectID
        let operation = ServerSpec.Operation(id: context.operationUUID().description, kind: .resize)
        let ambient = ambient
        let now = context.now
        context.commit { connection in
            try MigrationStore.exchange(
                connection, server: id, to: frame.newFlavor, operation: operation, keepsDisks: true, ambient: ambient)
            try ServerResize.enter(connection, id, .resizeFinish, now: now)
        }
        return .nextAfter(.seconds(5))
    }

    /// Shows the progress as the server's task, unless the server is being deleted.
    static func enter(_ connection: Connection, _ id: String, _ task: TaskState, now: Timestamp) throws {
        try connection.execute(
            """
            UPDATE servers SET task_state = \(task.rawValue), updated_at = \(now)
            WHERE id = \(id) AND task_state IS DISTINCT FROM 'deleting' AND NOT deleted
            """)
    }

    private func takeBack(_ context: StepContext, _ frame: Frame) async throws {
        let id = context.subjectID
        let operation = ServerSpec.Operation(id: context.operationUUID(1).description, kind: .resizeRevert)
        let ambient = ambient
        let isExchanged = try await database.write { connection in
            let rows = try connection.query(
                "SELECT flavor_id, other_flavor_id FROM servers WHERE id = \(id) AND NOT deleted AND other_flavor IS NOT NULL FOR UPDATE")
            guard let row = rows.first, try row.string("flavor_id") == frame.newFlavor else { return false }
            try MigrationStore.exchange(
                connection, server: id, to: try row.string("other_flavor_id"), operation: operation, keepsDisks: false, ambient: ambient)
            return true
        }
        if isExchanged { throw UndoWait(.seconds(1)) }
        try await awaitReturn(context)
    }

    /// Waits, in an undo, until the server's host runs it in its previous state. A host that is up and has not done so in time keeps
    /// trying, and the server will be in ERROR with this fault.
    func awaitReturn(_ context: StepContext) async throws {
        let id = context.subjectID
        if try await isOver(id) { return }
        guard context.isLate else { throw UndoWait(.seconds(2)) }
        let now = context.now
        try await database.write { connection in
            guard let server = try WorkflowServer.load(connection, id) else { return }
            try ServerResize.record(ServerResize.overdue(server), connection, id, now: now)
        }
    }

    /// Why a server is in ERROR whose host does not apply its desired state.
    static func overdue(_ server: WorkflowServer) -> StepFailure {
        let known = server.hostFailure(of: server.generation)
        let reason = known?.reason.map { " (\($0))" } ?? ""
        let details = known?.details ?? "host \(server.host ?? "?"): no report about generation \(server.generation)"
        return StepFailure(
            "The host has not started the server again within an hour\(reason). It keeps trying; a hard reboot restarts the attempt.",
            details: "\(details). Mend the host and reboot the server with --hard, or declare the host down and evacuate the server.")
    }

    /// Whether waiting is over: the host has succeeded, failed or is down, or the server is being deleted.
    func isOver(_ id: String) async throws -> Bool {
        guard let server = try await database.read({ try WorkflowServer.load($0, id) }), let host = server.host else { return true }
        if server.task == TaskState.deleting.rawValue || server.isApplied { return true }
        if server.hostFailure(of: server.generation)?.isPermanent == true { return true }
        return try await !steps.isUp(host: host)
    }

    private func finish(_ context: inout StepContext, _ frame: Frame) -> StepResult {
        finish(&context, frame.migration, action: .resize)
    }

    func finish(_ context: inout StepContext, _ migration: String, action: ServerChange) -> StepResult {
        let id = context.subjectID
        let now = context.now
        context.commit { connection in
            try connection.execute(
                """
                UPDATE servers SET vm_state = 'resized', launched_at = \(now), updated_at = \(now),
                    task_state = CASE WHEN task_state = 'deleting' THEN task_state END
                WHERE id = \(id) AND NOT deleted AND vm_state IN ('active', 'stopped')
                """)
            try MigrationStore.end(connection, migration, server: id, status: "finished", action: action.name, now: now)
        }
        return .next
    }

    private func failed(_ context: StepContext, _ frame: Frame, _ failure: StepFailure) async throws {
        try await failed(context, frame.migration, failure, action: .resize)
    }

    func failed(_ context: StepContext, _ migration: String, _ failure: StepFailure, action: ServerChange) async throws {
        let id = context.subjectID
        let (now, ambient) = (ambient.now, ambient)
        compute.log(failure, of: id, "a \(action == .resize ? "resize" : "migration") failed")
        try await database.write { connection in
            try connection.execute(
                """
                UPDATE servers SET updated_at = \(now), task_state = CASE WHEN task_state = 'deleting' THEN task_state END
                WHERE id = \(id) AND NOT deleted AND other_flavor IS NOT NULL
                """)
            let move = try MigrationStore.current(connection, server: id)
            try MigrationStore.end(
                connection, migration, server: id, status: "error", action: action.name, failure: failure, now: now)
            if let move { try MigrationStore.settle(connection, server: id, move) }
            if let broken = try ServerResize.failure(connection, id) { try ServerResize.record(broken, connection, id, now: now) }
            try ServerResize.endBroken(connection, id, now: now)
            try KeptDisks.discardIfStarted(connection, server: id, ambient: ambient)
        }
    }

    /// Why a server that was to run again on its host does not; nil if it does, or if the host is down.
    private static func failureToReturn(_ connection: Connection, _ id: String, _ compute: Compute) throws -> StepFailure? {
        if let failure = try failure(connection, id) { return failure }
        guard let server = try WorkflowServer.load(connection, id), let host = server.host, !server.isApplied,
            try Hosts.isUp(host, connection, compute)
        else { return nil }
        return overdue(server)
    }

    /// Why a server cannot be started by its host; nil if it can.
    private static func failure(_ connection: Connection, _ id: String) throws -> StepFailure? {
        guard let server = try WorkflowServer.load(connection, id), let failure = server.hostFailure(of: server.generation),
            failure.isPermanent
        else { return nil }
        return failure.failure("The host could not start the server")
    }

    private static func record(_ failure: StepFailure, _ connection: Connection, _ id: String, now: Timestamp) throws {
        try connection.execute("UPDATE servers SET fault = \(failure.fault(at: now))::jsonb WHERE id = \(id) AND NOT deleted")
    }

    /// Puts a server that its host does not run in its previous state into ERROR. Restores the recorded fault, because accepting the
    /// move cleared it.
    private static func endBroken(_ connection: Connection, _ id: String, now: Timestamp) throws {
        guard let server = try WorkflowServer.load(connection, id), server.task == nil else { return }
        let isWell = server.isApplied
        try connection.execute(
            """
            UPDATE servers SET updated_at = \(now), vm_state = CASE WHEN \(isWell) THEN vm_state ELSE 'error' END,
                fault = CASE WHEN \(isWell) THEN NULL ELSE fault END
            WHERE id = \(id) AND vm_state IN ('active', 'stopped') AND fault IS NOT NULL
            """)
    }

    // MARK: confirm

    /// Releases the allocations from before a resize, migration or evacuation. The subject is the migration.
    var confirmation: Workflow<NoFrame> {
        Workflow(
            service: Compute.service, kind: ServerResize.confirmKind,
            steps: [
                .init("release") { context in
                    try await compute.clients.scheduler.release(consumer: context.subjectID)
                    return .done
                }
            ], retriesForever: true, failed: { _, _ in })
    }

    // MARK: revert

    struct Reversal: ReversalFrame {
        var migration: String
        /// The id of the earlier flavor's row.
        var oldFlavor: String
        var failure: String?
        var details: String?

        enum CodingKeys: String, CodingKey {
            case migration, failure, details
            case oldFlavor = "old_flavor"
        }
    }

    var reversal: Workflow<Reversal> {
        Workflow(
            service: Compute.service, kind: ServerResize.revertKind,
            steps: [
                .init("exchange", deadline: .seconds(60)) { revert(&$0, $1) },
                .init("await", deadline: ServerResize.hostDeadline) { context, frame in
                    try await moves.awaitReversal(context.subjectID, &frame, "The host could not revert the server's resize")
                },
                .init("allocation") { context, frame in
                    try await moves.giveBack(context.subjectID, frame.migration)
                    return .next
                },
                .init("finish", deadline: .seconds(60)) { finishReversal(&$0, $1) },
            ], retriesForever: true, failed: { _, _, _ in })
    }

    private func revert(_ context: inout StepContext, _ frame: Reversal) -> StepResult {
        let id = context.subjectID
        let operation = ServerSpec.Operation(id: context.operationUUID().description, kind: .resizeRevert)
        let ambient = ambient
        context.commit { connection in
            try MigrationStore.exchange(
                connection, server: id, to: frame.oldFlavor, operation: operation, keepsDisks: false, ambient: ambient)
        }
        return .nextAfter(.seconds(5))
    }

    private func finishReversal(_ context: inout StepContext, _ frame: Reversal) -> StepResult {
        finishReversal(&context, frame.migration, failure: frame.failure, details: frame.details)
    }

    func finishReversal(
        _ context: inout StepContext, _ migration: String, failure: String?, details: String?
    ) -> StepResult {
        let id = context.subjectID
        let (now, ambient) = (context.now, ambient)
        let fault: JSONValue? = failure.map {
            ["code": 500, "created": .string(now.iso8601), "message": .string($0), "details": JSONValue(details)]
        }
        context.commit { connection in
            guard let move = try MigrationStore.current(connection, server: id) else { return }
            let state = fault == nil ? move.rest : .error
            try connection.execute(
                """
                UPDATE servers SET vm_state = \(state.rawValue), fault = \(fault)::jsonb, updated_at = \(now),
                    task_state = CASE WHEN task_state = 'deleting' THEN task_state END
                WHERE id = \(id) AND NOT deleted
                """)
            try MigrationStore.set(connection, migration, status: fault == nil ? "reverted" : "error", now: now)
            try ServerActions.finish(
                connection, server: id, action: "revertResize", error: failure, details: details, now: now)
            try MigrationStore.settle(connection, server: id, move)
            try KeptDisks.discardIfStarted(connection, server: id, ambient: ambient)
        }
        return .next
    }

    /// Ends a reversal that did not succeed: the server is as before, and can be confirmed or reverted later. If its host has not started
    /// it again either, the move ends there, and the server is in ERROR.
    func keepResized(_ context: inout StepContext, _ migration: String, failure: String?, details: String?) -> StepResult {
        let (id, now, requestID, compute) = (context.subjectID, context.now, context.requestID, compute)
        context.commit { connection in
            if let broken = try ServerResize.failureToReturn(connection, id, compute),
                let move = try MigrationStore.current(connection, server: id)
            {
                let all = StepFailure(
                    [failure, "The server is back on the other host.", broken.message].compactMap(\.self).joined(separator: " "),
                    details: [details, broken.details].compactMap(\.self).joined(separator: "; "))
                try connection.execute(
                    """
                    UPDATE servers SET vm_state = 'error', fault = \(all.fault(at: now))::jsonb, updated_at = \(now),
                        task_state = CASE WHEN task_state = 'deleting' THEN task_state END
                    WHERE id = \(id) AND NOT deleted
                    """)
                try MigrationStore.end(
                    connection, migration, server: id, status: "error", action: ServerChange.revertResize.name, failure: all, now: now)
                return try MigrationStore.stay(connection, server: id, move, requestID: requestID, compute)
            }
            try connection.execute(
                """
                UPDATE servers SET task_state = NULL, updated_at = \(now)
                WHERE id = \(id) AND NOT deleted AND task_state IS NOT DISTINCT FROM 'resize_reverting'
                """)
            try MigrationStore.set(connection, migration, status: "finished", now: now)
            try ServerActions.finish(
                connection, server: id, action: "revertResize", error: failure ?? "The server could not return.", details: details,
                now: now)
        }
        return .done
    }
}
