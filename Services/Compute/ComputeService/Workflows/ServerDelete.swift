import ComputeCore
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// Deletes a server. It retries forever, because services that it needs may be unavailable for a while. If a service refuses permanently to
/// release something, it is left as it is after some attempts (`Refusals`).
struct ServerDelete: Sendable {
    let steps: ServerSteps

    static let kind = "server.delete"

    init(_ compute: Compute) { steps = ServerSteps(compute: compute) }

    private var database: Database { steps.database }

    var workflow: Workflow<NoFrame> {
        Workflow(
            service: Compute.service, kind: ServerDelete.kind,
            steps: [
                .init(
                    "absent",
                    run: { context in
                        try await steps.settleAbsence(context.subjectID) ? .next : .wait(.seconds(5))
                    }),
                .init(
                    "volumes",
                    run: { context in
                        guard let server = try await load(context.subjectID) else { return .skip }
                        try await steps.releaseVolumes(server.id, as: server.subject, undoing: false, Refusals(context))
                        return .skip
                    }),
                .init(
                    "ports",
                    run: { context in
                        try await steps.releasePorts(context.subjectID, Refusals(context))
                        return .skip
                    }),
                .init(
                    "allocation",
                    run: { context in
                        for consumer in try await consumers(context.subjectID) {
                            try await steps.tolerate(Refusals(context), of: context.subjectID, "allocations of \(consumer)") {
                                try await steps.compute.clients.scheduler.release(consumer: consumer)
                            }
                        }
                        return .skip
                    }),
                .init("finish", run: { try await finish(&$0) }),
            ],
            retriesForever: true, failed: { _, _ in })
    }

    /// The consumers of allocations: the server, and its moves that hold earlier allocations.
    private func consumers(_ id: String) async throws -> [String] {
        try await database.read { connection in
            try connection.query(
                "SELECT uuid FROM server_migrations WHERE server_id = \(id) AND status = ANY(\(MigrationStore.open)::text[])"
            ).map { try $0.string("uuid") } + [id]
        }
    }

    private func load(_ id: String) async throws -> WorkflowServer? {
        try await database.read { try WorkflowServer.load($0, id) }
    }

    private func finish(_ context: inout StepContext) async throws -> StepResult {
        let id = context.subjectID
        let (now, ambient) = (context.now, steps.ambient)
        let (removal, requestID) = (ImageRemoval(steps.compute).workflow, context.requestID)
        context.commit { connection in
            let rows = try connection.query(
                """
                UPDATE servers s SET deleted = true, vm_state = 'deleted', task_state = NULL, power_state = 0,
                    terminated_at = \(now), updated_at = \(now), user_data = NULL,
                    guest_password = NULL
                FROM (SELECT id, vm_state FROM servers WHERE id = \(id) AND NOT deleted FOR UPDATE) o WHERE s.id = o.id
                RETURNING o.vm_state, s.project_id, s.user_id, s.shelved_image_id
                """)
            guard let row = rows.first else { return }
            try KeptDisks.adopt(connection, server: id)
            try connection.execute(
                """
                UPDATE server_migrations SET status = 'error', updated_at = \(now)
                WHERE server_id = \(id) AND status = ANY(\(MigrationStore.open)::text[])
                """)
            // Includes those of a move that ended in the meantime.
            try KeptDisks.discard(connection, server: id, ambient: ambient)
            try connection.execute("DELETE FROM server_jobs WHERE server_id = \(id)")
            if let image = try row.optionalString("shelved_image_id") {
                let old = ImageRemoval.Images(project: try row.string("project_id"), user: try row.string("user_id"), image: image)
                try Workflows.start(connection, removal, subject: image, frame: old, requestID: requestID, ambient: ambient)
            }
            try ServerActions.finish(connection, server: id, action: "delete", now: now)
            // Last, because the quota's usage row serializes the requests of the project.
            if try row.string("vm_state") != VMState.softDeleted.rawValue { try ServerQuota.release(connection, server: id) }
        }
        return .next
    }
}
