import Commands
import Contracts
import DiskTool
import Foundation
import JSON
import Kernel
import Logging
import Synchronization
import TestKit
import Testing

@testable import ComputeAgentCore
@testable import ComputeAgentService
@testable import Libvirt

/// The volume that a guest has after a disturbed swap.
@Suite struct ExchangeTests {
    private static let server = Fixture.serverID
    private static let old = DesiredVolume(
        volumeID: Fixture.volumeID, attachmentID: "a", device: "vdb", bootIndex: nil,
        connection: .file(path: "/volumes/old", format: "raw", readOnly: false), isShared: false, sizeGiB: nil)
    private static let order = ServerJob.VolumeSwap(
        volumeID: Fixture.volumeID,
        replacement: .init(id: Fixture.volumeID, attachmentID: "b", device: "vdb", bootIndex: nil, connection: Enclosed(document: [:])),
        sizeGiB: 2)

    private struct Host: Sendable {
        let hypervisor: ExchangingHypervisor
        let disks: SizedDisks
        let time: ManualTime
        let driver: DomainDriver
        let new: ExchangedVolume
        let control: ExchangeControl

        func exchange(_ control: ExchangeControl? = nil) async throws {
            let control = control ?? self.control
            try await driver.exchange(
                ExchangeTests.server, ExchangeTests.old, by: new, control,
                ExchangeReports(copying: { _ in }, hold: { if try await $0() { control.hold() } }))
        }
    }

    /// - Parameter size: GiB of the new volume; the old one has 1.
    private func with(size: Int = 2, isHeld: Bool = false, _ body: (Host) async throws -> Void) async throws {
        let directory = NSTemporaryDirectory() + "exchange-\(SystemRandom().uuid())"
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let (hypervisor, maker, time) = (ExchangingHypervisor(), SizedDisks(size << 30), ManualTime())
        let threads = WorkerThreads(inline: {})
        let images = try ImageCache(
            directory: directory + "/images", source: NoImages(), sandbox: Sandbox(), threads: threads, ambient: Ambient(),
            log: Logger(label: "test"))
        let disks = try ServerDisks(
            directory: directory + "/servers", images: images, maker: maker, threads: threads, copyThreads: threads)
        var log = Logger(label: "test")
        log.logLevel = .critical
        let driver = DomainDriver(
            hypervisor: hypervisor, options: DomainOptions(virtType: .qemu), disks: disks, ambient: Ambient(time: time),
            shutdownTimeout: .seconds(1), log: log)
        // QEMU ends a copy to a disk of another size.
        hypervisor.copies { maker.bytes == 1 << 30 }
        try await body(
            Host(
                hypervisor: hypervisor, disks: maker, time: time, driver: driver,
                new: ExchangedVolume(path: "/volumes/new", format: "raw", bytes: size << 30),
                control: ExchangeControl(ExchangeTests.order, isHeld: isHeld)))
    }

    private func order(_ control: ExchangeControl) {
        var order = ExchangeTests.order
        order.completes = true
        control.update(order)
    }

    @Test(arguments: [1, 2]) func theNewVolumeHasItsSizeInTheEnd(size: Int) async throws {
        try await with(size: size) { host in
            let rounds = Mutex(0)
            host.time.whenWaiting {
                let round = rounds.withLock { rounds in
                    rounds += 1
                    return rounds
                }
                if round == 2 { host.hypervisor.change { $0.isReady = true } }
                // Until the order, the guest has the old volume.
                if round == 5 {
                    #expect(host.hypervisor.source == "/volumes/old" && host.control.isHeld)
                    order(host.control)
                }
            }
            try await host.exchange()
            #expect(host.hypervisor.source == "/volumes/new")
            #expect(host.hypervisor.sizes == (size == 1 ? [] : [2 << 30]))
            #expect(host.disks.sizes == (size == 1 ? [] : [1 << 30]))
        }
    }

    @Test func aGuestThatEndsBeforeItIsHeldKeepsItsVolume() async throws {
        try await with { host in
            host.time.whenWaiting { host.hypervisor.change { $0.isActive = false } }
            order(host.control)
            await #expect(throws: PermanentFailure.self) { try await host.exchange() }
        }
    }

    /// Both volumes have all that it has written, so that the order can still be given and taken back.
    @Test func aGuestThatEndsWhileItIsHeldGetsTheOrderedVolume() async throws {
        try await with { host in
            let rounds = Mutex(0)
            host.hypervisor.change { $0.isReady = true }
            host.time.whenWaiting {
                let round = rounds.withLock { rounds in
                    rounds += 1
                    return rounds
                }
                if round == 1 { host.hypervisor.change { $0.isActive = false } }
                if round == 9 { order(host.control) }
            }
            try await host.exchange()
            #expect(rounds.withLock { $0 } == 9)
            #expect(host.disks.sizes == [1 << 30, 2 << 30])
        }
    }

    /// The new volume no longer has all that the guest writes, and the control plane may have been told that it has.
    @Test func aCopyThatEndsWhileTheGuestIsHeldIsNotBegunAgain() async throws {
        try await with(size: 1) { host in
            host.hypervisor.change { $0.isReady = true }
            host.time.whenWaiting { host.hypervisor.change { $0.mirror = nil } }
            await #expect(throws: PermanentFailure.self) { try await host.exchange() }
            #expect(host.hypervisor.begun == 1)
        }
        // Also by the next process of the agent.
        try await with(size: 1, isHeld: true) { host in
            order(host.control)
            await #expect(throws: PermanentFailure.self) { try await host.exchange() }
            #expect(host.hypervisor.begun == 0)
        }
    }

    @Test func theNextProcessGoesOnWithACopy() async throws {
        try await with(isHeld: true) { host in
            host.hypervisor.change { ($0.mirror, $0.isReady) = ("/volumes/new", true) }
            order(host.control)
            try await host.exchange()
            #expect(host.hypervisor.begun == 0 && host.hypervisor.source == "/volumes/new")
            // It may have died after the last step too.
            try await host.exchange()
            #expect(host.hypervisor.begun == 0)
        }
    }

    @Test(arguments: [true, false]) func anExchangeThatIsTakenBackLeavesTheVolumeAsItWas(isActive: Bool) async throws {
        try await with { host in
            let server = try Fixture.server()
            host.hypervisor.change { ($0.mirror, $0.isReady, $0.isActive) = ("/volumes/new", true, isActive) }
            host.disks.shrink(to: 1 << 30)
            try await host.driver.endExchange(ExchangeTests.server, host.new, wanted: server)
            #expect(host.hypervisor.source == "/volumes/old" && (host.hypervisor.mirror == nil || !isActive))
            #expect(host.disks.bytes == 2 << 30)
        }
    }

    /// A volume that was extended since a swap for it was cancelled.
    @Test func aVolumeIsNeverMadeSmallerAtTheEnd() throws {
        let path = NSTemporaryDirectory() + "volume-\(SystemRandom().uuid())"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Files.replace(path, with: [UInt8](repeating: 1, count: 3 << 20))
        let (maker, disk) = (SandboxedDiskMaker(Sandbox()), DiskSource(path: path, driver: .raw))
        try maker.resize(disk, to: 2 << 20, shrinks: false)
        #expect(Files.size(path) == 3 << 20)
        try maker.resize(disk, to: 1 << 20, shrinks: true)
        #expect(Files.size(path) == 1 << 20)
        try maker.resize(disk, to: 2 << 20, shrinks: false)
        #expect(Files.size(path) == 2 << 20)
    }
}

/// The file of the new volume.
private final class SizedDisks: DiskMaker {
    private let state: Mutex<(bytes: Int, sizes: [Int])>

    init(_ bytes: Int) { state = Mutex((bytes, [])) }

    var bytes: Int { state.withLock { $0.bytes } }
    var sizes: [Int] { state.withLock { $0.sizes } }
    func shrink(to bytes: Int) { state.withLock { $0.bytes = bytes } }

    func resize(_ disk: DiskSource, to size: Int, shrinks: Bool) throws {
        #expect(disk.path == "/volumes/new" && disk.driver == .raw)
        state.withLock { $0 = (size, $0.sizes + [size]) }
    }
    func create(_ path: String, size: Int, backing: DiskSource?) throws {}
    func grow(_ path: String, to size: Int) throws {}
    func copy(_ layers: [DiskSource], to path: String, _ format: DiskDriver, size: Int, _ cancellation: CopyCancellation) throws {}
    func makeISO(of tree: String, into file: String, sizes: [Int]) throws {}
    func hasVolume(_ path: String) -> Bool { true }
}

/// A guest with one volume.
private final class ExchangingHypervisor: QuietHypervisor {
    struct State {
        var isActive = true
        var source = "/volumes/old"
        var mirror: String?
        var isReady = false
        var size = 1 << 30
        var sizes: [Int] = []
        var begun = 0
        var copies: @Sendable () -> Bool = { true }
    }

    private let state = Mutex(State())

    var source: String { state.withLock { $0.source } }
    var mirror: String? { state.withLock { $0.mirror } }
    var sizes: [Int] { state.withLock { $0.sizes } }
    var begun: Int { state.withLock { $0.begun } }
    func change(_ body: (inout State) -> Void) { state.withLock { body(&$0) } }
    func copies(if condition: @escaping @Sendable () -> Bool) { state.withLock { $0.copies = condition } }

    func domain(_ uuid: String) async throws -> DomainSummary? {
        DomainSummary(uuid: uuid, name: uuid, state: state.withLock { $0.isActive } ? .running : .shutoff)
    }

    func xml(_ uuid: String, inactive: Bool) async throws -> String {
        let state = state.withLock { $0 }
        let mirror = state.mirror.map {
            "<mirror type='file' job='copy'\(state.isReady ? " ready='yes'" : "")><source file='\($0)'/></mirror>"
        }
        return """
            <domain><devices><disk type='file'><source file='\(state.source)'/><target dev='vdb'/>\(mirror ?? "")
            <serial>\(Fixture.volumeID)</serial></disk></devices></domain>
            """
    }

    func beginBlockCopy(_ uuid: String, disk: String, xml: String) async throws {
        let copies = state.withLock { $0.copies }
        state.withLock { state in
            state.begun += 1
            if copies() { state.mirror = "/volumes/new" }
        }
    }

    func endBlockCopy(_ uuid: String, disk: String, pivots: Bool) async throws {
        state.withLock { state in
            if pivots, let mirror = state.mirror { state.source = mirror }
            state.mirror = nil
        }
    }

    func diskSize(_ uuid: String, disk: String) async throws -> Int { state.withLock { $0.size } }

    func resizeDisk(_ uuid: String, disk: String, bytes: Int) async throws {
        state.withLock { state in
            state.size = bytes
            state.sizes.append(bytes)
        }
    }
}
