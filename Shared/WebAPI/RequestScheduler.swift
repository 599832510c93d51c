package import Database
import Foundation
package import Kernel
import Synchronization
package import Telemetry

/// Decides which requests run, so that one project's load does not slow down the others. It is fair queueing as in
/// Kubernetes' API Priority and Fairness: a project is a flow, and a running request occupies a seat.
///
/// - A single active project may use many seats; when several are active, the seats are divided among them.
/// - The next free seat goes to the project with the fewest seats.
/// - A request releases its seat while it waits for another service, and loses it after `Limits.heldMax`, so that slow
///   requests do not block others.
///
/// Unauthenticated requests count against their source address. Requests of the services themselves need no seat.
package final class RequestScheduler: Sendable {
    package struct Limits: Sendable {
        /// The maximum number of running requests of all projects.
        package var seats: Int
        /// Seats of one project while no other project is active.
        package var seatsAlone: Int
        /// Seats shared by several active projects; each gets at least one.
        package var seatsShared: Int
        /// The maximum number of waiting requests; more are refused with 503.
        package var waitingMax = 10_000
        /// The maximum number of waiting requests of one project; more are refused with 429.
        package var projectWaitingMax = 1000
        /// How long a request may wait before it is refused with 503.
        package var waitMax = Duration.seconds(30)
        /// How long a request keeps its seat.
        package var heldMax = Duration.milliseconds(250)
        /// Interval between checks for seats held too long and requests that waited too long.
        package var lookMax = Duration.milliseconds(100)
        /// How long a project counts as active after a request: at least this long, at most twice as long.
        package var memory = Duration.milliseconds(500)

        package init(processors: Int) {
            seatsAlone = max(8, 2 * processors)
            seatsShared = max(1, processors)
            seats = seatsAlone + seatsShared
        }
    }

    private typealias Continuation = CheckedContinuation<Void, any Error>

    private struct Waiting: Sendable {
        let number: Int
        let continuation: Continuation
    }

    private struct Held {
        let project: String
        let since: UInt64
        /// Whether it resumes after a wait.
        var isReturned = false
    }

    private struct State {
        var queue = FairQueue<Waiting>(runningMax: 1)
        var activity = RecentKeys()
        var lastNumber = 0
        var held: [Int: Held] = [:]
        var tickets: [Int: (ticket: FairQueue<Waiting>.Ticket, since: UInt64)] = [:]
        /// Requests that resumed after waiting for another service; they get a seat even if none is free.
        var returned = 0
        var looks = false

        /// Seats that count against new requests; resumed requests are not counted, so that finishing work does not delay
        /// new work.
        var taken: Int { queue.running - returned }

        mutating func free(_ number: Int) -> Bool {
            guard let seat = held.removeValue(forKey: number) else { return false }
            if seat.isReturned { returned -= 1 }
            queue.finish(seat.project)
            return true
        }
    }

    private let limits: Limits
    private let time: any TimeSource
    private let metrics: Metrics?
    private let state = Mutex(State())

    package init(_ limits: Limits? = nil, time: any TimeSource, metrics: Metrics? = nil) {
        self.metrics = metrics
        self.limits = limits ?? Limits(processors: ProcessInfo.processInfo.activeProcessorCount)
        self.time = time
    }

    /// The numbers of waiting requests and of occupied seats.
    package var counts: (waiting: Int, held: Int) { state.withLock { ($0.queue.count, $0.held.count) } }

    /// Runs `body` when `project` gets a seat.
    ///
    /// - Throws: what `body` throws; `ResourceError` 429 or 503 if too many requests wait, `ClientGone`.
    package func run<Value: Sendable>(
        of project: String, presence: ClientPresence?, _ body: () async throws -> Value
    ) async throws -> Value {
        let seat = RequestSeat(self, project, number: try await take(project, presence))
        defer { seat.end() }
        return try await WorkSeat.$current.withValue(seat) { try await body() }
    }

    // MARK: seats

    private func take(_ project: String, _ presence: ClientPresence?) async throws -> Int {
        let now = time.monotonicNanoseconds()
        let (number, isFree) = state.withLock { state in
            state.lastNumber += 1
            let number = state.lastNumber
            state.activity.note(project, at: now, memory: limits.memory)
            adjust(&state)
            guard state.taken < limits.seats, state.queue.count(of: project) == 0,
                state.queue.running(of: project) < state.queue.runningMax
            else { return (number, false) }
            state.queue.start(project)
            state.held[number] = Held(project: project, since: now)
            return (number, true)
        }
        guard !isFree else { return number }
        let watch = presence?.onLeave { [self] in drop(number, ClientGone()) }
        defer { if let watch { presence?.forget(watch) } }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                wait(continuation, project, number, presence)
            }
        } onCancel: {
            drop(number, CancellationError())
        }
        metrics?.observe(
            "wolke_http_turn_seconds", Double(time.monotonicNanoseconds() - now) / 1e9,
            help: "How long requests waited for their turn, of those that had to.")
        return number
    }

    private func wait(_ continuation: Continuation, _ project: String, _ number: Int, _ presence: ClientPresence?) {
        let now = time.monotonicNanoseconds()
        let (refused, begun): ((any Error)?, [Continuation]) = state.withLock { state in
            // The client may have disconnected, or the task may have been cancelled, before the request was queued.
            guard presence?.isGone != true else { return (ClientGone(), []) }
            guard !Task.isCancelled else { return (CancellationError(), []) }
            guard state.queue.count(of: project) < limits.projectWaitingMax else {
                return (ResourceError(.tooManyRequests, "Too many requests of this project are waiting; try again.", retryAfter: 1), [])
            }
            guard state.queue.count < limits.waitingMax else {
                return (ResourceError(.unavailable, "Too many requests are waiting; try again.", retryAfter: 1), [])
            }
            state.tickets[number] = (state.queue.append(Waiting(number: number, continuation: continuation), of: project), now)
            return (nil, dispatch(&state))
        }
        if let refused { refuse(continuation, refused) }
        for continuation in begun { continuation.resume() }
        lookLater()
    }

    /// Removes a request that is still waiting.
    private func drop(_ number: Int, _ error: any Error) {
        let waiting = state.withLock { state in state.tickets.removeValue(forKey: number).flatMap { state.queue.remove($0.ticket) } }
        if let waiting { refuse(waiting.continuation, error) }
    }

    private func refuse(_ continuation: Continuation, _ error: any Error) {
        if let code = (error as? ResourceError)?.code {
            metrics?.increment(
                "wolke_http_requests_refused_total", [("code", String(code.rawValue))],
                help: "Requests refused because too many waited for their turn, or they did for too long.")
        }
        continuation.resume(throwing: error)
    }

    /// The number of seats of a project depends on the number of active projects.
    private func adjust(_ state: inout State) {
        let projects = state.activity.count
        let most = projects > 1 ? max(1, limits.seatsShared / projects) : limits.seatsAlone
        if state.queue.runningMax != most { state.queue.runningMax = most }
    }

    private func dispatch(_ state: inout State) -> [Continuation] {
        let now = time.monotonicNanoseconds()
        state.activity.forget(at: now, memory: limits.memory)
        adjust(&state)
        var begun: [Continuation] = []
        while state.taken < limits.seats, let (waiting, project) = state.queue.next() {
            state.tickets[waiting.number] = nil
            state.held[waiting.number] = Held(project: project, since: now)
            // A waiting request counts as activity.
            state.activity.note(project, at: now, memory: limits.memory)
            begun.append(waiting.continuation)
        }
        return begun
    }

    fileprivate func release(_ number: Int) {
        let begun: [Continuation] = state.withLock { state in
            guard state.free(number) else { return [] }
            return dispatch(&state)
        }
        for continuation in begun { continuation.resume() }
    }

    /// For a request that resumes after a wait: it gets a seat at once, so that it ends sooner.
    fileprivate func retake(_ project: String, _ number: Int) {
        let now = time.monotonicNanoseconds()
        state.withLock { state in
            state.queue.start(project)
            state.held[number] = Held(project: project, since: now, isReturned: true)
            state.returned += 1
        }
    }

    // MARK: long requests

    /// While requests wait, takes away seats that were held for too long.
    private func lookLater() {
        let begins = state.withLock { state in
            guard !state.looks, state.queue.count > 0 else { return false }
            state.looks = true
            return true
        }
        guard begins else { return }
        Task { [self] in
            repeat {
                // Cannot be cancelled.
                do { try await time.sleep(for: limits.lookMax) } catch { break }
            } while look()
        }
    }

    /// - Returns: whether another check is needed.
    private func look() -> Bool {
        let now = time.monotonicNanoseconds()
        let (heldMax, waitMax) = (UInt64(limits.heldMax.microseconds) * 1000, UInt64(limits.waitMax.microseconds) * 1000)
        let (begun, late, goesOn): ([Continuation], [Int], Bool) = state.withLock { state in
            for (number, held) in state.held where now >= held.since + heldMax { _ = state.free(number) }
            let begun = dispatch(&state)
            let late = state.tickets.filter { now >= $1.since + waitMax }.map(\.key)
            state.looks = state.queue.count > late.count
            return (begun, late, state.looks)
        }
        for number in late {
            drop(number, ResourceError(.unavailable, "The request waited too long for its turn; try again.", retryAfter: 1))
        }
        for continuation in begun { continuation.resume() }
        return goesOn
    }
}

/// A seat of one request.
private final class RequestSeat: Seat {
    private struct State {
        var away = 0
        var hasEnded = false
    }

    private let scheduler: RequestScheduler
    private let project: String
    private let number: Int
    private let state = Mutex(State())

    init(_ scheduler: RequestScheduler, _ project: String, number: Int) {
        self.scheduler = scheduler
        self.project = project
        self.number = number
    }

    func yield() {
        let isFirst = state.withLock { state in
            state.away += 1
            return state.away == 1 && !state.hasEnded
        }
        if isFirst { scheduler.release(number) }
    }

    func resume() {
        state.withLock { state in
            state.away -= 1
            // Inside the lock, so that `end` finds the seat that it must release.
            if state.away == 0, !state.hasEnded { scheduler.retake(project, number) }
        }
    }

    func end() {
        state.withLock { $0.hasEnded = true }
        scheduler.release(number)
    }
}

/// Approximately counts recently seen keys: those of the current and the previous interval.
struct RecentKeys: Sendable {
    private var current: Set<String> = []
    private var before: Set<String> = []
    private var since: UInt64 = 0
    /// The number of keys noted in either interval.
    private(set) var count = 0

    mutating func note(_ key: String, at now: UInt64, memory: Duration) {
        forget(at: now, memory: memory)
        if current.insert(key).inserted, !before.contains(key) { count += 1 }
    }

    mutating func forget(at now: UInt64, memory: Duration) {
        let span = UInt64(memory.microseconds) * 1000
        guard now >= since + span else { return }
        before = now >= since + 2 * span ? [] : current
        current = []
        since = now
        count = before.count
    }
}
