import Database
import JSON
import Kernel
import Logging
import Synchronization
import Telemetry

/// One workflow, step by step.
extension WorkflowEngine {
    /// A failed step is repeated after 0.1 s, doubling up to this.
    private static let backOffMax: Duration = .seconds(10)
    /// Delay before a workflow that this build cannot continue is tried again.
    private static let mismatchPause: Duration = .seconds(30)

    /// Runs one step or undo; returns whether the lease still holds and there is more to do immediately.
    func advance(_ workflow: inout LeasedWorkflow, _ definition: WorkflowDefinition) async throws -> Bool {
        if let unknown = ([workflow.step] + workflow.startedSteps).first(where: { definition.index(of: $0) == nil }) {
            return try await setAside(workflow, WorkflowMismatch("\(definition.kind) has no step \(unknown)"))
        }
        if workflow.isUnwinding { return try await unwind(&workflow, definition) }
        guard let index = definition.index(of: workflow.step) else { return false }
        if let reason = workflow.pending.reason(for: definition) {
            return try await startUnwinding(&workflow, definition, StepFailure(reason))
        }
        let step = definition.steps[index]
        let context = StepContext(workflow, store: store, failure: nil)
        let started = ambient.time.monotonicNanoseconds()
        let ran = try await run(workflow, end: definition.retriesForever ? nil : workflow.deadline, context, step.run)
        metrics?.observe(
            "wolke_workflow_step_seconds", Double(ambient.time.monotonicNanoseconds() - started) / 1e9,
            [("kind", workflow.kind), ("step", step.name)])
        do {
            let result = try ran.outcome.get()
            return try await conclude(&workflow, definition, index, ran.context, result)
        } catch let kill as SimulatedKill {
            throw kill
        } catch {
            return try await stepFailed(&workflow, definition, step, ran, error)
        }
    }

    /// The outcome of a step or undo.
    private struct Ran<Value: Sendable>: Sendable {
        let outcome: Result<Value, any Error>
        let context: StepContext
        let stop: RunningWorkflows.Stop?
    }

    /// Runs a step or undo in a task that is cancelled when the lease is lost or at the time `end`.
    ///
    /// - Throws: `CancellationError` when the lease was lost: nothing may be recorded.
    private func run<Value: Sendable>(
        _ workflow: LeasedWorkflow, end: UInt64?, _ context: StepContext,
        _ body: @escaping @Sendable (inout StepContext) async throws -> Value
    ) async throws -> Ran<Value> {
        let task = StepTask<(Result<Value, any Error>, StepContext)>()
        let mayBegin = running.withLock {
            $0.beginStep(workflow.lease, isForward: !workflow.isUnwinding, end: end) { task.cancel() }
        }
        guard mayBegin else { throw CancellationError() }
        let (outcome, changed) = await task.run {
            var context = context
            do {
                let value = try await DatabaseScope.$current.withValue(.step) { try await body(&context) }
                return (.success(value), context)
            } catch {
                return (.failure(error), context)
            }
        }
        let stop = running.withLock { $0.endStep(workflow.lease) }
        if case .leaseLost = stop {
            metrics?.increment(
                "wolke_workflow_leases_lost_total", [("kind", workflow.kind)],
                help: "Steps whose lease was lost while they ran.")
            throw CancellationError()
        }
        return Ran(outcome: outcome, context: changed, stop: stop)
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
            return try await finish(workflow, context, succeeded: true, error: nil)
        case .next, .nextAfter, .skip:
            guard let following else { return try await finish(workflow, context, succeeded: true, error: nil) }
            if case .skip = result, context.commits.isEmpty, context.result == nil {
                workflow.step = following.name
                workflow.frame = frame
                workflow.attempts = 1
                workflow.deadline = ambient.deadline(in: following.deadline)
                return true
            }
            var delay: Duration?
            if case .nextAfter(let asked) = result { delay = isWoken(workflow) ? .zero : asked }
            outcome = .advance(to: following.name, deadline: following.deadline, after: delay)
        case .goto(let name):
            guard let target = definition.index(of: name) else { throw WorkflowMismatch("\(definition.kind) has no step \(name)") }
            outcome = .advance(to: name, deadline: definition.steps[target].deadline, after: nil)
        case .wait(let delay):
            if ambient.time.monotonicNanoseconds() >= workflow.deadline, !definition.retriesForever {
                workflow.frame = frame
                return try await startUnwinding(
                    &workflow, definition, late("step \(workflow.step) of \(workflow.kind) waited past its deadline"))
            }
            outcome = .pause(isWoken(workflow) ? .zero : delay, attempts: 0, error: nil)
        case .progress(let delay):
            workflow.deadline = ambient.deadline(in: definition.steps[index].deadline)
            outcome = .pause(isWoken(workflow) ? .zero : delay, attempts: 0, error: nil)
        }
        guard let pending = try await record(workflow, context, outcome), case .advance(let step, let deadline, nil) = outcome
        else { return false }
        workflow.startedSteps.append(workflow.step)
        workflow.step = step
        workflow.frame = frame
        workflow.pending = pending
        workflow.attempts = 1
        workflow.deadline = ambient.deadline(in: deadline)
        return true
    }

    private func isWoken(_ workflow: LeasedWorkflow) -> Bool { running.withLock { $0.isWoken(workflow.lease) } }

    private func late(_ details: String) -> StepFailure { StepFailure("The operation did not finish in time.", details: details) }

    /// Writes an outcome, and holds the lease for as long as the outcome requires.
    private func record(
        _ workflow: LeasedWorkflow, _ context: StepContext, _ outcome: StepOutcome
    ) async throws -> PendingStop? {
        let leaseEnd = ambient.deadline(in: WorkflowStore.lease)
        let pending = try await store.record(
            workflow, frame: context.frame, result: context.result, outcome: outcome, commits: context.commits)
        if pending != nil { running.withLock { $0.extend(workflow.lease, leaseEnd: leaseEnd) } }
        return pending
    }

    // MARK: failures

    private func stepFailed(
        _ workflow: inout LeasedWorkflow, _ definition: WorkflowDefinition, _ step: WorkflowStep, _ ran: Ran<StepResult>,
        _ error: any Error
    ) async throws -> Bool {
        workflow.frame = ran.context.frame
        // A workflow that this build cannot continue is not unwound either, for whatever reason it failed.
        if let mismatch = error as? WorkflowMismatch { return try await setAside(workflow, mismatch) }
        switch ran.stop {
        case .interrupted(let reason):
            return try await startUnwinding(&workflow, definition, StepFailure(reason))
        case .late:
            return try await startUnwinding(&workflow, definition, late("step \(step.name) was cancelled at its deadline"))
        case .leaseLost, nil:
            break
        }
        // The process is shutting down: another one may continue at once, and this attempt does not count.
        if Task.isCancelled {
            _ = try await store.record(
                workflow, frame: workflow.frame, outcome: .pause(.zero, attempts: max(0, workflow.attempts - 1), error: nil))
            return false
        }
        let failure: StepFailure? =
            switch error {
            case let failure as StepFailure: failure
            case let error as ResourceError where !error.isRetryable: StepFailure(error.message, details: error.context)
            default: nil
            }
        let isLate = ambient.time.monotonicNanoseconds() >= workflow.deadline
        log.info(
            "workflow step failed",
            metadata: [
                "workflow": "\(workflow.id)", "kind": "\(workflow.kind)", "step": "\(step.name)",
                "attempt": "\(workflow.attempts)", "error": "\(error)",
            ])
        metrics?.increment("wolke_workflow_failures_total", [("kind", workflow.kind), ("step", step.name)])
        if failure != nil || isLate, !definition.retriesForever {
            return try await startUnwinding(&workflow, definition, failure ?? late("step \(step.name): \(error)"))
        }
        let outcome = StepOutcome.pause(
            backOff(workflow.attempts), attempts: workflow.attempts, error: "step \(step.name): \(error)")
        _ = try await store.record(workflow, frame: workflow.frame, outcome: outcome)
        return false
    }

    /// Doubles with each attempt, with up to a quarter of jitter.
    private func backOff(_ attempts: Int) -> Duration {
        let base = Duration.milliseconds(100 << min(attempts, 10))
        let capped = min(base, WorkflowEngine.backOffMax)
        return capped + .microseconds(Int64(ambient.random.below(Int(capped.microseconds / 4) + 1)))
    }

    /// Leaves a workflow unchanged for a build that can continue it.
    private func setAside(_ workflow: LeasedWorkflow, _ mismatch: WorkflowMismatch) async throws -> Bool {
        log.error(
            "a workflow cannot be carried on by this release",
            metadata: [
                "workflow": "\(workflow.id)", "kind": "\(workflow.key)", "step": "\(workflow.step)",
                "error": "\(mismatch)",
            ])
        let outcome = StepOutcome.setAside(WorkflowEngine.mismatchPause, error: WorkflowMismatch.prefix + mismatch.description)
        _ = try await store.record(workflow, frame: workflow.frame, outcome: outcome)
        return false
    }

    // MARK: unwinding

    private func startUnwinding(
        _ workflow: inout LeasedWorkflow, _ definition: WorkflowDefinition, _ failure: StepFailure
    ) async throws -> Bool {
        workflow.frame[WorkflowEngine.failureKey] = [
            "message": .string(failure.message), "details": JSONValue(failure.details),
        ]
        // The current step may have had effects, so it is undone first.
        let deadline = definition.index(of: workflow.step).map { definition.steps[$0].deadline } ?? .zero
        let outcome = StepOutcome.unwind(from: workflow.step, deadline: deadline, error: failure.description)
        guard let pending = try await store.record(workflow, frame: workflow.frame, outcome: outcome) else { return false }
        workflow.isUnwinding = true
        workflow.pending = pending
        workflow.attempts = 1
        workflow.deadline = ambient.deadline(in: deadline)
        return true
    }

    private func unwind(_ workflow: inout LeasedWorkflow, _ definition: WorkflowDefinition) async throws -> Bool {
        let recorded = workflow.frame[WorkflowEngine.failureKey]
        let failure = StepFailure(
            recorded?["message"]?.stringValue ?? "The operation failed.", details: recorded?["details"]?.stringValue)
        let context = StepContext(workflow, store: store, failure: failure.message)
        let undo = definition.index(of: workflow.step).flatMap { definition.steps[$0].undo }
        let previous = definition.steps.last { workflow.startedSteps.contains($0.name) }
        let ran = try await run(workflow, end: nil, context) { context in
            try await undo?(&context)
            if previous == nil { try await definition.failed(context, failure) }
        }
        workflow.frame = ran.context.frame
        do { try ran.outcome.get() } catch let kill as SimulatedKill {
            throw kill
        } catch {
            return try await undoFailed(workflow, error)
        }
        guard let previous else {
            return try await finish(workflow, ran.context, succeeded: false, error: failure.description)
        }
        let outcome = StepOutcome.unwind(from: previous.name, deadline: previous.deadline, error: failure.description)
        guard try await record(workflow, ran.context, outcome) != nil else { return false }
        workflow.startedSteps.removeAll { $0 == previous.name }
        workflow.step = previous.name
        workflow.attempts = 1
        workflow.deadline = ambient.deadline(in: previous.deadline)
        return true
    }

    private func undoFailed(_ workflow: LeasedWorkflow, _ error: any Error) async throws -> Bool {
        let outcome: StepOutcome
        switch error {
        case let wait as UndoWait:
            outcome = .pause(isWoken(workflow) ? .zero : wait.delay, attempts: 0, error: nil)
        case let mismatch as WorkflowMismatch:
            return try await setAside(workflow, mismatch)
        case _ where Task.isCancelled:
            outcome = .pause(.zero, attempts: max(0, workflow.attempts - 1), error: nil)
        default:
            log.warning(
                "workflow undo failed",
                metadata: [
                    "workflow": "\(workflow.id)", "kind": "\(workflow.kind)", "step": "\(workflow.step)",
                    "attempt": "\(workflow.attempts)", "error": "\(error)",
                ])
            outcome = .pause(backOff(workflow.attempts), attempts: workflow.attempts, error: "undo \(workflow.step): \(error)")
        }
        _ = try await store.record(workflow, frame: workflow.frame, outcome: outcome)
        return false
    }

    private func finish(
        _ workflow: LeasedWorkflow, _ context: StepContext, succeeded: Bool, error: String?
    ) async throws -> Bool {
        guard let pending = try await record(workflow, context, .finish(succeeded: succeeded, error: error)) else { return false }
        metrics?.increment("wolke_workflows_total", [("kind", workflow.kind), ("result", succeeded ? "done" : "failed")])
        if !pending.intents.isEmpty {
            _ = try await store.startIntended(intentDefinitions, subject: workflow.subjectID, limit: 1)
        }
        return false
    }
}
