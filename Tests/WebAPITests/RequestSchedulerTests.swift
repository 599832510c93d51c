import Database
import Kernel
import Synchronization
import TestKit
import Testing
import WebAPI

@Suite struct RequestSchedulerTests {
    /// Requests that end when the test tells them to.
    private final class Requests: Sendable {
        private let state = Mutex((begun: [String](), gates: [String: AsyncStream<Void>.Continuation]()))
        let scheduler: RequestScheduler

        init(_ scheduler: RequestScheduler) { self.scheduler = scheduler }

        var begun: [String] { state.withLock(\.begun) }

        /// Sends a request and waits until it runs or waits for a seat.
        func send(_ name: String, of project: String, presence: ClientPresence? = nil) async throws -> Task<Void, any Error> {
            let (stream, gate) = AsyncStream.makeStream(of: Void.self)
            state.withLock { $0.gates[name] = gate }
            let before = total
            let task = Task {
                try await scheduler.run(of: project, presence: presence) { [self] in
                    state.withLock { $0.begun.append(name) }
                    for await _ in stream { break }
                }
            }
            while total == before { await Task.yield() }
            return task
        }

        func end(_ name: String) { state.withLock { $0.gates[name] }?.yield() }

        private var total: Int {
            let counts = scheduler.counts
            return counts.waiting + begun.count
        }
    }

    /// A clock that only advances manually; sleeping takes real time.
    private struct StandingTime: TimeSource {
        let clock = ManualTime()
        func now() -> Timestamp { clock.now() }
        func databaseNow() -> Timestamp? { clock.databaseNow() }
        func monotonicNanoseconds() -> UInt64 { clock.monotonicNanoseconds() }
        func sleep(for duration: Duration) async throws { try await SystemTime().sleep(for: duration) }
    }

    private static func limits(alone: Int = 4, shared: Int = 2) -> RequestScheduler.Limits {
        var limits = RequestScheduler.Limits(processors: 2)
        (limits.seatsAlone, limits.seatsShared, limits.seats) = (alone, shared, alone + shared)
        return limits
    }

    @Test("S18: despite a project's flood, another one's first request gets a seat at once, and seats are shared from then on")
    func s18AFloodLeavesSeatsToOthers() async throws {
        let requests = Requests(RequestScheduler(Self.limits(), time: StandingTime()))
        var tasks: [Task<Void, any Error>] = []
        for n in 0..<10 { tasks.append(try await requests.send("f\(n)", of: "flood")) }
        #expect(requests.begun == ["f0", "f1", "f2", "f3"], "alone, it has the seats of one that is alone")
        tasks.append(try await requests.send("o", of: "other"))
        #expect(requests.begun.last == "o")
        // Now there are two projects: one request of the flood runs at a time.
        for n in 0..<3 {
            requests.end("f\(n)")
            try await tasks[n].value
        }
        #expect(requests.begun.count == 5)
        requests.end("f3")
        try await tasks[3].value
        while requests.begun.count < 6 { await Task.yield() }
        #expect(requests.begun.last == "f4")
        for n in 4..<10 { requests.end("f\(n)") }
        requests.end("o")
        for task in tasks { try await task.value }
        #expect(requests.scheduler.counts == (0, 0))
    }

    @Test func aProjectThatIsAloneAgainHasAllItsSeats() async throws {
        let time = StandingTime()
        let requests = Requests(RequestScheduler(Self.limits(), time: time))
        let other = try await requests.send("o", of: "other")
        requests.end("o")
        try await other.value
        var tasks: [Task<Void, any Error>] = []
        for n in 0..<3 { tasks.append(try await requests.send("f\(n)", of: "flood")) }
        #expect(requests.begun == ["o", "f0"])
        time.clock.advance(by: .seconds(2))
        tasks.append(try await requests.send("f3", of: "flood"))
        while requests.begun.count < 5 { await Task.yield() }
        for n in 0..<4 { requests.end("f\(n)") }
        for task in tasks { try await task.value }
    }

    @Test func waitingRequestReleasesSeat() async throws {
        let scheduler = RequestScheduler(Self.limits(alone: 1), time: StandingTime())
        let requests = Requests(scheduler)
        let (stream, answer) = AsyncStream.makeStream(of: Void.self)
        let first = Task {
            try await scheduler.run(of: "p", presence: nil) {
                await WorkSeat.yielding { for await _ in stream { break } }
                return scheduler.counts.held
            }
        }
        while scheduler.counts.held != 0 { await Task.yield() }
        let second = try await requests.send("second", of: "p")
        #expect(requests.begun == ["second"])
        answer.yield()
        #expect(try await first.value == 2, "it goes on at once")
        requests.end("second")
        try await second.value
        #expect(scheduler.counts == (0, 0))
    }

    @Test("S18: a slow request does not block others")
    func s18ALongRequestLosesItsSeat() async throws {
        let requests = Requests(RequestScheduler(Self.limits(alone: 1), time: SystemTime()))
        let long = try await requests.send("long", of: "p")
        let next = try await requests.send("next", of: "p")
        requests.end("next")
        try await next.value
        #expect(requests.begun == ["long", "next"])
        requests.end("long")
        try await long.value
        #expect(requests.scheduler.counts == (0, 0))
    }

    @Test func cancelledRequestsLeaveTheQueue() async throws {
        let requests = Requests(RequestScheduler(Self.limits(alone: 1), time: StandingTime()))
        let first = try await requests.send("first", of: "p")
        let presence = ClientPresence()
        let left = try await requests.send("left", of: "p", presence: presence)
        let cancelled = try await requests.send("cancelled", of: "p")
        presence.leave()
        cancelled.cancel()
        await #expect(throws: ClientGone.self) { try await left.value }
        await #expect(throws: CancellationError.self) { try await cancelled.value }
        #expect(requests.scheduler.counts.waiting == 0)
        requests.end("first")
        try await first.value
    }

    @Test func overdueRequestsAreRefused() async throws {
        let time = StandingTime()
        var limits = Self.limits(alone: 1)
        limits.heldMax = .seconds(1000)
        limits.memory = .milliseconds(1)
        (limits.waitMax, limits.lookMax) = (.seconds(30), .milliseconds(5))
        let requests = Requests(RequestScheduler(limits, time: time))
        let first = try await requests.send("first", of: "p")
        let late = try await requests.send("late", of: "p")
        time.clock.advance(by: .seconds(31))
        let error = await #expect(throws: ResourceError.self) { try await late.value }
        #expect(error?.code == .unavailable)
        requests.end("first")
        try await first.value
        #expect(requests.scheduler.counts == (0, 0))
    }

    @Test func resumedRequestDoesNotBlockOthers() async throws {
        var limits = Self.limits(alone: 1)
        limits.seats = 1
        let requests = Requests(RequestScheduler(limits, time: StandingTime()))
        let scheduler = requests.scheduler
        let (stream, answers) = AsyncStream.makeStream(of: Void.self)
        let (end, ends) = AsyncStream.makeStream(of: Void.self)
        let back = Task {
            try await scheduler.run(of: "p", presence: nil) {
                await WorkSeat.yielding { for await _ in stream { break } }
                for await _ in end { break }
            }
        }
        while scheduler.counts.held != 0 { await Task.yield() }
        answers.yield()
        while scheduler.counts.held == 0 { await Task.yield() }
        let other = try await requests.send("other", of: "o")
        #expect(requests.begun == ["other"])
        requests.end("other")
        ends.yield()
        try await other.value
        try await back.value
        #expect(scheduler.counts == (0, 0))
    }

    @Test("S18: only requests beyond a project's own waiting limit are refused")
    func s18AProjectMayNotFillTheQueue() async throws {
        var limits = Self.limits(alone: 1)
        (limits.projectWaitingMax, limits.waitingMax, limits.seats) = (2, 3, 1)
        let requests = Requests(RequestScheduler(limits, time: StandingTime()))
        var tasks: [Task<Void, any Error>] = []
        for n in 0..<3 { tasks.append(try await requests.send("f\(n)", of: "flood")) }
        func refusal(_ project: String) async -> ResourceError.Code? {
            do { try await requests.scheduler.run(of: project, presence: nil) {} } catch { return (error as? ResourceError)?.code }
            return nil
        }
        #expect(await refusal("flood") == .tooManyRequests)
        tasks.append(try await requests.send("o", of: "other"))
        #expect(await refusal("third") == .unavailable)
        for n in 0..<3 { requests.end("f\(n)") }
        requests.end("o")
        for task in tasks { try await task.value }
    }
}
