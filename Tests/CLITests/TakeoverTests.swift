import Foundation
import Kernel
import Synchronization
import Testing

@testable import osctl

/// A supervisor that takes over the processes of an earlier one.
@Suite struct TakeoverTests {
    /// A process that is not a child of this one, as after the end of the supervisor that started it.
    private func orphan(_ directory: String) async throws -> ProcessIdentity {
        let file = directory + "/pid-\(SystemRandom().uuid())"
        let shell = Launch(
            arguments: ["/bin/sh", "-c", "sleep 1000 & echo $! > \(file).new; mv \(file).new \(file)"],
            environment: ["PATH": "/usr/bin:/bin"], output: "/dev/null")
        let parent = try shell.spawn()
        _ = try await parent.waitForEnd(.seconds(10), SystemTime())
        let pid = try #require(Machine.readText(file).flatMap { Int32($0.filter(\.isNumber)) })
        return try #require(ProcessIdentity.current(pid))
    }

    private func recorded(_ name: String, _ group: Part.Group, _ process: ProcessIdentity, state: String = "ready") -> RecordedPart {
        RecordedPart(
            name: name, group: group.rawValue, address: "", state: state, process: process, restarts: 0, outages: Outages(),
            version: "0.1.0",
            problem: nil, log: "", stopSignal: 15)
    }

    private func part(
        _ name: String, _ group: Part.Group, prepare: @escaping @Sendable () async throws -> Void = {},
        probe: @escaping @Sendable () async throws -> String = { "" }, settle: @escaping @Sendable () async throws -> Void = {}
    ) -> Part {
        Part(
            name: name, group: group, address: "",
            launch: Launch(arguments: ["/bin/sleep", "1000"], environment: [:], output: "/dev/null"),
            needs: [], prepare: prepare, probe: probe, settle: settle)
    }

    @Test func infrastructureIsKeptAndServicesAreReplacedOneAtATime() async throws {
        let state = NSTemporaryDirectory() + "takeover-\(SystemRandom().uuid())"
        let layout = CloudLayout(state: state, portOffset: 0)
        try Machine.makeDirectory(layout.run)
        let (store, first, second) = (try await orphan(state), try await orphan(state), try await orphan(state))
        let inherited = [
            "store": recorded("store", .infrastructure, store), "wolke-a": recorded("wolke-a", .wolke, first),
            "wolke-b": recorded("wolke-b", .wolke, second, state: "starting"),
        ]
        let seen = Mutex<[String]>([])
        let attempts = Mutex(0)
        let parts = [
            part(
                "store", .infrastructure, prepare: { seen.withLock { $0.append("store started") } },
                settle: { seen.withLock { $0.append("settled") } }),
            part(
                "wolke-a", .wolke, prepare: { seen.withLock { $0.append("a: old one \(first.isRunning)") } },
                probe: {
                    if attempts.withLock({
                        $0 += 1; return $0
                    }) < 4 {
                        throw CloudError("not yet")
                    }
                    seen.withLock { $0.append("a ready, old b \(second.isRunning)") }
                    return "0.2.0"
                }),
            part("wolke-b", .wolke, prepare: { seen.withLock { $0.append("b: old one \(second.isRunning)") } }),
        ]
        let progress = Progress(path: layout.progress, total: 3, time: SystemTime())
        let supervisor = Supervisor(
            layout: layout, parts: parts, milestones: [], inherited: inherited, time: SystemTime(), progress: progress)
        try await supervisor.start(within: .seconds(600))
        #expect(seen.withLock { $0 } == ["a: old one false", "a ready, old b true", "b: old one false"])
        let process = { (name: String) in RecordedPart.all(layout).first { $0.name == name }?.process }
        #expect(process("store") == store && store.isRunning)
        #expect(process("wolke-a") != first && process("wolke-a")?.isRunning == true)

        // Parts that it did not start itself are restarted too.
        store.signal(SIGKILL)
        for _ in 0..<4000 where process("store") == store || process("store") == nil {
            try await SystemTime().sleep(for: .milliseconds(25))
        }
        let again = try #require(process("store"))
        #expect(again.isRunning && again != store)
        for _ in 0..<4000 where !seen.withLock({ $0.contains("settled") }) { try await SystemTime().sleep(for: .milliseconds(25)) }
        #expect(seen.withLock { $0.suffix(2) } == ["store started", "settled"])
        await supervisor.stop {}
        #expect(!again.isRunning)
        try FileManager.default.removeItem(atPath: state)
    }

    @Test func onlyReadyPartsAreTakenOver() async throws {
        let state = NSTemporaryDirectory() + "takeover-\(SystemRandom().uuid())"
        let layout = CloudLayout(state: state, portOffset: 0)
        try Machine.makeDirectory(layout.run)
        let process = try await orphan(state)
        defer { process.signal(SIGKILL) }
        let identity = #""pid":\#(process.pid),"start_ticks":"\#(process.startTicks)""#
        try Machine.write(
            layout.partsRecord,
            #"{"parts":[{"name":"postgres","group":"infrastructure","state":"starting",\#(identity)},{"name":"epmd","group":"infrastructure","state":"ready",\#(identity)},{"name":"wolke-a","group":"wolke","state":"starting",\#(identity)},{"name":"wolke-b","group":"wolke","state":"held"}]}"#
        )
        #expect(RecordedPart.inherited(layout).keys.sorted() == ["epmd", "wolke-a"])
        try FileManager.default.removeItem(atPath: state)
    }
}
