/// Actions that change more than the power of a server.
package enum ServerChange: String, Sendable, CaseIterable {
    case rebuild, rescue, unrescue, resize, migrate, confirmResize, revertResize, evacuate
    case liveMigrate = "os-migrateLive"

    /// The name in API messages and instance actions.
    package var name: String { rawValue }

    /// The event's name in the instance actions.
    package var event: String {
        switch self {
        case .rebuild, .rescue, .unrescue: "compute_\(rawValue)_instance"
        // As in Nova, a migration is a resize to the same flavor.
        case .resize, .migrate: "compute_prep_resize"
        case .confirmResize: "compute_confirm_resize"
        case .revertResize: "compute_revert_resize"
        case .liveMigrate: "conductor_live_migrate_instance"
        case .evacuate: "conductor_rebuild_instance"
        }
    }

    /// The states in which the action is allowed.
    package var from: [VMState] {
        switch self {
        case .rebuild, .rescue, .evacuate: [.active, .stopped, .error]
        case .liveMigrate: [.active, .paused]
        case .unrescue: [.rescued]
        case .resize, .migrate: [.active, .stopped]
        case .confirmResize, .revertResize: [.resized]
        }
    }

    /// The task that the action begins with; nil for an action that is complete when the response is sent.
    package var task: TaskState? {
        switch self {
        case .rebuild, .evacuate: .rebuilding
        case .liveMigrate: .migrating
        case .rescue: .rescuing
        case .unrescue: .unrescuing
        case .resize, .migrate: .resizePrep
        case .confirmResize: nil
        case .revertResize: .resizeReverting
        }
    }

    /// The states in which the action can end, by the state in which it began.
    package func ends(from state: VMState) -> [VMState] {
        switch self {
        case .liveMigrate: [state]
        case .evacuate: state == .stopped ? [.stopped] : [.active]
        case .rebuild: state == .stopped ? [.stopped, .error] : [.active, .error]
        case .rescue: [.rescued]
        case .unrescue: [.active]
        case .resize, .migrate: [.resized]
        case .confirmResize, .revertResize: [.active, .stopped]
        }
    }
}
