import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Workflow

/// The common members of the frames of workflows that move a server to another host.
protocol MoveFrame: Codable, Sendable {
    /// The id of the migration, which is the consumer of the server's allocations on the source.
    var migration: String { get }
    var source: String { get }
    /// The host that the request named.
    var requested: String? { get }
    /// The scheduler's choice.
    var target: String? { get set }
}

/// The common members of the frames of workflows that revert a resize or a move: the reason of the host's failure.
protocol ReversalFrame: Codable, Sendable {
    var failure: String? { get set }
    var details: String? { get set }
}

/// Steps that resizes and moves of servers share.
struct MoveSteps: Sendable {
    let steps: ServerSteps

    init(_ compute: Compute) { steps = ServerSteps(compute: compute) }

    private var compute: Compute { steps.compute }
    private var database: Database { steps.database }
    private var ambient: Ambient { steps.ambient }

    // MARK: allocations

    /// Moves the server's allocations to the migration, so that the server can claim new ones in addition.
    func hold<Frame>(for migration: @escaping @Sendable (Frame) -> String) -> Workflow<Frame>.Step {
        .init(
            "hold", run: { try await hold($0.subjectID, migration($1)) }, undo: { try await giveBack($0.subjectID, migration($1)) })
    }

    func hold(_ id: String, _ migration: String) async throws -> StepResult {
        let server = try await steps.server(id)
        try await compute.clients.scheduler.move(.holding(server.id, for: migration, project: server.project, user: server.user))
        return .next
    }

    func giveBack(_ id: String, _ migration: String) async throws {
        guard let server = try await database.read({ try WorkflowServer.load($0, id) }) else { return }
        try await compute.clients.scheduler.move(.returning(migration, to: server.id, project: server.project, user: server.user))
    }

    /// A step that claims a host; undoing it releases the claim.
    func schedule<Frame>(
        _ run: @escaping @Sendable (inout StepContext, inout Frame) async throws -> StepResult
    ) -> Workflow<Frame>.Step {
        .init("schedule", deadline: .seconds(300), run: run) { context, _ in
            try await compute.clients.scheduler.release(consumer: context.subjectID)
        }
    }

    /// Claims another host than the source.
    ///
    /// - Parameters:
    ///   - newFlavor: as `SchedulingQuestion.load`.
    ///   - excluded: hosts that cannot take the server.
    ///   - record: writes the consequences of the choice.
    func schedule(
        _ context: inout StepContext, _ frame: inout some MoveFrame, newFlavor: Bool = false,
        excluding excluded: @escaping @Sendable (Connection) throws -> [String],
        record: @escaping @Sendable (Connection) throws -> Void
    ) async throws -> StepResult {
        let (source, requested) = (frame.source, frame.requested)
        let host = try await steps.schedule(context, newFlavor: newFlavor) { connection, question in
            question.host = requested
            question.excludedHosts = [source] + (try excluded(connection))
        }
        frame.target = host
        let (migration, now) = (frame.migration, context.now)
        context.commit { connection in
            try MigrationStore.set(connection, migration, target: host, now: now)
            try record(connection)
        }
        return .next
    }

    // MARK: the other host

    /// A step that connects the server to the target; undoing it connects the server to the source again.
    func connecting<Frame: MoveFrame>() -> Workflow<Frame>.Step {
        .init(
            "connect", deadline: .seconds(300),
            run: { context, frame in
                try await connect(context.subjectID, to: try frame.target.recorded("target"))
                return .next
            }, undo: { context, frame in try await connect(context.subjectID, to: frame.source) })
    }

    /// Binds the server's ports and connects its volumes to a host.
    func connect(_ id: String, to host: String) async throws {
        try await steps.bindPorts(id, to: host)
        let connections = try await connectVolumes(of: id, to: host)
        try await database.write { try MigrationStore.set($0, server: id, connections: connections) }
    }

    /// Connects the server's volumes to a host, without recording it.
    ///
    /// - Returns: how the host connects to each, by the id of the volume.
    func connectVolumes(of id: String, to host: String) async throws -> [String: JSONValue] {
        guard let server = try await database.read({ try WorkflowServer.load($0, id) }) else { return [:] }
        let volumes = try await database.read { connection in
            try connection.query(
                """
                SELECT volume_id, attachment_id, device FROM server_volumes WHERE server_id = \(id) AND attachment_id IS NOT NULL
                ORDER BY device
                """
            ).map { (id: try $0.string("volume_id"), attachment: try $0.string("attachment_id"), device: try $0.string("device")) }
        }
        var connections: [String: JSONValue] = [:]
        for volume in volumes {
            connections[volume.id] = try await compute.clients.volumes.connect(
                attachment: volume.attachment, host: host, device: volume.device, as: server.subject)
            try await compute.clients.volumes.complete(attachment: volume.attachment, as: server.subject)
        }
        return connections
    }

    /// Returns the server to its source, off until the target has removed it: only then may the source start the guest.
    ///
    /// - Parameters:
    ///   - leavesDisks: whether the target keeps its disks until the source has started the guest.
    ///   - write: reverts the move's changes of the server's row, before the order is sent to the source.
    func takeBack(
        _ id: String, _ frame: some MoveFrame, leavesDisks: Bool = false, _ write: @escaping @Sendable (Connection) throws -> Void
    ) async throws {
        guard let target = frame.target else { return }
        let (source, compute) = (frame.source, compute)
        let isRemoved = try await database.write { connection in
            try write(connection)
            try MigrationStore.move(
                connection, server: id, from: target, to: source, power: .shutoff, leavesDisks: leavesDisks, compute)
            return try MigrationStore.isRemoved(connection, server: id, from: target)
        }
        if !isRemoved, try await !steps.isFencedOff(host: target) { throw UndoWait(.seconds(2)) }
    }

    // MARK: power

    /// - Parameter host: the expected host; does nothing if the server is on another one.
    func setPower(_ id: String, _ power: DesiredPower, on host: String) async throws {
        let ambient = ambient
        try await database.write { connection in
            // A server that is being deleted may still run on the other host.
            let rows = try connection.query(
                """
                SELECT host, power FROM servers
                WHERE id = \(id) AND NOT deleted AND task_state IS DISTINCT FROM 'deleting' FOR UPDATE
                """)
            guard let row = rows.first, try row.optionalString("host") == host,
                try ![DesiredPower.absent, power].map(\.rawValue).contains(row.string("power"))
            else { return }
            try DesiredState.change(connection, server: id, power: power, operation: .null)
            try DesiredState.publish(connection, server: id, ambient: ambient)
        }
    }

    /// Waits until the host has applied the server's desired state.
    ///
    /// - Parameter message: a sentence about the failure, without its full stop.
    /// - Throws: `StepFailure` if the host cannot.
    func awaitHost(_ id: String, _ message: String) async throws -> StepResult {
        let server = try await steps.server(id)
        if let failure = server.hostFailure(of: server.generation), failure.isPermanent { throw failure.failure(message) }
        return server.isApplied ? .next : try await steps.wait(.seconds(5), for: id, on: server.host)
    }

    /// Like `awaitHost`, for steps that are not undone: records a failure, and does not wait for a deleted server.
    func awaitReversal(_ id: String, _ frame: inout some ReversalFrame, _ message: String) async throws -> StepResult {
        guard let server = try await database.read({ try WorkflowServer.load($0, id) }) else { return .next }
        if server.isApplied || server.task == TaskState.deleting.rawValue { return .next }
        if let failure = server.hostFailure(of: server.generation), failure.isPermanent {
            let failure = failure.failure(message)
            (frame.failure, frame.details) = (failure.message, failure.details)
            return .next
        }
        return .wait(.seconds(5))
    }
}
