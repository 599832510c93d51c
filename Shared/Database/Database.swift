import CLibpq
import Foundation
import Kernel
import Logging
import Synchronization
import Telemetry

/// How to reach PostgreSQL, and how much of it to use.
package struct DatabaseConfiguration: Sendable {
    /// libpq connection string or URI.
    package var connectionString: String
    /// Sessions, and threads, at most. They are opened when needed.
    package var connectionsMax: Int
    /// Work that may wait for a session; more is refused with 503.
    package var waitingMax: Int

    package init(connectionString: String, connectionsMax: Int = 8, waitingMax: Int = 10_000) {
        self.connectionString = connectionString
        self.connectionsMax = connectionsMax
        self.waitingMax = waitingMax
    }
}

/// A pool of PostgreSQL sessions, each on a thread of its own.
///
/// Work is given as a synchronous body that runs on the session's thread: no suspension, and so no call to another
/// service, can happen while a transaction is open.
package final class Database: Sendable {
    /// Work for a session, on its thread.
    package typealias Job = @Sendable (Connection) -> Void

    private struct State {
        var waiting: [Job] = []
        var head = 0
        /// Threads without work, the one that worked last at the end: it is woken first, because its session, and what
        /// PostgreSQL keeps for it, is still warm.
        var idle: [DispatchSemaphore] = []
        var threads = 0
        var closed = false

        var count: Int { waiting.count - head }

        mutating func pop() -> Job? {
            guard head < waiting.count else { return nil }
            let job = waiting[head]
            head += 1
            if head == waiting.count {
                waiting.removeAll(keepingCapacity: true)
                head = 0
            } else if head > 1024, head * 2 > waiting.count {
                waiting.removeFirst(head)
                head = 0
            }
            return job
        }
    }

    package let configuration: DatabaseConfiguration
    private let inline: (any InlineSession)?
    private let random: any RandomSource
    private let announcements: Announcements
    private let state = Mutex(State())

    package init(_ configuration: DatabaseConfiguration, random: any RandomSource = SystemRandom()) {
        self.configuration = configuration
        self.random = random
        announcements = Announcements(configuration)
        inline = nil
    }

    /// A database without threads: bodies run where `inline` runs them. For simulation.
    package init(inline: any InlineSession, random: any RandomSource) {
        configuration = DatabaseConfiguration(connectionString: "")
        self.random = random
        self.inline = inline
        announcements = Announcements(configuration)
    }

    /// Ends the threads once the waiting work is done.
    package func close() {
        let idle = state.withLock { state in
            state.closed = true
            defer { state.idle = [] }
            return state.idle
        }
        for thread in idle { thread.signal() }
        announcements.close()
    }

    // MARK: work

    /// Runs statements without an explicit transaction.
    ///
    /// - Throws: what `body` throws; `ResourceError` 503 while PostgreSQL is away.
    @discardableResult
    package func read<Value: Sendable>(_ body: @escaping @Sendable (Connection) throws -> Value) async throws -> Value {
        try await submit { connection in
            try Database.reconnecting(connection) { try body($0) }
        }
    }

    /// Runs statements in one read-only snapshot.
    @discardableResult
    package func snapshot<Value: Sendable>(
        _ body: @escaping @Sendable (Connection) throws -> Value
    ) async throws -> Value {
        try await submit { connection in
            try Database.reconnecting(connection) { connection in
                try connection.transaction(begin: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", body)
            }
        }
    }

    /// Runs `body` in one transaction; a deadlock or serialization failure runs it again, a few times.
    ///
    /// - Throws: what `body` throws, after rolling back; `ResourceError` 503 while PostgreSQL is away.
    @discardableResult
    package func write<Value: Sendable>(_ body: @escaping @Sendable (Connection) throws -> Value) async throws -> Value {
        let random = random
        return try await submit { connection in
            var attempt = 0
            while true {
                do {
                    return try Database.reconnecting(connection) { try $0.transaction(body) }
                } catch let error as DatabaseError where error.isRetryable && attempt < 8 {
                    attempt += 1
                    usleep(UInt32(random.below(2000 << min(attempt, 5))))
                }
            }
        }
    }

    /// A session that was closed by the server shows at the first statement: open it again once.
    /// Safe because nothing of `body` can have happened: PostgreSQL rolls back what a dead session had open; only an
    /// unknown COMMIT is passed on.
    private static func reconnecting<Value>(
        _ connection: Connection, _ body: (Connection) throws -> Value
    ) throws -> Value {
        let fresh = connection.isBroken
        do { return try body(connection) } catch let error as DatabaseError
        where error.isConnectionFailure && !error.commitUnknown && !fresh {
            connection.close()
            return try body(connection)
        }
    }

    private func submit<Value: Sendable>(
        _ body: @escaping @Sendable (Connection) throws -> Value
    ) async throws -> Value {
        if let inline {
            return try await inline.run { connection in
                let value = try body(connection)
                for item in connection.takeAnnouncements() {
                    // A hint after the commit: lost with the session.
                    do { try connection.notify(item.notification.channel, item.notification.payload) } catch { break }
                }
                return value
            }
        }
        // The session's thread belongs to no task: what is written or logged there must still name the request.
        let request = RequestScope.current
        return try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Value, any Error>) in
            let accepted = enqueue { [announcements] connection in
                do {
                    let value = try RequestScope.$current.withValue(request) { try body(connection) }
                    announcements.make(connection.takeAnnouncements())
                    continuation.resume(returning: value)
                } catch let error as DatabaseError where error.isConnectionFailure {
                    if connection.isBroken { connection.close() }
                    continuation.resume(throwing: error.commitUnknown ? error : error.resourceError as any Error)
                } catch {
                    continuation.resume(throwing: error)
                }
            }
            if !accepted {
                continuation.resume(throwing: ResourceError.unavailable("no database session is free"))
            }
        }
    }

    private func enqueue(_ job: @escaping Job) -> Bool {
        enum Outcome { case refused, start, wake(DispatchSemaphore), busy }
        let outcome: Outcome = state.withLock { state in
            guard !state.closed, state.count < configuration.waitingMax else { return .refused }
            state.waiting.append(job)
            if let thread = state.idle.popLast() { return .wake(thread) }
            guard state.threads < configuration.connectionsMax else { return .busy }
            state.threads += 1
            return .start
        }
        switch outcome {
        case .refused: return false
        case .start: startThread()
        case .wake(let thread): thread.signal()
        case .busy: break
        }
        return true
    }

    private func startThread() {
        let thread = Thread { [self] in
            let connection = Connection(configuration: configuration)
            let wake = DispatchSemaphore(value: 0)
            while let job = next(wake) { job(connection) }
            connection.close()
        }
        thread.name = "postgresql"
        thread.stackSize = 1 << 20
        thread.start()
    }

    /// The next work for the thread that waits on `wake`; nil when there will be none.
    private func next(_ wake: DispatchSemaphore) -> Job? {
        while true {
            let (job, closed): (Job?, Bool) = state.withLock { state in
                if let job = state.pop() { return (job, false) }
                if !state.closed { state.idle.append(wake) }
                return (nil, state.closed)
            }
            if let job { return job }
            if closed { return nil }
            wake.wait()
        }
    }

    // MARK: notifications

    /// Notifications of `channels`, from a session and thread of their own until the stream ends.
    ///
    /// `Notification.resync` comes first and after each loss of the session.
    ///
    /// - Parameter advisoryLock: a session lock to hold as long as the session lives: the sign of life of this process.
    package func notifications(_ channels: [String], advisoryLock: Int? = nil) -> AsyncStream<Notification> {
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
                    if let advisoryLock { try connection.query("SELECT pg_advisory_lock(\(advisoryLock))") }
                    for channel in channels { try connection.script("LISTEN \"\(channel)\"") }
                    listening = true
                    deliver(.resync)
                }
                let news = try connection.awaitNotifications(timeoutMilliseconds: 500) { announcements.isOwn(backend: $0) }
                for notification in news { deliver(notification) }
            } catch {
                // Back-off only; the next round says resync.
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

/// A flag that one side sets and another sees.
package final class Flag: Sendable {
    private let value = Atomic<Bool>(false)
    package init() {}
    package var isSet: Bool { value.load(ordering: .acquiring) }
    /// Sets it for good.
    package func set() { value.store(true, ordering: .releasing) }
}
