import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Workflow

/// Moves a server to another host while it runs.
///
/// The target prepares and reports the address at which it accepts the guest; the source sends the guest there. libvirt ensures that the
/// guest runs on exactly one of them at any time. Until the move is over, the source neither starts nor changes the guest, and the server's
/// record names the source. After an interrupted move, the hosts' reports decide how it ended: every undo first finds out where the guest
/// is, and then cleans up on the other host.
struct ServerLiveMigration: Sendable {
    static let kind = "server.live_migrate"
    private let moves: MoveSteps

    init(_ compute: Compute) { moves = MoveSteps(compute) }

    private static let interval = Duration.seconds(2)
    private static let patience = Duration.seconds(30)

    private var steps: ServerSteps { moves.steps }
    private var compute: Compute { steps.compute }
    private var database: Database { steps.database }
    private var ambient: Ambient { steps.ambient }

    struct Frame: MoveFrame {
        /// Also the id of the source's job.
        var migration: String
        var source: String
        var requested: String?
        var target: String?
        /// How the target connects to the volumes, by the id of the volume.
        var connections: [String: JSONValue]?
    }

    var workflow: Workflow<Frame> {
        Workflow(
            service: Compute.service, kind: ServerLiveMigration.kind, version: 2, alsoRuns: [1],
            steps: [
                .init(
                    "hold", run: { try await moves.hold($0.subjectID, $1.migration) },
                    undo: { try await returnAllocation($0.subjectID, $1) }),
                .init(
                    "schedule", deadline: .seconds(300), run: { try await schedule(&$0, &$1) },
                    undo: { context, frame in
                        if try await !isOnTarget(context.subjectID, frame) {
                            try await compute.clients.scheduler.release(consumer: context.subjectID)
                        }
                    }),
                .init(
                    "bind", deadline: .seconds(300), run: { try await bind(&$0, &$1) },
                    undo: { try await unbind($0.subjectID, $1) }),
                .init(
                    "prepare", deadline: ServerResize.hostDeadline, run: { try await prepare($0, $1) },
                    undo: { try await withdraw($0.subjectID, $1, mayHaveArrived: false) }),
                .init("send", deadline: .seconds(60), run: { try await send(&$0, $1) }, undo: { try await land($0.subjectID, $1) }),
                .init(
                    "queue", deadline: DiskCopySteps.deadline, run: { try await awaitMove($0, $1, onlyItsBegin: true) },
                    undo: { try await land($0.subjectID, $1) }),
                .init(
                    "move", deadline: ServerResize.hostDeadline, run: { try await awaitMove($0, $1) },
                    undo: { try await land($0.subjectID, $1) }),
                .init("exchange", deadline: .seconds(60)) { context, frame in
                    try await exchange(context.subjectID, frame)
                    return .next
                },
                .init("activate", deadline: .seconds(300)) { context, frame in
                    try await activate(context.subjectID, frame)
                    return .next
                },
                .init("settle", deadline: .seconds(600)) { try await settle($0.subjectID, $1) },
                .init("release", deadline: .seconds(300)) { context, frame in
                    try await unbind(context.subjectID, frame)
                    try await compute.clients.scheduler.release(consumer: frame.migration)
                    return .next
                },
                .init("finish", deadline: .seconds(60)) { context, frame in
                    let (id, migration, now) = (context.subjectID, frame.migration, context.now)
                    let ambient = ambient
                    context.commit { try ServerLiveMigration.end($0, id, migration, status: "completed", ambient: ambient, now: now) }
                    return .next
                },
            ],
            interruptedBy: [ServerCreate.deleteIntent],
            failed: { try await failed($0, $1, $2) })
    }

    /// Whether the server belongs to the target now.
    private func isOnTarget(_ id: String, _ frame: Frame) async throws -> Bool {
        guard let target = frame.target else { return false }
        return try await database.read { try WorkflowServer.load($0, id)?.host == target }
    }

    /// - Throws: `StepFailure` if the operator has aborted the migration.
    private func requireWanted(_ frame: Frame) async throws {
        if try await database.read({ try MigrationStore.isAborted($0, frame.migration) }) {
            throw StepFailure("The migration was aborted.")
        }
    }

    // MARK: allocations

    private func returnAllocation(_ id: String, _ frame: Frame) async throws {
        if try await isOnTarget(id, frame) {
            try await compute.clients.scheduler.release(consumer: frame.migration)
        } else {
            try await moves.giveBack(id, frame.migration)
        }
    }

    private func schedule(_ context: inout StepContext, _ frame: inout Frame) async throws -> StepResult {
        try await requireWanted(frame)
        let (id, source, migration, now, compute) = (context.subjectID, frame.source, frame.migration, context.now, compute)
        return try await moves.schedule(
            &context, &frame,
            excluding: { try MoveChecks($0, compute).unsuitable(for: id, on: source) },
            record: { try MigrationStore.set($0, migration, status: "preparing", now: now) })
    }

    // MARK: ports and volumes

    private func bind(_ context: inout StepContext, _ frame: inout Frame) async throws -> StepResult {
        let target = try frame.target.recorded("target")
        for port in try await steps.ports(of: context.subjectID) {
            try await compute.clients.network.bind(port: port.id, host: target, as: port.subject)
        }
        frame.connections = try await moves.connectVolumes(of: context.subjectID, to: target)
        return .next
    }

    private func activate(_ id: String, _ frame: Frame) async throws {
        let target = try frame.target.recorded("target")
        for port in try await steps.ports(of: id) {
            try await compute.clients.network.activateBinding(port: port.id, host: target, as: port.subject)
        }
    }

    /// Removes the bindings and connections of the host that the server is not on.
    private func unbind(_ id: String, _ frame: Frame) async throws {
        guard let target = frame.target else { return }
        let isOnTarget = try await self.isOnTarget(id, frame)
        if isOnTarget { try await activate(id, frame) } else { _ = try await moves.connectVolumes(of: id, to: frame.source) }
        for port in try await steps.ports(of: id) {
            try await compute.clients.network.unbind(port: port.id, host: isOnTarget ? frame.source : target, as: port.subject)
        }
    }

    // MARK: the target

    private func prepare(_ context: StepContext, _ frame: Frame) async throws -> StepResult {
        let id = context.subjectID
        let target = try frame.target.recorded("target")
        try await requireWanted(frame)
        let ambient = ambient
        let state = try await database.write { connection -> Arrivals.State? in
            if let state = try Arrivals.state(connection, server: id), state.host == target {
                try Arrivals.repeatOrder(connection, server: id, patience: ServerLiveMigration.patience, ambient: ambient)
                return state
            }
            try Arrivals.order(connection, server: id, host: target, connections: frame.connections ?? [:], ambient: ambient)
            return nil
        }
        if state?.isReady == true { return .next }
        if let failure = state?.failure, failure.isPermanent { throw failure.failure("The other host could not prepare for the server") }
        guard try await steps.isUp(host: target) else { throw StepFailure("The other host is down.", details: "host \(target)") }
        return try await steps.wait(ServerLiveMigration.interval, for: id, on: target)
    }

    /// Orders the target to drop the server, unless the server has moved there.
    ///
    /// - Parameter mayHaveArrived: whether the guest may run on the target. A target that does not report must then be fenced off,
    ///   because the source starts the guest again.
    private func withdraw(_ id: String, _ frame: Frame, mayHaveArrived: Bool) async throws {
        if try await isOnTarget(id, frame) {
            return try await database.write { try Arrivals.forget($0, server: id) }
        }
        let ambient = ambient
        guard let target = frame.target else { return }
        let state = try await database.write { connection -> Arrivals.State? in
            try Arrivals.withdraw(connection, server: id, ambient: ambient)
            return try Arrivals.state(connection, server: id)
        }
        guard state != nil else { return }
        let isSilent = try await mayHaveArrived ? steps.isFencedOff(host: target) : !steps.isUp(host: target)
        guard isSilent else { throw UndoWait(ServerLiveMigration.interval) }
        // The target gets the order when it reports again.
        try await database.write { connection in
            try Absences.order(connection, server: id, host: target, ambient: ambient)
            try Arrivals.forget(connection, server: id)
        }
    }

    // MARK: the guest's way

    private func send(_ context: inout StepContext, _ frame: Frame) async throws -> StepResult {
        let id = context.subjectID
        let (migration, source, now) = (frame.migration, frame.source, context.now)
        let ambient = ambient
        guard let arrival = try await database.read({ try Arrivals.state($0, server: id) }), let endpoint = arrival.endpoint else {
            throw StepFailure("The other host no longer expects the server.")
        }
        let connections = frame.connections ?? [:]
        context.commit { connection in
            let volumes = try DesiredState.load(connection, where: "s.id = \(id)").first?.spec.volumes ?? []
            let there = volumes.map { volume in
                var volume = volume
                if let info = connections[volume.id] { volume.connection = Enclosed(document: info) }
                return volume
            }
            let job = ServerJob(id: migration, migration: .init(endpoint: endpoint, volumes: there))
            try HostJobs.order(connection, job, server: id, host: source, ambient: ambient)
            try MigrationStore.set(connection, migration, status: "running", now: now)
        }
        return .nextAfter(ServerLiveMigration.interval)
    }

    /// - Parameter onlyItsBegin: whether to wait only until the transfer begins. The source sends few guests at a time, and time in its
    ///   queue does not count against the transfer's deadline.
    private func awaitMove(_ context: StepContext, _ frame: Frame, onlyItsBegin: Bool = false) async throws -> StepResult {
        let id = context.subjectID
        try await requireWanted(frame)
        let ambient = ambient
        let (job, arrival) = try await database.write { connection in
            let state = (try HostJobs.state(connection, frame.migration), try Arrivals.state(connection, server: id))
            // A report may have been lost: both hosts answer the repeated order.
            try Arrivals.repeatOrder(connection, server: id, patience: ServerLiveMigration.patience, ambient: ambient)
            try HostJobs.repeatOrder(
                connection, frame.migration, server: id, patience: ServerLiveMigration.patience, ambient: ambient)
            return state
        }
        guard let job else { throw StepFailure("The server's host no longer moves it.") }
        if job.isDone { return .next }
        if let failure = job.failure("The host could not move the server", host: frame.source) {
            if arrival?.hasArrived == true { return .next }
            throw failure.failure("The host could not move the server")
        }
        if let refusal = try await refusal(of: job, id) { throw refusal.failure("The host could not move the server") }
        // A source that is down cannot report the end.
        let isSourceUp = try await steps.isUp(host: frame.source)
        if arrival?.hasArrived == true, !isSourceUp { return .next }
        if !isSourceUp, try await steps.isFencedOff(host: frame.source) {
            throw StepFailure("The server's host is down.", details: "host \(frame.source) was forced down")
        }
        if onlyItsBegin {
            if job.isMoving { return .next }
            guard isSourceUp else { throw StepFailure("The server's host is down.", details: "host \(frame.source)") }
            return .wait(ServerLiveMigration.interval)
        }
        return try await advance(frame)
    }

    /// Waits for the end of the transfer. The step's deadline restarts while the source sends. A guest that changes its memory faster than
    /// it is sent also makes the source send, so there is a limit that grows with the size.
    private func advance(_ frame: Frame) async throws -> StepResult {
        let ambient = ambient
        guard let transfer = try await database.read({ try MigrationStore.transfer($0, frame.migration, ambient: ambient) }) else {
            return .wait(ServerLiveMigration.interval)
        }
        let limit = transfer.gibibytes * Int(compute.settings.liveMigrationTimeout.components.seconds)
        guard limit == 0 || transfer.seconds < limit else {
            throw StepFailure(
                "The transfer of the guest did not end within \(limit) s, the limit for \(transfer.gibibytes) GiB.",
                details: "host \(frame.source): compute.live_migration_completion_timeout")
        }
        return transfer.advances ? .progress(ServerLiveMigration.interval) : .wait(ServerLiveMigration.interval)
    }

    /// Why the source did not begin the job: it could not apply the desired state that contains the job.
    private func refusal(of job: HostJobs.State, _ id: String) async throws -> HostFailure? {
        guard job.state == HostJobs.ordered, let server = try await database.read({ try WorkflowServer.load($0, id) }),
            let failure = server.hostFailure(of: server.generation), failure.isPermanent
        else { return nil }
        return failure
    }

    /// Finds out where the guest is, and keeps it there, before anything else is undone.
    private func land(_ id: String, _ frame: Frame) async throws {
        if try await isOnTarget(id, frame) { return }
        let ambient = ambient
        let (job, arrival) = try await database.write { connection in
            try HostJobs.revise(connection, frame.migration, server: id, ambient: ambient) { $0.migration?.isCancelled = true }
            try HostJobs.repeatOrder(
                connection, frame.migration, server: id, patience: ServerLiveMigration.patience, ambient: ambient)
            return (try HostJobs.state(connection, frame.migration), try Arrivals.state(connection, server: id))
        }
        guard let job else { return }
        let isRefused = try await refusal(of: job, id) != nil
        let isOver = job.isDone || job.state == ServerJobReport.State.failed.rawValue || isRefused
        if !isOver, try await !steps.isFencedOff(host: frame.source) { throw UndoWait(ServerLiveMigration.interval) }
        if job.isDone || arrival?.hasArrived == true { return try await exchange(id, frame) }
        // The source reports whether it certainly still has the guest.
        try await withdraw(id, frame, mayHaveArrived: !isRefused && job.phase != ServerJobReport.stayed)
        try await database.write { try HostJobs.end($0, frame.migration, server: id, ambient: ambient) }
    }

    /// Assigns the server to the target.
    private func exchange(_ id: String, _ frame: Frame) async throws {
        let target = try frame.target.recorded("target")
        let compute = compute
        let ambient = ambient
        try await database.write { connection in
            try MigrationStore.set(connection, server: id, connections: frame.connections ?? [:])
            try connection.execute("DELETE FROM server_jobs WHERE id = \(frame.migration)")
            try Arrivals.forget(connection, server: id)
            try MigrationStore.move(connection, server: id, from: frame.source, to: target, power: nil, compute)
            try connection.execute("UPDATE servers SET keeps_disks = false WHERE id = \(id)")
            try ServerLiveMigration.noteHost(connection, id, ambient: ambient)
        }
    }

    /// The source's reports about the guest do not apply to the target.
    private static func noteHost(_ connection: Connection, _ id: String, ambient: Ambient) throws {
        try connection.execute("UPDATE servers SET observed_at = \(ambient.now) WHERE id = \(id)")
    }

    /// Waits until the target has taken over the server and the source has removed it.
    private func settle(_ id: String, _ frame: Frame) async throws -> StepResult {
        let server = try await steps.server(id)
        let target = try frame.target.recorded("target")
        let isTakenOver =
            server.isApplied || server.hostFailure(of: server.generation)?.isPermanent == true
            || server.task == TaskState.deleting.rawValue
        if !isTakenOver, try await steps.isUp(host: target) { return .wait(ServerLiveMigration.interval) }
        let isCleared = try await database.read { try MigrationStore.isRemoved($0, server: id, from: frame.source) }
        if !isCleared, try await steps.isUp(host: frame.source) { return .wait(ServerLiveMigration.interval) }
        return .next
    }

    // MARK: the end

    private static func end(
        _ connection: Connection, _ id: String, _ migration: String, status: String, failure: StepFailure? = nil, ambient: Ambient,
        now: Timestamp
    ) throws {
        try connection.execute(
            "UPDATE servers SET task_state = NULL, updated_at = \(now) WHERE id = \(id) AND task_state = 'migrating' AND NOT deleted")
        try MigrationStore.end(
            connection, migration, server: id, status: status, action: MigrationType.live.action, failure: failure, now: now)
        try ServerSteps.noteStop(connection, id, ambient: ambient)
    }

    private func failed(_ context: StepContext, _ frame: Frame, _ failure: StepFailure) async throws {
        let id = context.subjectID
        let (now, ambient) = (ambient.now, ambient)
        compute.log(failure, of: id, "a live migration failed")
        let isOnTarget = try await self.isOnTarget(id, frame)
        try await database.write { connection in
            let isAborted = try MigrationStore.isAborted(connection, frame.migration)
            let status = isOnTarget ? "completed" : isAborted ? "cancelled" : "error"
            try ServerLiveMigration.end(
                connection, id, frame.migration, status: status, failure: isOnTarget ? nil : failure, ambient: ambient, now: now)
        }
    }
}
