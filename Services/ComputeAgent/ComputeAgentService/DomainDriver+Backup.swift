import ComputeAgentCore
import Contracts
import Kernel
import Libvirt
import Logging

/// Copies of running guests' disks.
extension DomainDriver {
    private static let backupPoll = Duration.milliseconds(500)
    /// How long a guest's agent may take to freeze or thaw its file systems, in seconds.
    private static let agentSeconds = 30

    /// Copies disks of the running guest, as they are when the copy begins, to new files.
    ///
    /// - Parameter progress: called with the percentage.
    /// - Returns: false if the guest does not run.
    /// - Throws: `PermanentFailure` if the guest's file systems must be frozen but cannot be frozen; `LibvirtError`, 503 if the copy ended
    ///   early.
    func backUp(
        _ serverID: String, _ disks: [DomainBackup.Disk], quiesce: ServerJob.DiskUpload.Quiesce, _ progress: @Sendable (Int) async -> Void
    ) async throws -> Bool {
        guard try await hypervisor.domain(serverID)?.isActive == true else {
            // A guest that is off has no unwritten data in memory.
            return false
        }
        let isFrozen = try await freeze(serverID, quiesce)
        do {
            // The copies have the disks' content of this moment, whatever the guest writes afterwards.
            let xml = try await hypervisor.xml(serverID, inactive: false)
            guard let document = try DomainBackup.document(disks, xml: xml) else {
                throw PermanentFailure("the server's guest does not have the disks")
            }
            try await hypervisor.beginBackup(serverID, xml: document.rendered)
        } catch {
            if isFrozen { await thaw(serverID) }
            throw error
        }
        if isFrozen { await thaw(serverID) }
        while true {
            switch try await hypervisor.backupState(serverID) {
            case .running(let done, let total): if total > 0 { await progress(min(100, done * 100 / total)) }
            case .completed: return true
            case .failed(let text): throw ResourceError.unavailable("the copy of the disks of \(serverID) failed: \(text)")
            case .none: throw ResourceError.unavailable("the copy of the disks of \(serverID) has ended")
            }
            try await ambient.time.sleep(for: DomainDriver.backupPoll)
        }
    }

    /// Cleans up after an earlier attempt: ends a copy in progress, and thaws file systems.
    func clearBackup(_ serverID: String, mayBeFrozen: Bool) async throws {
        guard try await hypervisor.domain(serverID)?.isActive == true else { return }
        do {
            try await hypervisor.abortBackup(serverID)
            while case .running = try await hypervisor.backupState(serverID) {
                try await ambient.time.sleep(for: DomainDriver.backupPoll)
            }
        } catch let error as LibvirtError where error.isNoDomain || error.isInvalidState { return }
        if mayBeFrozen, try await hasAgent(serverID) { await thaw(serverID) }
    }

    private func hasAgent(_ serverID: String) async throws -> Bool {
        try DomainBackup.hasGuestAgent(xml: try await hypervisor.xml(serverID, inactive: false))
    }

    /// - Returns: whether the guest has to be thawed.
    private func freeze(_ serverID: String, _ quiesce: ServerJob.DiskUpload.Quiesce) async throws -> Bool {
        guard quiesce != .never else { return false }
        do {
            guard try await hasAgent(serverID) else {
                guard quiesce != .required else {
                    throw PermanentFailure("the server has no guest agent, but os_require_quiesce asks for one")
                }
                return false
            }
            try await hypervisor.freeze(serverID, seconds: DomainDriver.agentSeconds)
            return true
        } catch let error as LibvirtError where !error.isConnectionFailure {
            // The agent may have frozen some of the file systems.
            await thaw(serverID)
            guard quiesce != .required else {
                throw PermanentFailure("the guest agent did not freeze the server's file systems", details: "\(error)")
            }
            log.notice("the guest's file systems are not frozen", metadata: ["server": "\(serverID)", "error": "\(error)"])
            return false
        }
    }

    /// A guest left with frozen file systems would be worse than a failed copy.
    private func thaw(_ serverID: String) async {
        for _ in 0..<3 {
            do { return try await hypervisor.thaw(serverID, seconds: DomainDriver.agentSeconds) } catch {
                log.warning("the guest's file systems are not thawed", metadata: ["server": "\(serverID)", "error": "\(error)"])
            }
        }
    }
}
