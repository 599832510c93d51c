import Commands
import Foundation
import Glibc
import JSON
import Kernel
import Logging
import Synchronization
import TestKit
import Testing

@testable import ComputeAgentCore
@testable import ComputeAgentService

/// When images come to a host's cache before a server needs them, and leave it.
@Suite(.enabled(if: geteuid() == 0, "needs root")) struct AgentImageCacheTests {
    private static let ids = (1...2).map { "ffffffff-0000-0000-0000-0000000000a\($0)" }

    private struct Host {
        let directory: String
        let source: TestImages
        let cache: ImageCache
        let disks: ServerDisks
        /// Calls to the file system.
        let runs: RunCounter
        var cached: Int { get throws { try Files.list(directory + "/images").count } }
    }

    private final class RunCounter: Sendable {
        private let count = Mutex(0)
        var value: Int { count.withLock { $0 } }
        func add() { count.withLock { $0 += 1 } }
    }

    private func with(_ image: [UInt8], _ body: (Host) async throws -> Void) async throws {
        let directory = NSTemporaryDirectory() + "cache-\(SystemRandom().uuid())"
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let runs = RunCounter()
        let threads = WorkerThreads(inline: { runs.add() })
        var log = Logger(label: "test")
        log.logLevel = .critical
        let source = TestImages(Dictionary(uniqueKeysWithValues: AgentImageCacheTests.ids.map { ($0, image) }))
        let cache = try ImageCache(
            directory: directory + "/images", source: source, sandbox: RecordedTools.shared.sandbox, threads: threads, ambient: Ambient(),
            log: log)
        let disks = try ServerDisks(
            directory: directory + "/servers", images: cache, maker: SandboxedDiskMaker(RecordedTools.shared.sandbox), threads: threads,
            copyThreads: threads)
        try await body(Host(directory: directory, source: source, cache: cache, disks: disks, runs: runs))
    }

    private func image(_ id: String, format: String = "raw", gib: Int? = nil) throws -> DesiredImage {
        let server = try Fixture.server([
            "image": ["id": .string(id), "disk_format": .string(format), "properties": [:], "disk_gb": gib.map { JSONValue($0) } ?? .null]
        ])
        return try #require(server.image)
    }

    @Test func anImageThatDisksLieOnIsNotReleased() async throws {
        try await with([UInt8](repeating: 1, count: 1 << 20)) { host in
            let images = try AgentImageCacheTests.ids.map { try image($0) }
            for image in images { _ = try await host.cache.ensure(image, largest: 1 << 30) }
            let server = try Fixture.server([
                "ports": [], "image": ["id": .string(AgentImageCacheTests.ids[0]), "disk_format": "raw", "properties": [:]],
            ])
            try await host.disks.provision(server, refreshConfigDrive: false)
            let backing = try #require(try await host.disks.backing(server)?.path)
            let before = host.runs.value
            try await host.disks.release(Set(images))
            // The disks are read once, however many images there are.
            #expect(host.runs.value - before == 2)
            #expect(Files.exists(backing))
            #expect(try host.cached == 1)
            // Once the disk is gone, the image goes too.
            try await host.disks.remove(server.id)
            try await host.disks.release(Set(images))
            #expect(try host.cached == 0)
        }
    }

    @Test func anImageIsLoadedAheadUpToTheSizeThatImageNames() async throws {
        try await with(DiskImages.qcow2(size: 5 << 30)) { host in
            // A control plane of an earlier release does not name it.
            for size in [nil, 0, 4] {
                await #expect(throws: PermanentFailure.self, "\(size ?? -1)") {
                    try await host.cache.loadAhead(try image(AgentImageCacheTests.ids[0], format: "qcow2", gib: size))
                }
                #expect(try host.cached == 0)
            }
            // The first attempt did not even ask for it.
            #expect(host.source.downloads.withLock { $0 } == 2)
            try await host.cache.loadAhead(try image(AgentImageCacheTests.ids[0], format: "qcow2", gib: 5))
            #expect(try host.cached == 1)
        }
    }
}
