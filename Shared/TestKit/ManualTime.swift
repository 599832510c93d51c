package import Kernel
import Synchronization

/// A clock that only the test advances. `sleep` advances it and returns at once, so that tests do not wait.
package final class ManualTime: TimeSource {
    private let microseconds: Mutex<Int64>
    private let work = Mutex<(@Sendable () async throws -> Void)?>(nil)

    package init(_ start: Timestamp = Timestamp(seconds: 1_790_000_000)) {
        microseconds = Mutex(start.microseconds)
    }

    /// Advances the clock.
    package func advance(by duration: Duration) { microseconds.withLock { $0 += duration.microseconds } }

    /// Runs `body` whenever something sleeps, once the clock has advanced. Replaces an earlier one.
    package func whenWaiting(_ body: @escaping @Sendable () async throws -> Void) { work.withLock { $0 = body } }

    /// Like `whenWaiting`, for work that several sleepers share. There is one run of `body` at a time; a task that sleeps during a run
    /// continues when it ends. Otherwise the sleeps of the others would advance the clock past their deadlines during a slow run.
    ///
    /// - Parameter nested: runs when `body` itself sleeps.
    package func whenWaitingTogether(
        nested: @escaping @Sendable () async throws -> Void = {}, _ body: @escaping @Sendable () async throws -> Void
    ) {
        let run = SharedRun()
        whenWaiting {
            if SharedRun.isInside { return try await nested() }
            try await run.join(body)
        }
    }

    package func now() -> Timestamp { Timestamp(microseconds: microseconds.withLock { $0 }) }

    package func databaseNow() -> Timestamp? { now() }

    package func monotonicNanoseconds() -> UInt64 { UInt64(microseconds.withLock { $0 }) * 1000 }

    package func sleep(for duration: Duration) async throws {
        try Task.checkCancellation()
        advance(by: duration)
        await Task.yield()
        if let body = work.withLock({ $0 }) { try await body() }
    }
}

/// Work that at most one task runs at a time, and that others wait for.
private final class SharedRun: Sendable {
    /// Whether the current task belongs to a run.
    @TaskLocal static var isInside = false

    private let current = Mutex<Task<Void, any Error>?>(nil)

    /// Starts a run, or waits for the one in progress.
    func join(_ body: @escaping @Sendable () async throws -> Void) async throws {
        let run = current.withLock { current in
            if let current { return current }
            let run = Task {
                defer { self.current.withLock { $0 = nil } }
                try await SharedRun.$isInside.withValue(true, operation: body)
            }
            current = run
            return run
        }
        try await run.value
    }
}

/// A process's wrong clock, while the database's clock is right.
package struct WrongTime: TimeSource {
    private let right: any TimeSource
    private let error: Duration

    package init(_ right: any TimeSource, by error: Duration) {
        self.right = right
        self.error = error
    }

    package func now() -> Timestamp { right.now() + error }
    package func databaseNow() -> Timestamp? { right.databaseNow() }
    package func monotonicNanoseconds() -> UInt64 { right.monotonicNanoseconds() }
    package func sleep(for duration: Duration) async throws { try await right.sleep(for: duration) }
}
