package import Contracts

/// The state of a server (`vm_state`). One static table defines the allowed transitions; the CHECK constraint of `servers`
/// and the diagram in the documentation are derived from it.
package enum VMState: String, Sendable, CaseIterable {
    case building, active, stopped, paused, suspended, rescued, resized, error, deleted
    /// Deleted by its owner, but kept off until it is restored or reclaimed.
    case softDeleted = "soft-delete"
    case shelved
    case shelvedOffloaded = "shelved_offloaded"
}

/// The task in progress on a server (`task_state`).
package enum TaskState: String, Sendable, CaseIterable {
    case scheduling, networking
    case blockDeviceMapping = "block_device_mapping"
    case spawning
    case poweringOff = "powering-off"
    case poweringOn = "powering-on"
    case rebooting
    case rebootingHard = "rebooting_hard"
    case pausing, unpausing, suspending, resuming, deleting, restoring
    case softDeleting = "soft-deleting"
    case rebuilding, rescuing, unrescuing
    case resizePrep = "resize_prep"
    case resizeMigrating = "resize_migrating"
    case resizeFinish = "resize_finish"
    case resizeReverting = "resize_reverting"
    case migrating
    case imageSnapshotPending = "image_snapshot_pending"
    case imageSnapshot = "image_snapshot"
    case imageBackup = "image_backup"
    case imagePendingUpload = "image_pending_upload"
    case imageUploading = "image_uploading"
    case shelving
    case shelvingImagePendingUpload = "shelving_image_pending_upload"
    case shelvingImageUploading = "shelving_image_uploading"
    case shelvingOffloading = "shelving_offloading"
    case unshelving
}

extension TaskState {
    /// The tasks of `createImage` and `createBackup`.
    package static let snapshot: [TaskState] = [
        .imageSnapshotPending, .imageSnapshot, .imageBackup, .imagePendingUpload, .imageUploading,
    ]
    /// The tasks whose workflows wait until the host has applied something.
    package static let waitsForHost: Set<TaskState> = [
        .deleting, .shelving, .shelvingOffloading, .unshelving, .spawning, .resizeMigrating, .resizeFinish, .resizeReverting,
        .migrating, .rebuilding,
    ]
    /// The tasks of `shelve`, until the server is shelved.
    package static let shelve: [TaskState] = [.shelving, .shelvingImagePendingUpload, .shelvingImageUploading]
}

/// Power as Compute's API numbers it.
package enum PowerState: Int, Sendable {
    case none = 0
    case running = 1
    case paused = 3
    case shutdown = 4
    case crashed = 6
    case suspended = 7

    /// From an agent's report.
    package init(reported: ReportedPower) {
        switch reported {
        case .running: self = .running
        case .paused: self = .paused
        case .shutoff: self = .shutdown
        case .crashed: self = .crashed
        case .suspended: self = .suspended
        default: self = .none
        }
    }
}

/// The static table of a server's states.
package enum ServerStates {
    /// Tasks that a server can be in, by state.
    package static let tasks: [(state: VMState, tasks: [TaskState])] = [
        (.building, [.scheduling, .networking, .blockDeviceMapping, .spawning, .deleting]),
        (
            .active,
            [
                .poweringOff, .rebooting, .rebootingHard, .pausing, .suspending, .deleting, .softDeleting, .rebuilding, .rescuing,
                .resizePrep, .resizeMigrating, .resizeFinish, .migrating,
            ] + copying
        ),
        (
            .stopped,
            [
                .poweringOn, .rebootingHard, .deleting, .softDeleting, .rebuilding, .rescuing, .resizePrep, .resizeMigrating, .resizeFinish,
            ] + copying
        ),
        (.paused, [.unpausing, .rebootingHard, .migrating, .deleting, .softDeleting] + copying),
        (.suspended, [.resuming, .rebootingHard, .deleting, .softDeleting] + copying),
        (.rescued, [.unrescuing, .deleting]),
        (.resized, [.resizeReverting, .deleting]),
        (.error, [.poweringOff, .rebootingHard, .deleting, .softDeleting, .rebuilding, .rescuing]),
        (.softDeleted, [.restoring, .deleting]),
        (.shelved, [.shelvingOffloading, .unshelving, .deleting]),
        (.shelvedOffloaded, [.unshelving, .spawning, .deleting]),
        (.deleted, []),
    ]

    private static let copying = TaskState.snapshot + TaskState.shelve + [.shelvingOffloading]

    /// The condition on `vm_state` and `task_state` that `tasks` stands for.
    package static var check: String {
        tasks.map { entry in
            guard !entry.tasks.isEmpty else { return "(vm_state = '\(entry.state.rawValue)' AND task_state IS NULL)" }
            let words = entry.tasks.map { "'\($0.rawValue)'" }.joined(separator: ", ")
            return "(vm_state = '\(entry.state.rawValue)' AND (task_state IS NULL OR task_state IN (\(words))))"
        }.joined(separator: "\n            OR ")
    }

    /// Tasks that are the status of their server.
    package static let taskStatuses: [(task: TaskState, status: String)] = [
        (.rebooting, "REBOOT"), (.rebootingHard, "HARD_REBOOT"), (.rebuilding, "REBUILD"), (.resizePrep, "RESIZE"),
        (.resizeMigrating, "RESIZE"),
        (.resizeFinish, "RESIZE"),
        (.resizeReverting, "REVERT_RESIZE"), (.migrating, "MIGRATING"),
    ]

    /// The `status` of Compute's API.
    package static func status(_ state: VMState, _ task: TaskState?) -> String {
        if let task, let status = taskStatuses.first(where: { $0.task == task })?.status { return status }
        return switch (state, task) {
        case (.building, _): "BUILD"
        case (.active, _): "ACTIVE"
        case (.stopped, _): "SHUTOFF"
        case (.paused, _): "PAUSED"
        case (.suspended, _): "SUSPENDED"
        case (.rescued, _): "RESCUE"
        case (.resized, _): "VERIFY_RESIZE"
        case (.shelved, _): "SHELVED"
        case (.shelvedOffloaded, _): "SHELVED_OFFLOADED"
        case (.error, _): "ERROR"
        case (.softDeleted, _): "SOFT_DELETED"
        case (.deleted, _): "DELETED"
        }
    }

    /// `status` as SQL over the columns of the table `alias`.
    package static func statusSQL(alias: String) -> String {
        var text = "CASE"
        for (task, status) in taskStatuses { text += " WHEN \(alias).task_state = '\(task.rawValue)' THEN '\(status)'" }
        for state in VMState.allCases where state != .deleted {
            text += " WHEN \(alias).vm_state = '\(state.rawValue)' THEN '\(status(state, nil))'"
        }
        return text + " ELSE 'DELETED' END"
    }

    /// The states that a `status` filter matches; empty for an unknown status.
    package static func states(status: String) -> [(VMState, TaskState?)] {
        let word = status.uppercased()
        return taskStatuses.filter { $0.status == word }.flatMap { shown in
            tasks.filter { $0.tasks.contains(shown.task) }.map { ($0.state, shown.task) }
        } + VMState.allCases.filter { self.status($0, nil) == word }.map { ($0, nil) }
    }
}

/// Power actions of the API.
package enum PowerAction: String, Sendable, CaseIterable {
    case start, stop
    case rebootSoft = "reboot"
    case rebootHard = "reboot_hard"
    case pause, unpause, suspend, resume
    case softDelete = "soft_delete"
    case restore

    /// The states in which the action is allowed.
    package var from: [VMState] {
        switch self {
        case .start: [.stopped]
        case .stop: [.active, .error]
        case .rebootSoft: [.active]
        case .rebootHard: [.active, .stopped, .paused, .suspended, .error]
        case .pause: [.active]
        case .unpause: [.paused]
        case .suspend: [.active]
        case .resume: [.suspended]
        case .softDelete: [.active, .stopped, .paused, .suspended, .error]
        case .restore: [.softDeleted]
        }
    }

    package var task: TaskState {
        switch self {
        case .start: .poweringOn
        case .stop: .poweringOff
        case .rebootSoft: .rebooting
        case .rebootHard: .rebootingHard
        case .pause: .pausing
        case .unpause: .unpausing
        case .suspend: .suspending
        case .resume: .resuming
        case .softDelete: .softDeleting
        case .restore: .restoring
        }
    }

    /// The power state that the host must establish.
    package var power: DesiredPower {
        switch self {
        case .start, .rebootSoft, .rebootHard, .unpause, .resume, .restore: .running
        case .stop, .softDelete: .shutoff
        case .pause: .paused
        case .suspend: .suspended
        }
    }

    /// The VM state after the action.
    package var to: VMState { task.target(power) }

    /// The operation to send to the agent; nil if the action changes the desired power state instead.
    package var operationKind: ServerSpec.Operation.Kind? {
        switch self {
        case .rebootSoft: .rebootSoft
        case .rebootHard: .rebootHard
        default: nil
        }
    }

    /// The name in API messages and instance actions.
    package var name: String {
        switch self {
        case .rebootHard: "reboot"
        case .softDelete: "delete"
        default: rawValue
        }
    }
}

extension TaskState {
    /// The state of a server when this task has reached the power state.
    package func target(_ power: DesiredPower) -> VMState {
        switch power {
        case .running, .expected: self == .rescuing ? .rescued : .active
        case .shutoff: self == .softDeleting ? .softDeleted : .stopped
        case .paused: .paused
        case .suspended: .suspended
        case .absent: .deleted
        }
    }

    /// Tasks that end when the host reports the power that they require.
    package static let ofPower: [TaskState] =
        PowerAction.allCases.map(\.task) + [.rebuilding, .rescuing, .unrescuing]
}

extension VMState {
    /// The states in which a server's disk can be copied: for `createImage`, `createBackup` and `shelve`.
    package static let copied: [VMState] = [.active, .stopped, .paused, .suspended]

    /// The desired power of a server in this state.
    package var restingPower: DesiredPower {
        switch self {
        case .building, .active, .rescued, .resized, .error: .running
        case .stopped, .softDeleted, .shelved: .shutoff
        case .paused: .paused
        case .suspended: .suspended
        case .deleted, .shelvedOffloaded: .absent
        }
    }
}

extension ServerStates {
    /// The state diagram as Mermaid source, generated from the tables above; `docs/compute.md` contains it.
    package static var diagram: String {
        var lines = ["stateDiagram-v2", "    [*] --> building: create"]
        lines.append("    building --> active: the host runs it, its ports are up, its metadata answers")
        lines.append("    building --> error: no host, or the build failed (and was reverted)")
        for action in PowerAction.allCases {
            for state in action.from {
                lines.append("    \(state.rawValue) --> \(action.to.rawValue): \(action.name) (\(action.task.rawValue))")
            }
        }
        for change in ServerChange.allCases {
            for state in change.from {
                for end in change.ends(from: state) {
                    lines.append(
                        "    \(state.rawValue) --> \(end.rawValue): \(change.name)\(change.task.map { " (\($0.rawValue))" } ?? "")")
                }
            }
        }
        lines.append("    active --> stopped: the guest stops by itself")
        for state in VMState.copied {
            lines.append("    \(state.rawValue) --> \(state.rawValue): createImage (\(TaskState.imageSnapshotPending.rawValue))")
        }
        for state in VMState.copied { lines.append("    \(state.rawValue) --> shelved: shelve (\(TaskState.shelving.rawValue))") }
        lines.append("    shelved --> shelved_offloaded: shelveOffload (\(TaskState.shelvingOffloading.rawValue))")
        lines.append("    shelved --> active: unshelve (\(TaskState.unshelving.rawValue))")
        lines.append("    shelved_offloaded --> active: unshelve (\(TaskState.unshelving.rawValue))")
        for state in VMState.allCases where state != .deleted {
            lines.append("    \(state.rawValue) --> deleted: delete (\(TaskState.deleting.rawValue))")
        }
        return (lines + ["    deleted --> [*]"]).joined(separator: "\n")
    }
}
