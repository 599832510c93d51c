import Contracts
import Foundation
import JSON
import Kernel
import Messaging
import Synchronization
import Telemetry
import Testing

@testable import ComputeAgentCore
@testable import ComputeAgentService

/// Simulated hosts with an in-memory broker.
@Suite struct SimulatedFleetTests {
    /// The reports to the control plane, by host.
    private final class Heard: Sendable {
        private let messages = Mutex<[JSONValue]>([])

        func put(_ message: JSONValue) { messages.withLock { $0.append(message) } }
        func count(_ host: String, _ type: String) -> Int {
            messages.withLock { $0.count { $0["host"]?.stringValue == host && $0["type"]?.stringValue == type } }
        }
    }

    private func wait(_ what: String, _ isSo: () -> Bool) async throws {
        for _ in 0..<2000 where !isSo() { try await SystemTime().sleep(for: .milliseconds(50)) }
        #expect(isSo(), "\(what)")
    }

    @Test func aSilencedHostFailsAndComesBack() async throws {
        let directory = NSTemporaryDirectory() + "silence-\(SystemRandom().uuid())"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let ambient = Ambient()
        let log = Telemetry.logger(service: "test", level: "critical")
        let bus = InMemoryBus()
        var options = SimulationOptions(hosts: 2, startTime: .milliseconds(1))
        options.silenced = directory
        let fleet = SimulatedFleet(
            options: options, bus: bus, reports: ReportQueue(bus: bus, ambient: ambient, log: log), chassis: nil,
            heartbeatInterval: .milliseconds(100), ambient: ambient, log: log)
        let heard = Heard()
        let work = Task { try await fleet.run() }
        let plane = Task { try await bus.consume(queue: .computeAgents) { heard.put($0.body) } }
        let server = Fixture.document(["ports": []])
        func send() async throws {
            let ensure = EnsureServer(server: Enclosed(document: server))
            try await bus.publish(try Message(ensure, id: ambient.newUUID()), to: .agent(host: "sim-00001"))
        }
        try await wait("heartbeats") { heard.count("sim-00001", "heartbeat") > 2 }
        try await send()
        try await wait("a report") { heard.count("sim-00001", "observed") == 1 }

        let mark = directory + "/sim-00001"
        // A mark counts for some seconds, and a busy machine takes longer.
        let touching = Task {
            while !Task.isCancelled {
                _ = FileManager.default.createFile(atPath: mark, contents: nil)
                try await SystemTime().sleep(for: .milliseconds(200))
            }
        }
        try await wait("the mark") { FileManager.default.fileExists(atPath: mark) }
        // A heartbeat may be on its way while the mark is made.
        var (beats, others) = (0, 0)
        for _ in 0..<20 where heard.count("sim-00001", "heartbeat") != beats {
            (beats, others) = (heard.count("sim-00001", "heartbeat"), heard.count("sim-00002", "heartbeat"))
            try await wait("the other host's heartbeats") { heard.count("sim-00002", "heartbeat") > others + 5 }
        }
        others = heard.count("sim-00002", "heartbeat")
        try await send()
        try await wait("the other host's heartbeats") { heard.count("sim-00002", "heartbeat") > others + 5 }
        #expect(heard.count("sim-00001", "heartbeat") == beats)
        #expect(heard.count("sim-00001", "observed") == 1)

        touching.cancel()
        _ = await touching.result
        try FileManager.default.removeItem(atPath: mark)
        try await wait("the second introduction") { heard.count("sim-00001", "hello") == 2 }
        try await wait("the answer to what was sent meanwhile") { heard.count("sim-00001", "observed") == 2 }
        work.cancel()
        plane.cancel()
    }

    @Test func staleMarksAreIgnored() throws {
        let directory = NSTemporaryDirectory() + "silence-\(SystemRandom().uuid())"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let silentHosts = SilentHosts(directory: directory, ambient: Ambient())
        #expect(!silentHosts.isSilent("h"))
        _ = FileManager.default.createFile(atPath: directory + "/h", contents: nil)
        #expect(silentHosts.isSilent("h"))
        try FileManager.default.setAttributes([.modificationDate: Date(timeIntervalSinceNow: -20)], ofItemAtPath: directory + "/h")
        #expect(!silentHosts.isSilent("h"))
        #expect(!SilentHosts(directory: nil, ambient: Ambient()).isSilent("h"))
    }
}
