import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Logging
import Workflow

/// Attaching a port to a running server, and detaching one. The subject is the operation and not the server, so that
/// several can be in progress and a delete of the server does not wait for them.
struct InterfaceWorkflows: Sendable {
    let steps: ServerSteps

    init(_ compute: Compute) { steps = ServerSteps(compute: compute) }

    private var database: Database { steps.database }
    private var compute: Compute { steps.compute }

    // MARK: attach

    /// The requested interface and its progress.
    struct Attachment: Codable, Sendable {
        var server: String
        var network: String?
        var port: String?
        var fixedIP: String?
        var tag: String?
        /// The requesting administrator, if the request was accepted only because of administrator rights.
        var administrator: RecordedSubject?
        /// The port that was created or claimed.
        var portID: String?
        /// The server's generation that has the interface.
        var generation: Int?

        enum CodingKeys: String, CodingKey {
            case server, network, port, tag, administrator, generation
            case fixedIP = "fixed_ip"
            case portID = "port_id"
        }
    }

    var attach: Workflow<Attachment> {
        Workflow(
            service: Compute.service, kind: "interface.attach",
            steps: [
                .init("port", deadline: .seconds(60), run: { try await takePort($0, &$1) }, undo: { try await dropPort($0, &$1) }),
                .init("plug", deadline: .seconds(60), run: { try await plug($0, &$1) }, undo: { try await unplug($0, $1) }),
                .init("await", deadline: .seconds(180)) { _, frame in
                    try await waitForHost(frame.server, frame.generation.recorded("generation"), "attach_interface")
                },
            ],
            failed: { _, frame, failure in
                try await compute.finish("attach_interface", server: frame.server, error: failure)
            })
    }

    private func takePort(_ context: StepContext, _ frame: inout Attachment) async throws -> StepResult {
        let server = try await steps.server(frame.server)
        let owner: JSONValue = .string("compute:\(server.zone ?? compute.settings.defaultZone)")
        let host: JSONValue = .string(server.host ?? "")
        let subject = ActingSubject.accepted(
            project: server.project, user: server.user, administrator: frame.administrator?.subject)
        if let port = frame.port {
            try await requireClaim(on: port, frame, context.subjectID)
            try await requireFree(port, for: server.id)
            try await compute.clients.network.updatePort(
                port, ["device_id": .string(server.id), "device_owner": owner, "binding:host_id": host], as: subject)
            frame.portID = port
            return .next
        }
        var port: JSONObject = [
            "network_id": JSONValue(frame.network), "project_id": .string(server.project),
            "device_id": .string(server.id), "device_owner": owner, "binding:host_id": host, "admin_state_up": true,
        ]
        if let address = frame.fixedIP { port["fixed_ips"] = [["ip_address": .string(address)]] }
        let id = try await compute.clients.network.createPort(port, as: subject, operation: context.operationID())
        frame.portID = id
        return .next
    }

    /// - Throws: `StepFailure` if a router or another device took the port after the request was accepted.
    private func requireFree(_ port: String, for server: String) async throws {
        let other = try await database.read { connection in
            try connection.query(
                "SELECT device_id, device_owner FROM published_ports WHERE id = \(port) AND device_id NOT IN ('', \(server))"
            ).first.map { "\(try $0.string("device_owner")) \(try $0.string("device_id"))" }
        }
        guard let other else { return }
        throw StepFailure("Port \(port) is still in use by the device \(other).")
    }

    /// The request has claimed the port that it names. Requests that older versions accepted have not.
    ///
    /// - Throws: `StepFailure` where another server or attachment has the port.
    private func requireClaim(on port: String, _ frame: Attachment, _ operation: String) async throws {
        let (server, tag) = (frame.server, frame.tag)
        let isClaimed = try await database.write { connection in
            _ = try InterfaceStore.claim(connection, port: port, tag: tag, server: server, operation: operation)
            return try !connection.query(
                """
                SELECT 1 AS one FROM server_interfaces i
                WHERE i.port_id = \(port) AND i.server_id = \(server) AND \(InterfaceStore.isAttached(by: operation))
                """
            ).isEmpty
        }
        guard isClaimed else { throw StepFailure("Port \(port) is still in use.") }
    }

    /// If a port was created but not recorded, repeating the request with the same operation id returns it.
    private func dropPort(_ context: StepContext, _ frame: inout Attachment) async throws {
        if frame.port == nil, frame.portID == nil {
            do { _ = try await takePort(context, &frame) } catch is StepFailure {
                return
            } catch let error as ResourceError where !error.isRetryable {
                return
            }
        }
        guard let port = frame.portID ?? frame.port else { return }
        try await release(
            port, server: frame.server, created: frame.port == nil, if: InterfaceStore.isAttached(by: context.subjectID))
    }

    /// Releases a port and then deletes the interface, so that nobody can claim the port in between. If the interface is gone, the port was
    /// released earlier. It may now belong to another server, or to the same server through a later attachment.
    ///
    /// - Parameter condition: on `server_interfaces i`: whether the interface belongs to this operation.
    private func release(_ port: String, server: String, created: Bool, if condition: SQL) async throws {
        if let subject = try await steps.owner(of: port, server: server, created: created, if: condition) {
            try await steps.release(port: port, of: server, created: created, as: subject)
        }
        _ = try await database.write {
            try $0.execute("DELETE FROM server_interfaces i WHERE i.port_id = \(port) AND i.server_id = \(server) AND \(condition)")
        }
    }

    private func plug(_ context: StepContext, _ frame: inout Attachment) async throws -> StepResult {
        let port = try frame.portID.recorded("port_id")
        let id = frame.server
        let tag = frame.tag
        let isOwn = frame.port == nil
        let operation = context.subjectID
        frame.generation = try await steps.plug(into: id) { connection in
            let insertion = InterfaceStore.insertion(
                port: port, server: id, position: InterfaceStore.nextPosition(of: id), isNew: isOwn, tag: tag, state: "attached",
                operation: operation)
            let added = try connection.execute(
                """
                \(insertion) ON CONFLICT (port_id) DO UPDATE SET state = 'attached'
                WHERE i.server_id = EXCLUDED.server_id AND \(InterfaceStore.isAttached(by: operation))
                """)
            if added == 0 { throw StepFailure("Port \(port) is still in use.") }
            // An evacuation may have begun after the port was bound.
            let mismatches = try connection.query(
                """
                SELECT 1 AS one FROM published_ports p JOIN servers s ON s.id = \(id)
                WHERE p.id = \(port) AND p.host_id IS DISTINCT FROM s.host
                """)
            guard mismatches.isEmpty else { throw StepFailure("The server was moved to another host in the meantime.") }
        }
        return .next
    }

    private func unplug(_ context: StepContext, _ frame: Attachment) async throws {
        guard let port = frame.portID else { return }
        let row: SQL =
            "i.port_id = \(port) AND i.server_id = \(frame.server) AND \(InterfaceStore.isAttached(by: context.subjectID))"
        try await steps.unplug(
            from: frame.server,
            state: { connection in
                let rows = try connection.query("SELECT state FROM server_interfaces i WHERE \(row) AND state <> 'attaching'")
                return try rows.first?.string("state")
            },
            order: { try $0.execute("UPDATE server_interfaces i SET state = 'detaching' WHERE \(row)") })
    }

    /// Waits until the host has applied the change, then ends the action.
    private func waitForHost(_ server: String, _ generation: Int, _ action: String) async throws -> StepResult {
        let result = try await compute.awaitApplied(generation, server: server, what: "interfaces")
        if case .next = result { try await compute.finish(action, server: server) }
        return result
    }

    // MARK: detach

    /// An interface that the request has already removed from the desired state.
    struct Detachment: Codable, Sendable {
        var server: String
        var port: String
        /// Whether the port was created for the server.
        var created: Bool
        /// The server's generation without the interface.
        var generation: Int
    }

    var detach: Workflow<Detachment> {
        Workflow(
            service: Compute.service, kind: "interface.detach",
            steps: [
                .init("await") { _, frame in try await waitForHost(frame.server, frame.generation, "detach_interface") },
                .init("release") { context, frame in
                    let condition = InterfaceStore.isDetached(by: context.subjectID)
                    do {
                        try await release(frame.port, server: frame.server, created: frame.created, if: condition)
                    } catch let error as ResourceError where !error.isRetryable && Refusals(context).areFinal {
                        try await giveBack(frame, if: condition, StepFailure(error.message, details: error.context))
                    }
                    return .next
                },
            ], retriesForever: true, failed: { _, _, _ in })
    }

    /// Network refuses to release the port, so it remains the server's and is attached again. The action ended when the host had unplugged
    /// the port; its record is changed to say this.
    private func giveBack(_ frame: Detachment, if condition: SQL, _ failure: StepFailure) async throws {
        let ambient = compute.ambient
        compute.log.warning(
            "a port is not released", metadata: ["server": "\(frame.server)", "port": "\(frame.port)", "error": "\(failure)"])
        try await database.write { connection in
            try connection.execute(
                """
                UPDATE server_interfaces i SET state = 'attached', detach_operation = NULL
                WHERE i.port_id = \(frame.port) AND i.server_id = \(frame.server) AND \(condition)
                """)
            try DesiredState.change(connection, server: frame.server)
            try DesiredState.publish(connection, server: frame.server, ambient: ambient)
            try ServerActions.fail(
                connection, server: frame.server, action: "detach_interface", error: failure.description, now: ambient.now)
        }
    }
}
