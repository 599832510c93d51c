import Contracts
import Database
import Kernel
import Logging

/// A service's audit: every so often, and at once when `osctl doctor --repair` asks for it.
package struct AuditLoop: Sendable {
    /// Who answers.
    package static let services = ["placement", "compute", "network", "northbound"]

    private let service: String
    private let interval: Duration?
    private let database: Database
    private let ambient: Ambient
    private let log: Logger
    private let audit: @Sendable () async throws -> Bool

    /// - Parameters:
    ///   - interval: between two rounds; nil for only when asked.
    ///   - audit: one round; says whether it was this process that did it, where only one of several may.
    package init(
        _ service: String, every interval: Duration?, database: Database, ambient: Ambient, log: Logger,
        audit: @escaping @Sendable () async throws -> Bool
    ) {
        self.service = service
        self.interval = interval
        self.database = database
        self.ambient = ambient
        self.log = log
        self.audit = audit
    }

    /// Runs until the task is cancelled.
    package func run() async throws {
        let (rounds, next) = AsyncStream<AuditQuestion?>.makeStream(bufferingPolicy: .bufferingNewest(16))
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                for await notification in database.notifications(.audit) {
                    if let question = notification.payload(on: .audit) { next.yield(question) }
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

    /// Runs all parts of an audit: one that fails must not keep the others from repairing what is theirs.
    ///
    /// - Returns: how much they did together.
    /// - Throws: the first failure, after all of them; `CancellationError` at once.
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

    private func round(_ question: AuditQuestion?) async throws {
        do {
            let done = try await DatabaseScope.$current.withValue(.audit) { try await audit() }
            guard let question, done else { return }
            try await database.autocommit { try $0.notify(.audited, AuditAnswer(question: question.id, service: service)) }
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            log.warning("the audit failed", metadata: ["error": "\(error)"])
        }
    }
}
