import Contracts
package import Database
import JSON
package import Kernel
package import Logging
import ServiceLifecycle
import Synchronization
package import Telemetry

/// Thrown by a step to simulate a crash of the process at this point. The lease is left as it is and nothing is written.
package struct SimulatedKill: Error {
    package init() {}
}

/// Runs a service's workflows: leases what is ready, runs steps, records outcomes. Any number of processes, also of different releases, may
/// run one: each only leases kinds, and versions of kinds, that it knows.
///
/// A step runs in one process at a time. Its lease is renewed while it runs; a step whose lease cannot be renewed is
/// cancelled before the lease ends. A process whose session with PostgreSQL is lost cancels its steps at once; others
/// take its leases only when they have seen its lock missing twice.
package final class WorkflowEngine: Service {
    /// Workflows under way in this process at most.
    private static let concurrencyMax = 128
    /// A lease is renewed when less than this time remains.
    private static let renewBefore: Duration = .seconds(40)
    /// A step whose lease has less than this left is cancelled.
    private static let cancelBefore: Duration = .seconds(15)
    /// Interval between checks of leases and deadlines, and of leases of dead processes.
    private static let watchInterval: Duration = .seconds(1)
    static let failureKey = "_failure"

    let definitions: [String: WorkflowDefinition]
    let intentDefinitions: [String: WorkflowDefinition]
    let store: WorkflowStore
    let ambient: Ambient
    let log: Logger
    let metrics: Metrics?
    let running = Mutex(RunningWorkflows())
    private let lockKey: Int
    private let signals: AsyncStream<Void>
    private let signal: AsyncStream<Void>.Continuation

    /// - Parameters:
    ///   - definitions: the workflows it can run; several of one kind have different versions.
    ///   - intents: the workflow that each kind of intent starts.
    package init(
        service: String, definitions: [WorkflowDefinition], intents: [String: WorkflowDefinition] = [:],
        database: Database, ambient: Ambient, log: Logger, metrics: Metrics? = nil
    ) {
        self.definitions = Dictionary(
            uniqueKeysWithValues: definitions.flatMap { definition in definition.keys.map { ($0, definition) } })
        self.intentDefinitions = intents
        self.ambient = ambient
        self.log = log
        self.metrics = metrics
        lockKey = Int(ambient.random.next() >> 2)
        store = WorkflowStore(
            database: database, service: service, holder: String(lockKey), known: self.definitions.keys.sorted(), ambient: ambient)
        (signals, signal) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    }

    // MARK: running

    /// Leases and runs ready workflows until the task is cancelled, then waits for the steps that run.
    ///
    /// The liveness lock and the renewal of leases continue until the last step has ended.
    package func run() async throws {
        let watches = [
            Task { await self.listen() },
            Task { await self.repeating("leases cannot be renewed") { try await self.renewLeases() } },
            Task { await self.repeating("steps cannot be watched") { self.cancelOverdue() } },
        ]
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.housekeeping() }
            group.addTask { await self.pump() }
            do { try await gracefulShutdown() } catch {}
            group.cancelAll()
        }
        for watch in watches {
            watch.cancel()
            await watch.value
        }
    }

    private func listen() async {
        for await notification in store.database.notifications(.wake, advisoryLock: lockKey) {
            if notification == .lost {
                sessionLost()
                continue
            }
            if notification == .resync { running.withLock { $0.isAlive = true } }
            if let wake = notification.payload(on: .wake) {
                guard wake.concerns(store.service) else { continue }
                if let subject = wake.subject { running.withLock { $0.wake(subject) } }
            }
            signal.yield()
        }
    }

    private func repeating(_ failure: String, _ body: () async throws -> Void) async {
        while !Task.isCancelled {
            do {
                try await ambient.time.sleep(for: WorkflowEngine.watchInterval)
                try await body()
            } catch is CancellationError {
                return
            } catch {
                log.warning("\(failure)", metadata: ["error": "\(error)"])
            }
        }
    }

    private func housekeeping() async {
        var previousOrphans: Set<OrphanedLease> = []
        var rounds = 0
        await repeating("workflow housekeeping failed") {
            let orphans = try await store.orphans()
            if try await store.release(orphans.intersection(previousOrphans)) > 0 { signal.yield() }
            previousOrphans = orphans
            rounds += 1
            guard rounds.isMultiple(of: 2) else { return }
            if try await store.startIntended(intentDefinitions, subject: nil, limit: 100) > 0 { signal.yield() }
            _ = try await store.prune(olderThan: .seconds(7 * 86_400), limit: 1000)
        }
    }

    private func pump() async {
        await withDiscardingTaskGroup { group in
            var iterator = signals.makeAsyncIterator()
            var checked: UInt64 = 0
            while !Task.isCancelled {
                var pause: Duration = .milliseconds(500)
                do {
                    let leased = try await leaseNext()
                    for workflow in leased {
                        group.addTask {
                            await self.execute(workflow)
                            self.signal.yield()
                        }
                    }
                    if !leased.isEmpty { continue }
                    // Only here, where nothing is leased concurrently, are leases without a running step certain to be
                    // stale.
                    if ambient.time.monotonicNanoseconds() >= checked {
                        checked = ambient.deadline(in: .seconds(2))
                        if try await store.releaseUnused(running: running.withLock(\.ids)) > 0 { continue }
                    }
                    // Ready workflows cannot be leased without the liveness lock; acquiring it again is a signal.
                    if running.withLock(\.isAlive), let next = try await store.nextRun() {
                        pause = min(pause, max(.milliseconds(1), next))
                    }
                } catch {
                    log.warning("workflows cannot be leased", metadata: ["error": "\(error)"])
                }
                let timer = Task { [ambient, signal, pause] in
                    do { try await ambient.time.sleep(for: pause) } catch { return }
                    signal.yield()
                }
                _ = await iterator.next()
                timer.cancel()
            }
        }
    }

    /// Lease nothing while the liveness lock is not held: other processes would take over those leases.
    private func leaseNext() async throws -> [LeasedWorkflow] {
        guard running.withLock(\.isAlive) else { return [] }
        let notified = running.withLock { $0.takeNotified() }
        if !notified.isEmpty { try await store.wake(subjects: notified) }
        let capacity = running.withLock { WorkflowEngine.concurrencyMax - $0.count }
        guard capacity > 0 else { return [] }
        let leaseEnd = ambient.deadline(in: WorkflowStore.lease)
        let leased = try await store.lease(limit: min(capacity, 32))
        running.withLock { running in
            // If the session was lost in the meantime, other processes may already take over these leases.
            for workflow in leased { running.begin(workflow, leaseEnd: leaseEnd, isLost: !running.isAlive) }
        }
        return leased
    }

    /// Runs everything that is or becomes ready, moving `ambient`'s clock over waits, until nothing is left.
    /// For tests with their own clock; with a real clock this waits.
    package func drain(roundsMax: Int = 10_000) async throws {
        running.withLock { $0.isAlive = true }
        for _ in 0..<roundsMax {
            let leased = try await leaseNext()
            for workflow in leased { await execute(workflow) }
            if !leased.isEmpty { continue }
            if try await store.startIntended(intentDefinitions, subject: nil, limit: 100) > 0 { continue }
            guard let next = try await store.nextRun() else { return }
            try await ambient.time.sleep(for: max(.milliseconds(1), next))
        }
        throw ResourceError.internalError("workflows did not finish within \(roundsMax) rounds")
    }

    private func execute(_ leased: LeasedWorkflow) async {
        defer { running.withLock { $0.end(leased.lease) } }
        guard let definition = definitions[leased.key] else {
            log.error("unknown workflow", metadata: ["kind": "\(leased.key)", "workflow": "\(leased.id)"])
            return
        }
        await RequestScope.$current.withValue(leased.requestID) {
            do {
                var workflow = leased
                while try await advance(&workflow, definition) {}
            } catch is SimulatedKill {
                return
            } catch {
                // The lease is freed by this process, or by another one when this one dies; the step is repeated.
                log.warning(
                    "workflow outcome was not recorded",
                    metadata: ["workflow": "\(leased.id)", "kind": "\(leased.kind)", "error": "\(error)"])
            }
        }
    }

    // MARK: leases

    /// Renews leases that are about to expire, and cancels steps whose lease is lost or whose workflow must unwind.
    func renewLeases() async throws {
        let due = ambient.deadline(in: WorkflowEngine.renewBefore)
        let leases = running.withLock { $0.ending(before: due) }
        guard !leases.isEmpty else { return }
        let leaseEnd = ambient.deadline(in: WorkflowStore.lease)
        let held = try await store.renew(leases)
        let cancels = running.withLock { running in
            leases.compactMap { lease -> (@Sendable () -> Void)? in
                switch held[lease] {
                case nil:
                    return running.lose(lease)
                case .busy:
                    return nil
                case .renewed(let pending):
                    running.extend(lease, leaseEnd: leaseEnd)
                    return running.interrupt(lease) { definitions[$0].flatMap(pending.reason(for:)) }
                }
            }
        }
        for cancel in cancels { cancel() }
    }

    /// Cancels steps whose deadline has passed, and those whose leases could not be renewed.
    func cancelOverdue() {
        let now = ambient.time.monotonicNanoseconds()
        let leaseEnd = ambient.deadline(in: WorkflowEngine.cancelBefore)
        for cancel in running.withLock({ $0.stop(leasesBefore: leaseEnd, lateAt: now) }) { cancel() }
    }

    /// Other processes no longer see this process's lock and will take over its leases.
    private func sessionLost() {
        let cancels = running.withLock { running in
            running.isAlive = false
            return running.leases.compactMap { running.lose($0) }
        }
        for cancel in cancels { cancel() }
        if !cancels.isEmpty {
            log.warning("steps are cancelled: the session with PostgreSQL was lost", metadata: ["steps": "\(cancels.count)"])
        }
    }
}
