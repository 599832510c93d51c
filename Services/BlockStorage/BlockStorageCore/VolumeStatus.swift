import Kernel

/// The status of a volume.
package enum VolumeStatus: String, Sendable, CaseIterable {
    case creating, downloading, available, reserved, attaching
    case inUse = "in-use"
    case detaching, extending, retyping, uploading, maintenance, deleting, error
    case errorDeleting = "error_deleting"
    case errorExtending = "error_extending"
    case awaitingTransfer = "awaiting-transfer"

    /// Actions on volumes and the states that allow them.
    package enum Action: String, Sendable, CaseIterable {
        case delete, extend, snapshot, clone, attach, reserve, retype, setBootable, setReadOnly, upload, reimage
    }

    /// The static table of states in which each action is allowed.
    package static let allowed: [(action: Action, from: Set<VolumeStatus>)] = [
        // A volume that is still being created can be deleted.
        (.delete, [.creating, .downloading, .available, .error, .errorDeleting, .errorExtending]),
        (.extend, [.available]),
        (.snapshot, [.available]),
        (.clone, [.available]),
        (.attach, [.available]),
        (.reserve, [.available]),
        (.retype, [.available, .inUse]),
        (.setBootable, [.available, .inUse, .reserved]),
        (.setReadOnly, [.available]), (.upload, [.available]), (.reimage, [.available, .error]),
    ]

    /// Whether `action` is possible from this state.
    package func allows(_ action: Action) -> Bool {
        VolumeStatus.allowed.first { $0.action == action }?.from.contains(self) ?? false
    }

    /// - Parameter further: other states that allow the action.
    /// - Throws: 400 naming the states from which `action` is possible.
    package func require(_ action: Action, of volume: VolumeID, or further: Set<VolumeStatus> = []) throws {
        guard !allows(action), !further.contains(self) else { return }
        let from = VolumeStatus.allowed.first { $0.action == action }?.from ?? []
        let states = from.union(further).map(\.rawValue).sorted()
        throw ResourceError.badRequest(
            """
            Invalid volume: Volume \(volume) status must be \(states.joined(separator: " or ")) to \
            \(action.rawValue), but the current status is \(rawValue).
            """
        )
    }

    /// The states that an administrator may set.
    package static let declarable: Set<String> = [
        "creating", "available", "deleting", "error", "error_deleting", "attaching", "detaching", "in-use",
        "maintenance", "reserved", "error_extending",
    ]
}

/// The status of a snapshot.
package enum SnapshotStatus: String, Sendable, CaseIterable {
    case creating, available, deleting, error
    case errorDeleting = "error_deleting"

    package var isDeletable: Bool { self != .deleting }

    /// Whether a storage backend may report a snapshot to change from this state to another one.
    package func mayBeReported(as status: SnapshotStatus) -> Bool {
        switch self {
        case .creating: [.creating, .available, .error].contains(status)
        case .deleting: [.deleting, .errorDeleting].contains(status)
        default: false
        }
    }
}

/// The status of an attachment.
package enum AttachmentStatus: String, Sendable, CaseIterable {
    /// The volume is reserved for a server; there is no connection yet.
    case reserved
    /// A connection was handed out.
    case attaching
    /// Attached to the guest.
    case attached
    case detaching
    case errorAttaching = "error_attaching"

    /// The state of a volume with these attachments.
    package static func volumeStatus(_ attachments: [AttachmentStatus]) -> VolumeStatus {
        if attachments.contains(.attached) { return .inUse }
        if attachments.contains(.detaching) { return .detaching }
        if attachments.contains(.attaching) { return .attaching }
        if attachments.contains(.reserved) { return .reserved }
        return attachments.isEmpty ? .available : .error
    }
}
