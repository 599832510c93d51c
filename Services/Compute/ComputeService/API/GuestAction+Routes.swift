import Authorization
import Contracts
import Database
import JSON
import Kernel
import Messaging
import WebAPI
import Workflow

/// Actions inside running guests: crash dumps and passwords.
struct GuestActionRoutes: Sendable {
    let compute: Compute

    var resource: Resource {
        let one = ServerActionRoutes.path
        return Resource(
            "guest-action",
            routes: [
                .action(
                    one, key: "trigger_crash_dump", action: "os_compute_api:servers:trigger_crash_dump", rule: Rule.member,
                    versions: .from(17), schema: .nullable(.object([])),
                    "Send a non-maskable interrupt to the guest"
                ) { try await crashDump($0) },
                .action(
                    one, key: "changePassword", action: "os_compute_api:os-admin-password", rule: Rule.member,
                    schema: .object([.init("adminPass", .string(min: 1, max: 255, format: nil), required: true)]),
                    "Change the administrator's password in the guest"
                ) { try await changePassword($0) },
                Route(
                    .get, one + "/os-server-password", action: "os_compute_api:os-server-password:show", rule: Rule.reader,
                    answer: .form(.wrapped("password", .anyText)), "Show the password that the guest posted"
                ) { context in
                    let id = try await compute.authorizedServer(context).value.id
                    let password = try await compute.database.read { try GuestStore.password($0, of: id) }
                    return .json(200, ["password": .string(password ?? "")])
                },
                Route(
                    .delete, one + "/os-server-password", action: "os_compute_api:os-server-password:clear", rule: Rule.member, status: 204,
                    "Delete the password that the guest posted"
                ) { try await clearPassword($0) },
            ])
    }

    // MARK: orders to the guest

    private func crashDump(_ context: RequestContext) async throws -> Response {
        let policy = "os_compute_api:servers:trigger_crash_dump"
        let server = try await compute.authorizedServer(context)
        return try await order(
            context, server, for: policy, states: ["active", "paused", "rescued", "resized", "error"], action: "trigger_crash_dump",
            event: "compute_trigger_crash_dump", CrashDumpQuestion(serverID: server.value.id))
    }

    private func changePassword(_ context: RequestContext) async throws -> Response {
        let server = try await compute.authorizedServer(context)
        let id = server.value.id
        let properties = try await compute.database.read { try GuestStore.imageProperties($0, of: id) }
        // The same states as Nova's libvirt driver.
        let fallback = properties["os_type"]?.stringValue == "windows" ? "Administrator" : "root"
        let password = context.body["changePassword"]?["adminPass"]?.stringValue ?? ""
        return try await order(
            context, server, for: "os_compute_api:os-admin-password", states: ["active"], action: "changePassword",
            event: "compute_set_admin_password",
            SetPasswordQuestion(
                serverID: id, user: properties["os_admin_user"]?.stringValue ?? fallback, password: password))
    }

    /// Sends a command to the guest through the server's host, and answers when the command has completed.
    ///
    /// - Throws: 409 in a state in which the guest cannot take it, and the host's own refusal.
    private func order<Question: MessageQuestion>(
        _ context: RequestContext, _ decision: Authorized<ServerRecord>, for policy: String, states: [String], action: String,
        event: String, _ question: Question
    ) async throws -> Response where Question.Answer == Done {
        let server = try decision.value(for: policy)
        let ambient = compute.ambient
        return try await context.write(
            compute.database,
            begin: { connection in
                let current = try ServerRecord.find(connection, server.id, lock: true)
                try current.requireUnlocked(context)
                try current.require(states: states, for: action)
                guard let host = current.host else {
                    throw ResourceError.conflict("Instance \(server.id) is not on a host: '\(action)' is not possible.")
                }
                try ServerActions.begin(
                    connection, context, of: decision, for: policy, action: action, event: event, now: ambient.now)
                return BegunWork(.string(host), "server", server.id, content: ["action": .string(action)])
            },
            finish: { work in
                do {
                    _ = try await compute.bus.request(
                        question, to: .agent(host: work.stringValue ?? ""), id: ambient.newUUID(), timeout: .seconds(15),
                        expiration: .seconds(15))
                } catch {
                    try await compute.finish(
                        action, server: server.id, error: StepFailure((error as? ResourceError)?.message ?? "\(error)"))
                    throw error
                }
                try await compute.finish(action, server: server.id)
                return .empty(202)
            })
    }

    // MARK: the guest's password

    private func clearPassword(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let policy = "os_compute_api:os-server-password:clear"
        let server = try decision.value(for: policy)
        let ambient = compute.ambient
        return try await context.write(compute.database) { connection in
            if try GuestStore.clearPassword(connection, of: decision) {
                try DesiredState.refresh(connection, of: decision, for: policy, ambient: ambient)
            }
            return Change(.empty(204), "server", server.id, content: ["password": nil])
        }
    }
}
