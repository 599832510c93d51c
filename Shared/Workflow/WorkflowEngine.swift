import Database
import JSON
import Kernel
import Logging
import ServiceLifecycle
import Synchronization
import Telemetry

/// Thrown by a step to stand for the process dying there. The lease is left as it is; nothing is written.
package struct SimulatedKill: Error {
    package init() {}
}

/// Runs a service's workflows: leases what is ready, runs steps, records outcomes. Any number of processes may.
package final class WorkflowEngine: Service {
    private struct State {
        var notified: Set<String> = []
        /// Subjects whose steps run here now, and whether a notification came meanwhile.
        var running: [String: Bool] = [:]
        var runningCount = 0
    }

    /// Workflows under way in this process at most.
    private static let concurrencyMax = 128
    /// A failed step is repeated after 0.1 s, doubling up to this.
    private static let backOffMax: Duration = .seconds(10)

    private let definitions: [String: WorkflowDefinition]
    private let intentDefinitions: [String: WorkflowDefinition]
    private let store: WorkflowStore
    private let ambient: Ambient
    private let log: Logger
    private let metrics: Metrics?
    private let lockKey: Int
    private let state = Mutex(State())
    private let signals: AsyncStream<Void>
    private let signal: AsyncStream<Void>.Continuation

    /// - Parameter intents: the workflow that each kind of intent starts.
    package init(
        service: String, definitions: [WorkflowDefinition], intents: [String: WorkflowDefinition] = [:],
        database: Database, ambient: Ambient, log: Logger, metrics: Metrics? = nil
    ) {
        self.definitions = Dictionary(uniqueKeysWithValues: definitions.map { ($0.kind, $0) })
        self.intentDefinitions = intents
        self.ambient = ambient
        self.log = log
        self.metrics = metrics
        lockKey = Int(ambient.random.next() >> 2)
        store = WorkflowStore(database: database, service: service, holder: String(lockKey), ambient: ambient)
        (signals, signal) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    }

    // MARK: running

    /// Leases and runs what is ready until the task is cancelled.
    package func run() async throws {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.listen() }
            group.addTask { await self.housekeeping() }
            group.addTask { await self.pump() }
            do { try await gracefulShutdown() } catch {}
            group.cancelAll()
        }
    }

    private func listen() async {
        for await notification in store.database.notifications([Workflows.wakeChannel], advisoryLock: lockKey) {
            guard let wake = Workflows.Wake(notification.payload, for: store.service) else { continue }
            if let subject = wake.subject {
                state.withLock { state in
                    if state.running[subject] != nil { state.running[subject] = true }
                    if state.notified.count < 10_000 { state.notified.insert(subject) }
                }
            }
            signal.yield()
        }
    }

    private func housekeeping() async {
        while !Task.isCancelled {
            do {
                try await ambient.time.sleep(for: .seconds(2))
                if try await store.releaseOrphans() > 0 { signal.yield() }
                if try await store.startIntended(intentDefinitions, subject: nil, limit: 100) > 0 { signal.yield() }
                _ = try await store.prune(olderThan: .seconds(7 * 86_400), limit: 1000)
            } catch is CancellationError {
                return
            } catch {
                log.warning("workflow housekeeping failed", metadata: ["error": "\(error)"])
            }
        }
    }

    private func pump() async {
        await withDiscardingTaskGroup { group in
            var iterator = signals.makeAsyncIterator()
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
                    if let next = try await store.nextRun() {
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

    private func leaseNext() async throws -> [LeasedWorkflow] {
        let notified = state.withLock { state in
            let subjects = Array(state.notified)
            state.notified.removeAll(keepingCapacity: true)
            return subjects
        }
        if !notified.isEmpty { try await store.wake(subjects: notified) }
        let room = state.withLock { WorkflowEngine.concurrencyMax - $0.runningCount }
        guard room > 0 else { return [] }
        let leased = try await store.lease(limit: min(room, 32))
        state.withLock { state in
            for workflow in leased { state.running[workflow.subjectID] = false }
            state.runningCount += leased.count
        }
        return leased
    }

    /// Runs everything that is or becomes ready, moving `ambient`'s clock over waits, until nothing is left.
    /// For tests with a clock of their own; a real clock makes this wait.
    package func drain(roundsMax: Int = 10_000) async throws {
        for _ in 0..<roundsMax {
            let leased = try await leaseNext()
            for workflow in leased { await execute(workflow) }
            if !leased.isEmpty { continue }
            if try await store.startIntended(intentDefinitions, subject: nil, limit: 100) > 0 { continue }
            guard let next = try await store.nextRun() else { return }
            try await ambient.time.sleep(for: max(.milliseconds(1), next))
        }
        throw ResourceError.internalError("workflows do not come to an end")
    }

    // MARK: one workflow

    private func execute(_ leased: LeasedWorkflow) async {
        defer {
            state.withLock { state in
                state.running[leased.subjectID] = nil
                state.runningCount -= 1
            }
        }
        guard let definition = definitions[leased.kind] else {
            log.error("unknown workflow", metadata: ["kind": "\(leased.kind)", "workflow": "\(leased.id)"])
            return
        }
        await RequestScope.$current.withValue(leased.requestID) {
            do {
                var workflow = leased
                while try await advance(&workflow, definition) {}
            } catch is SimulatedKill {
                return
            } catch {
                // The lease runs out, or the next housekeeping frees it; the step is repeated.
                log.warning(
                    "workflow outcome was not recorded",
                    metadata: ["workflow": "\(leased.id)", "kind": "\(leased.kind)", "error": "\(error)"])
            }
        }
    }

    /// Runs one step or undo; returns whether the lease still holds and there is more to do now.
    private func advance(_ workflow: inout LeasedWorkflow, _ definition: WorkflowDefinition) async throws -> Bool {
        if workflow.isUnwinding { return try await unwind(&workflow, definition) }
        guard let index = definition.index(of: workflow.step) else {
            return try await startUnwinding(&workflow, definition, StepFailure("unknown step \(workflow.step)"))
        }
        if let intent = workflow.intents.first(where: definition.interruptedBy.contains) {
            return try await startUnwinding(&workflow, definition, StepFailure("interrupted by \(intent)"))
        }
        let step = definition.steps[index]
        var context = StepContext(workflow, now: ambient.now, failure: nil)
        let started = ambient.time.monotonicNanoseconds()
        defer {
            metrics?.observe(
                "wolke_workflow_step_seconds", Double(ambient.time.monotonicNanoseconds() - started) / 1e9,
                [("kind", workflow.kind), ("step", step.name)])
        }
        do {
            let result = try await step.run(&context)
            return try await conclude(&workflow, definition, index, context, result)
        } catch let kill as SimulatedKill {
            throw kill
        } catch {
            return try await stepFailed(&workflow, definition, step, context.frame, error)
        }
    }

    private func conclude(
        _ workflow: inout LeasedWorkflow, _ definition: WorkflowDefinition, _ index: Int, _ context: StepContext,
        _ result: StepResult
    ) async throws -> Bool {
        let frame = context.frame
        let outcome: StepOutcome
        let following = index + 1 < definition.steps.count ? definition.steps[index + 1] : nil
        switch result {
        case .done:
            return try await finish(workflow, frame: frame, succeeded: true, error: nil, commits: context.commits)
        case .next, .nextAfter, .skip:
            guard let following else {
                return try await finish(workflow, frame: frame, succeeded: true, error: nil, commits: context.commits)
            }
            if case .skip = result, context.commits.isEmpty {
                workflow.step = following.name
                workflow.frame = frame
                workflow.attempts = 1
                workflow.deadline = ambient.deadline(in: following.deadline)
                return true
            }
            var delay: Duration?
            if case .nextAfter(let asked) = result { delay = wasWoken(workflow) ? .zero : asked }
            outcome = .advance(to: following.name, deadline: following.deadline, after: delay)
        case .goto(let name):
            guard let target = definition.index(of: name) else { throw StepFailure("unknown step \(name)") }
            outcome = .advance(to: name, deadline: definition.steps[target].deadline, after: nil)
        case .wait(let delay):
            if ambient.time.monotonicNanoseconds() >= workflow.deadline, !definition.retriesForever {
                let failure = StepFailure(
                    "The operation did not finish in time.",
                    details: "step \(workflow.step) of \(workflow.kind) waited past its deadline")
                workflow.frame = frame
                return try await startUnwinding(&workflow, definition, failure)
            }
            outcome = .pause(wasWoken(workflow) ? .zero : delay, attempts: 0, error: nil)
        }
        let recorded = try await store.record(workflow, frame: frame, outcome: outcome, commits: context.commits)
        guard let intents = recorded, case .advance(let step, let deadline, nil) = outcome else { return false }
        workflow.startedSteps.append(workflow.step)
        workflow.step = step
        workflow.frame = frame
        workflow.intents = intents
        workflow.attempts = 1
        workflow.deadline = ambient.deadline(in: deadline)
        return true
    }

    /// Whether somebody woke the subject while its step ran here: it must not wait then.
    private func wasWoken(_ workflow: LeasedWorkflow) -> Bool {
        state.withLock { $0.running[workflow.subjectID] == true }
    }

    private func stepFailed(
        _ workflow: inout LeasedWorkflow, _ definition: WorkflowDefinition, _ step: WorkflowStep, _ frame: JSONObject,
        _ error: any Error
    ) async throws -> Bool {
        let failure: StepFailure? =
            switch error {
            case let failure as StepFailure: failure
            case let error as ResourceError where !error.isRetryable: StepFailure(error.message, details: error.context)
            default: nil
            }
        let late = ambient.time.monotonicNanoseconds() >= workflow.deadline
        log.info(
            "workflow step failed",
            metadata: [
                "workflow": "\(workflow.id)", "kind": "\(workflow.kind)", "step": "\(step.name)",
                "attempt": "\(workflow.attempts)", "error": "\(error)",
            ])
        metrics?.increment("wolke_workflow_failures_total", [("kind", workflow.kind), ("step", step.name)])
        workflow.frame = frame
        if failure != nil || late, !definition.retriesForever {
            let reason = failure ?? StepFailure(
                "The operation did not finish in time.", details: "step \(step.name): \(error)")
            return try await startUnwinding(&workflow, definition, reason)
        }
        let outcome = StepOutcome.pause(
            backOff(workflow.attempts), attempts: workflow.attempts, error: "step \(step.name): \(error)")
        _ = try await store.record(workflow, frame: frame, outcome: outcome)
        return false
    }

    /// Doubles with each attempt, with up to a quarter of jitter.
    private func backOff(_ attempts: Int) -> Duration {
        let base = Duration.milliseconds(100 << min(attempts, 10))
        let capped = min(base, WorkflowEngine.backOffMax)
        return capped + .microseconds(Int64(ambient.random.below(Int(capped.microseconds / 4) + 1)))
    }

    // MARK: unwinding

    private static let failureKey = "_failure"

    private func startUnwinding(
        _ workflow: inout LeasedWorkflow, _ definition: WorkflowDefinition, _ failure: StepFailure
    ) async throws -> Bool {
        workflow.frame[WorkflowEngine.failureKey] = [
            "message": .string(failure.message), "details": JSONValue(failure.details),
        ]
        // The current step may have had its effect: it is undone first.
        let outcome = StepOutcome.unwind(from: workflow.step, error: failure.description)
        guard let intents = try await store.record(workflow, frame: workflow.frame, outcome: outcome) else {
            return false
        }
        workflow.isUnwinding = true
        workflow.intents = intents
        workflow.attempts = 1
        return true
    }

    private func unwind(_ workflow: inout LeasedWorkflow, _ definition: WorkflowDefinition) async throws -> Bool {
        let recorded = workflow.frame[WorkflowEngine.failureKey]
        let failure = StepFailure(
            recorded?["message"]?.stringValue ?? "The operation failed.", details: recorded?["details"]?.stringValue)
        var context = StepContext(workflow, now: ambient.now, failure: failure.message)
        do {
            if let index = definition.index(of: workflow.step) {
                try await definition.steps[index].undo?(&context)
            }
            let previous = definition.steps.last { workflow.startedSteps.contains($0.name) }
            guard let previous else {
                try await definition.failed(context, failure)
                return try await finish(workflow, frame: context.frame, succeeded: false, error: failure.description)
            }
            let outcome = StepOutcome.unwind(from: previous.name, error: failure.description)
            guard try await store.record(workflow, frame: context.frame, outcome: outcome) != nil else { return false }
            workflow.startedSteps.removeAll { $0 == previous.name }
            workflow.step = previous.name
            workflow.frame = context.frame
            workflow.attempts = 1
            return true
        } catch let kill as SimulatedKill {
            throw kill
        } catch let wait as UndoWait {
            let delay = wasWoken(workflow) ? Duration.zero : wait.delay
            let outcome = StepOutcome.pause(delay, attempts: 0, error: nil)
            _ = try await store.record(workflow, frame: context.frame, outcome: outcome)
            return false
        } catch {
            log.warning(
                "workflow undo failed",
                metadata: [
                    "workflow": "\(workflow.id)", "kind": "\(workflow.kind)", "step": "\(workflow.step)",
                    "attempt": "\(workflow.attempts)", "error": "\(error)",
                ])
            let outcome = StepOutcome.pause(
                backOff(workflow.attempts), attempts: workflow.attempts, error: "undo \(workflow.step): \(error)")
            _ = try await store.record(workflow, frame: context.frame, outcome: outcome)
            return false
        }
    }

    private func finish(
        _ workflow: LeasedWorkflow, frame: JSONObject, succeeded: Bool, error: String?,
        commits: [@Sendable (Connection) throws -> Void] = []
    ) async throws -> Bool {
        let outcome = StepOutcome.finish(succeeded: succeeded, error: error)
        let recorded = try await store.record(workflow, frame: frame, outcome: outcome, commits: commits)
        guard let intents = recorded else { return false }
        metrics?.increment("wolke_workflows_total", [("kind", workflow.kind), ("result", succeeded ? "done" : "failed")])
        if !intents.isEmpty {
            _ = try await store.startIntended(intentDefinitions, subject: workflow.subjectID, limit: 1)
        }
        return false
    }
}
