import ComputeCore
import Database
import JSON
import Kernel
import Workflow

/// Giving a running server a port, and taking one away. The subject is the operation, not the server: several can be
/// under way, and a delete of the server does not wait for them.
struct InterfaceWorkflows: Sendable {
    let steps: ServerSteps

    init(_ compute: Compute) { steps = ServerSteps(compute: compute) }

    private var database: Database { steps.database }
    private var compute: Compute { steps.compute }

    // MARK: attach

    /// Frame: server, and network, port, fixed_ip, tag as asked for; administrator, as `InterfaceRequest` has it.
    var attach: WorkflowDefinition {
        WorkflowDefinition(
            service: Compute.service, kind: "interface.attach",
            steps: [
                WorkflowStep("port", deadline: .seconds(60), run: { try await takePort(&$0) }, undo: { try await dropPort(&$0) }),
                WorkflowStep("plug", deadline: .seconds(60), run: { try await plug(&$0) }, undo: { try await unplug($0) }),
                WorkflowStep("await", deadline: .seconds(180), run: { try await waitForHost($0, "attach_interface") }),
            ],
            failed: { context, failure in
                try await compute.finish("attach_interface", server: InterfaceWorkflows.text(context, "server") ?? "", error: failure)
            })
    }

    private static func text(_ context: StepContext, _ name: String) -> String? { context.frame[name]?.stringValue }

    private func takePort(_ context: inout StepContext) async throws -> StepResult {
        let server = try await steps.server(InterfaceWorkflows.text(context, "server") ?? "")
        let owner: JSONValue = .string("compute:\(server.zone ?? compute.settings.defaultZone)")
        let host: JSONValue = .string(server.host ?? "")
        let subject = ActingSubject.accepted(
            project: server.project, user: server.user, administrator: context.frame["administrator"].flatMap(ActingSubject.init(administrator:)))
        if let port = InterfaceWorkflows.text(context, "port") {
            try await compute.neighbours.network.updatePort(
                port, ["device_id": .string(server.id), "device_owner": owner, "binding:host_id": host], as: subject)
            context.frame["port_id"] = .string(port)
            return .next
        }
        var port: JSONObject = [
            "network_id": JSONValue(InterfaceWorkflows.text(context, "network")), "project_id": .string(server.project),
            "device_id": .string(server.id), "device_owner": owner, "binding:host_id": host, "admin_state_up": true,
        ]
        if let address = InterfaceWorkflows.text(context, "fixed_ip") { port["fixed_ips"] = [["ip_address": .string(address)]] }
        let id = try await compute.neighbours.network.createPort(port, as: subject, operation: context.operationID())
        context.frame["port_id"] = .string(id)
        return .next
    }

    /// A port that was asked for but not recorded is found by asking again under the same operation.
    private func dropPort(_ context: inout StepContext) async throws {
        let given = InterfaceWorkflows.text(context, "port")
        if given == nil, InterfaceWorkflows.text(context, "port_id") == nil {
            do { _ = try await takePort(&context) } catch is StepFailure {
                return
            } catch let error as ResourceError where !error.isRetryable {
                return
            }
        }
        guard let port = InterfaceWorkflows.text(context, "port_id") ?? given else { return }
        try await release(port, server: InterfaceWorkflows.text(context, "server") ?? "", created: given == nil)
        _ = try await database.write { try $0.execute("DELETE FROM server_interfaces WHERE port_id = \(port)") }
    }

    private func release(_ port: String, server: String, created: Bool) async throws {
        guard let subject = try await steps.owner(of: port, server: server, created: created) else { return }
        try await steps.release(port: port, created: created, as: subject)
    }

    private func plug(_ context: inout StepContext) async throws -> StepResult {
        let port = InterfaceWorkflows.text(context, "port_id") ?? ""
        let id = InterfaceWorkflows.text(context, "server") ?? ""
        let tag = InterfaceWorkflows.text(context, "tag")
        let isOwn = InterfaceWorkflows.text(context, "port") == nil
        let ambient = compute.ambient
        let generation = try await database.write { connection -> Int in
            let server = try ServerRecord.find(connection, id, lock: true)
            guard server.taskState != "deleting" else { throw StepFailure("The server is being deleted.") }
            let added = try connection.execute(
                """
                INSERT INTO server_interfaces (port_id, server_id, position, network_id, created, tag)
                SELECT p.id, \(id), (SELECT coalesce(max(i.position), -1) + 1 FROM server_interfaces i WHERE i.server_id = \(id)),
                    p.network_id, \(isOwn), \(tag) FROM ports p WHERE p.id = \(port)
                ON CONFLICT (port_id) DO UPDATE SET state = 'attached' WHERE server_interfaces.server_id = EXCLUDED.server_id
                """)
            if added == 0 { throw StepFailure("Port \(port) is still in use.") }
            let generation = try DesiredState.change(connection, server: id)
            try DesiredState.publish(connection, server: id, ambient: ambient)
            return generation
        }
        context.frame["generation"] = JSONValue(generation)
        return .next
    }

    private func unplug(_ context: StepContext) async throws {
        let port = InterfaceWorkflows.text(context, "port_id") ?? ""
        let id = InterfaceWorkflows.text(context, "server") ?? ""
        let ambient = compute.ambient
        try await database.write { connection in
            try connection.execute("DELETE FROM server_interfaces WHERE port_id = \(port)")
            try DesiredState.change(connection, server: id)
            try DesiredState.publish(connection, server: id, ambient: ambient)
        }
    }

    /// Until the host has it; then the action has ended.
    private func waitForHost(_ context: StepContext, _ action: String) async throws -> StepResult {
        let server = InterfaceWorkflows.text(context, "server") ?? ""
        let result = try await compute.awaitApplied(context, server: server, what: "interfaces")
        if case .next = result { try await compute.finish(action, server: server) }
        return result
    }

    // MARK: detach

    /// Frame: server, port, created, generation. The request has already taken the port from the desired state.
    var detach: WorkflowDefinition {
        WorkflowDefinition(
            service: Compute.service, kind: "interface.detach",
            steps: [
                WorkflowStep("await", run: { try await waitForHost($0, "detach_interface") }),
                WorkflowStep("release", run: { context in
                    let port = InterfaceWorkflows.text(context, "port") ?? ""
                    try await release(
                        port, server: InterfaceWorkflows.text(context, "server") ?? "",
                        created: context.frame["created"]?.boolValue ?? true)
                    _ = try await database.write { try $0.execute("DELETE FROM server_interfaces WHERE port_id = \(port)") }
                    return .next
                }),
            ], retriesForever: true, failed: { _, _ in })
    }
}
