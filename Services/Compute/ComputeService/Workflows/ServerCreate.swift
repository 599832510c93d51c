import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// Builds a server: host, ports, volumes, guest. If a step fails, all of it is reverted.
struct ServerCreate: Sendable {
    let steps: ServerSteps

    static let kind = "server.create"
    /// The intent that interrupts a build.
    static let deleteIntent = "delete"

    init(_ compute: Compute) { steps = ServerSteps(compute: compute) }

    private var compute: Compute { steps.compute }
    private var database: Database { steps.database }
    private var ambient: Ambient { steps.ambient }

    /// The results of a build's steps.
    struct Build: Codable, Sendable {
        /// The host's last report of a temporary failure.
        var hostFailure: Reported?

        struct Reported: Codable, Sendable {
            var reason: String?
            var details: String?
        }

        enum CodingKeys: String, CodingKey {
            case hostFailure = "host_failure"
        }
    }

    var workflow: Workflow<Build> {
        Workflow(
            service: Compute.service, kind: ServerCreate.kind,
            steps: [
                .init(
                    "schedule", deadline: .seconds(300), run: { context, _ in try await schedule(&context) },
                    undo: { context, _ in try await unschedule(&context) }),
                .init(
                    "ports", deadline: .seconds(180), run: { context, _ in try await ports(&context) },
                    undo: { context, _ in try await steps.releasePorts(context.subjectID, Refusals(context)) }),
                .init(
                    "volumes", deadline: .seconds(900), run: { context, _ in try await volumes(&context) },
                    undo: { context, _ in try await undoVolumes(&context) }),
                .init("spawn", deadline: .seconds(60), run: { context, _ in try await spawn(&context) }) { context, _ in
                    try await unspawn(context.subjectID)
                },
                .init("await", deadline: compute.settings.spawnDeadline, run: { try await awaitHost($0, &$1) }),
                .init(
                    "finish", deadline: .seconds(180), run: { context, _ in try await finish(&context) },
                    undo: { context, _ in try await unfinish(&context) }),
            ],
            interruptedBy: [ServerCreate.deleteIntent],
            failed: { try await failed($0, $1, $2) })
    }

    // MARK: schedule

    /// - Parameter avoidsRemains: whether to skip hosts with remains of the server, which they would mistake for its disks.
    func schedule(_ context: inout StepContext, avoidsRemains: Bool = false) async throws -> StepResult {
        let id = context.subjectID
        let host = try await steps.schedule(context) { connection, question in
            guard avoidsRemains else { return }
            question.excludedHosts += try connection.query(MoveChecks.hostsWithRemains(of: id)).map { try $0.string("host") }
        }
        var changes = ServerSteps.entering(.networking, progress: 10, now: context.now)
        changes.set("host", host)
        changes.set("availability_zone", sql: ServerSteps.zone(of: host, compute))
        context.commit { [changes] connection in
            try changes.apply(connection, "servers", where: "id = \(id) AND NOT deleted", at: nil)
        }
        return .next
    }

    func unschedule(_ context: inout StepContext) async throws {
        let id = context.subjectID
        try await compute.clients.scheduler.release(consumer: id)
        try await database.write { connection in
            try connection.execute(
                "UPDATE servers SET host = NULL, published_at = NULL, availability_zone = pinned_zone WHERE id = \(id) AND NOT deleted")
        }
    }

    // MARK: ports

    private func ports(_ context: inout StepContext) async throws -> StepResult {
        let server = try await steps.server(context.subjectID)
        if server.networks.isEmpty { return .skip }
        for (index, item) in server.networks.enumerated() {
            let port = try await bind(item, server, operation: context.operationID(index))
            let insertion = InterfaceStore.insertion(
                port: port, server: server.id, position: "\(index)", isNew: item.portID == nil, tag: item.tag, state: "attached")
            try await database.write { connection in
                try connection.execute(
                    """
                    \(insertion) ON CONFLICT (port_id) DO UPDATE SET state = 'attached', position = EXCLUDED.position
                    WHERE i.server_id = EXCLUDED.server_id
                    """)
            }
        }
        let now = context.now
        context.commit { try ServerSteps.enter($0, server.id, .blockDeviceMapping, progress: 25, now: now) }
        return .next
    }

    private func bind(_ item: InterfaceRequest, _ server: WorkflowServer, operation: String) async throws -> String {
        let owner: JSONValue = .string("compute:\(server.zone ?? compute.settings.defaultZone)")
        let host: JSONValue = .string(server.host ?? "")
        if let port = item.portID {
            try await compute.clients.network.updatePort(
                port, ["device_id": .string(server.id), "device_owner": owner, "binding:host_id": host],
                as: server.subject(of: item))
            return port
        }
        var port: JSONObject = [
            "network_id": JSONValue(item.networkID), "project_id": .string(server.project),
            "device_id": .string(server.id), "device_owner": owner, "binding:host_id": host, "admin_state_up": true,
        ]
        if let address = item.fixedIP { port["fixed_ips"] = [["ip_address": .string(address)]] }
        if !server.securityGroups.isEmpty { port["security_groups"] = JSONValue(server.securityGroups) }
        return try await compute.clients.network.createPort(
            port, as: server.subject(of: item), operation: operation)
    }

    // MARK: spawn

    private func spawn(_ context: inout StepContext) async throws -> StepResult {
        let id = context.subjectID
        let ambient = ambient
        var changes = ServerSteps.entering(.spawning, progress: 40, now: context.now)
        changes.set("power", DesiredPower.running.rawValue)
        changes.set("published_at", sql: "CASE WHEN host IS NULL THEN published_at ELSE \(ambient.databaseNow) END")
        changes.set("epoch = epoch + 1")
        context.commit { [changes] connection in
            try changes.apply(connection, "servers", id, at: nil, isCounted: true)
            if let host = try connection.query("SELECT host FROM servers WHERE id = \(id)").first?.optionalString("host") {
                try DesiredState.send(connection, server: id, host: host, ambient: ambient)
            }
        }
        return .nextAfter(.seconds(5))
    }

    /// A host that only stopped reporting may still write to volumes of the server. Those that were created for it are deleted; others
    /// must not be free before the host is known to be down.
    private func unspawn(_ id: String) async throws {
        let hasVolumesOfOthers = try await database.read {
            try !$0.query("SELECT 1 AS one FROM server_volumes WHERE server_id = \(id) AND NOT created LIMIT 1").isEmpty
        }
        guard try await steps.settleAbsence(id, trustsSilence: !hasVolumesOfOthers) else { throw UndoWait(.seconds(2)) }
    }

    private func awaitHost(_ context: StepContext, _ frame: inout Build) async throws -> StepResult {
        let server = try await steps.server(context.subjectID)
        if let failure = server.hostFailure(of: server.generation) {
            if failure.isPermanent { throw failure.failure("The host could not start the server") }
            // The host keeps trying. If the deadline passes first, this is the reason.
            frame.hostFailure = Build.Reported(reason: failure.reason, details: failure.details)
        }
        if server.hasStopped { return .skip }
        guard server.isApplied, server.observedPower == .running else {
            return try await steps.wait(.seconds(5), for: server.id, on: server.host)
        }
        return try await steps.hasNetworks(server) ? .skip : .wait(.seconds(2))
    }

    private func finish(_ context: inout StepContext) async throws -> StepResult {
        let id = context.subjectID
        let hasVolumes = try await steps.completeAttachments(of: id)
        let now = context.now
        let ambient = ambient
        context.commit { connection in
            if hasVolumes {
                try connection.execute("UPDATE server_volumes SET state = 'attached' WHERE server_id = \(id)")
            }
            try connection.execute(
                """
                UPDATE servers SET vm_state = 'active', progress = 100, power_state = 1, launched_at = \(now),
                    updated_at = \(now), task_state = CASE WHEN task_state = 'deleting' THEN task_state END
                WHERE id = \(id) AND vm_state = 'building'
                """)
            try ServerActions.finish(connection, server: id, action: "create", now: now)
            try ServerSteps.noteStop(connection, id, ambient: ambient)
        }
        return .next
    }

    private func unfinish(_ context: inout StepContext) async throws {
        let id = context.subjectID
        _ = try await database.write { connection in
            try connection.execute(
                """
                UPDATE servers SET vm_state = 'building', launched_at = NULL
                WHERE id = \(id) AND vm_state = 'active' AND (task_state IS NULL OR task_state = 'deleting')
                """)
        }
    }

    /// A build that timed out failed for the last reason that its host reported.
    private static func explained(_ failure: StepFailure, _ frame: Build) -> StepFailure {
        guard let host = frame.hostFailure, failure.details?.hasPrefix("host ") != true else { return failure }
        let message = host.reason.map { "\(failure.message) The last failure: \($0)." } ?? failure.message
        let details = [failure.details, host.details].compactMap { $0 }.joined(separator: "; ")
        return StepFailure(message, details: details.isEmpty ? nil : details)
    }

    private func failed(_ context: StepContext, _ frame: Build, _ plain: StepFailure) async throws {
        let failure = ServerCreate.explained(plain, frame)
        let id = context.subjectID
        compute.log(failure, of: id, "a build failed")
        let now = ambient.now
        let fault = failure.fault(at: now)
        try await database.write { connection in
            // Releases resources that were reserved but never used.
            try connection.execute("DELETE FROM server_interfaces WHERE server_id = \(id)")
            try connection.execute("DELETE FROM server_volumes WHERE server_id = \(id)")
            // A build that is ended by a deletion must not show the server in ERROR: clients that wait for the deletion would give up.
            try connection.execute(
                """
                UPDATE servers SET vm_state = 'error', fault = \(fault)::jsonb, updated_at = \(now), progress = 0,
                    power_state = 0, task_state = NULL
                WHERE id = \(id) AND vm_state = 'building' AND task_state IS DISTINCT FROM 'deleting'
                """)
            try ServerActions.finish(connection, server: id, action: "create", failure: failure, now: now)
        }
    }
}
