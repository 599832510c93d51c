import CLibpq
import Foundation
package import Kernel
import Logging
import Synchronization
package import Telemetry

/// A pool of PostgreSQL sessions, each on a thread of its own.
///
/// Work is given as a synchronous body that runs on the session's thread: no suspension, and so no call to another
/// service, can happen while a transaction is open.
package final class Database: Sendable {
    /// A session's thread while it has no work.
    private final class Worker: Sendable {
        let wake = DispatchSemaphore(value: 0)
        // Guarded by the pool's lock.
        nonisolated(unsafe) var assignment: Assignment?
    }

    private typealias Assignment = (job: Job, lane: DatabaseScope.Lane)

    private struct State {
        var schedule: SessionSchedule<Job>
        /// The most recently used session is last and is taken first, because its backend's caches are still warm.
        var idle: [Worker] = []
        var threads = 0
        var closed = false

        var isDone: Bool { closed && schedule.waiting == 0 }
    }

    package let configuration: DatabaseConfiguration
    private let inline: (any InlineSession)?
    private let random: any RandomSource
    private let announcements: Announcements
    private let state: Mutex<State>
    private let canceller = Canceller()
    private let metrics: Metrics?

    package init(
        _ configuration: DatabaseConfiguration, random: any RandomSource = SystemRandom(), metrics: Metrics? = nil
    ) {
        self.configuration = configuration
        self.metrics = metrics
        state = Mutex(State(schedule: SessionSchedule(configuration)))
        self.random = random
        announcements = Announcements(configuration)
        inline = nil
    }

    /// A database without threads: bodies run where `inline` runs them. For simulation.
    package init(inline: any InlineSession, random: any RandomSource) {
        configuration = DatabaseConfiguration(connectionString: "")
        metrics = nil
        state = Mutex(State(schedule: SessionSchedule(configuration)))
        self.random = random
        self.inline = inline
        announcements = Announcements(configuration)
    }

    /// Ends the threads once the waiting work is done.
    package func close() {
        let idle = state.withLock { state in
            state.closed = true
            return Database.leaving(&state)
        }
        for worker in idle { worker.wake.signal() }
        announcements.close()
        canceller.close()
    }

    // MARK: work

    /// Runs read-only statements, each in a transaction of its own. Cancelled when the client of the current request
    /// disconnects.
    ///
    /// - Throws: what `body` throws; `ResourceError` 503 while PostgreSQL is unavailable or too many jobs wait, 429 if too many jobs of the
    ///   project wait; `ClientGone`.
    @discardableResult
    package func read<Value: Sendable>(_ body: @escaping @Sendable (Connection) throws -> Value) async throws -> Value {
        let limit = configuration.limit(DatabaseScope.current.work, isWrite: false)
        return try await submit(stops: true) { connection in
            try Database.reconnecting(connection) { connection in
                try connection.settle(limit, readOnly: true)
                return try body(connection)
            }
        }
    }

    /// Runs statements that commit one by one: leases, wakes, prunes. Never retried, because after a broken session it is
    /// unknown which statements were committed.
    ///
    /// - Throws: what `body` throws; `ResourceError` 503 while PostgreSQL is unavailable or too many jobs wait.
    @discardableResult
    package func autocommit<Value: Sendable>(_ body: @escaping @Sendable (Connection) throws -> Value) async throws -> Value {
        let limit = configuration.limit(DatabaseScope.current.work, isWrite: true)
        return try await submit(stops: false) { connection in
            try connection.settle(limit, readOnly: false)
            return try body(connection)
        }
    }

    /// Runs statements in one read-only snapshot; otherwise like `read`.
    @discardableResult
    package func snapshot<Value: Sendable>(
        _ body: @escaping @Sendable (Connection) throws -> Value
    ) async throws -> Value {
        let limit = configuration.limit(DatabaseScope.current.work, isWrite: false)
        return try await submit(stops: true) { connection in
            try Database.reconnecting(connection) { connection in
                try connection.transaction(begin: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", limit, body)
            }
        }
    }

    /// Runs `body` in one transaction; a deadlock or serialization failure runs it again, a few times.
    ///
    /// - Parameter stops: whether to roll back when the client disconnects. Only for a request's first change: after that, the request runs
    ///   to completion.
    /// - Throws: what `body` throws, after rolling back; `ResourceError` 503 while PostgreSQL is unavailable or too many jobs wait, 429 if
    ///   too many jobs of the project wait; `ClientGone`.
    @discardableResult
    package func write<Value: Sendable>(
        stops: Bool = false, _ body: @escaping @Sendable (Connection) throws -> Value
    ) async throws -> Value {
        let random = random
        let scope = DatabaseScope.current
        let limit = configuration.limit(scope.work, isWrite: true)
        defer { scope.committed.set() }
        return try await submit(stops: stops) { connection in
            var attempt = 0
            while true {
                do {
                    return try Database.reconnecting(connection) { try $0.transaction(limit, body) }
                } catch let error as DatabaseError where error.isRetryable && attempt < 8 {
                    attempt += 1
                    usleep(UInt32(random.below(2000 << min(attempt, 5))))
                }
            }
        }
    }

    /// A session that the server has closed is detected at the first statement; reopen it once. Retrying is safe because
    /// PostgreSQL rolls back the open transaction of a dead session. Only a COMMIT with unknown outcome is reported to the
    /// caller.
    private static func reconnecting<Value>(
        _ connection: Connection, _ body: (Connection) throws -> Value
    ) throws -> Value {
        let fresh = connection.isBroken
        do { return try body(connection) } catch let error as DatabaseError
            where error.isConnectionFailure && !error.commitUnknown && !fresh
        {
            connection.close()
            return try body(connection)
        }
    }

    private func submit<Value: Sendable>(
        stops: Bool, _ body: @escaping @Sendable (Connection) throws -> Value
    ) async throws -> Value {
        if let inline {
            return try await inline.run { connection in
                let value = try body(connection)
                for item in connection.takeAnnouncements() {
                    // A hint sent after the commit is lost with the session.
                    do { try connection.notify(item.notification) } catch { break }
                }
                return value
            }
        }
        let scope = DatabaseScope.current
        let job = Job()
        let mayStop = scope.stopsWithTask || (stops && scope.presence != nil && !scope.committed.isSet)
        let watch = mayStop ? scope.presence?.onLeave { [self] in stop(job) } : nil
        defer { if let watch { scope.presence?.forget(watch) } }
        // The session's thread runs outside any task, so pass on the request ID for audit records and logs.
        let request = RequestScope.current
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Value, any Error>) in
                job.prepare(
                    run: { [announcements, metrics] connection in
                        do {
                            let value = try RequestScope.$current.withValue(request) { try body(connection) }
                            announcements.make(connection.takeAnnouncements())
                            return { continuation.resume(returning: value) }
                        } catch let error as DatabaseError where error.isConnectionFailure {
                            if connection.isBroken { connection.close() }
                            return { continuation.resume(throwing: error.commitUnknown ? error : error.resourceError as any Error) }
                        } catch let error as DatabaseError where error.isStopped && job.isStopped {
                            metrics?.increment("wolke_database_stopped_total", [("reason", "client")], help: Database.stoppedHelp)
                            return { continuation.resume(throwing: ClientGone()) }
                        } catch {
                            Database.count(error, metrics)
                            return { continuation.resume(throwing: error) }
                        }
                    }, drop: { continuation.resume(throwing: $0) })
                enqueue(job, scope.lane)
            }
        } onCancel: {
            // Outside requests and workflow steps, a cancelled task may still write its final state.
            if mayStop { stop(job) }
        }
    }

    private static let stoppedHelp = "Statements that were stopped, by reason: timeout, lock, client."

    private static func count(_ error: any Error, _ metrics: Metrics?) {
        guard let error = error as? DatabaseError else { return }
        if error.isStopped { metrics?.increment("wolke_database_stopped_total", [("reason", "timeout")], help: stoppedHelp) }
        if error.isLockTimeout { metrics?.increment("wolke_database_stopped_total", [("reason", "lock")], help: stoppedHelp) }
    }

    /// Cancels a job: a waiting job is dropped, a running one is cancelled in PostgreSQL.
    private func stop(_ job: Job) {
        if job.stop(takenOut: { place in state.withLock { $0.schedule.remove(place) != nil } }) { canceller.cancel(job) }
    }

    // MARK: threads

    private func enqueue(_ job: Job, _ lane: DatabaseScope.Lane) {
        let (refused, begun): (ResourceError?, Begun) = state.withLock { state in
            guard !state.closed else { return (.unavailable("the database's pool is closed"), Begun()) }
            switch state.schedule.append(job, lane) {
            case .failure(let refusal): return (refusal.error, Begun())
            case .success(let place):
                job.waits(at: place)
                return (nil, Database.dispatch(&state))
            }
        }
        begin(begun)
        guard let refused else { return }
        metrics?.increment(
            "wolke_database_refused_total", [("code", String(refused.code.rawValue))],
            help: "Work that was refused because too much was waiting for a session.")
        job.drop(refused)
    }

    /// Threads to wake or start after the lock is released.
    private struct Begun {
        var wake: [Worker] = []
        var start: [Assignment] = []
    }

    /// Assigns free sessions to waiting jobs.
    private static func dispatch(_ state: inout State) -> Begun {
        var begun = Begun()
        while let next = state.schedule.next() {
            if let worker = state.idle.popLast() {
                worker.assignment = next
                begun.wake.append(worker)
            } else {
                state.threads += 1
                begun.start.append(next)
            }
        }
        return begun
    }

    private func begin(_ begun: Begun) {
        for worker in begun.wake { worker.wake.signal() }
        for assignment in begun.start { startThread(assignment) }
    }

    /// The idle threads, which end when there will be no more work.
    private static func leaving(_ state: inout State) -> [Worker] {
        guard state.isDone else { return [] }
        defer { state.idle = [] }
        return state.idle
    }

    private func startThread(_ first: Assignment) {
        let thread = Thread { [self] in
            let connection = Connection(configuration: configuration)
            let worker = Worker()
            var assignment: Assignment? = first
            while let (job, lane) = assignment {
                let answer = job.run(connection)
                // Release the tenant's share before completing the job, so that an immediate next request finds it free.
                assignment = finish(lane, worker, then: answer)
            }
            connection.close()
        }
        thread.name = "postgresql"
        thread.stackSize = 1 << 20
        thread.start()
    }

    /// Ends a job in `lane`, completes it, and waits for the next; nil when there are no more.
    private func finish(_ lane: DatabaseScope.Lane, _ worker: Worker, then answer: () -> Void) -> Assignment? {
        var (begun, leaving): (Begun, [Worker]) = state.withLock { state in
            state.schedule.finish(lane)
            state.idle.append(worker)
            return (Database.dispatch(&state), Database.leaving(&state))
        }
        let isNext = begun.wake.contains { $0 === worker }
        begun.wake.removeAll { $0 === worker }
        let ends = leaving.contains { $0 === worker }
        leaving.removeAll { $0 === worker }
        begin(begun)
        for other in leaving { other.wake.signal() }
        answer()
        if ends { return nil }
        if !isNext { worker.wake.wait() }
        return state.withLock { _ in
            defer { worker.assignment = nil }
            return worker.assignment
        }
    }

    // MARK: notifications

    /// Notifications of a channel, from a session and thread of their own until the stream ends.
    ///
    /// `Notification.resync` comes first and after each loss of the session.
    ///
    /// - Parameter advisoryLock: a session lock that other processes can check to see that this process is alive.
    ///   `Notification.lost` is sent when it is no longer held.
    package func notifications<Payload>(
        _ channel: NotificationChannel<Payload>, advisoryLock: Int? = nil
    ) -> AsyncStream<Notification> {
        let channels = [channel.name]
        if let inline { return inline.notifications(channels, advisoryLock: advisoryLock) }
        let (stream, continuation) = AsyncStream.makeStream(
            of: Notification.self, bufferingPolicy: .bufferingNewest(4096))
        let stopped = Flag()
        let listener = announcements.addListener(channels) { continuation.yield($0) }
        continuation.onTermination = { [announcements] _ in
            stopped.set()
            announcements.removeListener(listener)
        }
        let thread = Thread { [configuration, announcements] in
            Database.listen(configuration, channels, advisoryLock, stopped: stopped, announcements) { continuation.yield($0) }
            continuation.finish()
        }
        thread.name = "listen"
        thread.stackSize = 1 << 20
        thread.start()
        return stream
    }

    private static func listen(
        _ configuration: DatabaseConfiguration, _ channels: [String], _ advisoryLock: Int?, stopped: Flag,
        _ announcements: Announcements, deliver: (Notification) -> Void
    ) {
        let connection = Connection(configuration: configuration)
        var listening = false
        while !stopped.isSet {
            do {
                if !listening {
                    // A shared lock, because PostgreSQL may still hold the lock of a dead session whose end it has not
                    // noticed.
                    if let advisoryLock { try connection.query("SELECT pg_advisory_lock_shared(\(advisoryLock))") }
                    for channel in channels { try connection.script("LISTEN \"\(channel)\"") }
                    listening = true
                    deliver(.resync)
                }
                let news = try connection.awaitNotifications(timeoutMilliseconds: 500) { announcements.isOwn(backend: $0) }
                for notification in news { deliver(notification) }
            } catch {
                // Back-off only; the next round says resync.
                if listening, advisoryLock != nil { deliver(.lost) }
                listening = false
                connection.close()
                usleep(200_000)
            }
        }
        connection.close()
    }
}

/// A session that runs bodies on the caller's own thread, one at a time.
package protocol InlineSession: Sendable {
    /// Runs `body` on the calling thread.
    func run<Value: Sendable>(_ body: @Sendable (Connection) throws -> Value) async throws -> Value
    /// As `Database.notifications`.
    func notifications(_ channels: [String], advisoryLock: Int?) -> AsyncStream<Notification>
}

extension SessionSchedule.RefusalError {
    fileprivate var error: ResourceError {
        switch reason {
        case .queue: .unavailable("no database session is free")
        case .project:
            ResourceError(
                .tooManyRequests, "Too many requests of this project are waiting to be answered; send fewer at a time.",
                retryAfter: 1)
        }
    }
}

/// A flag that one side sets and another sees.
package final class Flag: Sendable {
    private let value = Atomic<Bool>(false)
    package init() {}
    package var isSet: Bool { value.load(ordering: .acquiring) }
    /// Sets it for good.
    package func set() { value.store(true, ordering: .releasing) }
}
