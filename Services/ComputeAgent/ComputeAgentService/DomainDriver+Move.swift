import ComputeAgentCore
package import Contracts
import Kernel
import Libvirt
import Logging
import Synchronization

/// What the control plane wants of a guest that is on its way; it can change meanwhile.
package final class MoveControl: Sendable {
    private struct State {
        var isCancelled: Bool
        var completes: Bool
    }

    private let state: Mutex<State>

    package init(_ order: ServerJob.Migration) {
        state = Mutex(State(isCancelled: order.isCancelled ?? false, completes: order.completes ?? false))
    }

    package func update(_ order: ServerJob.Migration) {
        state.withLock {
            if order.isCancelled == true { $0.isCancelled = true }
            if order.completes == true { $0.completes = true }
        }
    }

    package func cancel() { state.withLock { $0.isCancelled = true } }

    var isCancelled: Bool { state.withLock { $0.isCancelled } }
    var completes: Bool { state.withLock { $0.completes } }
}

/// Guests that move to other hosts while they run.
extension DomainDriver {
    private static let movePoll = Duration.milliseconds(500)

    /// Where other hosts send a guest that this host expects.
    ///
    /// - Throws: `PermanentFailure` if the root disk is not what it was made as; `FileError`.
    func endpoint(_ server: DesiredServer) async throws -> MigrationEndpoint {
        MigrationEndpoint(
            uri: moves.uri, address: moves.address, directory: disks.files(server.id).directory,
            backing: try await disks.backing(server)?.path, emulator: options.emulator, vncListen: options.vncListen)
    }

    /// Sends the guest to another host. Returns when it has left.
    ///
    /// - Throws: `PermanentFailure` if the guest is still here, or does not run.
    func move(
        _ serverID: String, _ order: ServerJob.Migration, _ control: MoveControl,
        _ progress: @escaping @Sendable (MigrationProgress) async -> Void
    ) async throws {
        // An earlier process may have begun, and libvirt has gone on without it.
        if try await hypervisor.moveState(serverIfThere: serverID) != nil {
            try await follow(serverID, control, progress)
            return try await requireGone(serverID, cause: nil)
        }
        guard let domain = try await hypervisor.domain(serverID), domain.shutoffReason != .migrated || domain.isActive else { return }
        guard domain.isActive else { throw PermanentFailure("the server does not run") }
        // Paused by libvirt in the last phase: only the other host knows whether the guest runs there.
        guard domain.state != .paused else { throw PermanentFailure("the server was paused while it moved") }
        guard !control.isCancelled else { throw PermanentFailure("the migration was aborted") }
        let definition = MigrationXML(directory: disks.files(serverID).directory, order: order)
        let xml = try await hypervisor.movableXML(serverID)
        var move = DomainMove(
            uri: order.endpoint.uri, dataURI: MigrationXML.dataURI(order.endpoint.address), xml: try definition.document(xml).rendered)
        move.disks = try definition.copiedDisks(xml)
        (move.connections, move.slowsDown) = (moves.connections, moves.slowsDown)
        (move.allowsPostCopy, move.encrypts) = (moves.allowsPostCopy, moves.encrypts)
        let watch = Task { try await self.follow(serverID, control, progress, begins: true) }
        let outcome: Result<Void, any Error>
        do { outcome = .success(try await hypervisor.move(serverID, move)) } catch { outcome = .failure(error) }
        watch.cancel()
        _ = await watch.result
        guard case .failure(let error) = outcome else { return }
        try await requireGone(
            serverID, cause: control.isCancelled ? PermanentFailure("the migration was aborted", details: "\(error)") : error)
    }

    /// Reports the progress, and aborts or forces the move when that is wanted, until it has ended.
    ///
    /// - Parameter begins: whether the move may not have begun yet; the watching task is then cancelled at its end.
    private func follow(
        _ serverID: String, _ control: MoveControl, _ progress: @Sendable (MigrationProgress) async -> Void, begins: Bool = false
    ) async throws {
        var isForced = false
        while true {
            if let state = try await hypervisor.moveState(serverIfThere: serverID) {
                await progress(state.progress)
                if control.isCancelled {
                    try await hypervisor.abortMove(serverID)
                } else if control.completes, !isForced {
                    isForced = true
                    await force(serverID)
                }
            } else if !begins {
                return
            }
            try await ambient.time.sleep(for: DomainDriver.movePoll)
        }
    }

    /// Has the guest reach the other host now.
    private func force(_ serverID: String) async {
        do {
            if moves.allowsPostCopy {
                try await hypervisor.beginPostCopy(serverID)
            } else {
                // A paused guest changes no more memory; it runs on at the other host.
                try await hypervisor.suspend(serverID)
            }
        } catch {
            log.notice("a move is not forced to its end", metadata: ["server": "\(serverID)", "error": "\(error)"])
        }
    }

    /// - Parameter cause: why the move ended.
    private func requireGone(_ serverID: String, cause: (any Error)?) async throws {
        guard let domain = try await hypervisor.domain(serverID), domain.isActive || domain.shutoffReason != .migrated else { return }
        if let cause = cause as? PermanentFailure { throw cause }
        throw PermanentFailure("it could not be moved to another host", details: cause.map { "\($0)" })
    }
}

extension HypervisorDriver {
    /// As `moveState`; nil also if the domain does not exist.
    fileprivate func moveState(serverIfThere uuid: String) async throws -> DomainMoveState? {
        do { return try await moveState(uuid) } catch let error as LibvirtError where error.isNoDomain { return nil }
    }
}

extension DomainMoveState {
    fileprivate var progress: MigrationProgress {
        MigrationProgress(
            memory: .init(total: memoryTotal, processed: memoryProcessed, remaining: memoryRemaining),
            disk: .init(total: diskTotal, processed: diskProcessed, remaining: diskRemaining))
    }
}
