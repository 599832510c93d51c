import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Messaging
import Telemetry
import WebAPI
import Workflow

/// `POST /servers/{id}/action`: power, locks, console, security groups; 501 for actions that are not available.
struct ServerActionRoutes: Sendable {
    let compute: Compute

    /// The path of a server, below which its actions are.
    static let path = "/v2.1/servers/{server_id}"

    private func route(
        _ key: String, _ action: String, rule: String = Rule.member, versions: VersionRange = .all,
        body: BodySchema = .noMembers, status: Int = 202, _ summary: String,
        handler: @escaping @Sendable (RequestContext) async throws -> Response
    ) -> Route {
        .action(
            ServerActionRoutes.path, key: key, action: "os_compute_api:\(action)", rule: rule, versions: versions, schema: body,
            status: status, summary, handler: handler)
    }

    private func power(_ key: String, _ power: PowerAction, _ summary: String) -> Route {
        route(key, power.policy, summary) { try await change($0, power) }
    }

    var resource: Resource {
        Resource("server-action", routes: powerRoutes + otherRoutes)
    }

    private var powerRoutes: [Route] {
        [
            power("os-start", .start, "Start a server"),
            power("os-stop", .stop, "Stop a server"),
            power("pause", .pause, "Pause a server"),
            power("unpause", .unpause, "Unpause a server"),
            power("suspend", .suspend, "Suspend a server to disk"),
            power("resume", .resume, "Resume a suspended server"),
            power("restore", .restore, "Restore a server that is kept after its deletion"),
            route(
                "reboot", PowerAction.rebootSoft.policy,
                body: .object([.init("type", .enumeration(["SOFT", "HARD", "soft", "hard", "Soft", "Hard"]), required: true)]),
                "Reboot a server"
            ) { context in
                let type = context.body["reboot"]?["type"]?.stringValue?.uppercased()
                return try await change(context, type == "HARD" ? .rebootHard : .rebootSoft)
            },
        ]
    }

    private var otherRoutes: [Route] {
        [
            route("lock", "os-lock-server:lock", versions: .through(72), "Lock a server") { try await lock($0) },
            route(
                "lock", "os-lock-server:lock", versions: .from(73),
                body: .nullable(.object([.init("locked_reason", .string(min: 1, max: 255, format: nil))])), "Lock a server"
            ) { try await lock($0) },
            route("unlock", "os-lock-server:unlock", "Unlock a server") { try await unlock($0) },
            route(
                "os-getConsoleOutput", "os-console-output",
                body: .object([.init("length", .nullable(.integer(min: -1, max: Int(Int32.max))))]), status: 200,
                "Show the console's output"
            ) { try await console($0) },
            route(
                "os-resetState", "os-admin-actions:reset_state", rule: Rule.admin,
                body: .object([.init("state", .enumeration(["active", "error"]), required: true)]), "Set a server's state"
            ) { try await resetState($0) },
            route(
                "addSecurityGroup", "os-security-groups:add", body: .object([.init("name", .identifier, required: true)]),
                "Add a security group"
            ) { try await changeGroups($0, key: "addSecurityGroup", adds: true) },
            route(
                "removeSecurityGroup", "os-security-groups:remove", body: .object([.init("name", .identifier, required: true)]),
                "Remove a security group"
            ) { try await changeGroups($0, key: "removeSecurityGroup", adds: false) },
        ]
    }

    // MARK: power

    private func change(_ context: RequestContext, _ action: PowerAction) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: "os_compute_api:\(action.policy)")
        let ambient = compute.ambient
        let origin = try ActionOrigin(context)
        return try await context.write(compute.database) { connection in
            let current = try ServerRecord.find(connection, server.id, lock: true)
            try current.requireUnlocked(context)
            try current.require(states: action.from.map(\.rawValue), for: action.name)
            if action == .restore { try ServerQuota.reserve(connection, server: server.id, compute.quota) }
            try PowerChange.begin(connection, of: decision, current, action, origin, ambient: ambient)
            return Change(.empty(202), "server", server.id, content: ["action": .string(action.rawValue)])
        }
    }

    /// The workflows that hold resources on two hosts, or change the server's host.
    private static let moves = [
        ServerResize.kind, ServerResize.confirmKind, ServerResize.revertKind, ServerMigration.kind, ServerMigration.reversalKind,
        ServerLiveMigration.kind, ServerEvacuation.kind, ServerUnshelve.kind,
    ]

    // MARK: locks and states

    private func lock(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: "os_compute_api:os-lock-server:lock")
        let by = try context.caller.isAdmin ? "admin" : "owner"
        let reason = context.body["lock"]?["locked_reason"]?.stringValue
        return try await context.write(compute.database) { connection in
            try ServerLocks.lock(connection, decision, by: by, reason: reason)
            return Change(
                .empty(202), "server", server.id,
                content: ["locked": true, "locked_by": .string(by), "locked_reason": JSONValue(reason)])
        }
    }

    private func unlock(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: "os_compute_api:os-lock-server:unlock")
        let mayOverride = context.allows("os_compute_api:os-lock-server:unlock:unlock_override", target: server.target)
        return try await context.write(compute.database) { connection in
            let current = try ServerRecord.find(connection, server.id, lock: true)
            if current.lockedBy == "admin", !mayOverride {
                throw ResourceError.forbidden("Policy doesn't allow os_compute_api:os-lock-server:unlock:unlock_override to be performed.")
            }
            try ServerLocks.unlock(connection, decision)
            return Change(.empty(202), "server", server.id, content: ["locked": false])
        }
    }

    private func resetState(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: "os_compute_api:os-admin-actions:reset_state")
        let state: VMState = context.body["os-resetState"]?["state"] == "active" ? .active : .error
        let now = compute.ambient.now
        return try await context.write(compute.database) { connection in
            let current = try ServerRecord.find(connection, server.id, lock: true)
            if current.taskState == "deleting" || current.vmState == "building" {
                throw ResourceError.conflict("Cannot 'reset_state' instance \(server.id) while it is being built or deleted")
            }
            if current.vmState == VMState.softDeleted.rawValue || current.taskState == TaskState.softDeleting.rawValue {
                throw ResourceError.conflict("Cannot 'reset_state' instance \(server.id), which was deleted: restore it instead")
            }
            // Its disks on the source host would stay there, and could be mistaken for current ones later.
            guard current.vmState != VMState.resized.rawValue else {
                throw ResourceError.conflict(
                    "Cannot 'reset_state' instance \(server.id) while its resize or migration is neither confirmed nor reverted")
            }
            // A shelved server has no host, or its disk is about to be removed from the host, so it cannot become active.
            guard ![VMState.shelved, .shelvedOffloaded].map(\.rawValue).contains(current.vmState) else {
                throw ResourceError.conflict("Cannot 'reset_state' instance \(server.id) while it is in vm_state \(current.vmState)")
            }
            // A second move could begin, and the end of the first one would then release what the second one holds.
            if let kind = try Workflows.active(connection, subject: server.id, kinds: ServerActionRoutes.moves) {
                throw ResourceError.conflict(
                    "Cannot 'reset_state' instance \(server.id) while its operation '\(kind)' is in progress. Try again when it has ended.")
            }
            // Otherwise its owner could start it from the volume that the rebuild is about to replace.
            guard try !Workflows.isActive(connection, subject: server.id, kind: VolumeRebuild.kind) else {
                throw ResourceError.conflict("Cannot 'reset_state' instance \(server.id) while its volume is written by a rebuild")
            }
            try ServerLocks.reset(connection, decision, to: state, at: now)
            return Change(.empty(202), "server", server.id, content: ["state": .string(state.rawValue)])
        }
    }

    // MARK: console

    private func console(_ context: RequestContext) async throws -> Response {
        let server = try await compute.authorizedServer(context).value
        guard let host = server.host, server.vmState != "building" || server.taskState == "spawning" else {
            throw ResourceError.conflict("Instance \(server.id) is not ready")
        }
        let length = context.body["os-getConsoleOutput"]?["length"]?.intValue
        let answer = try await compute.bus.request(
            ConsoleLogQuestion(serverID: server.id, lines: length.flatMap { $0 < 0 ? nil : $0 }), to: .agent(host: host),
            id: compute.ambient.newUUID(), timeout: .seconds(15), expiration: .seconds(20))
        return .json(200, ["output": .string(answer.output)])
    }

    // MARK: security groups

    private func changeGroups(_ context: RequestContext, key: String, adds: Bool) async throws -> Response {
        let server = try await compute.authorizedServer(context).value
        let name = context.body[key]?["name"]?.stringValue ?? ""
        let owner = try ServerOwner(context, project: server.project)
        let subject = ActingSubject.accepted(project: server.project, user: owner.user, administrator: owner.administrator)
        return try await context.write(
            compute.database,
            begin: { connection in
                let work = try ServerSecurityGroups.change(connection, of: server, name: name, adds: adds)
                return BegunWork(work, "server", server.id, content: work)
            },
            finish: { work in
                let ports = (work["ports"]?.arrayValue ?? []).compactMap(\.stringValue)
                if !ports.isEmpty, let group = work["group"]?.stringValue {
                    try await compute.clients.network.changeGroup(group, adds: adds, ports: ports, as: subject)
                }
                return .empty(202)
            })
    }
}

extension PowerAction {
    /// The name of its policy action, after `os_compute_api:`.
    var policy: String {
        switch self {
        case .start: "servers:start"
        case .stop: "servers:stop"
        case .rebootSoft, .rebootHard: "servers:reboot"
        case .pause: "os-pause-server:pause"
        case .unpause: "os-pause-server:unpause"
        case .suspend: "os-suspend-server:suspend"
        case .resume: "os-suspend-server:resume"
        case .softDelete: "servers:delete"
        case .restore: "os-deferred-delete:restore"
        }
    }

    /// The event's name in the instance actions.
    var event: String {
        switch self {
        case .start: "compute_start_instance"
        case .stop: "compute_stop_instance"
        case .rebootSoft, .rebootHard: "compute_reboot_instance"
        case .pause: "compute_pause_instance"
        case .unpause: "compute_unpause_instance"
        case .suspend: "compute_suspend_instance"
        case .resume: "compute_resume_instance"
        case .softDelete: "compute_soft_delete_instance"
        case .restore: "compute_restore_instance"
        }
    }
}
