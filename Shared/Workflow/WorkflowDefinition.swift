package import Database
package import JSON
package import Kernel

/// Marker for workflow ids.
package enum WorkflowKind {}
/// The id of one workflow.
package typealias WorkflowID = ID<WorkflowKind>

/// The result of a step.
package enum StepResult: Sendable {
    /// Done; go on to the following step.
    case next
    /// Continue without recording the step: it did nothing, or may be repeated. If the process dies before the next record,
    /// the step runs again; it is never undone.
    case skip
    /// Done; begin the next step after `Duration`, or when the subject is woken.
    case nextAfter(Duration)
    /// Not finished: run this step again after `Duration`, or when the subject is woken.
    case wait(Duration)
    /// Like `wait`, and the step's deadline restarts, because the awaited work makes progress.
    case progress(Duration)
    /// Go on to the named step, skipping those between.
    case goto(String)
    /// The whole workflow is done.
    case done
}

/// A permanent failure: the workflow unwinds.
package struct StepFailure: Error, Sendable, CustomStringConvertible {
    /// For the tenant; becomes the resource's fault.
    package let message: String
    /// For the operator only.
    package let details: String?

    package init(_ message: String, details: String? = nil) {
        self.message = message
        self.details = details
    }

    package var description: String { details.map { "\(message) (\($0))" } ?? message }
}

/// Thrown by an undo that has to wait: it runs again after `delay`, or when the subject is woken.
package struct UndoWait: Error, Sendable {
    package let delay: Duration

    package init(_ delay: Duration) { self.delay = delay }
}

/// Thrown for a workflow that this build cannot continue: it lacks the step or cannot read the parameters. The workflow is
/// neither continued nor unwound until a build that can continue it runs.
package struct WorkflowMismatch: Error, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }

    /// Prefix of `last_error` for such a workflow; an inspection searches for it.
    static let prefix = "this release cannot carry it on: "
}

/// The input of a step: the subject, and the operation ID that makes its effects idempotent.
package struct StepContext: Sendable {
    package let workflowID: WorkflowID
    package let subjectID: String
    package let requestID: String?
    /// Incremented with each lease. Commands carry it, and receivers refuse lower values (a fencing token).
    package let epoch: Int
    /// Number of attempts at this step so far, including this one.
    package let attempt: Int
    package let step: String
    package let now: Timestamp
    /// Whether the step's deadline has passed since the step was reached; of an undo, since it was reached. An undo is never ended by
    /// it, and neither are steps of a workflow that retries forever: they decide themselves.
    package let isLate: Bool
    /// Why the workflow unwinds; nil while it runs forward.
    package let failure: String?
    /// The stored frame. A step's changes are kept when it returns or waits.
    var frame: JSONObject
    var commits: [@Sendable (Connection) throws -> Void] = []
    var result: JSONValue?
    let store: WorkflowStore

    init(_ workflow: LeasedWorkflow, store: WorkflowStore, failure: String?) {
        workflowID = workflow.id
        subjectID = workflow.subjectID
        requestID = workflow.requestID
        epoch = workflow.epoch
        attempt = workflow.attempts
        frame = workflow.frame
        step = workflow.step
        now = store.ambient.now
        isLate = store.ambient.time.monotonicNanoseconds() >= workflow.deadline
        self.store = store
        self.failure = failure
    }

    /// Runs `effect` in the transaction that records the step's outcome, so that both commit or neither does, and nothing
    /// is written after the lease is lost. Also saves a commit.
    package mutating func commit(_ effect: @escaping @Sendable (Connection) throws -> Void) { commits.append(effect) }

    /// The same for every attempt at this step. Other services use it to apply the operation only once.
    package func operationID(_ ordinal: Int = 0) -> String { "\(workflowID.text):\(step):\(ordinal)" }

    /// `operationID` as a UUID, for protocols that need one (FNV-1a, twice).
    package func operationUUID(_ ordinal: Int = 0) -> UUID128 {
        func hash(_ seed: UInt64) -> UInt64 {
            operationID(ordinal).utf8.reduce(seed) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
        }
        return UUID128(high: hash(0xcbf2_9ce4_8422_2325), low: hash(0x8422_2325_cbf2_9ce4))
    }
}

/// One step as the engine runs it. Both `run` and `undo` are idempotent. `Workflow` creates it from a step with typed
/// parameters.
package struct WorkflowStep: Sendable {
    package let name: String
    /// How long the step may take, including repetitions and waits, before the workflow unwinds. A step that still runs then is
    /// cancelled. For its undo see `StepContext.isLate`.
    package let deadline: Duration
    package let run: @Sendable (inout StepContext) async throws -> StepResult
    /// Reverts what `run` did or may have done. It succeeds if there is nothing to revert.
    package let undo: (@Sendable (inout StepContext) async throws -> Void)?

    package init(
        _ name: String, deadline: Duration, run: @escaping @Sendable (inout StepContext) async throws -> StepResult,
        undo: (@Sendable (inout StepContext) async throws -> Void)?
    ) {
        self.name = name
        self.deadline = deadline
        self.run = run
        self.undo = undo
    }
}

/// A long operation as the engine runs it: steps in order, undone in reverse order if one fails permanently.
package struct WorkflowDefinition: Sendable {
    /// The service whose engine runs it.
    package let service: String
    package let kind: String
    /// The version that is written for new workflows of the kind.
    package let version: Int
    /// All versions that it can run. A replica leases no others.
    package let versions: Set<Int>
    package let steps: [WorkflowStep]
    /// Intents that stop this workflow at the next step and unwind it: `delete` for a create.
    package let interruptedBy: Set<String>
    /// Records the failure on the subject, after everything is unwound. Must be safe to repeat.
    package let failed: @Sendable (StepContext, StepFailure) async throws -> Void
    /// Whether failed steps are retried forever instead of unwinding, as a delete does.
    package let retriesForever: Bool
    /// Decodes a stored frame and encodes it again; throws `DecodingError`.
    package let recode: @Sendable (JSONObject) throws -> (frame: JSONObject, names: [String])

    init(
        service: String, kind: String, version: Int, versions: Set<Int>, steps: [WorkflowStep], interruptedBy: Set<String>,
        retriesForever: Bool, failed: @escaping @Sendable (StepContext, StepFailure) async throws -> Void,
        recode: @escaping @Sendable (JSONObject) throws -> (frame: JSONObject, names: [String])
    ) {
        precondition(!steps.isEmpty && Set(steps.map(\.name)).count == steps.count, "\(kind): names of steps")
        precondition(versions.contains(version) && versions.allSatisfy { $0 > 0 }, "\(kind): versions")
        self.service = service
        self.kind = kind
        self.version = version
        self.versions = versions
        self.steps = steps
        self.interruptedBy = interruptedBy
        self.retriesForever = retriesForever
        self.failed = failed
        self.recode = recode
    }

    /// A copy with each step changed, for tests that disturb it.
    package func mapping(_ change: (WorkflowStep) -> WorkflowStep) -> WorkflowDefinition {
        WorkflowDefinition(
            service: service, kind: kind, version: version, versions: versions, steps: steps.map(change),
            interruptedBy: interruptedBy, retriesForever: retriesForever, failed: failed, recode: recode)
    }

    func index(of step: String) -> Int? { steps.firstIndex { $0.name == step } }

    /// `KIND@VERSION` for each version that it can run.
    var keys: [String] { versions.sorted().map { "\(kind)@\($0)" } }
}
