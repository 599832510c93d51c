package import Contracts
package import Kernel

/// One idempotent action on a server.
package enum AgentAction: Sendable, Hashable {
    /// Fetches the images, and checks that the disks created from them will fit.
    case fetch
    /// Deletes disks that will be recreated. The guest is off.
    case discard(DiskSelection)
    /// Copies the disks that a resize will change. The guest is off.
    case keep
    /// Replaces the disks by their copies.
    case restore
    /// Image, disks and config drive exist as files.
    case provision
    /// Enlarges the disks to the flavor's sizes.
    case grow
    /// Creates the taps on the switch under their ports' names, and starts the metadata service of their networks.
    case plug([DesiredPort])
    case unplug([LocalServerRecord.PluggedPort])
    /// The persistent definition is the desired one.
    case define
    case start(paused: Bool)
    case suspend
    case resume
    /// Suspends the guest to disk.
    case save
    case discardSave
    /// Requests a shutdown from the guest and powers it off after a deadline.
    case shutdown
    case destroy
    /// The disks of volumes have at least their sizes.
    case extendVolumes
    case attachVolume(DesiredVolume)
    case detachVolume(target: String)
    case attachPort(DesiredPort)
    case detachPort(mac: MACAddress, tap: String)
    case undefine
    case removeFiles
    /// Records the operation as done, so that it is never repeated under this id.
    case complete(operationID: String)
}

/// Some of a server's own disks.
package enum DiskSelection: Sendable, Hashable {
    /// The disks that a rebuild recreates: all of them, or all except the ephemeral disk.
    case rebuilt(withEphemeral: Bool)
    /// The rescue disk.
    case rescue
    /// Copies from before a resize.
    case kept
    /// Disks from an earlier stay of the server on the host, and their copies.
    case stale([ServerSpec.LocalDisk])
}

/// Decides which actions lead from the observed to the desired state.
package enum Reconciler {
    /// The actions in their order; empty when the server is as desired.
    ///
    /// - Parameters:
    ///   - observed: nil if the domain does not exist.
    ///   - lostPorts: ids of recorded ports that are missing in the switch or on the host. Desired ones are plugged again; the
    ///     others are still unplugged, because they may remain in one of the two.
    package static func plan(
        _ desired: DesiredServer, observed: ObservedDomain?, record: LocalServerRecord, lostPorts: Set<String> = []
    ) -> [AgentAction] {
        let operation = desired.operation.flatMap { $0.id == record.lastOperationID ? nil : $0 }
        // The guest may already run elsewhere: the control plane decides where it belongs, and then removes the job.
        if isLeaving(desired, record) { return [] }
        switch desired.power {
        case .absent: return hasArrived(desired, observed) ? [] : remove(observed, record, keepsDisks: desired.keepsDisks)
        case .expected: return expect(desired, observed, record, lostPorts)
        case .running, .paused:
            guard let observed, observed.power != .shutoff else {
                if poweredOffByItself(desired, observed, record), operation == nil { return [] }
                return start(desired, observed, record, operation)
            }
            return keepUp(desired, observed, record, operation, lostPorts)
        case .shutoff: return stop(desired, observed, record, by: .shutdown, operation)
        case .suspended: return stop(desired, observed, record, by: .save, operation)
        }
    }

    /// The guest shut itself down after the desired state had been reached. The agent reports this and does not restart it;
    /// the control plane then decides on the desired power.
    package static func poweredOffByItself(
        _ desired: DesiredServer, _ observed: ObservedDomain?, _ record: LocalServerRecord
    ) -> Bool {
        observed?.power == .shutoff && observed?.offReason == .guest && record.appliedPower == .running
            && desired.power == .running && record.appliedGeneration == desired.generation
    }

    /// Whether the guest is being moved, or may have been moved, to another host.
    package static func isLeaving(_ desired: DesiredServer, _ record: LocalServerRecord) -> Bool {
        guard desired.power != .absent, let move = desired.move else { return false }
        return record.jobs.contains { $0.id == move.id }
    }

    /// Whether a guest that is no longer expected has already arrived.
    package static func hasArrived(_ desired: DesiredServer, _ observed: ObservedDomain?) -> Bool {
        desired.power == .absent && desired.operation?.kind == .withdraw && observed?.isWhole == true
    }

    /// Prepares for a guest that comes from another host. libvirt manages the domain from the first byte of the transfer on.
    private static func expect(
        _ desired: DesiredServer, _ observed: ObservedDomain?, _ record: LocalServerRecord, _ lostPorts: Set<String>
    ) -> [AgentAction] {
        if let observed, observed.power != .shutoff {
            let lost = desired.ports.filter { lostPorts.contains($0.id) }
            return lost.isEmpty ? [] : [.plug(lost)]
        }
        var actions: [AgentAction] = []
        // Left behind by a failed attempt.
        if observed != nil { actions.append(.undefine) }
        if record.appliedGeneration != desired.generation { actions.append(.provision) }
        return actions + [.plug(desired.ports)]
    }

    private static func remove(_ observed: ObservedDomain?, _ record: LocalServerRecord, keepsDisks: Bool) -> [AgentAction] {
        if record.isGone, observed == nil { return record.hasKeptDisks && !keepsDisks ? [.removeFiles] : [] }
        var actions: [AgentAction] = []
        if let observed {
            if observed.power != .shutoff { actions.append(.destroy) }
            actions.append(.undefine)
        }
        if !record.pluggedPorts.isEmpty { actions.append(.unplug(record.pluggedPorts)) }
        return keepsDisks ? actions : actions + [.removeFiles]
    }

    private static func start(
        _ desired: DesiredServer, _ observed: ObservedDomain?, _ record: LocalServerRecord, _ operation: ServerOperation?
    ) -> [AgentAction] {
        var actions = renewals(operation) + provision(operation) + [.plug(desired.ports)]
        if observed?.hasManagedSave == true, operation != nil { actions.append(.discardSave) }
        // A guest whose memory was saved keeps the disks that it knows.
        if observed?.hasManagedSave != true || operation != nil { actions += extensions(desired) }
        actions += [.define, .start(paused: desired.power == .paused)]
        actions += unplugStale(desired, record)
        if let operation { actions.append(.complete(operationID: operation.id)) }
        return actions
    }

    /// The disks that an operation recreates. Their images are fetched first, so that a missing image changes nothing.
    private static func renewals(_ operation: ServerOperation?) -> [AgentAction] {
        switch operation?.kind {
        case .rebuild?: [.fetch, .discard(.rebuilt(withEphemeral: operation?.preservesEphemeral == false))]
        case .rescue?: [.fetch, .discard(.rescue)]
        case .resize?: [.keep]
        case .resizeRevert?: [.restore]
        case .unrescue?, .rebootSoft?, .rebootHard?, .withdraw?, nil: []
        }
    }

    private static func provision(_ operation: ServerOperation?) -> [AgentAction] {
        operation?.kind == .resize ? [.provision, .grow] : [.provision]
    }

    private static func keepUp(
        _ desired: DesiredServer, _ observed: ObservedDomain, _ record: LocalServerRecord, _ operation: ServerOperation?,
        _ lostPorts: Set<String>
    ) -> [AgentAction] {
        if observed.power == .stopping { return [] }
        if let operation {
            return first(renewals(operation)) + [turnOff(observed, for: operation)] + start(desired, observed, record, operation)
        }
        var actions: [AgentAction] = []
        switch (desired.power, observed.power) {
        case (.running, .paused): actions.append(.resume)
        case (.paused, .running): actions.append(.suspend)
        default: break
        }
        actions += deviceChanges(desired, observed)
        actions += unplugStale(desired, record)
        let unplugged = desired.ports.filter { port in
            lostPorts.contains(port.id) || !record.pluggedPorts.contains { $0.id == port.id }
        }
        if !unplugged.isEmpty, !actions.contains(where: { if case .plug = $0 { true } else { false } }) {
            actions.insert(.plug(unplugged), at: 0)
        }
        if record.appliedGeneration != desired.generation { actions += extensions(desired) + [.define] }
        return actions
    }

    private static func extensions(_ desired: DesiredServer) -> [AgentAction] {
        desired.volumes.contains { $0.extended != nil } ? [.extendVolumes] : []
    }

    private static func stop(
        _ desired: DesiredServer, _ observed: ObservedDomain?, _ record: LocalServerRecord, by how: AgentAction,
        _ operation: ServerOperation?
    ) -> [AgentAction] {
        let renewals = renewals(operation)
        var actions: [AgentAction] = []
        if let observed, observed.power != .shutoff {
            actions += first(renewals)
            // A paused guest cannot react to a shutdown request.
            actions.append(how == .shutdown && observed.power == .paused ? .destroy : how)
        } else if desired.power == .shutoff, observed?.hasManagedSave == true {
            actions.append(.discardSave)
        }
        if !record.pluggedPorts.isEmpty { actions.append(.unplug(record.pluggedPorts)) }
        actions += renewals
        if observed == nil || !renewals.isEmpty { actions += provision(operation) }
        if observed == nil || record.appliedGeneration != desired.generation || !renewals.isEmpty { actions.append(.define) }
        if let operation { actions.append(.complete(operationID: operation.id)) }
        return actions
    }

    /// Requests a shutdown where the operation allows it, so that the guest can write its data to disk.
    private static func turnOff(_ observed: ObservedDomain, for operation: ServerOperation) -> AgentAction {
        guard observed.power == .running else { return .destroy }
        return switch operation.kind {
        case .rebootSoft, .rebuild, .rescue, .resize, .resizeRevert: .shutdown
        case .rebootHard, .unrescue, .withdraw: .destroy
        }
    }

    /// The actions before the guest is turned off.
    private static func first(_ renewals: [AgentAction]) -> [AgentAction] { renewals.filter { $0 == .fetch } }

    private static func unplugStale(_ desired: DesiredServer, _ record: LocalServerRecord) -> [AgentAction] {
        let stale = record.pluggedPorts.filter { plugged in !desired.ports.contains { $0.id == plugged.id } }
        return stale.isEmpty ? [] : [.unplug(stale)]
    }

    /// Devices to attach to and detach from a running guest. Volumes are recognised by their file, or else by their serial; ports by
    /// their hardware address.
    private static func deviceChanges(_ desired: DesiredServer, _ observed: ObservedDomain) -> [AgentAction] {
        var actions: [AgentAction] = []
        let files = Dictionary(desired.volumes.compactMap { volume in volume.path.map { ($0, volume.volumeID) } }) { first, _ in first }
        let known = Set(observed.disks.compactMap { $0.source.flatMap { files[$0] } })
        let attached = observed.disks.compactMap { disk -> (id: String?, target: String)? in
            guard let serial = disk.serial.flatMap({ UUID128($0)?.description }) else { return nil }
            if let id = disk.source.flatMap({ files[$0] }) { return (id, disk.target) }
            // A serial that belongs to another disk is stale: after a swap, the serial is still that of the replaced volume.
            return (known.contains(serial) ? nil : serial, disk.target)
        }
        for disk in attached where !desired.volumes.contains(where: { $0.volumeID == disk.id }) {
            actions.append(.detachVolume(target: disk.target))
        }
        for volume in desired.volumes where !attached.contains(where: { $0.id == volume.volumeID }) {
            actions.append(.attachVolume(volume))
        }
        for interface in observed.interfaces where !desired.ports.contains(where: { $0.mac == interface.mac }) {
            actions.append(.detachPort(mac: interface.mac, tap: interface.tap))
        }
        let missing = desired.ports.filter { port in !observed.interfaces.contains { $0.mac == port.mac } }
        if !missing.isEmpty {
            actions.append(.plug(missing))
            actions += missing.map { .attachPort($0) }
        }
        return actions
    }
}

/// Limits restarts of a server whose QEMU process keeps crashing.
package struct RestartLimiter: Sendable, Hashable {
    /// Most restarts within `window`.
    package static let restartsMax = 5
    package static let window = Duration.seconds(600)
    private var restarts: [Timestamp] = []

    package init() {}

    /// Counts a restart; false when there were too many within the window.
    package mutating func mayRestart(at now: Timestamp) -> Bool {
        restarts.removeAll { now - $0 > RestartLimiter.window }
        guard restarts.count < RestartLimiter.restartsMax else { return false }
        restarts.append(now)
        return true
    }
}

/// Exponential back-off between attempts.
package struct Backoff: Sendable, Hashable {
    /// Longest pause.
    package static let pauseMax = Duration.seconds(30)
    private var failures = 0

    package init() {}

    /// The pause before the next attempt: 0.5 s at first, then doubled up to `pauseMax`.
    package mutating func next() -> Duration {
        defer { failures += 1 }
        return min(.milliseconds(500) * (1 << min(failures, 6)), Backoff.pauseMax)
    }

    /// Resets the back-off.
    package mutating func reset() { failures = 0 }
}
