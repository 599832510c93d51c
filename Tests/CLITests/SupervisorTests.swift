import Foundation
import Kernel
import Synchronization
import Testing

@testable import osctl

@Suite struct SupervisorTests {
    /// The error with which starting these parts ends, and the time; nil if all became ready.
    private func start(
        _ milestones: [Milestone], parts: [Part] = [], within limit: Duration = .seconds(600)
    ) async throws -> (problem: String?, seconds: Double, progress: String) {
        let state = NSTemporaryDirectory() + "supervisor-\(SystemRandom().uuid())"
        let layout = CloudLayout(state: state, portOffset: 0)
        try Machine.makeDirectory(layout.run)
        defer { unlink(layout.partsRecord); unlink(layout.progress); rmdir(layout.run); rmdir(state) }
        let time = SystemTime()
        let progress = Progress(path: layout.progress, total: parts.count + milestones.count, time: time)
        let supervisor = Supervisor(layout: layout, parts: parts, milestones: milestones, time: time, progress: progress)
        let begun = time.monotonicNanoseconds()
        var problem: String?
        do { try await supervisor.start(within: limit) } catch { problem = "\(error)" }
        let seconds = Double(time.monotonicNanoseconds() - begun) / 1e9
        await supervisor.stop {}
        return (problem, seconds, Machine.readText(layout.progress) ?? "")
    }

    /// Fails this many times before it succeeds.
    private func milestone(_ name: String, needs: [String] = [], failures: Int, isFinal: Bool = false) -> Milestone {
        let left = Mutex(failures)
        return Milestone(name: name, needs: needs) {
            let fails = left.withLock { left in
                left -= 1
                return left >= 0
            }
            if fails { throw CloudError("\(name) is not there", isFinal: isFinal) }
            return "there"
        }
    }

    @Test func aFinalFailureIsNotWaitedFor() async throws {
        let result = try await start([
            milestone("image", failures: .max, isFinal: true), milestone("service", failures: 1),
            milestone("after service", needs: ["service"], failures: 0),
            milestone("after image", needs: ["image", "service"], failures: 0),
            milestone("later still", needs: ["after image"], failures: 0),
        ])
        #expect(
            result.problem == """
                not everything became ready:
                  image: image is not there
                  after image: waits for image
                  later still: waits for after image
                """)
        #expect(result.seconds < 300)
        #expect(result.progress.contains("after service"), "what could become ready was waited for: \(result.progress)")
    }

    @Test func aPartThatCannotStartIsNotWaitedFor() async throws {
        let part = Part(
            name: "wolke-image", group: .wolke, address: "",
            launch: Launch(arguments: ["/bin/true"], environment: [:], output: "/dev/null"), needs: [],
            prepare: { throw CloudError("it is not built", isFinal: true) }, probe: { "" })
        let result = try await start([milestone("image", needs: ["wolke-image"], failures: 0)], parts: [part])
        #expect(result.problem?.contains("wolke-image: it is not built") == true)
        #expect(result.problem?.contains("image: waits for wolke-image") == true)
        #expect(result.seconds < 300)
    }

    @Test func slowMilestonesAreAwaited() async throws {
        let result = try await start([milestone("slow", failures: 2), milestone("after", needs: ["slow"], failures: 0)])
        #expect(result.problem == nil)
        #expect(result.progress.contains("!!"), "it failed at first: \(result.progress)")
    }

    @Test func theLimitHoldsForTheRest() async throws {
        let result = try await start([milestone("never", failures: .max)], within: .seconds(1))
        #expect(result.problem == "not everything became ready:\n  never: never is not there")
    }
}
