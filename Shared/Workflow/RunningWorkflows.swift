import Kernel

/// The workflows whose steps run in this process now, and until when it holds their leases. Times are the process's
/// monotonic clock's, and earlier than the database's: the clock is read before a lease is asked for.
struct RunningWorkflows {
    /// Why a step is cancelled.
    enum Stop: Sendable {
        /// The lease is lost, or ends before it could be renewed: nothing may be recorded.
        case leaseLost
        /// The step's deadline has passed.
        case late
        /// The workflow shall unwind.
        case interrupted(String)
    }

    private struct Run {
        let subject: String
        /// `KIND@VERSION`.
        let key: String
        let epoch: Int
        var leaseEnd: UInt64
        /// Whether a step runs, not an undo: what may be interrupted.
        var isForward = false
        /// When the step that runs is late; nil where it may take any time.
        var stepEnd: UInt64?
        var isWoken = false
        var stop: Stop?
        var cancel: (@Sendable () -> Void)?
    }

    private var runs: [WorkflowID: Run] = [:]
    /// Subjects that somebody woke.
    private var notified: Set<String> = []
    /// Whether the session that holds this process's lock lives.
    var isAlive = false

    var count: Int { runs.count }
    var ids: [WorkflowID] { Array(runs.keys) }

    mutating func begin(_ workflow: LeasedWorkflow, leaseEnd: UInt64) {
        runs[workflow.id] = Run(subject: workflow.subjectID, key: workflow.key, epoch: workflow.epoch, leaseEnd: leaseEnd)
    }

    mutating func end(_ id: WorkflowID) { runs[id] = nil }

    // MARK: wakes

    mutating func wake(_ subject: String) {
        for id in runs.keys where runs[id]?.subject == subject { runs[id]?.isWoken = true }
        if notified.count < 10_000 { notified.insert(subject) }
    }

    mutating func takeNotified() -> [String] {
        defer { notified.removeAll(keepingCapacity: true) }
        return Array(notified)
    }

    /// Whether somebody woke the subject while its workflow ran here: it must not wait then.
    func isWoken(_ id: WorkflowID) -> Bool { runs[id]?.isWoken ?? false }

    // MARK: steps

    /// A step, or an undo where not `isForward`, begins; `cancel` ends it.
    ///
    /// - Returns: whether it must end at once.
    mutating func beginStep(_ id: WorkflowID, isForward: Bool, end: UInt64?, cancel: @escaping @Sendable () -> Void) -> Bool {
        guard var run = runs[id] else { return true }
        (run.isForward, run.stepEnd, run.cancel) = (isForward, end, cancel)
        runs[id] = run
        return run.stop != nil
    }

    /// - Returns: why the step was cancelled; nil where it was not.
    mutating func endStep(_ id: WorkflowID) -> Stop? {
        // Whoever is not there any more has lost the lease.
        guard var run = runs[id] else { return .leaseLost }
        (run.isForward, run.stepEnd, run.cancel) = (false, nil, nil)
        let stop = run.stop
        // A lost lease stays lost; the other reasons are for one step.
        if case .leaseLost = stop {} else { run.stop = nil }
        runs[id] = run
        return stop
    }

    // MARK: leases

    mutating func extend(_ id: WorkflowID, leaseEnd: UInt64) { runs[id]?.leaseEnd = leaseEnd }

    /// Those whose lease ends before `time`.
    func ending(before time: UInt64) -> [(id: WorkflowID, epoch: Int)] {
        runs.filter { $0.value.leaseEnd < time }.map { ($0.key, $0.value.epoch) }
    }

    /// Stops the steps whose lease ends before `leaseEnd`, and those that are late at `now`.
    ///
    /// - Returns: what to call to cancel them.
    mutating func stop(leasesBefore leaseEnd: UInt64, lateAt now: UInt64) -> [@Sendable () -> Void] {
        var cancels: [@Sendable () -> Void] = []
        for (id, run) in runs where run.stop == nil {
            if run.leaseEnd < leaseEnd {
                if let cancel = loseLease(id) { cancels.append(cancel) }
            } else if let end = run.stepEnd, end <= now, let cancel = run.cancel {
                runs[id]?.stop = .late
                cancels.append(cancel)
            }
        }
        return cancels
    }

    /// - Returns: what to call to cancel the step.
    mutating func loseLease(_ id: WorkflowID) -> (@Sendable () -> Void)? {
        runs[id]?.stop = .leaseLost
        return runs[id]?.cancel
    }

    /// Has the workflow unwind, where a step of it runs and `reason` gives one for its `KIND@VERSION`.
    ///
    /// - Returns: what to call to cancel the step.
    mutating func interrupt(_ id: WorkflowID, _ reason: (_ key: String) -> String?) -> (@Sendable () -> Void)? {
        guard let run = runs[id], run.isForward, run.stop == nil, let cancel = run.cancel, let reason = reason(run.key)
        else { return nil }
        runs[id]?.stop = .interrupted(reason)
        return cancel
    }
}
