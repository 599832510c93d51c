import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Workflow

/// Moves a server to another host while it is off, and back; also with another flavor.
///
/// The guest is off on one host, as that host has confirmed, before the other one may start it. The first host keeps its local disks
/// until the move is confirmed.
struct ServerMigration: Sendable {
    let steps: ServerSteps
    private let resize: ServerResize
    private let disks: DiskTransferSteps

    init(_ compute: Compute) {
        steps = ServerSteps(compute: compute)
        disks = DiskTransferSteps(steps)
        resize = ServerResize(compute)
    }

    private var compute: Compute { steps.compute }
    private var database: Database { steps.database }
    private var ambient: Ambient { steps.ambient }

    // MARK: there

    struct Frame: Codable, Sendable {
        /// The consumer of the server's allocations on the source.
        var migration: String
        var source: String
        /// The host that the request named.
        var requested: String?
        /// The power that the server has at the end.
        var power: DesiredPower
        /// Local disks that it has.
        var disks: [MovedDisk]
        /// The id of the new flavor's row; nil if the server keeps its flavor.
        var newFlavor: String?
        /// The scheduler's choice.
        var target: String?

        enum CodingKeys: String, CodingKey {
            case migration, source, requested, power, disks, target
            case newFlavor = "new_flavor"
        }

        var action: ServerChange { newFlavor == nil ? .migrate : .resize }
    }

    var workflow: Workflow<Frame> {
        Workflow(
            service: Compute.service, kind: "server.migrate", version: 2,
            steps: [
                .init(
                    "hold", run: { try await resize.hold($0.subjectID, $1.migration) },
                    undo: { try await resize.giveBack($0.subjectID, $1.migration) }),
                .init("schedule", deadline: .seconds(300), run: { try await schedule(&$0, &$1) }) { context, _ in
                    try await compute.clients.scheduler.release(consumer: context.subjectID)
                },
                .init(
                    "images", deadline: .seconds(60),
                    run: { try await disks.createImages(&$1.disks) }, undo: { try await disks.deleteImages($1.disks) }),
                .init("stop", deadline: .seconds(60), run: { context, _ in stop(&context) }) { context, frame in
                    try await setPower(context.subjectID, frame.power, on: frame.source)
                },
                .init("stopped", deadline: ServerResize.hostDeadline) { context, _ in
                    try await isOff(context.subjectID) ? .next : .wait(.seconds(2))
                },
                .init(
                    "copy", deadline: .seconds(60), run: { disks.order(&$0, $1.disks, host: $1.source) },
                    undo: { try await disks.endJobs($1.disks, server: $0.subjectID) }),
                .init("copied", deadline: DiskCopySteps.deadline) { try await disks.awaitUploads($0, $1.disks) },
                .init(
                    "connect", deadline: .seconds(300),
                    run: { context, frame in
                        try await connect(context.subjectID, to: try frame.target.recorded("target"))
                        return .next
                    }, undo: { context, frame in try await connect(context.subjectID, to: frame.source) }),
                .init(
                    "exchange", deadline: .seconds(60), run: { try await exchange(&$0, $1) }, undo: { try await takeBack($0.subjectID, $1) }
                ),
                .init("await", deadline: ServerResize.hostDeadline) { context, _ in try await resize.awaitHost(context.subjectID) },
                .init("finish", deadline: .seconds(60)) { context, frame in
                    let (id, moved, requestID) = (context.subjectID, frame.disks, context.requestID)
                    context.commit { try DiskTransferSteps.end($0, server: id, moved, requestID: requestID, compute) }
                    return resize.finish(&context, frame.migration, action: frame.action)
                },
            ],
            interruptedBy: [ServerCreate.deleteIntent],
            failed: { try await resize.failed($0, $1.migration, $2, action: $1.action) })
    }

    private func schedule(_ context: inout StepContext, _ frame: inout Frame) async throws -> StepResult {
        let id = context.subjectID
        let compute = compute
        let host = try await steps.schedule(context, newFlavor: frame.newFlavor != nil) { [frame] connection, question in
            question.host = frame.requested
            question.excludedHosts = [frame.source] + (try MoveChecks(connection, compute).unable(toKeep: id))
        }
        frame.target = host
        let now = context.now
        let migration = frame.migration
        context.commit { connection in
            try MigrationStore.set(connection, migration, target: host, now: now)
            try ServerResize.enter(connection, id, .resizeMigrating, now: now)
        }
        return .next
    }

    private func stop(_ context: inout StepContext) -> StepResult {
        let id = context.subjectID
        let ambient = ambient
        context.commit { connection in
            try DesiredState.change(connection, server: id, power: .shutoff, operation: .null)
            try DesiredState.publish(connection, server: id, ambient: ambient)
        }
        return .nextAfter(.seconds(2))
    }

    /// - Parameter host: nothing happens if the server is on another one.
    func setPower(_ id: String, _ power: DesiredPower, on host: String) async throws {
        let ambient = ambient
        try await database.write { connection in
            // What is being deleted may still run at the other host.
            let rows = try connection.query(
                """
                SELECT host, power FROM servers
                WHERE id = \(id) AND NOT deleted AND task_state IS DISTINCT FROM 'deleting' FOR UPDATE
                """)
            guard let row = rows.first, try row.optionalString("host") == host, try row.string("power") != DesiredPower.absent.rawValue
            else { return }
            try DesiredState.change(connection, server: id, power: power, operation: .null)
            try DesiredState.publish(connection, server: id, ambient: ambient)
        }
    }

    /// - Throws: `StepFailure` if the host cannot turn the guest off.
    private func isOff(_ id: String) async throws -> Bool {
        let server = try await steps.server(id)
        if let failure = server.hostFailure(of: server.generation), failure.isPermanent {
            throw failure.failure("The host could not stop the server")
        }
        return server.isApplied && server.observedPower.map(VMState.init(reportedPower:)) == .stopped
    }

    /// Binds the server's ports and connects its volumes to a host.
    func connect(_ id: String, to host: String) async throws {
        let server = try await steps.server(id)
        let (ports, volumes) = try await database.read { connection in
            let ports = try connection.query("SELECT port_id, created FROM server_interfaces WHERE server_id = \(id) ORDER BY position")
                .map { (id: try $0.string("port_id"), created: try $0.bool("created")) }
            let volumes = try connection.query(
                "SELECT id, attachment_id, device FROM server_volumes WHERE server_id = \(id) AND attachment_id IS NOT NULL ORDER BY device"
            ).map { (id: try $0.string("id"), attachment: try $0.string("attachment_id"), device: try $0.string("device")) }
            return (ports, volumes)
        }
        for port in ports {
            guard let owner = try await steps.owner(of: port.id, server: id, created: port.created) else { continue }
            try await compute.clients.network.updatePort(port.id, ["binding:host_id": .string(host)], as: owner)
        }
        for volume in volumes {
            let connection = try await compute.clients.volumes.connect(
                attachment: volume.attachment, host: host, device: volume.device, as: server.subject)
            try await compute.clients.volumes.complete(attachment: volume.attachment, as: server.subject)
            _ = try await database.write {
                try $0.execute("UPDATE server_volumes SET connection = \(connection)::jsonb WHERE id = \(volume.id)")
            }
        }
    }

    private func exchange(_ context: inout StepContext, _ frame: Frame) async throws -> StepResult {
        let id = context.subjectID
        let sources = try await disks.sources(frame.disks)
        let target = try frame.target.recorded("target")
        let now = context.now
        let compute = compute
        context.commit { connection in
            try DiskTransferSteps.offer(connection, server: id, sources, of: frame.disks)
            if let flavor = frame.newFlavor { try MigrationStore.swapFlavors(connection, server: id, to: flavor) }
            try MigrationStore.move(connection, server: id, from: frame.source, to: target, power: frame.power, compute)
            try ServerResize.enter(connection, id, .resizeFinish, now: now)
        }
        return .nextAfter(.seconds(5))
    }

    /// The target must have removed the guest before the source may start it.
    private func takeBack(_ id: String, _ frame: Frame) async throws {
        guard let target = frame.target else { return }
        let compute = compute
        let isRemoved = try await database.write { connection in
            try DiskTransferSteps.withdraw(connection, server: id)
            if let flavor = frame.newFlavor { try MigrationStore.returnFlavor(connection, server: id, from: flavor) }
            try MigrationStore.move(connection, server: id, from: target, to: frame.source, power: .shutoff, compute)
            return try MigrationStore.isRemoved(connection, server: id, from: target)
        }
        if !isRemoved, try await !steps.isFencedOff(host: target) { throw UndoWait(.seconds(2)) }
    }

    // MARK: back

    struct Reversal: Codable, Sendable {
        var migration: String
        /// The host to which the server returns.
        var source: String
        var target: String
        /// The power that the server has at the end.
        var power: DesiredPower
        /// The id of the earlier flavor's row.
        var oldFlavor: String?
        /// Why a host could not do it.
        var failure: String?
        var details: String?

        enum CodingKeys: String, CodingKey {
            case migration, source, target, power, failure, details
            case oldFlavor = "old_flavor"
        }
    }

    var reversal: Workflow<Reversal> {
        Workflow(
            service: Compute.service, kind: "server.revert_migration", version: 2,
            steps: [
                .init("stop") { context, _ in stop(&context) },
                .init("stopped", deadline: ServerResize.hostDeadline) { context, frame in
                    if try await isDeleted(context.subjectID) { return .goto("allocation") }
                    if try await steps.isFencedOff(host: frame.target) { return .next }
                    return try await isOff(context.subjectID) ? .next : .wait(.seconds(2))
                },
                .init("connect", deadline: .seconds(300)) { context, frame in
                    try await connect(context.subjectID, to: frame.source)
                    return .next
                },
                .init("exchange") { context, frame in
                    let (id, back) = (context.subjectID, frame)
                    context.commit { connection in
                        if let flavor = back.oldFlavor { try MigrationStore.swapFlavors(connection, server: id, to: flavor) }
                        try MigrationStore.move(connection, server: id, from: back.target, to: back.source, power: back.power, compute)
                    }
                    return .nextAfter(.seconds(5))
                },
                .init("await", deadline: ServerResize.hostDeadline) { try await awaitReversal($0.subjectID, &$1) },
                .init("allocation") { context, frame in
                    try await resize.giveBack(context.subjectID, frame.migration)
                    return .next
                },
                .init("finish") { resize.finishReversal(&$0, $1.migration, failure: $1.failure, details: $1.details) },
            ], retriesForever: true, failed: { _, _, _ in })
    }

    private func isDeleted(_ id: String) async throws -> Bool {
        try await database.read { try WorkflowServer.load($0, id) }.map { $0.task == TaskState.deleting.rawValue } ?? true
    }

    private func awaitReversal(_ id: String, _ frame: inout Reversal) async throws -> StepResult {
        guard let server = try await database.read({ try WorkflowServer.load($0, id) }) else { return .next }
        if server.isApplied || server.task == TaskState.deleting.rawValue { return .next }
        if let failure = server.hostFailure(of: server.generation), failure.isPermanent {
            let words = failure.failure("The host could not start the server")
            (frame.failure, frame.details) = (words.message, words.details)
            return .next
        }
        return .wait(.seconds(5))
    }
}
