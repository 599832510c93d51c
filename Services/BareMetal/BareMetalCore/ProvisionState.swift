import Kernel

/// The provision state of a node, with Ironic's names.
///
/// `transitions` is the only list of allowed transitions. The handlers and workflows use it; tests compare the CHECK in the schema and
/// the diagram in `docs/bare-metal.md` with it.
package enum ProvisionState: String, Sendable, Hashable, CaseIterable {
    case enroll, verifying, manageable, available
    case inspecting
    case inspectWait = "inspect wait"
    case inspectFailed = "inspect failed"
    case deploying
    case deployWait = "wait call-back"
    case deployHold = "deploy hold"
    case deployFailed = "deploy failed"
    case active, deleting, error
    case cleaning
    case cleanWait = "clean wait"
    case cleanHold = "clean hold"
    case cleanFailed = "clean failed"
    case adopting
    case adoptFailed = "adopt failed"
    case rescuing
    case rescueWait = "rescue wait"
    case rescueFailed = "rescue failed"
    case rescue, unrescuing
    case unrescueFailed = "unrescue failed"
    case servicing
    case serviceWait = "service wait"
    case serviceHold = "service hold"
    case serviceFailed = "service failed"

    /// An event that moves a node from one state to another.
    package enum Event: String, Sendable, Hashable, CaseIterable {
        // Requested by clients.
        case manage, provide, inspect, clean, adopt, deploy, rebuild, delete, rescue, unrescue, service, abort, unhold
        // Events of the work in progress.
        case done, fail, wait, resume, hold
        /// Cleaning that a client requested has ended: the node goes back to `manageable`.
        case doneManually
        /// The node's instance is gone, but its data may still be on the disks, so the node is cleaned.
        case cleanUp

        /// Whether clients can request the event.
        package var isVerb: Bool {
            switch self {
            case .manage, .provide, .inspect, .clean, .adopt, .deploy, .rebuild, .delete, .rescue, .unrescue, .service, .abort, .unhold:
                true
            case .done, .fail, .wait, .resume, .hold, .doneManually, .cleanUp: false
            }
        }

        /// The event that a request's `target` names; nil for an unknown one.
        package init?(target: String) {
            switch target {
            case "active", "deploy": self = .deploy
            case "deleted", "undeploy": self = .delete
            default:
                guard let event = Event(rawValue: target), event.isVerb, event != .delete else { return nil }
                self = event
            }
        }
    }

    package struct Transition: Sendable, Hashable {
        package let from: ProvisionState
        package let event: Event
        package let to: ProvisionState

        init(_ from: ProvisionState, _ event: Event, _ to: ProvisionState) {
            self.from = from
            self.event = event
            self.to = to
        }
    }

    /// All allowed transitions.
    package static let transitions: [Transition] = [
        .init(.enroll, .manage, .verifying), .init(.verifying, .done, .manageable), .init(.verifying, .fail, .enroll),

        .init(.manageable, .inspect, .inspecting), .init(.inspecting, .done, .manageable), .init(.inspecting, .fail, .inspectFailed),
        .init(.inspecting, .wait, .inspectWait), .init(.inspectWait, .resume, .inspecting), .init(.inspectWait, .done, .manageable),
        .init(.inspectWait, .fail, .inspectFailed), .init(.inspectWait, .abort, .inspectFailed),
        .init(.inspectFailed, .inspect, .inspecting), .init(.inspectFailed, .manage, .manageable),

        .init(.manageable, .provide, .cleaning), .init(.manageable, .clean, .cleaning), .init(.cleaning, .done, .available),
        .init(.cleaning, .doneManually, .manageable), .init(.cleaning, .fail, .cleanFailed), .init(.cleaning, .wait, .cleanWait),
        .init(.cleaning, .hold, .cleanHold), .init(.cleanWait, .resume, .cleaning), .init(.cleanWait, .fail, .cleanFailed),
        .init(.cleanWait, .abort, .cleanFailed), .init(.cleanWait, .hold, .cleanHold), .init(.cleanHold, .abort, .cleanFailed),
        .init(.cleanHold, .unhold, .cleanWait), .init(.cleanFailed, .manage, .manageable), .init(.available, .manage, .manageable),

        .init(.available, .deploy, .deploying), .init(.deploying, .done, .active), .init(.deploying, .fail, .deployFailed),
        .init(.deploying, .wait, .deployWait), .init(.deploying, .hold, .deployHold), .init(.deployWait, .resume, .deploying),
        .init(.deployWait, .fail, .deployFailed), .init(.deployWait, .hold, .deployHold), .init(.deployWait, .abort, .deployFailed),
        .init(.deployWait, .delete, .deleting), .init(.deployHold, .unhold, .deployWait), .init(.deployHold, .abort, .deployFailed),
        .init(.deployFailed, .deploy, .deploying), .init(.deployFailed, .rebuild, .deploying), .init(.deployFailed, .delete, .deleting),

        .init(.active, .rebuild, .deploying), .init(.active, .delete, .deleting), .init(.deleting, .cleanUp, .cleaning),
        .init(.deleting, .fail, .error), .init(.error, .rebuild, .deploying), .init(.error, .delete, .deleting),

        .init(.manageable, .adopt, .adopting), .init(.adopting, .done, .active), .init(.adopting, .fail, .adoptFailed),
        .init(.adoptFailed, .adopt, .adopting), .init(.adoptFailed, .manage, .manageable),

        .init(.active, .rescue, .rescuing), .init(.rescuing, .done, .rescue), .init(.rescuing, .fail, .rescueFailed),
        .init(.rescuing, .wait, .rescueWait), .init(.rescueWait, .resume, .rescuing), .init(.rescueWait, .fail, .rescueFailed),
        .init(.rescueWait, .abort, .rescueFailed), .init(.rescueWait, .delete, .deleting), .init(.rescue, .rescue, .rescuing),
        .init(.rescue, .delete, .deleting), .init(.rescueFailed, .rescue, .rescuing), .init(.rescueFailed, .delete, .deleting),
        .init(.rescue, .unrescue, .unrescuing), .init(.rescueFailed, .unrescue, .unrescuing), .init(.unrescuing, .done, .active),
        .init(.unrescuing, .fail, .unrescueFailed), .init(.unrescueFailed, .rescue, .rescuing),
        .init(.unrescueFailed, .unrescue, .unrescuing), .init(.unrescueFailed, .delete, .deleting),

        .init(.active, .service, .servicing), .init(.servicing, .done, .active), .init(.servicing, .fail, .serviceFailed),
        .init(.servicing, .wait, .serviceWait), .init(.servicing, .hold, .serviceHold), .init(.serviceWait, .resume, .servicing),
        .init(.serviceWait, .fail, .serviceFailed), .init(.serviceWait, .hold, .serviceHold),
        .init(.serviceWait, .abort, .serviceFailed), .init(.serviceWait, .delete, .deleting),
        .init(.serviceHold, .service, .servicing), .init(.serviceHold, .unhold, .serviceWait),
        .init(.serviceHold, .fail, .serviceFailed), .init(.serviceHold, .abort, .serviceFailed),
        .init(.serviceFailed, .service, .servicing), .init(.serviceFailed, .rescue, .rescuing), .init(.serviceFailed, .abort, .active),
        .init(.serviceFailed, .delete, .deleting),
    ]

    private static let byEvent = Dictionary(
        uniqueKeysWithValues: transitions.map { (Key(from: $0.from, event: $0.event), $0.to) })

    private struct Key: Hashable {
        let from: ProvisionState
        let event: Event
    }

    /// The state after `event`; nil if the event is not possible in this state.
    package func after(_ event: Event) -> ProvisionState? { ProvisionState.byEvent[Key(from: self, event: event)] }

    /// The states in which `event` is possible.
    package static func before(_ event: Event) -> [ProvisionState] { transitions.filter { $0.event == event }.map(\.from) }

    /// The state after the node's work has succeeded; nil in states that have no work to finish.
    ///
    /// Cleaning that a client requested leads back to `manageable` instead; the caller must handle this case.
    package var usualTarget: ProvisionState? {
        switch self {
        case .verifying, .inspecting, .inspectWait, .inspectFailed: .manageable
        case .cleaning, .cleanWait, .cleanHold, .cleanFailed, .deleting: .available
        case .deploying, .deployWait, .deployHold, .deployFailed, .adopting, .adoptFailed, .unrescuing, .unrescueFailed, .servicing,
            .serviceWait, .serviceHold, .serviceFailed:
            .active
        case .rescuing, .rescueWait, .rescueFailed: .rescue
        case .enroll, .manageable, .available, .active, .error, .rescue: nil
        }
    }

    /// Whether work is in progress: a workflow of the node runs, or waits for the agent.
    package var isWorking: Bool {
        switch self {
        case .verifying, .inspecting, .inspectWait, .deploying, .deployWait, .deleting, .cleaning, .cleanWait, .adopting, .rescuing,
            .rescueWait, .unrescuing, .servicing, .serviceWait:
            true
        default: false
        }
    }
    /// Whether the work waits until an operator continues it.
    package var isHeld: Bool { self == .cleanHold || self == .deployHold || self == .serviceHold }

    /// Whether work has failed, so that an operator has to decide how to continue.
    package var isFailed: Bool {
        switch self {
        case .inspectFailed, .deployFailed, .cleanFailed, .adoptFailed, .rescueFailed, .unrescueFailed, .serviceFailed, .error: true
        default: false
        }
    }

    /// Whether the node can be deleted. Nodes that are in use, or are being cleaned after use, cannot.
    package var isRemovable: Bool {
        switch self {
        case .enroll, .manageable, .available, .adoptFailed, .cleanFailed, .inspectFailed: true
        default: false
        }
    }

    /// Whether an instance uses the node, or data of an instance may be left on it.
    package var isOccupied: Bool {
        switch self {
        case .deploying, .deployWait, .deployHold, .deployFailed, .active, .deleting, .error, .adopting, .rescuing, .rescueWait,
            .rescueFailed, .rescue, .unrescuing, .unrescueFailed, .servicing, .serviceWait, .serviceHold, .serviceFailed:
            true
        default: false
        }
    }

    /// Whether the agent may look up the node on which it runs.
    package var admitsAgents: Bool {
        switch self {
        case .inspecting, .inspectWait, .deploying, .deployWait, .cleaning, .cleanWait, .rescuing, .rescueWait, .servicing, .serviceWait:
            true
        default: false
        }
    }

    /// The CHECK condition on the states of a node, for the schema.
    package static var check: String {
        let pairs = allCases.map { state in
            let targets =
                (state == .cleaning || state == .cleanWait || state == .cleanHold || state == .cleanFailed)
                ? [ProvisionState.available, .manageable] : [state.usualTarget].compactMap { $0 }
            guard !targets.isEmpty else { return "(provision_state = '\(state.rawValue)' AND target_provision_state IS NULL)" }
            let names = targets.map { "'\($0.rawValue)'" }.joined(separator: ", ")
            return "(provision_state = '\(state.rawValue)' AND target_provision_state IN (\(names)))"
        }
        return pairs.joined(separator: "\n    OR ")
    }
}

/// The power states of a node, and the changes that clients can request.
package enum NodePower: String, Sendable, Hashable {
    case on = "power on"
    case off = "power off"
    /// The controller reports a fault, or a state that has no other name.
    case error

    package enum Target: String, Sendable, Hashable, CaseIterable, Codable {
        case on = "power on"
        case off = "power off"
        case reboot = "rebooting"
        case softOff = "soft power off"
        case softReboot = "soft rebooting"

        /// The power state afterwards.
        package var result: NodePower {
            switch self {
            case .on, .reboot, .softReboot: .on
            case .off, .softOff: .off
            }
        }

        /// Whether the operating system is asked to shut down, instead of being switched off.
        package var isSoft: Bool { self == .softOff || self == .softReboot }
    }
}
