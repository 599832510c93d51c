import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Workflow

/// `unshelve`: a server that is still on its host is started there; one that was offloaded is built on a host again, with its
/// ports and volumes, from its image.
struct ServerUnshelve: Sendable {
    let steps: ServerSteps
    private let creation: ServerCreate

    static let kind = "server.unshelve"

    init(_ compute: Compute) {
        steps = ServerSteps(compute: compute)
        creation = ServerCreate(compute)
    }

    private var compute: Compute { steps.compute }
    private var database: Database { steps.database }
    private var ambient: Ambient { steps.ambient }

    struct Unshelving: Codable, Sendable {
        /// Whether the server is not on a host.
        var isOffloaded: Bool
        /// The server's generation in which it runs.
        var generation: Int?

        enum CodingKeys: String, CodingKey {
            case generation
            case isOffloaded = "offloaded"
        }
    }

    var workflow: Workflow<Unshelving> {
        Workflow(
            service: Compute.service, kind: ServerUnshelve.kind,
            steps: [
                .init(
                    "schedule", deadline: .seconds(300),
                    run: { context, frame in frame.isOffloaded ? try await creation.schedule(&context, avoidsRemains: true) : .skip },
                    undo: { context, frame in if frame.isOffloaded { try await creation.unschedule(&context) } }),
                .init(
                    "ports", deadline: .seconds(180),
                    run: { context, frame in
                        guard frame.isOffloaded, let host = try await steps.server(context.subjectID).host else { return .skip }
                        try await steps.bindPorts(context.subjectID, to: host)
                        return .next
                    },
                    undo: { context, frame in if frame.isOffloaded { try await steps.bindPorts(context.subjectID, to: "") } }),
                .init(
                    "volumes", deadline: .seconds(300),
                    run: { context, frame in
                        guard frame.isOffloaded, let host = try await steps.server(context.subjectID).host else { return .skip }
                        try await steps.connectVolumes(context.subjectID, to: host)
                        return .next
                    },
                    undo: { context, frame in if frame.isOffloaded { try await steps.disconnectVolumes(context.subjectID) } }),
                .init(
                    "spawn", deadline: .seconds(60), run: { try await spawn($0, &$1) }, undo: { try await unspawn($0, $1) }),
                .init("await", deadline: compute.settings.spawnDeadline, run: { try await awaitHost($0, $1) }),
                .init(
                    "complete", deadline: .seconds(180),
                    run: { context, _ in
                        try await steps.completeAttachments(of: context.subjectID)
                        return .next
                    }),
                .init("finish", deadline: .seconds(60), run: { context, _ in finish(&context) }),
            ],
            interruptedBy: [ServerCreate.deleteIntent], failed: { try await failed($0, $2) })
    }

    private func spawn(_ context: StepContext, _ frame: inout Unshelving) async throws -> StepResult {
        let id = context.subjectID
        let isOffloaded = frame.isOffloaded
        let (ambient, images) = (ambient, compute.images)
        frame.generation = try await database.write { connection in
            let rows = try connection.query(
                "SELECT project_id, user_id, shelved_image_id FROM servers WHERE id = \(id) AND NOT deleted FOR UPDATE")
            guard let row = rows.first else { throw StepFailure("The server no longer exists.") }
            if isOffloaded, let image = try row.optionalString("shelved_image_id") {
                let disk = try ServerImages.rootDisk(
                    connection, from: image, project: row.string("project_id"), user: row.string("user_id"), images: images)
                try connection.execute("UPDATE servers SET root_image = \(try JSONValue(encoding: disk))::jsonb WHERE id = \(id)")
            }
            let generation = try DesiredState.change(connection, server: id, power: .running, operation: .null)
            try connection.execute(
                """
                UPDATE servers SET task_state = 'spawning', updated_at = \(ambient.now)
                WHERE id = \(id) AND vm_state = 'shelved_offloaded' AND task_state = 'unshelving'
                """)
            try DesiredState.publish(connection, server: id, first: true, ambient: ambient)
            return generation
        }
        return .nextAfter(.seconds(5))
    }

    private func unspawn(_ context: StepContext, _ frame: Unshelving) async throws {
        let id = context.subjectID
        let ambient = ambient
        if frame.isOffloaded {
            guard try await steps.settleAbsence(id) else { throw UndoWait(.seconds(2)) }
            _ = try await database.write { try $0.execute("UPDATE servers SET root_image = NULL WHERE id = \(id)") }
        } else {
            try await database.write { connection in
                let rows = try connection.query("SELECT 1 AS one FROM servers WHERE id = \(id) AND power <> 'absent' AND NOT deleted")
                guard !rows.isEmpty else { return }
                try DesiredState.change(connection, server: id, power: .shutoff)
                try DesiredState.publish(connection, server: id, ambient: ambient)
            }
        }
    }

    private func awaitHost(_ context: StepContext, _ frame: Unshelving) async throws -> StepResult {
        let server = try await steps.server(context.subjectID)
        if let failure = server.hostFailure(of: try frame.generation.recorded("generation")), failure.isPermanent {
            throw failure.failure("The host could not start the server")
        }
        if server.hasStopped { return .skip }
        guard server.isApplied, server.observedPower == .running else {
            return try await steps.wait(.seconds(5), for: server.id, on: server.host)
        }
        return try await steps.hasNetworks(server) ? .skip : .wait(.seconds(2))
    }

    private func finish(_ context: inout StepContext) -> StepResult {
        let id = context.subjectID
        let ambient = ambient
        let (removal, requestID) = (ImageRemoval(compute).workflow, context.requestID)
        context.commit { connection in
            let rows = try connection.query(
                """
                UPDATE servers s SET vm_state = 'active', progress = 100, power_state = \(PowerState.running.rawValue),
                    launched_at = \(ambient.now), updated_at = \(ambient.now), root_image = NULL, shelved_image_id = NULL,
                    root_is_copy = s.root_is_copy OR s.root_image IS NOT NULL,
                    shelved_at = NULL, requested_host = NULL, fault = NULL,
                    task_state = CASE WHEN s.task_state = 'deleting' THEN s.task_state END
                FROM servers old WHERE old.id = s.id AND s.id = \(id) AND s.vm_state IN ('shelved', 'shelved_offloaded')
                RETURNING old.shelved_image_id AS image, s.project_id, s.user_id
                """)
            if let row = rows.first, let image = try row.optionalString("image") {
                let old = ImageRemoval.Images(project: try row.string("project_id"), user: try row.string("user_id"), image: image)
                try Workflows.start(connection, removal, subject: image, frame: old, requestID: requestID, ambient: ambient)
            }
            try ServerActions.finish(connection, server: id, action: "unshelve", now: ambient.now)
            try ServerSteps.noteStop(connection, id, ambient: ambient)
        }
        return .next
    }

    private func failed(_ context: StepContext, _ failure: StepFailure) async throws {
        let id = context.subjectID
        let now = ambient.now
        compute.log(failure, of: id, "a server is not unshelved")
        try await database.write { connection in
            try connection.execute(
                """
                UPDATE servers SET task_state = NULL, requested_host = NULL, updated_at = \(now)
                WHERE id = \(id) AND task_state IN ('unshelving', 'spawning')
                """)
            try ServerActions.finish(connection, server: id, action: "unshelve", failure: failure, now: now)
        }
    }
}
