import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Workflow

/// Moves a server whose disks are volumes to another host while it is off, and back.
///
/// The guest is off on one host, as that host has confirmed, before the other one may start it.
struct ServerMigration: Sendable {
    let steps: ServerSteps
    private let resize: ServerResize

    init(_ compute: Compute) {
        steps = ServerSteps(compute: compute)
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
        /// The scheduler's choice.
        var target: String?
    }

    var workflow: Workflow<Frame> {
        Workflow(
            service: Compute.service, kind: "server.migrate",
            steps: [
                .init(
                    "hold", run: { try await resize.hold($0.subjectID, $1.migration) },
                    undo: { try await resize.giveBack($0.subjectID, $1.migration) }),
                .init("schedule", deadline: .seconds(300), run: { try await schedule(&$0, &$1) }) { context, _ in
                    try await compute.clients.scheduler.release(consumer: context.subjectID)
                },
                .init("stop", deadline: .seconds(60), run: { context, _ in stop(&context) }) { context, frame in
                    try await setPower(context.subjectID, frame.power, on: frame.source)
                },
                .init("stopped", deadline: ServerResize.hostDeadline) { context, _ in
                    try await isOff(context.subjectID) ? .next : .wait(.seconds(2))
                },
                .init(
                    "connect", deadline: .seconds(300),
                    run: { context, frame in
                        try await connect(context.subjectID, to: try frame.target.recorded("target"))
                        return .next
                    }, undo: { context, frame in try await connect(context.subjectID, to: frame.source) }),
                .init("exchange", deadline: .seconds(60), run: { try exchange(&$0, $1) }, undo: { try await takeBack($0.subjectID, $1) }),
                .init("await", deadline: ServerResize.hostDeadline) { context, _ in try await resize.awaitHost(context.subjectID) },
                .init("finish", deadline: .seconds(60)) { resize.finish(&$0, $1.migration, action: .migrate) },
            ],
            interruptedBy: [ServerCreate.deleteIntent],
            failed: { try await resize.failed($0, $1.migration, $2, action: .migrate) })
    }

    private func schedule(_ context: inout StepContext, _ frame: inout Frame) async throws -> StepResult {
        let id = context.subjectID
        let host = try await steps.schedule(context) { [frame] in ($1.host, $1.excludedHosts) = (frame.requested, [frame.source]) }
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
    private func setPower(_ id: String, _ power: DesiredPower, on host: String) async throws {
        let ambient = ambient
        try await database.write { connection in
            let rows = try connection.query("SELECT host, power FROM servers WHERE id = \(id) AND NOT deleted FOR UPDATE")
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

    private func exchange(_ context: inout StepContext, _ frame: Frame) throws -> StepResult {
        let id = context.subjectID
        let target = try frame.target.recorded("target")
        let now = context.now
        let compute = compute
        context.commit { connection in
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
            try MigrationStore.move(connection, server: id, from: target, to: frame.source, power: .shutoff, compute)
            return try MigrationStore.isRemoved(connection, server: id, from: target)
        }
        if !isRemoved { throw UndoWait(.seconds(2)) }
    }

    // MARK: back

    struct Reversal: Codable, Sendable {
        var migration: String
        /// The host to which the server returns.
        var source: String
        var target: String
        /// The power that the server has at the end.
        var power: DesiredPower
        /// Why a host could not do it.
        var failure: String?
        var details: String?
    }

    var reversal: Workflow<Reversal> {
        Workflow(
            service: Compute.service, kind: "server.revert_migration",
            steps: [
                .init("stop") { context, _ in stop(&context) },
                .init("stopped", deadline: ServerResize.hostDeadline) { context, _ in
                    if try await isDeleted(context.subjectID) { return .goto("allocation") }
                    return try await isOff(context.subjectID) ? .next : .wait(.seconds(2))
                },
                .init("connect", deadline: .seconds(300)) { context, frame in
                    try await connect(context.subjectID, to: frame.source)
                    return .next
                },
                .init("exchange") { context, frame in
                    let (id, back) = (context.subjectID, frame)
                    context.commit {
                        try MigrationStore.move($0, server: id, from: back.target, to: back.source, power: back.power, compute)
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
