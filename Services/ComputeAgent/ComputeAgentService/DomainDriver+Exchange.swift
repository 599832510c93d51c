import ComputeAgentCore
package import Contracts
import Kernel
import Libvirt
import Logging
import Synchronization

/// Limits of a volume swap.
package final class ExchangeControl: Sendable {
    private struct State {
        var isOrdered: Bool
        var isHeld: Bool
    }
    private let state: Mutex<State>

    /// - Parameter isHeld: whether an earlier process of the agent has held the guest.
    package init(_ order: ServerJob.VolumeSwap, isHeld: Bool = false) {
        state = Mutex(State(isOrdered: order.completes ?? false, isHeld: isHeld))
    }

    package func update(_ order: ServerJob.VolumeSwap) {
        if order.completes == true { state.withLock { $0.isOrdered = true } }
    }

    /// Whether to switch the guest to the new volume.
    var completes: Bool { state.withLock { $0.isOrdered } }
    /// Whether the new volume has every write of the guest, and the guest is neither started nor changed until the swap has finished.
    var isHeld: Bool { state.withLock { $0.isHeld } }

    func hold() { state.withLock { $0.isHeld = true } }
}

/// The job `swap-volume`.
struct VolumeExchanger: Sendable {
    let tools: ServerTools

    private static let attempts = 4

    /// As `DomainDriver.exchange`; tried again after failures that are not permanent.
    func run(
        _ serverID: String, _ old: DesiredVolume, by new: ExchangedVolume, _ control: ExchangeControl, _ reports: ExchangeReports
    ) async throws {
        try await tools.repeating(VolumeExchanger.attempts) {
            try await tools.domains.exchange(serverID, old, by: new, control, reports)
        }
    }
}

/// Progress of a volume swap.
struct ExchangeReports: Sendable {
    /// Called with the percentage.
    let copying: @Sendable (Int) async -> Void
    /// Defers changes to the guest if its writes still go to both volumes, which the parameter checks. The guest does not change during
    /// that check.
    let hold: @Sendable (_ isInSync: @escaping @Sendable () async throws -> Bool) async throws -> Void
}

/// Swaps of volumes of running guests.
extension DomainDriver {
    private static let exchangePoll = Duration.milliseconds(500)
    private static let exchangeFailuresMax = 5

    /// Copies a volume of the running guest to another one, and switches the guest when ordered. Continues a swap that an earlier
    /// process began.
    ///
    /// Until the guest is held, the copy may restart. From then on both volumes have every write of the guest until one of them is
    /// chosen: the copy never restarts, and a guest that ends is not started.
    ///
    /// - Throws: `PermanentFailure` if the guest keeps the old volume; 503, `LibvirtError`, `FileError`, `CommandError`.
    func exchange(
        _ serverID: String, _ old: DesiredVolume, by new: ExchangedVolume, _ control: ExchangeControl, _ reports: ExchangeReports
    ) async throws {
        guard case .file(_, _, false) = old.connection else { throw PermanentFailure("this host cannot swap such volumes") }
        guard disks.hasVolume(new.path) else { throw ResourceError.unavailable("\(new.path) does not exist") }
        var (hasBegun, failures) = (false, 0)
        while true {
            if try await hypervisor.domain(serverID)?.isActive == true {
                let disk = try await exchanged(serverID, old, new)
                switch disk.state {
                case .exchanged: return await enlarge(serverID, disk.target, new)
                case .other: throw PermanentFailure("the volume is being copied elsewhere")
                case .untouched where control.isHeld: throw PermanentFailure("the copy of the volume ended early")
                case .untouched:
                    guard !hasBegun else { throw ResourceError.unavailable("the copy of volume \(old.volumeID) has ended") }
                    hasBegun = true
                    try await beginExchange(serverID, disk.target, new)
                    continue
                case .copied(isInSync: true) where control.isHeld:
                    guard control.completes else { break }
                    do { try await hypervisor.endBlockCopy(serverID, disk: disk.target, pivots: true) } catch let error as LibvirtError {
                        failures += 1
                        guard failures < DomainDriver.exchangeFailuresMax else { throw error }
                        log.info("the guest could not be switched to its new volume yet", metadata: ["error": "\(error)"])
                        break
                    }
                    continue
                case .copied(isInSync: true):
                    hasBegun = true
                    try await reports.hold { try await exchanged(serverID, old, new).state == .copied(isInSync: true) }
                    continue
                case .copied(isInSync: false):
                    hasBegun = true
                    if let state = try await hypervisor.blockCopyState(serverID, disk: disk.target), state.total > 0 {
                        await reports.copying(min(99, state.done * 100 / state.total))
                    }
                }
            } else {
                guard control.isHeld else { throw PermanentFailure("the server does not run") }
                if control.completes { return await enlarge(serverID, nil, new) }
            }
            try await ambient.time.sleep(for: DomainDriver.exchangePoll)
        }
    }

    /// Ends a swap that is no longer wanted: the guest keeps the volume that it has. If its desired state has the new one, the order to
    /// switch the guest was lost, and is carried out.
    func endExchange(_ serverID: String, _ new: ExchangedVolume, wanted: DesiredServer) async throws {
        guard try await hypervisor.domain(serverID)?.isActive == true else { return await enlarge(serverID, nil, new) }
        let isWanted = wanted.volumes.contains { $0.path == new.path }
        if let (target, isInSync) = try DomainExchange.copies(to: new.path, xml: try await hypervisor.xml(serverID, inactive: false)) {
            try await hypervisor.endBlockCopy(serverID, disk: target, pivots: isWanted && isInSync)
        }
        let target = try DomainExchange.target(of: new.path, xml: try await hypervisor.xml(serverID, inactive: false))
        await enlarge(serverID, target, new)
    }

    /// Gives the disks of volumes at least their sizes. The running guest is told.
    ///
    /// - Throws: `LibvirtError`, also while another job on the disk prevents it; `FileError`, `CommandError`.
    func extendVolumes(of server: DesiredServer) async throws {
        guard try await hypervisor.domain(server.id)?.isActive == true else {
            for volume in server.volumes.compactMap(\.extended) where disks.hasVolume(volume.path) {
                try await disks.extend(volume)
            }
            return
        }
        let xml = try await hypervisor.xml(server.id, inactive: false)
        for volume in server.volumes.compactMap(\.extended) {
            guard let target = try DomainExchange.target(of: volume.path, xml: xml),
                try await hypervisor.diskSize(server.id, disk: target) < volume.bytes
            else { continue }
            try await hypervisor.resizeDisk(server.id, disk: target, bytes: volume.bytes)
        }
    }

    private func exchanged(
        _ serverID: String, _ old: DesiredVolume, _ new: ExchangedVolume
    ) async throws -> (target: String, state: DomainExchange.State) {
        let xml = try await hypervisor.xml(serverID, inactive: false)
        guard let disk = try DomainExchange.disk(old, new: new.path, xml: xml) else {
            throw PermanentFailure("the server's guest does not have the volume")
        }
        return disk
    }

    private func beginExchange(_ serverID: String, _ target: String, _ new: ExchangedVolume) async throws {
        let size = try await hypervisor.diskSize(serverID, disk: target)
        guard size <= new.bytes else { throw PermanentFailure("the volume is smaller than the server's disk") }
        // QEMU copies to a disk of the same size only.
        if size < new.bytes { try await disks.resize(new, to: size, shrinks: true) }
        try await hypervisor.beginBlockCopy(
            serverID, disk: target, xml: DomainExchange.document(new.path, format: new.format).rendered)
    }

    /// Gives the new volume the size that it is to have. A failure changes nothing about which volume the guest has, so it is only
    /// logged; the storage compares the size with the volume's when the volume is attached.
    ///
    /// - Parameter target: the disk that the running guest has on the volume; nil if no guest has it.
    private func enlarge(_ serverID: String, _ target: String?, _ new: ExchangedVolume) async {
        do {
            if let target {
                guard try await hypervisor.diskSize(serverID, disk: target) < new.bytes else { return }
                try await hypervisor.resizeDisk(serverID, disk: target, bytes: new.bytes)
            } else if disks.hasVolume(new.path) {
                try await disks.resize(new, to: new.bytes, shrinks: false)
            }
        } catch {
            log.warning("a volume does not have its size", metadata: ["path": "\(new.path)", "bytes": "\(new.bytes)", "error": "\(error)"])
        }
    }
}
