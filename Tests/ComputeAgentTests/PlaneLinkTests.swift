import Commands
import Contracts
import DiskTool
import JSON
import Kernel
import Logging
import Messaging
import OVSDB
import Synchronization
import Telemetry
import TestKit
import Testing
import WebAPI

@testable import ComputeAgentCore
@testable import ComputeAgentService
@testable import Libvirt

/// The agent's introductions and heartbeats while messages are lost.
@Suite struct PlaneLinkTests {
    /// A clock that calls the test in each pause.
    private final class WatchedTime: TimeSource {
        private let manual = ManualTime()
        private let start: UInt64
        private let look = Mutex<(@Sendable (_ second: Int) async throws -> Void)?>(nil)

        init() { start = manual.monotonicNanoseconds() }

        func eachPause(_ look: @escaping @Sendable (Int) async throws -> Void) { self.look.withLock { $0 = look } }
        func now() -> Timestamp { manual.now() }
        func databaseNow() -> Timestamp? { manual.now() }
        func monotonicNanoseconds() -> UInt64 { manual.monotonicNanoseconds() }

        func sleep(for duration: Duration) async throws {
            if let look = look.withLock({ $0 }) {
                try await look(Int((monotonicNanoseconds() - start) / 1_000_000_000))
            }
            try await manual.sleep(for: duration)
        }
    }

    private struct Ended: Error {}

    /// Runs the agent's introductions and heartbeats for some seconds.
    ///
    /// - Parameter sync: the second in which the control plane answers.
    /// - Returns: the messages with the second in which each arrived; a heartbeat with a list is called `list`.
    private func said(for seconds: Int, sync: Int) async throws -> [String] {
        let log = Logger(label: "agent", factory: { _ in SwiftLogNoOpLogHandler() })
        let time = WatchedTime()
        let (ambient, bus) = (Ambient(time: time, random: SeededRandom(seed: 1)), InMemoryBus())
        let threads = WorkerThreads(name: "agent", count: 1)
        let links = Links(runner: CommandRunner(threads: threads), threads: threads)
        let hypervisor = Hypervisor(uri: "test:///default", log: log)
        let ports = SwitchPorts(
            client: OVSDBClient(
                OVSDBConfiguration(endpoints: [.unix(path: "/nonexistent")], database: "Open_vSwitch", monitors: []), ambient: ambient,
                logger: log), bridge: "br-int")
        let state = "/tmp/wolke-plane-link-\(SystemRandom().uuid())"
        let directory = MetadataDirectory()
        let module = try AgentModule.make(
            AgentOptions(stateDirectory: state, domains: DomainOptions(virtType: .qemu)),
            AgentSurroundings(
                host: "host-1", hypervisor: hypervisor, events: hypervisor.events(), links: links, bridge: ports,
                metadata: MetadataNetworks(
                    links: links, ports: ports, directory: directory, random: SystemRandom(), metrics: Metrics(), limits: .small,
                    log: log),
                directory: directory, disks: SandboxedDiskMaker(Sandbox()), images: TestImages([:]),
                uploads: TestUploads(), facts: TestFacts(), threads: threads, copyThreads: threads, bus: bus, ambient: ambient,
                metrics: Metrics(), log: log))
        defer { threads.close() }
        let heard = Mutex<[String]>([])
        time.eachPause { second in
            for message in bus.take(from: .computeAgents) {
                let isList = message.body["servers"] != nil
                if message.type != AgentHeartbeat.type || isList {
                    heard.withLock { $0.append("\(second) \(isList ? "list" : message.type)") }
                }
            }
            if second == sync {
                let answer = SyncServers(host: "host-1", servers: [])
                _ = try await bus.request(
                    try Message(answer, id: ambient.newUUID()), to: .agent(host: "host-1"), timeout: .seconds(10))
            }
            if second >= seconds { throw Ended() }
        }
        let listening = Task { try await module.loops.first { $0.name == "listen" }?.run() }
        defer { listening.cancel() }
        await #expect(throws: Ended.self) { try await module.loops.first { $0.name == "announce" }?.run() }
        await hypervisor.close()
        try Files.removeTree(state)
        return heard.withLock { $0 }
    }

    @Test func anIntroductionIsRepeatedUntilItIsAnswered() async throws {
        #expect(try await said(for: 220, sync: 500) == ["0 hello", "30 hello", "90 hello", "150 list", "210 hello"])
    }

    @Test func serversAreListedAgainAndAgain() async throws {
        #expect(try await said(for: 190, sync: 0) == ["0 hello", "60 list", "120 list", "180 list"])
    }
}
