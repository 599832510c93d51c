import CLibpq
import Synchronization

/// Work for a session. It waits in the schedule, runs on the session's thread, and can be cancelled by its caller at any
/// time.
final class Job: Sendable {
    /// Runs the work; the closure that it returns resumes the caller.
    typealias Work = @Sendable (Connection) -> @Sendable () -> Void

    private enum Phase {
        case new
        case waiting(SessionSchedule<Job>.Place)
        case running(Cancellation)
        case ended
    }

    private struct State {
        var phase = Phase.new
        var isStopped = false
        var work: Work?
        var refuse: (@Sendable (any Error) -> Void)?
    }

    private let state = Mutex(State())
    /// Held while a cancel request is sent; true once the job has ended and cancelling it is too late.
    private let sending = Mutex(false)

    /// Whether cancellation was requested.
    var isStopped: Bool { state.withLock(\.isStopped) }

    func prepare(run work: @escaping Work, drop refuse: @escaping @Sendable (any Error) -> Void) {
        state.withLock {
            $0.work = work
            $0.refuse = refuse
        }
    }

    /// Records the job's place in the schedule. A job that was cancelled earlier is dropped when its turn comes.
    func waits(at place: SessionSchedule<Job>.Place) { state.withLock { $0.phase = .waiting(place) } }

    /// Ends the job without running it.
    func drop(_ error: any Error) {
        let refuse = state.withLock { state in
            state.phase = .ended
            defer { (state.work, state.refuse) = (nil, nil) }
            return state.refuse
        }
        refuse?(error)
    }

    /// Runs it on the session's thread.
    func run(_ connection: Connection) -> @Sendable () -> Void {
        let cancellation = connection.cancellation
        let work: Work? = state.withLock { state in
            guard !state.isStopped else { return nil }
            state.phase = .running(cancellation)
            return state.work
        }
        guard let work else { return { self.drop(ClientGone()) } }
        cancellation.begin()
        let answer = work(connection)
        // Wait for a cancel request in progress, so that it cannot hit the next job's statement.
        sending.withLock { $0 = true }
        state.withLock { state in
            state.phase = .ended
            (state.work, state.refuse) = (nil, nil)
        }
        if cancellation.end() { connection.absorbCancel() }
        return answer
    }

    /// Stops the job: a waiting job is dropped.
    ///
    /// - Parameter takenOut: removes the job from the schedule; false if it is no longer in it.
    /// - Returns: whether the job is running, so that PostgreSQL must be asked to cancel it.
    func stop(takenOut: (SessionSchedule<Job>.Place) -> Bool) -> Bool {
        let phase = state.withLock { state in
            state.isStopped = true
            if case .running(let cancellation) = state.phase { cancellation.refuseFurtherStatements() }
            return state.phase
        }
        switch phase {
        case .new, .ended: return false
        case .running: return true
        case .waiting(let place):
            if takenOut(place) { drop(ClientGone()) }
            return false
        }
    }

    /// Asks PostgreSQL to cancel this job's statement. Must be called on a thread that may block.
    func cancelStatement() {
        sending.withLock { isTooLate in
            guard !isTooLate else { return }
            let phase = state.withLock { $0.phase }
            if case .running(let cancellation) = phase { cancellation.send() }
        }
    }
}

/// Cancels the statements of one session, from other threads.
final class Cancellation: Sendable {
    private struct State {
        // libpq's handle; safe to use from any thread (PQcancel).
        nonisolated(unsafe) var handle: OpaquePointer?
        var wasSent = false
    }

    private let state = Mutex(State())
    private let refusing = Atomic<Bool>(false)

    deinit { state.withLock { if let handle = $0.handle { PQfreeCancel(handle) } } }

    /// Whether no further statement of the job may begin.
    var refuses: Bool { refusing.load(ordering: .acquiring) }

    /// Sets the session's current connection; nil if it is closed.
    func attach(_ connection: OpaquePointer?) {
        nonisolated(unsafe) let fresh = connection.flatMap { PQgetCancel($0) }
        state.withLock { state in
            if let old = state.handle { PQfreeCancel(old) }
            state.handle = fresh
        }
    }

    func begin() {
        refusing.store(false, ordering: .releasing)
        state.withLock { $0.wasSent = false }
    }

    /// - Returns: whether a request to cancel was sent since `begin`.
    func end() -> Bool {
        refusing.store(false, ordering: .releasing)
        return state.withLock(\.wasSent)
    }

    func refuseFurtherStatements() { refusing.store(true, ordering: .releasing) }

    /// Sends the request to cancel, and returns when PostgreSQL has received it.
    func send() {
        state.withLock { state in
            guard let handle = state.handle else { return }
            state.wasSent = true
            var reason = [CChar](repeating: 0, count: 256)
            // A failure can be ignored: the statement's own time limit still applies.
            _ = PQcancel(handle, &reason, Int32(reason.count))
        }
    }
}

/// Sends requests to cancel from a separate thread, because sending one waits for PostgreSQL.
final class Canceller: Sendable {
    private let mailbox = ThreadMailbox<Job>("cancel") { jobs in
        while let batch = jobs.take() { for job in batch { job.cancelStatement() } }
    }

    func cancel(_ job: Job) { mailbox.put([job]) }

    func close() { mailbox.close() }
}
