import Contracts
package import Database
package import Kernel
package import Logging

/// A service's periodic work: runs at an interval, and at once when `osctl doctor --repair` asks for it.
package struct PeriodicTask: Sendable {
    private let service: String
    private let interval: Duration?
    private let database: Database
    private let ambient: Ambient
    private let log: Logger
    private let body: @Sendable () async throws -> Bool

    /// - Parameters:
    ///   - service: one of the service's `CloudService.repairTasks`, for whose answer the doctor waits.
    ///   - interval: time between two runs; nil to run only on request.
    ///   - body: runs the task once. Returns false if another replica is responsible for it.
    package init(
        _ service: String, every interval: Duration?, database: Database, ambient: Ambient, log: Logger,
        body: @escaping @Sendable () async throws -> Bool
    ) {
        self.service = service
        self.interval = interval
        self.database = database
        self.ambient = ambient
        self.log = log
        self.body = body
    }

    /// Runs until the task is cancelled.
    package func run() async throws {
        let (rounds, next) = AsyncStream<PeriodicTaskRequest?>.makeStream(bufferingPolicy: .bufferingNewest(16))
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                for await notification in database.notifications(.periodicTasks) {
                    if let question = notification.payload(on: .periodicTasks) { next.yield(question) }
                }
            }
            if let interval {
                group.addTask {
                    while true {
                        try await ambient.time.sleep(for: interval)
                        next.yield(nil)
                    }
                }
            }
            group.addTask { for await question in rounds { try await round(question) } }
            defer { group.cancelAll() }
            try await group.waitForAll()
        }
    }

    /// Runs `body` at once and then at the interval, until the task is cancelled. An error is logged and does not end it. For work
    /// that each process does for itself, and that nobody requests.
    ///
    /// - Parameter failure: the line to log with an error.
    /// - Throws: `CancellationError`.
    package static func repeating(
        every interval: Duration, _ ambient: Ambient, _ log: Logger, failure: String, _ body: @Sendable () async throws -> Void
    ) async throws {
        while true {
            do { try await body() } catch is CancellationError { throw CancellationError() } catch {
                let reason = (error as? ResourceError).map { $0.context ?? $0.message } ?? "\(error)"
                log.warning("\(failure)", metadata: ["error": "\(reason)"])
            }
            try await ambient.time.sleep(for: interval)
        }
    }

    /// Runs all parts, even if one of them fails.
    ///
    /// - Returns: the sum of the parts' results.
    /// - Throws: the first error, after all parts have run; `CancellationError` at once.
    @discardableResult
    package static func all(_ parts: [@Sendable () async throws -> Int]) async throws -> Int {
        var done = 0
        var failure: (any Error)?
        for part in parts {
            do { done += try await part() } catch is CancellationError { throw CancellationError() } catch {
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
        return done
    }

    private func round(_ question: PeriodicTaskRequest?) async throws {
        do {
            let done = try await DatabaseScope.$current.withValue(.periodicTask) { try await body() }
            guard let question, done else { return }
            try await database.autocommit { try $0.notify(.periodicTasksDone, PeriodicTaskAnswer(question: question.id, service: service)) }
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            log.warning("a periodic task failed", metadata: ["error": "\(error)"])
        }
    }
}
