import Kernel

/// The workflows whose steps run in this process, and the ends of their leases. Times are of the process's monotonic clock, which is read
/// before a lease is requested, so they are earlier than the database's.
struct RunningWorkflows {
    /// The reason for cancelling a step.
    enum Stop: Sendable {
        /// The lease was lost or expires before it could be renewed; no outcome may be recorded.
        case leaseLost
        /// The step's deadline has passed.
        case late
        /// The workflow must unwind.
        case interrupted(String)
    }

    /// One lease of a workflow. The same one may be leased again here before the run under the earlier lease has ended.
    struct Lease: Sendable, Hashable {
        let id: WorkflowID
        let epoch: Int
    }

    private struct Run {
        let subject: String
        /// `KIND@VERSION`.
        let key: String
        var leaseEnd: UInt64
        /// Whether a step runs and not an undo; only steps can be interrupted.
        var isForward = false
        /// The running step's deadline; nil if it has none.
        var stepEnd: UInt64?
        var isWoken = false
        var stop: Stop?
        var cancel: (@Sendable () -> Void)?

        var isLost: Bool { if case .leaseLost = stop { true } else { false } }
    }

    private var runs: [Lease: Run] = [:]
    /// Subjects that were woken.
    private var notified: Set<String> = []
    /// Whether the session that holds this process's lock is alive.
    var isAlive = false

    var count: Int { runs.count }
    var ids: [WorkflowID] { runs.keys.map(\.id) }

    /// - Parameter isLost: whether the lease was lost while it was requested: no step starts.
    mutating func begin(_ workflow: LeasedWorkflow, leaseEnd: UInt64, isLost: Bool) {
        runs[workflow.lease] = Run(
            subject: workflow.subjectID, key: workflow.key, leaseEnd: leaseEnd, stop: isLost ? .leaseLost : nil)
    }

    mutating func end(_ lease: Lease) {
        // A wake that arrives while the outcome is being written finds a workflow that is not waiting yet.
        if let run = runs.removeValue(forKey: lease), run.isWoken { notified.insert(run.subject) }
    }

    // MARK: wakes

    mutating func wake(_ subject: String) {
        for lease in runs.keys where runs[lease]?.subject == subject { runs[lease]?.isWoken = true }
        if notified.count < 10_000 { notified.insert(subject) }
    }

    mutating func takeNotified() -> [String] {
        defer { notified.removeAll(keepingCapacity: true) }
        return Array(notified)
    }

    /// Whether the subject was woken while its workflow ran here, so that it must not wait.
    func isWoken(_ lease: Lease) -> Bool { runs[lease]?.isWoken ?? false }

    // MARK: steps

    /// Registers a step, or an undo if not `isForward`, before it begins; `cancel` ends it.
    ///
    /// - Returns: whether it may begin.
    mutating func beginStep(_ lease: Lease, isForward: Bool, end: UInt64?, cancel: @escaping @Sendable () -> Void) -> Bool {
        guard var run = runs[lease], run.stop == nil else { return false }
        (run.isForward, run.stepEnd, run.cancel) = (isForward, end, cancel)
        runs[lease] = run
        return true
    }

    /// - Returns: why the step was cancelled; nil if it was not.
    mutating func endStep(_ lease: Lease) -> Stop? {
        // A workflow that is no longer listed has lost its lease.
        guard var run = runs[lease] else { return .leaseLost }
        (run.isForward, run.stepEnd, run.cancel) = (false, nil, nil)
        let stop = run.stop
        // A lost lease stays lost; the other reasons are for one step.
        if !run.isLost { run.stop = nil }
        runs[lease] = run
        return stop
    }

    // MARK: leases

    mutating func extend(_ lease: Lease, leaseEnd: UInt64) { runs[lease]?.leaseEnd = leaseEnd }

    /// The workflows whose lease ends before `time`.
    func ending(before time: UInt64) -> [Lease] { runs.filter { $0.value.leaseEnd < time && !$0.value.isLost }.map(\.key) }

    /// All running workflows.
    var leases: [Lease] { Array(runs.keys) }

    /// Stops the steps whose lease ends before `leaseEnd`, and those whose deadline has passed at `now`.
    ///
    /// - Returns: closures that cancel them.
    mutating func stop(leasesBefore leaseEnd: UInt64, lateAt now: UInt64) -> [@Sendable () -> Void] {
        var cancels: [@Sendable () -> Void] = []
        for (lease, run) in runs where run.stop == nil {
            if run.leaseEnd < leaseEnd {
                if let cancel = lose(lease) { cancels.append(cancel) }
            } else if let end = run.stepEnd, end <= now, let cancel = run.cancel {
                runs[lease]?.stop = .late
                cancels.append(cancel)
            }
        }
        return cancels
    }

    /// - Returns: a closure that cancels the step.
    mutating func lose(_ lease: Lease) -> (@Sendable () -> Void)? {
        runs[lease]?.stop = .leaseLost
        return runs[lease]?.cancel
    }

    /// Makes the workflow unwind if one of its steps runs here and `reason` returns a reason for its `KIND@VERSION`.
    ///
    /// - Returns: a closure that cancels the step.
    mutating func interrupt(_ lease: Lease, _ reason: (_ key: String) -> String?) -> (@Sendable () -> Void)? {
        guard let run = runs[lease], run.isForward, run.stop == nil, let cancel = run.cancel, let reason = reason(run.key)
        else { return nil }
        runs[lease]?.stop = .interrupted(reason)
        return cancel
    }
}
