import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Logging
import Workflow

/// Starts a server on another host because its own is down.
///
/// The operator says, by the request, that the guest does not run there any more. Volumes move with the server; local disks are made
/// anew from the image. When the host returns, its agent removes the server before it starts any guest.
struct ServerEvacuation: Sendable {
    let steps: ServerSteps
    private let resize: ServerResize
    private let migration: ServerMigration

    init(_ compute: Compute) {
        steps = ServerSteps(compute: compute)
        resize = ServerResize(compute)
        migration = ServerMigration(compute)
    }

    private var compute: Compute { steps.compute }
    private var database: Database { steps.database }
    private var ambient: Ambient { steps.ambient }

    struct Frame: Codable, Sendable {
        /// The consumer of the allocations on the host that is down.
        var migration: String
        var source: String
        /// The host that the request named.
        var requested: String?
        /// The power that the server has at the end.
        var power: DesiredPower
        /// The power that the server had.
        var formerPower: DesiredPower?
        /// What the root disk was made from on the host that is down, where that is not the server's image.
        var rootImage: JSONValue?
        /// Whether it has no image below it there.
        var rootIsCopy: Bool?
        /// The scheduler's choice.
        var target: String?

        enum CodingKeys: String, CodingKey {
            case migration, source, requested, power, target
            case formerPower = "former_power"
            case rootImage = "root_image"
            case rootIsCopy = "root_is_copy"
        }
    }

    var workflow: Workflow<Frame> {
        Workflow(
            service: Compute.service, kind: "server.evacuate",
            steps: [
                .init(
                    "hold", run: { try await resize.hold($0.subjectID, $1.migration) },
                    undo: { try await resize.giveBack($0.subjectID, $1.migration) }),
                .init("schedule", deadline: .seconds(300), run: { try await schedule(&$0, &$1) }) { context, _ in
                    try await compute.clients.scheduler.release(consumer: context.subjectID)
                },
                .init(
                    "connect", deadline: .seconds(300),
                    run: { context, frame in
                        try await migration.connect(context.subjectID, to: try frame.target.recorded("target"))
                        return .next
                    }, undo: { context, frame in try await migration.connect(context.subjectID, to: frame.source) }),
                .init("exchange", deadline: .seconds(60), run: { try exchange(&$0, $1) }, undo: { try await takeBack($0.subjectID, $1) }),
                .init("await", deadline: ServerResize.hostDeadline) { context, _ in try await awaitHost(context.subjectID) },
                .init("release", deadline: .seconds(300)) { context, frame in
                    try await compute.clients.scheduler.release(consumer: frame.migration)
                    return .next
                },
                .init("finish", deadline: .seconds(60)) { finish(&$0, $1) },
            ],
            interruptedBy: [ServerCreate.deleteIntent],
            failed: { try await failed($0, $1, $2) })
    }

    private func schedule(_ context: inout StepContext, _ frame: inout Frame) async throws -> StepResult {
        let id = context.subjectID
        let host = try await steps.schedule(context) { [frame] connection, question in
            question.host = frame.requested
            question.excludedHosts = [frame.source]
            question.excludedHosts += try connection.query(MoveChecks.hostsWithRemains(of: id)).map { try $0.string("host") }
        }
        frame.target = host
        let (migration, now) = (frame.migration, context.now)
        context.commit { connection in
            try MigrationStore.set(connection, migration, target: host, now: now)
            try MigrationStore.set(connection, migration, status: "pre-migrating", now: now)
        }
        return .next
    }

    private func exchange(_ context: inout StepContext, _ frame: Frame) throws -> StepResult {
        let id = context.subjectID
        let target = try frame.target.recorded("target")
        let compute = compute
        context.commit { connection in
            // Disks are made anew: from the server's image, and without what a resize has kept.
            try connection.execute(
                "UPDATE servers SET root_image = NULL, root_is_copy = false, keeps_disks = false, rescue = NULL WHERE id = \(id)")
            try MigrationStore.move(connection, server: id, from: frame.source, to: target, power: frame.power, compute)
        }
        return .nextAfter(.seconds(2))
    }

    /// The server is a server of the host that is down again.
    private func takeBack(_ id: String, _ frame: Frame) async throws {
        guard let target = frame.target else { return }
        let compute = compute
        let isRemoved = try await database.write { connection in
            // Off, until the target has nothing of it any more: the source may be back.
            try MigrationStore.move(connection, server: id, from: target, to: frame.source, power: .shutoff, compute)
            try connection.execute(
                """
                UPDATE servers SET root_image = \(frame.rootImage)::jsonb, root_is_copy = \(frame.rootIsCopy ?? false)
                WHERE id = \(id) AND host = \(frame.source)
                """)
            return try MigrationStore.isRemoved(connection, server: id, from: target)
        }
        if !isRemoved, try await !steps.isFencedOff(host: target) { throw UndoWait(.seconds(2)) }
        try await migration.setPower(id, frame.formerPower ?? frame.power, on: frame.source)
    }

    private func awaitHost(_ id: String) async throws -> StepResult {
        let server = try await steps.server(id)
        if let failure = server.hostFailure(of: server.generation), failure.isPermanent {
            throw failure.failure("The host could not start the server")
        }
        return server.isApplied ? .next : .wait(.seconds(5))
    }

    private func finish(_ context: inout StepContext, _ frame: Frame) -> StepResult {
        let (id, now, ambient) = (context.subjectID, context.now, ambient)
        let state: VMState = frame.power == .shutoff ? .stopped : .active
        context.commit { connection in
            try connection.execute(
                """
                UPDATE servers SET vm_state = \(state.rawValue), task_state = NULL, launched_at = \(now), updated_at = \(now)
                WHERE id = \(id) AND NOT deleted AND task_state IS NOT DISTINCT FROM 'rebuilding'
                """)
            try MigrationStore.set(connection, frame.migration, status: "done", now: now)
            try ServerActions.finish(connection, server: id, action: ServerChange.evacuate.name, now: now)
            try ServerSteps.noteStop(connection, id, ambient: ambient)
        }
        return .next
    }

    private func failed(_ context: StepContext, _ frame: Frame, _ failure: StepFailure) async throws {
        let (id, now) = (context.subjectID, ambient.now)
        compute.log.warning(
            "an evacuation failed",
            metadata: ["server": "\(id)", "message": "\(failure.message)", "details": "\(failure.details ?? "")"])
        let fault: JSONValue = [
            "code": 500, "created": .string(now.iso8601), "message": .string(failure.message), "details": JSONValue(failure.details),
        ]
        try await database.write { connection in
            try connection.execute(
                """
                UPDATE servers SET task_state = NULL, fault = \(fault)::jsonb, updated_at = \(now)
                WHERE id = \(id) AND NOT deleted AND task_state IS NOT DISTINCT FROM 'rebuilding'
                """)
            try MigrationStore.set(connection, frame.migration, status: "failed", now: now)
            try ServerActions.finish(
                connection, server: id, action: ServerChange.evacuate.name, error: failure.message, details: failure.description, now: now)
        }
    }
}
