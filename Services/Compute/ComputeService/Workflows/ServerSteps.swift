import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Logging
import WebAPI
import Workflow

/// A server as workflows see it.
struct WorkflowServer: Sendable {
    let id: String
    let project: String
    let user: String
    let host: String?
    let zone: String?
    let task: String?
    let power: String
    let generation: Int
    let published: Bool
    let observedGeneration: Int
    let observedPower: ReportedPower?
    let observedState: String?
    let observedError: String?
    let observedReason: String?
    let observedPermanent: Bool
    let observedHost: String?
    let metadataReady: Bool
    let networks: [InterfaceRequest]
    let devices: [DeviceRequest]
    let securityGroups: [String]
    let bootsFromImage: Bool

    static func load(_ connection: Connection, _ id: String) throws -> WorkflowServer? {
        let rows = try connection.query(
            """
            SELECT id, project_id, user_id, host, availability_zone, task_state, power, generation,
                published_at IS NOT NULL AS published, observed_generation, observed_power, observed_state,
                observed_error, observed_reason, observed_permanent, observed_host, metadata_ready, requested_networks,
                requested_devices, security_groups, image_id IS NOT NULL AS boots_from_image
            FROM servers WHERE id = \(id) AND NOT deleted
            """)
        guard let row = rows.first else { return nil }
        return WorkflowServer(
            id: id, project: try row.string("project_id"), user: try row.string("user_id"),
            host: try row.optionalString("host"), zone: try row.optionalString("availability_zone"),
            task: try row.optionalString("task_state"), power: try row.string("power"),
            generation: try row.int("generation"), published: try row.bool("published"),
            observedGeneration: try row.int("observed_generation"),
            observedPower: try row.optionalString("observed_power").map(ReportedPower.init(rawValue:)),
            observedState: try row.optionalString("observed_state"),
            observedError: try row.optionalString("observed_error"),
            observedReason: try row.optionalString("observed_reason"),
            observedPermanent: try row.bool("observed_permanent"),
            observedHost: try row.optionalString("observed_host"), metadataReady: try row.bool("metadata_ready"),
            networks: (try row.json("requested_networks").arrayValue ?? []).map(InterfaceRequest.init(stored:)),
            devices: (try row.json("requested_devices").arrayValue ?? []).map(DeviceRequest.init(stored:))
                .filter { $0.destination == .volume },
            securityGroups: try row.strings("security_groups"), bootsFromImage: try row.bool("boots_from_image"))
    }

    /// The subject for calls to other services on behalf of the server's project.
    var subject: ActingSubject { .accepted(project: project, user: user) }

    /// Like `subject`, but the administrator if the interface was accepted only because of an administrator's rights.
    func subject(of item: InterfaceRequest) -> ActingSubject {
        .accepted(project: project, user: user, administrator: item.administrator)
    }

    /// Why the host has not reached a generation; nil if it has, or gave no reason.
    func hostFailure(of wanted: Int) -> HostFailure? {
        guard observedGeneration >= wanted, observedState == "failed" else { return nil }
        return HostFailure(
            reason: observedReason, details: observedError.map { "host \(host ?? "?"): \($0)" }, isPermanent: observedPermanent)
    }

    /// The host has applied the latest generation.
    var isApplied: Bool {
        observedGeneration >= generation && observedState == "applied" && observedHost == host
    }

    /// The host started the guest, and the guest has since stopped by itself.
    var hasStopped: Bool {
        isApplied && power == DesiredPower.running.rawValue && observedPower.map(VMState.init(reportedPower:)) == .stopped
    }

    var isConfirmedAbsent: Bool {
        isApplied && observedPower == .absent
    }
}

/// Why a host has not applied a desired state.
struct HostFailure: Sendable {
    /// For the tenant; nil from agents that do not report it.
    let reason: String?
    /// For the operator: the host and its error with all causes.
    let details: String?
    let isPermanent: Bool

    /// - Parameter message: a sentence for the tenant, without its full stop, to which the reason is added.
    func failure(_ message: String) -> StepFailure {
        StepFailure(reason.map { "\(message): \($0)." } ?? "\(message).", details: details)
    }
}

/// Steps shared by the server workflows.
struct ServerSteps: Sendable {
    let compute: Compute

    var database: Database { compute.database }
    var ambient: Ambient { compute.ambient }

    /// - Throws: `StepFailure` when the server is gone.
    func server(_ id: String) async throws -> WorkflowServer {
        guard let server = try await database.read({ try WorkflowServer.load($0, id) }) else {
            throw StepFailure("The server no longer exists.")
        }
        return server
    }

    /// Finds and claims a host for the server. A step that is repeated gets the same answer.
    ///
    /// - Parameters:
    ///   - newFlavor: as `SchedulingQuestion.load`.
    ///   - narrow: adds restrictions on the host beyond those of the server's row.
    /// - Returns: the host's name.
    /// - Throws: `StepFailure` if the server is no longer there, or no host takes it.
    func schedule(
        _ context: StepContext, newFlavor: Bool = false,
        narrow: @escaping @Sendable (Connection, inout ScheduleServer) throws -> Void = { _, _ in }
    ) async throws -> String {
        let (id, operation) = (context.subjectID, context.operationUUID())
        let loaded = try await database.read { connection -> ScheduleServer? in
            guard
                var question = try SchedulingQuestion.load(
                    connection, server: id, operation: operation.description, newFlavor: newFlavor)
            else { return nil }
            try narrow(connection, &question)
            return question
        }
        guard let question = loaded else { throw StepFailure("The server no longer exists.") }
        let answer = try await compute.clients.scheduler.schedule(question, operation: operation)
        guard answer.result == .scheduled, let host = answer.host else {
            let texts = SchedulingFault.texts(answer)
            throw StepFailure(texts.message, details: texts.details)
        }
        return host
    }

    /// Shows how far a build is, unless the server is being deleted.
    static func enter(_ connection: Connection, _ id: String, _ task: TaskState, progress: Int, now: Timestamp) throws {
        try entering(task, progress: progress, now: now).apply(connection, "servers", id, at: nil)
    }

    /// The same, for an update that changes more.
    static func entering(_ task: TaskState, progress: Int, now: Timestamp) -> Changes {
        let moves: SQL = "vm_state = 'building' AND task_state IS DISTINCT FROM 'deleting'"
        var changes = Changes()
        changes.set("task_state", sql: "CASE WHEN \(moves) THEN \(task.rawValue)::text ELSE task_state END")
        changes.set("progress", sql: "CASE WHEN \(moves) THEN \(progress) ELSE progress END")
        changes.set("updated_at", sql: "CASE WHEN \(moves) THEN \(now)::timestamptz ELSE updated_at END")
        return changes
    }

    // MARK: hosts

    /// The availability zone of a host, as an expression.
    static func zone(of host: String, _ compute: Compute) -> SQL {
        """
        coalesce((SELECT a.availability_zone FROM aggregates a JOIN aggregate_hosts h ON h.aggregate_id = a.id
                WHERE h.host = \(host) AND a.availability_zone IS NOT NULL ORDER BY a.id LIMIT 1),
            (SELECT c.availability_zone FROM compute_services c WHERE c.host = \(host)), \(compute.settings.defaultZone))
        """
    }

    /// Whether a host's agent has spoken lately.
    func isUp(host: String) async throws -> Bool {
        try await database.read { [compute] in try Hosts.isUp(host, $0, compute) }
    }

    /// Whether the operator has declared that a host is down. A host that only stopped reporting may still run its guests.
    func isFencedOff(host: String) async throws -> Bool {
        try await database.read {
            try !$0.query("SELECT 1 AS one FROM compute_services WHERE host = \(host) AND forced_down").isEmpty
        }
    }

    /// Ensures that no host runs the server.
    ///
    /// A host that only stopped reporting may still run the guest. A server that is being deleted does not wait for it, as in Nova: the
    /// host removes the guest when it returns.
    ///
    /// - Parameter trustsSilence: whether a host that does not report counts as one without the guest in other cases too.
    /// - Returns: whether this is certain: the host confirmed it, or is down and will get the message when it returns.
    func settleAbsence(_ id: String, trustsSilence: Bool = false) async throws -> Bool {
        guard let server = try await database.read({ try WorkflowServer.load($0, id) }), let host = server.host,
            server.published
        else { return true }
        if server.power == DesiredPower.absent.rawValue, server.isConfirmedAbsent { return true }
        let ambient = ambient
        if server.power != DesiredPower.absent.rawValue {
            try await database.write { connection in
                try DesiredState.change(connection, server: id, power: .absent)
                try DesiredState.publish(connection, server: id, ambient: ambient)
            }
        }
        let isSilenceEnough = trustsSilence || server.task == TaskState.deleting.rawValue
        guard try await isSilenceEnough ? !isUp(host: host) : isFencedOff(host: host) else { return false }
        try await database.write { try Absences.order($0, server: id, host: host, ambient: ambient) }
        return true
    }

    // MARK: ports

    /// Deletes ports that the workflow created and unbinds existing ports that it used.
    ///
    /// - Parameter refusals: the permanent refusals that do not fail the step.
    func releasePorts(_ id: String, _ refusals: Refusals) async throws {
        let ports = try await database.read { connection in
            try connection.query(
                """
                SELECT p.id, p.project_id, s.project_id AS server_project, s.user_id,
                    coalesce(i.created, NOT EXISTS (SELECT 1 FROM jsonb_array_elements(s.requested_networks) n
                        WHERE n->>'port' = p.id::text)) AS created
                FROM servers s JOIN published_ports p ON p.id IN (
                    SELECT id FROM published_ports WHERE device_id = \(id) AND device_owner LIKE 'compute:%'
                    UNION SELECT port_id FROM server_interfaces WHERE server_id = \(id)::uuid)
                LEFT JOIN server_interfaces i ON i.port_id = p.id
                WHERE s.id = \(id)::uuid AND (i.server_id IS NULL OR i.server_id = s.id)
                """
            ).map { row in
                let created = try row.bool("created")
                // A port that the request named is freed for its owner, which need not be the server's project. A port
                // of another project that only claims to be the server's is not deleted: Network refuses.
                let owner = try row.string(created ? "server_project" : "project_id")
                return (
                    id: try row.string("id"), created: created,
                    subject: ActingSubject.accepted(project: owner, user: try row.string("user_id"))
                )
            }
        }
        for port in ports {
            try await tolerate(refusals, of: id, "port \(port.id)") {
                try await release(port: port.id, of: id, created: port.created, as: port.subject)
            }
        }
        try await database.write { connection in
            try connection.execute("DELETE FROM server_interfaces WHERE server_id = \(id)")
        }
    }

    /// The owner of a port that an interface's workflow uses: the server's project or, if the request named the port, the port's project.
    /// Nil if the port or the server is gone, or if the port no longer belongs to the server.
    ///
    /// - Parameter condition: on `server_interfaces i`, for an interface with this port.
    func owner(of port: String, server: String, created: Bool, if condition: SQL = "true") async throws -> ActingSubject? {
        try await database.read { connection in
            try connection.query(
                """
                SELECT s.project_id AS server, p.project_id AS port, s.user_id
                FROM servers s, published_ports p LEFT JOIN server_interfaces i ON i.port_id = p.id
                WHERE s.id = \(server) AND p.id = \(port) AND (
                    i.server_id = s.id AND (\(condition)) OR i.server_id IS NULL AND p.device_id = s.id::text)
                """
            ).first.map { .accepted(project: try $0.string(created ? "server" : "port"), user: try $0.string("user_id")) }
        }
    }

    /// Deletes a port that was created for a server, or releases one that the request named. A port that a router or another device has
    /// since taken is left alone.
    ///
    /// - Parameter subject: the owner of the port.
    func release(port: String, of server: String, created: Bool, as subject: ActingSubject) async throws {
        if try await isTaken(port, from: server) { return }
        do {
            guard !created else { return try await compute.clients.network.deletePort(port, as: subject) }
            try await compute.clients.network.updatePort(
                port, ["device_id": "", "device_owner": "", "binding:host_id": ""], as: subject)
        } catch let error as ResourceError where !error.isRetryable {
            // Its owner deleted it, or gave it to another device meanwhile.
            if error.code == .notFound { return }
            guard try await isTaken(port, from: server) else { throw error }
        }
    }

    private func isTaken(_ port: String, from server: String) async throws -> Bool {
        try await database.read {
            try !$0.query("SELECT 1 AS one FROM published_ports WHERE id = \(port) AND device_id NOT IN ('', \(server))").isEmpty
        }
    }

    /// Tells Block Storage that the server uses its volumes.
    ///
    /// - Returns: whether it has any.
    @discardableResult
    func completeAttachments(of id: String) async throws -> Bool {
        let attachments = try await database.read { connection in
            try connection.query(
                """
                SELECT v.attachment_id, s.project_id, s.user_id FROM server_volumes v JOIN servers s ON s.id = v.server_id
                WHERE s.id = \(id) AND v.attachment_id IS NOT NULL
                """
            ).map { (id: try $0.string("attachment_id"), subject: try ServerSteps.subject($0)) }
        }
        for attachment in attachments {
            try await compute.clients.volumes.complete(attachment: attachment.id, as: attachment.subject)
        }
        return !attachments.isEmpty
    }

    /// Records that a guest stopped while it was being started, because its host will not report it again.
    static func noteStop(_ connection: Connection, _ id: String, ambient: Ambient) throws {
        guard let server = try WorkflowServer.load(connection, id), server.task == nil, server.hasStopped else { return }
        try Observations.stop(connection, id, ambient: ambient)
    }

    /// Whether the ports of a running server are up, and its metadata is available.
    func hasNetworks(_ server: WorkflowServer) async throws -> Bool {
        let network = try await database.read { connection in
            try connection.query(
                """
                SELECT count(*) FILTER (WHERE p.status <> 'ACTIVE' AND p.admin_state_up AND n.admin_state_up) AS down,
                    count(*) FILTER (WHERE EXISTS (SELECT 1 FROM published_ports m WHERE m.network_id = p.network_id
                        AND m.device_owner = 'network:distributed')) AS served
                FROM server_interfaces i JOIN published_ports p ON p.id = i.port_id JOIN published_networks n ON n.id = p.network_id
                WHERE i.server_id = \(server.id) AND i.state = 'attached'
                """
            ).first.map { (down: try $0.int("down"), served: try $0.int("served")) }
        }
        return network?.down ?? 0 == 0 && (server.metadataReady || network?.served ?? 0 == 0)
    }

    // MARK: volumes

    /// The subject of a row with a server's `project_id` and `user_id`.
    static func subject(_ row: Row) throws -> ActingSubject {
        .accepted(project: try row.string("project_id"), user: try row.string("user_id"))
    }

    /// Detaches all volumes; deletes those that `alsoDelete` says.
    ///
    /// - Parameter refusals: the permanent refusals that do not fail the step.
    func releaseVolumes(_ id: String, as subject: ActingSubject, undoing: Bool, _ refusals: Refusals) async throws {
        let volumes = compute.clients.volumes
        let (attachments, rows) = try await database.read { connection in
            let attachments = try connection.query(
                """
                SELECT a.id FROM published_volume_attachments a WHERE a.server_id = \(id)
                UNION SELECT v.attachment_id FROM server_volumes v
                WHERE v.server_id = \(id) AND v.attachment_id IS NOT NULL
                """
            ).map { try $0.string("id") }
            let rows = try connection.query(
                "SELECT volume_id, created, delete_on_termination FROM server_volumes WHERE server_id = \(id)"
            ).map { row in
                (
                    id: try row.string("volume_id"), created: try row.bool("created"),
                    deletesOnTermination: try row.bool("delete_on_termination")
                )
            }
            return (attachments, rows)
        }
        for attachment in attachments {
            try await tolerate(refusals, of: id, "attachment \(attachment) of a volume") {
                try await volumes.detach(attachment: attachment, as: subject)
            }
        }
        for row in rows where undoing ? row.created : row.deletesOnTermination {
            do { try await volumes.deleteVolume(row.id, as: subject) } catch let error as ResourceError where !error.isRetryable {
                // As in Nova, a volume that cannot be deleted because it has snapshots does not prevent the deletion of the server.
                compute.log.notice(
                    "a volume outlives its server", metadata: ["server": "\(id)", "volume": "\(row.id)", "error": "\(error.message)"])
            }
        }
        try await database.write { connection in
            try connection.execute("DELETE FROM server_volumes WHERE server_id = \(id)")
        }
    }
}

/// Records servers that must be absent from a host that could not confirm it.
enum Absences {
    /// Records the absence and sends it. Disks that the host is to keep stay.
    static func order(_ connection: Connection, server: String, host: String, ambient: Ambient) throws {
        guard var description = try DesiredState.load(connection, where: "s.id = \(server)").first else { return }
        description.power = .absent
        description.leavesDisks = try KeptDisks.areKept(connection, server: server, on: host)
        let desired = try Enclosed(description.spec)
        try connection.execute(
            """
            INSERT INTO server_absences (server_id, host, generation, desired, published_at)
            VALUES (\(server), \(host), \(description.generation), \(desired.document)::jsonb, \(ambient.databaseNow))
            ON CONFLICT (server_id, host) DO UPDATE SET generation = EXCLUDED.generation, desired = EXCLUDED.desired,
                published_at = EXCLUDED.published_at
            """)
        try DesiredState.send(connection, desired, host: host, ambient: ambient)
    }
}

/// The devices of a running server, for its host.
extension ServerSteps {
    /// Records a new device, and orders the host to plug it in.
    ///
    /// - Returns: the server's generation that has the device.
    /// - Throws: `StepFailure` where the server is being deleted.
    func plug(into server: String, _ write: @escaping @Sendable (Connection) throws -> Void) async throws -> Int {
        let ambient = compute.ambient
        return try await database.write { connection in
            guard try ServerRecord.find(connection, server, lock: true).taskState != "deleting" else {
                throw StepFailure("The server is being deleted.")
            }
            try write(connection)
            let generation = try DesiredState.change(connection, server: server)
            try DesiredState.publish(connection, server: server, ambient: ambient)
            return generation
        }
    }

    /// Undoes `plug`: orders the host to unplug a device, and waits until it has. Until then the guest may have the device, which must not
    /// be free for others.
    ///
    /// - Parameters:
    ///   - state: reads the state of the device's row; nil if the operation has plugged nothing.
    ///   - order: changes that state to `detaching`.
    /// - Throws: `UndoWait` until the host has reported, or the operator has declared it down.
    func unplug(
        from id: String, state: @escaping @Sendable (Connection) throws -> String?,
        order: @escaping @Sendable (Connection) throws -> Void
    ) async throws {
        let (server, found) = try await database.read { (try WorkflowServer.load($0, id), try state($0)) }
        guard let server, let host = server.host, let found else { return }
        if found != "detaching" {
            let ambient = compute.ambient
            try await database.write { connection in
                try order(connection)
                try DesiredState.change(connection, server: id)
                try DesiredState.publish(connection, server: id, ambient: ambient)
            }
            throw UndoWait(.milliseconds(500))
        }
        if server.isApplied || server.hostFailure(of: server.generation)?.isPermanent == true { return }
        if try await !isFencedOff(host: host) { throw UndoWait(.milliseconds(500)) }
    }
}
