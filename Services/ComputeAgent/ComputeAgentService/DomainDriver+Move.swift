import ComputeAgentCore
package import Contracts
import Kernel
import Libvirt
import Logging
import Synchronization

/// The control plane's orders for a guest that is being moved; they can change during the move.
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

/// Limits the number of guests that leave the host at the same time. Moves that are queued can be cancelled.
actor MoveSlots {
    private let width: Int
    private var waiting: [Int] = []
    private var next = 0
    private var used = 0

    init(width: Int) { self.width = max(1, width) }

    /// Runs `body` when it is its turn.
    ///
    /// - Parameter waits: runs first if `body` has to wait for others.
    /// - Throws: `PermanentFailure` if the move was cancelled; `CancellationError`.
    nonisolated func run<Value: Sendable>(
        unless control: MoveControl, _ time: any TimeSource, waits: @Sendable () async -> Void, _ body: @Sendable () async -> Value
    ) async throws -> Value {
        let ticket = await draw()
        do {
            var isFirst = true
            while await !enter(ticket) {
                if isFirst { await waits() }
                isFirst = false
                guard !control.isCancelled else { throw PermanentFailure("the migration was aborted") }
                try await time.sleep(for: DomainDriver.movePoll)
            }
        } catch {
            await giveUp(ticket)
            throw error
        }
        let value = await body()
        await leave()
        return value
    }

    private func draw() -> Int {
        next += 1
        waiting.append(next)
        return next
    }

    private func enter(_ ticket: Int) -> Bool {
        guard used < width, waiting.first == ticket else { return false }
        waiting.removeFirst()
        used += 1
        return true
    }

    private func giveUp(_ ticket: Int) { waiting.removeAll { $0 == ticket } }

    private func leave() { used -= 1 }
}

/// Guests that move to other hosts while they run.
extension DomainDriver {
    static let movePoll = Duration.milliseconds(500)
    /// Consecutive failures, except of the connection, after which a move that an earlier process started is given up.
    private static let watchFailuresMax = 20

    /// The endpoint to which other hosts send a guest that this host expects.
    ///
    /// libvirt creates the files of the firmware's variables and of the trusted platform module, and QEMU fills them with what the guest
    /// has on the other host.
    ///
    /// - Throws: `PermanentFailure` if the root disk's backing file is not the server's image; `FileError`.
    func endpoint(_ server: DesiredServer) async throws -> MigrationEndpoint {
        try await disks.prepareTPM(server)
        return MigrationEndpoint(
            uri: moves.uri, address: moves.address, directory: disks.files(server.id).directory,
            backing: try await disks.backing(server)?.path, emulator: options.emulator, vncListen: options.vncListen)
    }

    /// Sends the guest to another host. Returns when it has left.
    ///
    /// - Parameter phase: called with `queued` when the guest waits for others, and `moving` when the transfer begins.
    /// - Throws: `PermanentFailure` if the guest is still here, or does not run.
    func move(
        _ serverID: String, _ order: ServerJob.Migration, _ control: MoveControl, isPaused: Bool,
        phase: @escaping @Sendable (String) async -> Void, _ progress: @escaping @Sendable (MigrationProgress) async -> Void
    ) async throws {
        // An earlier process may have started the move, and libvirt continues it without that process.
        if try await hypervisor.moveState(serverIfThere: serverID) != nil {
            await phase(ServerJobReport.moving)
            try await follow(serverID, control, progress)
            return try await requireGone(serverID, cause: nil)
        }
        guard let domain = try await hypervisor.domain(serverID), domain.shutoffReason != .migrated || domain.isActive else { return }
        guard domain.isActive else { throw PermanentFailure("the server does not run") }
        // libvirt may have paused the guest in the last phase; then only the other host knows whether the guest runs there.
        guard domain.state != .paused || isPaused && !domain.isMoving else {
            throw PermanentFailure("the server was paused while it moved")
        }
        guard !control.isCancelled else { throw PermanentFailure("the migration was aborted") }
        let definition = MigrationXML(directory: disks.files(serverID).directory, order: order)
        let xml = try await hypervisor.movableXML(serverID)
        var move = DomainMove(
            uri: order.endpoint.uri, dataURI: MigrationXML.dataURI(order.endpoint.address), xml: try definition.document(xml).rendered)
        move.disks = try definition.copiedDisks(xml)
        (move.connections, move.slowsDown) = (moves.connections, moves.slowsDown)
        (move.allowsPostCopy, move.encrypts) = (moves.allowsPostCopy, moves.encrypts)
        let waits: @Sendable () async -> Void = { await phase(ServerJobReport.queued) }
        let outcome = try await slots.run(unless: control, ambient.time, waits: waits) { [move] in
            await phase(ServerJobReport.moving)
            let watch = Task { try await self.follow(serverID, control, progress, begins: true) }
            let outcome: Result<Void, any Error>
            do { outcome = .success(try await hypervisor.move(serverID, move)) } catch { outcome = .failure(error) }
            watch.cancel()
            _ = await watch.result
            return outcome
        }
        guard case .failure(let error) = outcome else { return }
        try await requireGone(
            serverID, cause: control.isCancelled ? PermanentFailure("the migration was aborted", details: "\(error)") : error)
    }

    /// Reports the progress, and aborts or forces the move on request, until it has ended.
    ///
    /// - Parameter begins: whether the move may not have begun yet; the caller then cancels the task when the move ends.
    private func follow(
        _ serverID: String, _ control: MoveControl, _ progress: @Sendable (MigrationProgress) async -> Void, begins: Bool = false
    ) async throws {
        var isForced = false
        var failures = 0
        while true {
            do {
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
                failures = 0
            } catch let error as LibvirtError {
                // The move continues without this process, and an abort must still reach it.
                failures += 1
                log.info("a move cannot be watched; it will be retried", metadata: ["server": "\(serverID)", "error": "\(error)"])
                guard begins || error.isConnectionFailure || failures < DomainDriver.watchFailuresMax else { throw error }
            }
            try await ambient.time.sleep(for: DomainDriver.movePoll)
        }
    }

    /// Forces the move to complete.
    private func force(_ serverID: String) async {
        do {
            if moves.allowsPostCopy {
                try await hypervisor.beginPostCopy(serverID)
            } else {
                // A paused guest does not change its memory; it resumes on the other host.
                try await hypervisor.suspend(serverID)
            }
        } catch {
            log.notice("a move is not forced to its end", metadata: ["server": "\(serverID)", "error": "\(error)"])
        }
    }

    /// Whether the guest is certainly here. A guest that libvirt has paused in the last phase may run on the other host; a server that is
    /// paused on request does not run anywhere.
    func hasStayed(_ serverID: String, isPaused: Bool) async -> Bool {
        do {
            guard let domain = try await hypervisor.domain(serverID) else { return false }
            return [.running, .blocked].contains(domain.state) || isPaused && domain.state == .paused && !domain.isMoving
        } catch {
            return false
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
    /// Like `moveState`, but nil if the domain does not exist.
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
