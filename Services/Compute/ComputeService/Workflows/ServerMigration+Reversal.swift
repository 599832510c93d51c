import ComputeCore
import Contracts
import Database
import Kernel
import Workflow

/// Moves a server back to its previous host.
extension ServerMigration {
    static let reversalKind = "server.revert_migration"
    struct Reversal: ReversalFrame {
        var migration: String
        /// The host to which the server returns.
        var source: String
        var target: String
        /// The desired power after the reversal.
        var power: DesiredPower
        /// The id of the earlier flavor's row.
        var oldFlavor: String?
        /// Why the source failed.
        var failure: String?
        var details: String?

        enum CodingKeys: String, CodingKey {
            case migration, source, target, power, failure, details
            case oldFlavor = "old_flavor"
        }
    }

    /// If the source cannot start the guest, the server returns to the target, which has kept its disks.
    var reversal: Workflow<Reversal> {
        Workflow(
            service: Compute.service, kind: ServerMigration.reversalKind, version: 3, alsoRuns: [1, 2],
            steps: [
                .init("stop") { context, _ in stop(&context) },
                .init("stopped", deadline: ServerResize.hostDeadline) { context, frame in
                    if try await isDeleted(context.subjectID) { return .goto("allocation") }
                    if try await steps.isFencedOff(host: frame.target) { return .next }
                    return try await isOff(context.subjectID) ? .next : .wait(.seconds(2))
                },
                .init("connect", deadline: .seconds(300)) { context, frame in
                    do { try await moves.connect(context.subjectID, to: frame.source) } catch let error as ResourceError
                        where !error.isRetryable && Refusals(context).areFinal
                    {
                        (frame.failure, frame.details) = ("The server cannot return to its host: \(error.message)", error.context)
                        return .goto("reconnect")
                    }
                    return .next
                },
                .init("exchange") { context, frame in
                    let (id, back) = (context.subjectID, frame)
                    context.commit { connection in
                        if let flavor = back.oldFlavor { try MigrationStore.swapFlavors(connection, server: id, to: flavor) }
                        try MigrationStore.move(
                            connection, server: id, from: back.target, to: back.source, power: back.power, leavesDisks: true, compute)
                    }
                    return .nextAfter(.seconds(5))
                },
                .init("await", deadline: ServerResize.hostDeadline) { try await awaitSource($0.subjectID, &$1) },
                .init("return") { context, frame in
                    let (id, back) = (context.subjectID, frame)
                    context.commit { connection in
                        if let flavor = back.oldFlavor { try MigrationStore.returnFlavor(connection, server: id, from: flavor) }
                        try MigrationStore.move(
                            connection, server: id, from: back.source, to: back.target, power: .shutoff, leavesDisks: true, compute)
                    }
                    return .nextAfter(.seconds(2))
                },
                .init("returned", deadline: ServerResize.hostDeadline) { context, frame in
                    if try await isDeleted(context.subjectID) { return .goto("allocation") }
                    let isRemoved = try await database.read { [source = frame.source, id = context.subjectID] in
                        try MigrationStore.isRemoved($0, server: id, from: source)
                    }
                    if isRemoved { return .next }
                    return try await steps.isFencedOff(host: frame.source) ? .next : .wait(.seconds(2))
                },
                .init("reconnect", deadline: .seconds(300)) { context, frame in
                    try await steps.tolerate(Refusals(context), of: context.subjectID, action: "revertResize", "its connections") {
                        try await moves.connect(context.subjectID, to: frame.target)
                    }
                    return .next
                },
                .init("restart") { context, frame in
                    try await moves.setPower(context.subjectID, frame.power, on: frame.target)
                    return .nextAfter(.seconds(5))
                },
                .init("restarted", deadline: ServerResize.hostDeadline) { context, frame in
                    if try await isDeleted(context.subjectID) { return .goto("allocation") }
                    let isOver = try await resize.isOver(context.subjectID)
                    return isOver || context.isLate ? .next : .wait(.seconds(5))
                },
                .init("reopen") { resize.keepResized(&$0, $1.migration, failure: $1.failure, details: $1.details) },
                .init("allocation") { context, frame in
                    try await moves.giveBack(context.subjectID, frame.migration)
                    return .next
                },
                .init("finish") { resize.finishReversal(&$0, $1.migration, failure: $1.failure, details: $1.details) },
            ], retriesForever: true, failed: { _, _, _ in })
    }

    private func isDeleted(_ id: String) async throws -> Bool {
        try await database.read { try WorkflowServer.load($0, id) }.map { $0.task == TaskState.deleting.rawValue } ?? true
    }

    private func awaitSource(_ id: String, _ frame: inout Reversal) async throws -> StepResult {
        guard let server = try await database.read({ try WorkflowServer.load($0, id) }) else { return .goto("allocation") }
        if server.isApplied || server.task == TaskState.deleting.rawValue { return .goto("allocation") }
        if let failure = server.hostFailure(of: server.generation), failure.isPermanent {
            let failure = failure.failure("The host could not start the server")
            (frame.failure, frame.details) = (failure.message, failure.details)
            return try await canReturn(id, to: frame.target)
        }
        if try await steps.isFencedOff(host: frame.source) {
            (frame.failure, frame.details) = ("The host from which the server came is down.", "host \(frame.source)")
            return try await canReturn(id, to: frame.target)
        }
        return .wait(.seconds(5))
    }

    /// A host that has removed its disks, as earlier versions of the steps ordered, would start the server with new ones.
    private func canReturn(_ id: String, to host: String) async throws -> StepResult {
        try await database.read { try KeptDisks.areKept($0, server: id, on: host) } ? .next : .goto("allocation")
    }
}
