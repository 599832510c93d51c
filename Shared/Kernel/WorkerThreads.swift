import Foundation

/// A fixed number of threads for blocking calls, which must not run on the cooperative pool.
package final class WorkerThreads: Sendable {
    /// A job for one of the threads; it may block.
    package typealias Job = @Sendable () -> Void

    private let condition = NSCondition()
    // Guarded by `condition`.
    private nonisolated(unsafe) var jobs: [Job] = []
    private nonisolated(unsafe) var head = 0
    private nonisolated(unsafe) var closed = false
    private let enter: (@Sendable () async throws -> Void)?

    /// No threads: jobs run where they are submitted, so that a simulation has one order of events.
    ///
    /// - Parameter enter: called before each `run`, which is skipped if it throws.
    package init(inline enter: @escaping @Sendable () async throws -> Void) { self.enter = enter }

    /// - Parameter name: the threads' name in debuggers.
    package init(name: String, count: Int) {
        enter = nil
        for index in 0..<count {
            let thread = Thread { [self] in work() }
            thread.name = "\(name)-\(index)"
            thread.stackSize = 512 * 1024
            thread.start()
        }
    }

    /// Returns false after `close`: the job will not run.
    package func submit(_ job: @escaping Job) -> Bool {
        if enter != nil {
            job()
            return true
        }
        condition.lock()
        defer { condition.unlock() }
        guard !closed else { return false }
        jobs.append(job)
        condition.signal()
        return true
    }

    /// Runs `body` on one of the threads.
    ///
    /// - Throws: errors of `body`; `CancellationError` after `close`.
    package func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        if let enter {
            try await enter()
            return try body()
        }
        return try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Value, any Error>) in
            let accepted = submit { continuation.resume(with: Result { try body() }) }
            if !accepted { continuation.resume(throwing: CancellationError()) }
        }
    }

    /// Ends the threads after the waiting jobs.
    package func close() {
        condition.lock()
        closed = true
        condition.broadcast()
        condition.unlock()
    }

    private func work() {
        while let job = next() { job() }
    }

    private func next() -> Job? {
        condition.lock()
        defer { condition.unlock() }
        while head == jobs.count {
            if closed { return nil }
            condition.wait()
        }
        let job = jobs[head]
        head += 1
        if head == jobs.count {
            jobs.removeAll(keepingCapacity: true)
            head = 0
        }
        return job
    }
}
