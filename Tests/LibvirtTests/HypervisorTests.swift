import Kernel
import Logging
import Synchronization
import Testing

@testable import Libvirt

/// libvirt's own test driver: a hypervisor in this process's memory.
@Suite(.serialized) struct HypervisorTests {
    private static let uuid = "44444444-0000-0000-0000-000000000001"

    private func hypervisor() -> Hypervisor {
        var log = Logger(label: "libvirt")
        log.logLevel = .critical
        return Hypervisor(uri: "test:///default", threads: 2, log: log)
    }

    private func document(_ uuid: String = uuid) -> String {
        """
        <domain type='test'><name>one</name><uuid>\(uuid)</uuid><memory unit='MiB'>16</memory>
        <os><type>hvm</type></os></domain>
        """
    }

    @Test func aDomainsLife() async throws {
        let hypervisor = hypervisor()
        let id = HypervisorTests.uuid
        #expect(try await hypervisor.domain(id) == nil)
        try await hypervisor.define(xml: document())
        #expect(try await hypervisor.domain(id)?.state == .shutoff)
        try await hypervisor.start(id)
        // Starting, stopping and removing are idempotent.
        try await hypervisor.start(id)
        #expect(try await hypervisor.domain(id)?.isActive == true)
        #expect(try await hypervisor.domains().contains { $0.uuid == id && $0.state == .running })
        try await hypervisor.suspend(id)
        #expect(try await hypervisor.domain(id)?.state == .paused)
        try await hypervisor.resume(id)
        try await hypervisor.destroy(id)
        try await hypervisor.destroy(id)
        #expect(try await hypervisor.domain(id)?.shutoffReason == .destroyed)
        try await hypervisor.undefine(id)
        try await hypervisor.undefine(id)
        #expect(try await hypervisor.domain(id) == nil)
        await hypervisor.close()
    }

    @Test(.timeLimit(.minutes(10))) func eventsMayArriveWhileTheirReaderIsCancelled() async throws {
        let hypervisor = hypervisor()
        let threads = WorkerThreads(name: "events", count: 1)
        let isDone = Mutex(false)
        async let emitted: Void = threads.run {
            while !isDone.withLock({ $0 }) { hypervisor.emit(.disconnected) }
        }
        for _ in 0..<200 {
            let readers = (0..<20).map { _ in
                let events = hypervisor.events()
                return Task { for await _ in events {} }
            }
            for await _ in hypervisor.events() { break }
            for reader in readers { reader.cancel() }
            for reader in readers { await reader.value }
        }
        isDone.withLock { $0 = true }
        try await emitted
        threads.close()
        await hypervisor.close()
    }

    @Test func errorsAreClassified() async throws {
        let hypervisor = hypervisor()
        let missing = try await #require(throws: LibvirtError.self) { try await hypervisor.start(HypervisorTests.uuid) }
        #expect(missing.isNoDomain)
        let broken = try await #require(throws: LibvirtError.self) { try await hypervisor.define(xml: "<domain") }
        #expect(broken.isBadDefinition)
        await hypervisor.close()
        let closed = try await #require(throws: LibvirtError.self) { _ = try await hypervisor.domains() }
        #expect(closed.isConnectionFailure)
    }

    @Test func nobodyAtHome() async throws {
        var log = Logger(label: "libvirt")
        log.logLevel = .critical
        let hypervisor = Hypervisor(uri: "qemu:///system?socket=/nonexistent/libvirt-sock", threads: 1, log: log)
        let error = try await #require(throws: LibvirtError.self) { _ = try await hypervisor.nodeInfo() }
        #expect(error.isConnectionFailure)
        await hypervisor.close()
    }

    @Test func changesAreAnnounced() async throws {
        let hypervisor = hypervisor()
        let id = "44444444-0000-0000-0000-000000000002"
        let events = hypervisor.events()
        try await hypervisor.define(xml: document(id).replacing("<name>one", with: "<name>two"))
        try await hypervisor.start(id)
        try await hypervisor.destroy(id)
        var seen: [LibvirtEvent] = []
        for await event in events {
            seen.append(event)
            // virDomainEventType: 2 started, 5 stopped
            if case .lifecycle(id, 5, _) = event { break }
        }
        #expect(seen.first == .connected)
        #expect(seen.contains { if case .lifecycle(id, 2, _) = $0 { true } else { false } })
        try await hypervisor.undefine(id)
        await hypervisor.close()
    }

    @Test func theNodeDescribesItself() async throws {
        let hypervisor = hypervisor()
        let node = try await hypervisor.nodeInfo()
        #expect(node.cpus > 0)
        #expect(node.memoryMiB > 0)
        #expect(try await hypervisor.capabilities().contains("<capabilities>"))
        #expect(try await hypervisor.hypervisorVersion() > 0)
        await hypervisor.close()
    }

    @Test func workersRunEverythingBeforeTheyEnd() async throws {
        let workers = WorkerThreads(name: "test", count: 2)
        let sum = try await withThrowingTaskGroup(of: Int.self) { group in
            for number in 1...100 { group.addTask { try await workers.run { number } } }
            return try await group.reduce(0, +)
        }
        #expect(sum == 5050)
        workers.close()
        await #expect(throws: CancellationError.self) { try await workers.run {} }
    }
}
