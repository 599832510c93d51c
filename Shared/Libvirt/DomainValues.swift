import CLibvirt

/// The state of a domain (`virDomainState`).
package enum DomainState: String, Sendable, Hashable {
    case noState, running, blocked, paused, shuttingDown, shutoff, crashed, pmSuspended

    init(_ raw: Int32) {
        switch UInt32(bitPattern: raw) {
        case VIR_DOMAIN_RUNNING.rawValue: self = .running
        case VIR_DOMAIN_BLOCKED.rawValue: self = .blocked
        case VIR_DOMAIN_PAUSED.rawValue: self = .paused
        case VIR_DOMAIN_SHUTDOWN.rawValue: self = .shuttingDown
        case VIR_DOMAIN_SHUTOFF.rawValue: self = .shutoff
        case VIR_DOMAIN_CRASHED.rawValue: self = .crashed
        case VIR_DOMAIN_PMSUSPENDED.rawValue: self = .pmSuspended
        default: self = .noState
        }
    }
}

/// Why a domain is shut off (`virDomainShutoffReason`), as far as decisions depend on it.
package enum ShutoffReason: String, Sendable, Hashable {
    /// The guest powered itself off, or followed an ACPI request.
    case guestShutdown
    /// The domain was forced off through libvirt.
    case destroyed
    /// QEMU crashed, could not start, or was lost with its libvirtd.
    case failed
    case saved
    case migrated
    case unknown

    init(_ raw: Int32) {
        switch UInt32(bitPattern: raw) {
        case VIR_DOMAIN_SHUTOFF_SHUTDOWN.rawValue: self = .guestShutdown
        case VIR_DOMAIN_SHUTOFF_DESTROYED.rawValue: self = .destroyed
        case VIR_DOMAIN_SHUTOFF_CRASHED.rawValue, VIR_DOMAIN_SHUTOFF_FAILED.rawValue,
            VIR_DOMAIN_SHUTOFF_DAEMON.rawValue:
            self = .failed
        case VIR_DOMAIN_SHUTOFF_SAVED.rawValue: self = .saved
        case VIR_DOMAIN_SHUTOFF_MIGRATED.rawValue: self = .migrated
        default: self = .unknown
        }
    }
}

extension DomainSummary {
    /// Pause reasons (`virDomainPausedReason`) of guests whose memory is being transferred.
    static func isMoving(_ state: DomainState, _ reason: Int32) -> Bool {
        guard state == .paused else { return false }
        return switch UInt32(bitPattern: reason) {
        case VIR_DOMAIN_PAUSED_MIGRATION.rawValue, VIR_DOMAIN_PAUSED_STARTING_UP.rawValue, VIR_DOMAIN_PAUSED_POSTCOPY.rawValue,
            VIR_DOMAIN_PAUSED_POSTCOPY_FAILED.rawValue:
            true
        default: false
        }
    }
}

/// A snapshot of a domain.
package struct DomainSummary: Sendable, Hashable {
    /// The domain's UUID in text form.
    package let uuid: String
    package let name: String
    package let state: DomainState
    /// Meaningful only when `state` is `shutoff`.
    package let shutoffReason: ShutoffReason
    /// Whether libvirt has paused it because its memory is being transferred, as opposed to a pause on request.
    package let isMoving: Bool
    package let hasManagedSave: Bool
    package let isPersistent: Bool

    package init(
        uuid: String, name: String, state: DomainState, shutoffReason: ShutoffReason = .unknown,
        isMoving: Bool = false, hasManagedSave: Bool = false, isPersistent: Bool = true
    ) {
        self.uuid = uuid
        self.name = name
        self.state = state
        self.shutoffReason = shutoffReason
        self.isMoving = isMoving
        self.hasManagedSave = hasManagedSave
        self.isPersistent = isPersistent
    }

    package var isActive: Bool {
        switch state {
        case .running, .blocked, .paused, .shuttingDown, .pmSuspended: true
        case .noState, .shutoff, .crashed: false
        }
    }
}

/// The state of a backup of a running domain's disks.
package enum DomainBackupState: Sendable, Hashable {
    /// None is in progress, and none has ended since the last call.
    case none
    /// Bytes copied, and total bytes.
    case running(done: Int, total: Int)
    case completed
    case failed(String)
}

/// The machine's resources according to libvirt.
package struct NodeInfo: Sendable, Hashable {
    package let architecture: String
    /// Memory in MiB.
    package let memoryMiB: Int
    /// Logical processors.
    package let cpus: Int
    /// The processor's clock, in MHz.
    package let mhz: Int
    package let numaNodes: Int
    package let sockets: Int
    package let cores: Int
    package let threads: Int
}

/// An event from libvirt.
package enum LibvirtEvent: Sendable, Hashable {
    /// The connection was opened (again). Events in the meantime were not delivered.
    case connected
    /// The connection was lost; calls fail until `connected`.
    case disconnected
    /// A domain changed; `event` is libvirt's `virDomainEventType`, `detail` its detail.
    case lifecycle(uuid: String, event: Int, detail: Int)
}
