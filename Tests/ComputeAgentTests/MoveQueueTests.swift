import Commands
import Contracts
import DiskTool
import FileTransfer
import Foundation
import Kernel
import Logging
import NIOCore
import Synchronization
import TestKit
import Testing

@testable import ComputeAgentCore
@testable import ComputeAgentService
@testable import Libvirt

/// Guests that leave a host one after the other, and the cancellation of queued moves.
@Suite struct MoveQueueTests {
    private static let order = ServerJob.Migration(
        endpoint: MigrationEndpoint(uri: "qemu+tls://host-2/system", address: nil, directory: "/there/s", emulator: nil, vncListen: nil),
        volumes: [])
    private static let first = "11111111-1111-4111-8111-111111111111"
    private static let second = "22222222-2222-4222-8222-222222222222"

    private func driver(_ hypervisor: MovingHypervisor, at directory: String) throws -> DomainDriver {
        let threads = WorkerThreads(inline: {})
        let images = try ImageCache(
            directory: directory + "/images", source: NoImages(), sandbox: Sandbox(), threads: threads, ambient: Ambient(),
            log: Logger(label: "test"))
        let disks = try ServerDisks(
            directory: directory + "/servers", images: images, maker: NoDisks(), threads: threads, copyThreads: threads)
        return DomainDriver(
            hypervisor: hypervisor, options: DomainOptions(virtType: .qemu), disks: disks, ambient: Ambient(time: ManualTime()),
            shutdownTimeout: .seconds(1), log: Logger(label: "test"))
    }

    private func with(_ body: (MovingHypervisor, DomainDriver) async throws -> Void) async throws {
        let directory = NSTemporaryDirectory() + "moves-\(SystemRandom().uuid())"
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let hypervisor = MovingHypervisor()
        try await body(hypervisor, try driver(hypervisor, at: directory))
    }

    @Test func aGuestThatWaitsForItsTurnCanBeToldToStay() async throws {
        try await with { hypervisor, driver in
            let (one, two) = (MoveControl(MoveQueueTests.order), MoveControl(MoveQueueTests.order))
            let leaving = Task {
                try await driver.move(MoveQueueTests.first, MoveQueueTests.order, one, isPaused: false, phase: { _ in }) { _ in }
            }
            await hypervisor.waitForMove(of: MoveQueueTests.first)
            let waiting = Task {
                try await driver.move(MoveQueueTests.second, MoveQueueTests.order, two, isPaused: false, phase: { _ in }) { _ in }
            }
            two.cancel()
            await #expect(throws: PermanentFailure.self) { try await waiting.value }
            #expect(hypervisor.migrated == [MoveQueueTests.first], "it has not begun")
            // The slot is free again for the next one.
            hypervisor.finish(MoveQueueTests.first)
            try await leaving.value
            let next = Task {
                try await driver.move(MoveQueueTests.second, MoveQueueTests.order, one, isPaused: false, phase: { _ in }) { _ in }
            }
            await hypervisor.waitForMove(of: MoveQueueTests.second)
            hypervisor.finish(MoveQueueTests.second)
            try await next.value
        }
    }

    /// The control plane limits the time of a transfer, but not the time in the host's queue.
    @Test func itSaysWhetherAGuestWaitsForItsTurn() async throws {
        try await with { hypervisor, driver in
            let control = MoveControl(MoveQueueTests.order)
            let (one, two) = (Phases(), Phases())
            let leaving = Task {
                try await driver.move(MoveQueueTests.first, MoveQueueTests.order, control, isPaused: false, phase: one.add) { _ in }
            }
            await hypervisor.waitForMove(of: MoveQueueTests.first)
            let waiting = Task {
                try await driver.move(MoveQueueTests.second, MoveQueueTests.order, control, isPaused: false, phase: two.add) { _ in }
            }
            while two.all.isEmpty { await Task.yield() }
            #expect(one.all == ["moving"] && two.all == ["queued"])
            hypervisor.finish(MoveQueueTests.first)
            await hypervisor.waitForMove(of: MoveQueueTests.second)
            #expect(two.all == ["queued", "moving"])
            hypervisor.finish(MoveQueueTests.second)
            try await leaving.value
            try await waiting.value
        }
    }

    /// A job that has only begun must not count as a guest on its way.
    @Test func aJobBeginsInTheQueue() {
        let migration = ServerJob(id: MoveQueueTests.first, migration: MoveQueueTests.order)
        #expect(RunningJob(migration, task: Task {}).phase == ServerJobReport.queued)
        let upload = ServerJob(
            id: MoveQueueTests.first,
            upload: .init(imageID: MoveQueueTests.second, projectID: "p", userID: "u", quiesce: .never))
        #expect(RunningJob(upload, task: Task {}).phase == nil)
    }

    /// libvirt continues a migration that an earlier process of the agent began.
    @Test func aGuestThatIsOnItsWayAlreadyIsNotQueued() async throws {
        try await with { hypervisor, driver in
            let control = MoveControl(MoveQueueTests.order)
            let earlier = Task {
                try await driver.move(MoveQueueTests.first, MoveQueueTests.order, control, isPaused: false, phase: { _ in }) { _ in }
            }
            await hypervisor.waitForMove(of: MoveQueueTests.first)
            let phases = Phases()
            let next = Task {
                try await driver.move(MoveQueueTests.first, MoveQueueTests.order, control, isPaused: false, phase: phases.add) { _ in }
            }
            while phases.all.isEmpty { await Task.yield() }
            #expect(phases.all == [ServerJobReport.moving])
            hypervisor.finish(MoveQueueTests.first)
            try await earlier.value
            try await next.value
        }
    }

    @Test func anAbortReachesTheGuestAfterAFailureToLook() async throws {
        try await with { hypervisor, driver in
            let control = MoveControl(MoveQueueTests.order)
            hypervisor.failLooks(3)
            let leaving = Task {
                try await driver.move(MoveQueueTests.first, MoveQueueTests.order, control, isPaused: false, phase: { _ in }) { _ in }
            }
            await hypervisor.waitForMove(of: MoveQueueTests.first)
            control.cancel()
            await #expect(throws: PermanentFailure.self) { try await leaving.value }
            #expect(hypervisor.aborted == [MoveQueueTests.first])
            #expect(await driver.hasStayed(MoveQueueTests.first, isPaused: false))
        }
    }
}

/// The phases of a move, in order.
private final class Phases: Sendable {
    private let phases = Mutex<[String]>([])
    var all: [String] { phases.withLock { $0 } }
    @Sendable func add(_ phase: String) async { phases.withLock { $0.append(phase) } }
}

/// Guests whose moves take until the test ends or aborts them.
private final class MovingHypervisor: QuietHypervisor, Sendable {
    private struct State {
        var migrated: [String] = []
        var aborted: [String] = []
        var left: Set<String> = []
        var looksToFail = 0
        var moves: [String: CheckedContinuation<Void, any Error>] = [:]
        var watchers: [(uuid: String, continuation: CheckedContinuation<Void, Never>)] = []
    }

    private let state = Mutex(State())

    var migrated: [String] { state.withLock { $0.migrated } }
    var aborted: [String] { state.withLock { $0.aborted } }
    func failLooks(_ count: Int) { state.withLock { $0.looksToFail = count } }

    func waitForMove(of uuid: String) async {
        await withCheckedContinuation { continuation in
            let isThere = state.withLock { state in
                if state.moves[uuid] != nil { return true }
                state.watchers.append((uuid, continuation))
                return false
            }
            if isThere { continuation.resume() }
        }
    }

    func finish(_ uuid: String) {
        state.withLock { state in
            state.left.insert(uuid)
            return state.moves.removeValue(forKey: uuid)
        }?.resume()
    }

    func domain(_ uuid: String) async throws -> DomainSummary? {
        state.withLock { $0.left.contains(uuid) }
            ? nil : DomainSummary(uuid: uuid, name: uuid, state: .running, shutoffReason: .unknown, hasManagedSave: false)
    }

    func movableXML(_ uuid: String) async throws -> String { "<domain><devices/></domain>" }

    func move(_ uuid: String, _ order: DomainMove) async throws {
        try await withCheckedThrowingContinuation { continuation in
            let watchers = state.withLock { state in
                state.migrated.append(uuid)
                state.moves[uuid] = continuation
                let watchers = state.watchers.filter { $0.uuid == uuid }.map(\.continuation)
                state.watchers.removeAll { $0.uuid == uuid }
                return watchers
            }
            for watcher in watchers { watcher.resume() }
        }
    }

    func moveState(_ uuid: String) async throws -> DomainMoveState? {
        try state.withLock { state in
            guard state.moves[uuid] != nil else { return nil }
            guard state.looksToFail == 0 else {
                state.looksToFail -= 1
                throw LibvirtError.noConnection(call: "state")
            }
            return DomainMoveState()
        }
    }

    func abortMove(_ uuid: String) async throws {
        state.withLock { state in
            state.aborted.append(uuid)
            return state.moves.removeValue(forKey: uuid)
        }?.resume(throwing: LibvirtError.invalidState(call: "aborted"))
    }
}
