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
