import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Workflow

/// `shelve`: the server is stopped, and its root disk becomes an image. A server that boots from a volume needs no image.
struct ServerShelve: Sendable {
    let steps: ServerSteps
    private let copies: DiskCopySteps

    static let kind = "server.shelve"

    init(_ compute: Compute) {
        steps = ServerSteps(compute: compute)
        copies = DiskCopySteps(steps: steps)
    }

    private var compute: Compute { steps.compute }
    private var ambient: Ambient { steps.ambient }

    struct Shelving: Codable, Sendable {
        /// Nil for a server that boots from a volume.
        var copy: DiskCopy?
        /// Whether the guest ran.
        var wasRunning: Bool
        /// The server's generation in which it is off.
        var generation: Int?

        enum CodingKeys: String, CodingKey {
            case copy, generation
            case wasRunning = "was_running"
        }
    }

    var workflow: Workflow<Shelving> {
        Workflow(
            service: Compute.service, kind: ServerShelve.kind,
            steps: [
                .init(
                    "image", deadline: .seconds(60),
                    run: { _, frame in
                        guard var copy = frame.copy else { return .skip }
                        defer { frame.copy = copy }
                        return try await copies.createImage(&copy)
                    },
                    undo: { _, frame in if let copy = frame.copy { try await copies.deleteImage(copy) } }),
                .init(
                    "stop", deadline: .seconds(60), run: { try await stop($0, &$1) }, undo: { try await restart($0, $1) }),
                .init("stopped", deadline: .seconds(900)) { context, frame in
                    try await compute.awaitApplied(frame.generation.recorded("generation"), server: context.subjectID, what: "power state")
                },
                .init(
                    "copy", deadline: .seconds(60),
                    run: { context, frame in
                        guard let copy = frame.copy else { return .skip }
                        return try await copies.order(&context, copy, task: .shelvingImagePendingUpload, from: TaskState.shelve)
                    },
                    undo: { context, frame in
                        if let copy = frame.copy { try await copies.endJob(copy, server: context.subjectID) }
                    }),
                .init("await", deadline: DiskCopySteps.deadline) { context, frame in
                    guard let copy = frame.copy else { return .skip }
                    return try await copies.awaitUpload(
                        context, copy, copying: .shelvingImagePendingUpload, uploading: .shelvingImageUploading, from: TaskState.shelve)
                },
                .init("finish", deadline: .seconds(60), run: { try await finish(&$0, $1) }),
            ],
            interruptedBy: [ServerCreate.deleteIntent], failed: { try await failed($0, $1, $2) })
    }

    private func stop(_ context: StepContext, _ frame: inout Shelving) async throws -> StepResult {
        let id = context.subjectID
        let ambient = ambient
        frame.generation = try await steps.database.write { connection in
            guard try ServerRecord.find(connection, id, lock: true).taskState != TaskState.deleting.rawValue else {
                throw StepFailure("The server is being deleted.")
            }
            let generation = try DesiredState.change(connection, server: id, power: .shutoff, operation: .null)
            try DesiredState.publish(connection, server: id, ambient: ambient)
            return generation
        }
        return .nextAfter(.seconds(5))
    }

    /// A guest that ran is started again. One that was paused or suspended has lost its memory and stays off.
    private func restart(_ context: StepContext, _ frame: Shelving) async throws {
        let id = context.subjectID
        let ambient = ambient
        try await steps.database.write { connection in
            let isDeleting = try connection.query("SELECT 1 AS one FROM servers WHERE id = \(id) AND power <> 'absent' AND NOT deleted")
                .isEmpty
            guard !isDeleting else { return }
            if frame.wasRunning {
                try DesiredState.change(connection, server: id, power: .running)
                try DesiredState.publish(connection, server: id, ambient: ambient)
            } else {
                try connection.execute(
                    "UPDATE servers SET vm_state = 'stopped' WHERE id = \(id) AND vm_state IN ('paused', 'suspended')")
            }
        }
    }

    private func finish(_ context: inout StepContext, _ frame: Shelving) async throws -> StepResult {
        let id = context.subjectID
        let ambient = ambient
        let (offload, requestID) = (ServerOffload(compute).workflow, context.requestID)
        let isOffloaded = frame.copy == nil || compute.settings.shelvedOffloadTime == 0
        let task: TaskState? = isOffloaded ? .shelvingOffloading : nil
        context.commit { connection in
            if let copy = frame.copy { try HostJobs.end(connection, copy.job, server: id, ambient: ambient) }
            // Recorded in every case, so that a delete that has begun removes the image.
            try connection.execute("UPDATE servers SET shelved_image_id = \(frame.copy?.image) WHERE id = \(id)")
            let shelved = try connection.execute(
                """
                UPDATE servers SET vm_state = 'shelved', task_state = \(task?.rawValue), shelved_at = \(ambient.databaseNow),
                    progress = 100, power_state = \(PowerState.shutdown.rawValue), updated_at = \(ambient.now), fault = NULL
                WHERE id = \(id) AND task_state = ANY(\(TaskState.shelve.map(\.rawValue))::text[])
                """)
            try ServerActions.finish(connection, server: id, action: "shelve", now: ambient.now)
            if shelved > 0, isOffloaded {
                try Workflows.start(connection, offload, subject: id, requestID: requestID, ambient: ambient)
            }
        }
        return .next
    }

    private func failed(_ context: StepContext, _ frame: Shelving, _ failure: StepFailure) async throws {
        let id = context.subjectID
        let ambient = ambient
        compute.log(failure, of: id, "a server is not shelved")
        try await steps.database.write { connection in
            try DiskCopySteps.settle(connection, id, from: TaskState.shelve, ambient: ambient)
            try ServerActions.finish(connection, server: id, action: "shelve", failure: failure, now: ambient.now)
        }
    }
}

/// `shelveOffload`: nothing of a shelved server remains on its host. Its volumes stay reserved for it, and its ports stay without
/// a host. It retries forever, because services that it needs may be unavailable for a while.
struct ServerOffload: Sendable {
    let steps: ServerSteps

    static let kind = "server.offload"

    init(_ compute: Compute) { steps = ServerSteps(compute: compute) }

    var workflow: Workflow<NoFrame> {
        Workflow(
            service: Compute.service, kind: ServerOffload.kind,
            steps: [
                .init("absent", run: { try await steps.settleAbsence($0.subjectID) ? .next : .wait(.seconds(5)) }),
                .init(
                    "volumes",
                    run: { context in
                        try await steps.tolerate(Refusals(context), of: context.subjectID, action: "shelveOffload", "its volumes") {
                            try await steps.disconnectVolumes(context.subjectID)
                        }
                        return .skip
                    }),
                .init(
                    "ports",
                    run: { context in
                        try await steps.tolerate(Refusals(context), of: context.subjectID, action: "shelveOffload", "its ports") {
                            try await steps.bindPorts(context.subjectID, to: "")
                        }
                        return .skip
                    }),
                .init(
                    "allocation",
                    run: { context in
                        try await steps.compute.clients.scheduler.release(consumer: context.subjectID)
                        return .skip
                    }),
                .init("finish", run: { finish(&$0) }),
            ],
            retriesForever: true, failed: { _, _ in })
    }

    private func finish(_ context: inout StepContext) -> StepResult {
        let id = context.subjectID
        let now = context.now
        context.commit { connection in
            try connection.execute(
                """
                UPDATE servers SET host = NULL, published_at = NULL, availability_zone = pinned_zone, vm_state = 'shelved_offloaded',
                    power_state = 0, root_image = NULL, updated_at = \(now),
                    task_state = CASE WHEN task_state = 'deleting' THEN task_state END
                WHERE id = \(id) AND vm_state = 'shelved'
                """)
            try ServerActions.finish(connection, server: id, action: "shelveOffload", now: now)
        }
        return .next
    }
}

extension ServerSteps {
    /// The ports of a server, each with its owner. Omits ports that another device has taken, and ports that a request to attach an
    /// interface has only claimed so far.
    func ports(of id: String) async throws -> [(id: String, subject: ActingSubject)] {
        try await database.read { connection in
            try connection.query(
                """
                SELECT p.id, i.created, p.project_id, s.project_id AS server_project, s.user_id FROM server_interfaces i
                JOIN servers s ON s.id = i.server_id JOIN published_ports p ON p.id = i.port_id AND p.device_id IN ('', s.id::text)
                WHERE s.id = \(id) AND (i.state <> 'attaching' OR p.device_id = s.id::text) ORDER BY i.position
                """
            ).map { row in
                let project = try row.string(try row.bool("created") ? "server_project" : "project_id")
                return (id: try row.string("id"), subject: ActingSubject.accepted(project: project, user: try row.string("user_id")))
            }
        }
    }

    /// Binds the ports of a server to a host; with an empty name, unbinds them. The ports still belong to the server.
    func bindPorts(_ id: String, to host: String) async throws {
        for port in try await ports(of: id) {
            do {
                try await compute.clients.network.updatePort(port.id, ["binding:host_id": .string(host)], as: port.subject)
            } catch let error as ResourceError where error.code == .notFound {
                // Its owner deleted it.
            }
        }
    }

    /// Removes the volumes of a server from its host's desired state. Their attachments stay, so that the volumes cannot be used elsewhere.
    func disconnectVolumes(_ id: String) async throws {
        _ = try await database.write { try $0.execute("UPDATE server_volumes SET connection = NULL WHERE server_id = \(id)") }
    }

    /// Connects the volumes of a server to its host.
    func connectVolumes(_ id: String, to host: String) async throws {
        let (volumes, subject) = try await database.read { connection in
            let rows = try connection.query(
                """
                SELECT v.id, v.attachment_id, v.device, s.project_id, s.user_id FROM server_volumes v JOIN servers s ON s.id = v.server_id
                WHERE s.id = \(id) AND v.attachment_id IS NOT NULL AND v.state <> 'detaching' ORDER BY v.device
                """)
            let volumes = try rows.map { (try $0.string("id"), try $0.string("attachment_id"), try $0.string("device")) }
            return (volumes, try rows.first.map(ServerSteps.subject))
        }
        guard let subject else { return }
        for (row, attachment, device) in volumes {
            let connection = try await compute.clients.volumes.connect(attachment: attachment, host: host, device: device, as: subject)
            _ = try await database.write { try $0.execute("UPDATE server_volumes SET connection = \(connection)::jsonb WHERE id = \(row)") }
        }
    }
}
