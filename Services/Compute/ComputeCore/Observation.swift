package import Contracts

/// An agent's report about a server.
package struct Observation: Sendable, Hashable {
    package var generation: Int
    package var power: ReportedPower
    package var applied: Bool
    package var permanent: Bool
    package var error: String?
    package var operationID: String?

    package init(
        generation: Int, power: ReportedPower, applied: Bool, permanent: Bool = false, error: String? = nil,
        operationID: String? = nil
    ) {
        self.generation = generation
        self.power = power
        self.applied = applied
        self.permanent = permanent
        self.error = error
        self.operationID = operationID
    }
}

/// A server as far as an observation can change it.
package struct ObservedServer: Sendable, Hashable {
    package var vmState: VMState
    package var task: TaskState?
    package var desiredPower: DesiredPower
    package var generation: Int
    package var operationID: String?

    package init(vmState: VMState, task: TaskState?, desiredPower: DesiredPower, generation: Int, operationID: String?) {
        self.vmState = vmState
        self.task = task
        self.desiredPower = desiredPower
        self.generation = generation
        self.operationID = operationID
    }
}

/// The consequence of an observation.
package enum ObservationOutcome: Sendable, Hashable {
    /// Only the power state is recorded.
    case noted
    /// The requested change is complete.
    case finished(VMState)
    /// The requested change failed permanently; the server is in this state.
    case failed(VMState, String)
    /// A rebuild failed permanently: the server's disks may be gone.
    case broken(String)
    /// The guest stopped by itself and is not started again.
    case stoppedItself
    /// Like `stoppedItself`, but the server keeps its state.
    case turnedOff
}

extension ObservedServer {
    /// Decides the consequence of an observation. Pure and idempotent.
    package func judge(_ observation: Observation) -> ObservationOutcome {
        guard observation.generation >= generation else { return .noted }
        let off = VMState(reportedPower: observation.power) == .stopped
        guard let task else {
            guard off, observation.applied, desiredPower == .running else { return .noted }
            return vmState == .active ? .stoppedItself : [.rescued, .resized].contains(vmState) ? .turnedOff : .noted
        }
        guard TaskState.ofPower.contains(task), desiredPower != .absent else { return .noted }
        // A rebuild whose volume is still being written has no operation yet.
        guard task != .rebuilding || operationID != nil else { return .noted }
        let target = task.target(desiredPower)
        if !observation.applied {
            guard observation.permanent else { return .noted }
            if task == .rebuilding { return .broken(observation.error ?? "The host could not do it.") }
            let now = VMState(reportedPower: observation.power)
            return .failed(now, observation.error ?? "The host could not do it.")
        }
        let done = operationID == nil || observation.operationID == operationID
        // The guest was started and stopped again before a report arrived.
        if done, off, desiredPower == .running { return task == .rescuing ? .finished(target) : .stoppedItself }
        return done && observation.power == ReportedPower(desiredPower) ? .finished(target) : .noted
    }
}

extension VMState {
    /// The server state for a power state reported by the host.
    package init(reportedPower power: ReportedPower) {
        self =
            switch power {
            case .running: .active
            case .paused: .paused
            case .suspended: .suspended
            case .shutoff, .crashed: .stopped
            default: .error
            }
    }
}
