import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Workflow

/// Starts a server on another host because its own host is down.
///
/// With the request, the operator asserts that the guest no longer runs there. Volumes move with the server; local disks are recreated from
/// the image. When the host returns, its agent removes the server before it starts any guest.
struct ServerEvacuation: Sendable {
    static let kind = "server.evacuate"
    private let moves: MoveSteps

    init(_ compute: Compute) { moves = MoveSteps(compute) }

    private var compute: Compute { moves.steps.compute }

    struct Frame: MoveFrame {
        var migration: String
        var source: String
        var requested: String?
        /// The desired power after the evacuation.
        var power: DesiredPower
        /// The desired power before the evacuation.
        var formerPower: DesiredPower?
        /// The image that the root disk was created from on the failed host, if it is not the server's image.
        var rootImage: JSONValue?
        /// Whether the root disk there is a full copy without a backing image.
        var rootIsCopy: Bool?
        var target: String?

        enum CodingKeys: String, CodingKey {
            case migration, source, requested, power, target
            case formerPower = "former_power"
            case rootImage = "root_image"
            case rootIsCopy = "root_is_copy"
        }
    }

    var workflow: Workflow<Frame> { workflow(version: 2) }

    /// Continues evacuations that development builds after release 0.1.0 have begun. Their step `release` returned the allocations on the
    /// source; now `finish` starts this.
    var earlier: Workflow<Frame> { workflow(version: 1, beforeFinish: [.init("release") { _, _ in .next }]) }

    private func workflow(version: Int, beforeFinish more: [Workflow<Frame>.Step] = []) -> Workflow<Frame> {
        var steps: [Workflow<Frame>.Step] = [
            moves.hold(for: \.migration),
            moves.schedule { try await schedule(&$0, &$1) },
            moves.connecting(),
            .init("exchange", deadline: .seconds(60), run: { try exchange(&$0, $1) }, undo: { try await takeBack($0.subjectID, $1) }),
            .init("await", deadline: ServerResize.hostDeadline) { context, _ in
                try await moves.awaitHost(context.subjectID, "The host could not start the server")
            },
        ]
        steps += more
        steps.append(.init("finish", deadline: .seconds(60)) { finish(&$0, $1) })
        return Workflow(
            service: Compute.service, kind: ServerEvacuation.kind, version: version, steps: steps,
            interruptedBy: [ServerCreate.deleteIntent],
            failed: { try await failed($0, $1, $2) })
    }

    private func schedule(_ context: inout StepContext, _ frame: inout Frame) async throws -> StepResult {
        let (id, migration, now) = (context.subjectID, frame.migration, context.now)
        return try await moves.schedule(
            &context, &frame,
            excluding: { try $0.query(MoveChecks.hostsWithRemains(of: id)).map { try $0.string("host") } },
            record: { try MigrationStore.set($0, migration, status: "pre-migrating", now: now) })
    }

    private func exchange(_ context: inout StepContext, _ frame: Frame) throws -> StepResult {
        let id = context.subjectID
        let target = try frame.target.recorded("target")
        let compute = compute
        context.commit { connection in
            // Disks are recreated from the server's image; copies that a resize has kept do not count.
            try connection.execute(
                "UPDATE servers SET root_image = NULL, root_is_copy = false, keeps_disks = false, rescue = NULL WHERE id = \(id)")
            try MigrationStore.move(connection, server: id, from: frame.source, to: target, power: frame.power, compute)
        }
        return .nextAfter(.seconds(2))
    }

    /// Returns the server to the failed host, with its earlier power and root disk.
    private func takeBack(_ id: String, _ frame: Frame) async throws {
        guard let target = frame.target else { return }
        try await moves.takeBack(id, frame) { connection in
            try connection.execute(
                """
                UPDATE servers SET root_image = \(frame.rootImage)::jsonb, root_is_copy = \(frame.rootIsCopy ?? false)
                WHERE id = \(id) AND host = \(target)
                """)
        }
        try await moves.setPower(id, frame.formerPower ?? frame.power, on: frame.source)
    }

    /// Another workflow releases the allocations on the source, so that the evacuation still has them to give back if this step fails.
    private func finish(_ context: inout StepContext, _ frame: Frame) -> StepResult {
        let (id, now, ambient, requestID) = (context.subjectID, context.now, compute.ambient, context.requestID)
        let state: VMState = frame.power == .shutoff ? .stopped : .active
        context.commit { connection in
            try connection.execute(
                """
                UPDATE servers SET vm_state = \(state.rawValue), task_state = NULL, launched_at = \(now), updated_at = \(now)
                WHERE id = \(id) AND NOT deleted AND task_state IS NOT DISTINCT FROM 'rebuilding'
                """)
            try MigrationStore.end(
                connection, frame.migration, server: id, status: "done", action: MigrationType.evacuation.action, now: now)
            try ServerSteps.noteStop(connection, id, ambient: ambient)
            try Workflows.start(
                connection, ServerResize(compute).confirmation, subject: frame.migration, requestID: requestID, ambient: ambient)
        }
        return .next
    }

    private func failed(_ context: StepContext, _ frame: Frame, _ failure: StepFailure) async throws {
        let (id, now) = (context.subjectID, compute.ambient.now)
        compute.log(failure, of: id, "an evacuation failed")
        try await compute.database.write { connection in
            try connection.execute(
                """
                UPDATE servers SET task_state = NULL, fault = \(failure.fault(at: now))::jsonb, updated_at = \(now)
                WHERE id = \(id) AND NOT deleted AND task_state IS NOT DISTINCT FROM 'rebuilding'
                """)
            try MigrationStore.end(
                connection, frame.migration, server: id, status: "failed", action: MigrationType.evacuation.action, failure: failure,
                now: now)
        }
    }
}
