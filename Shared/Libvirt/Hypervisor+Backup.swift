import CLibvirt

extension Hypervisor {
    /// Starts to copy disks of the running domain, as they are now, to new files; does not wait for the end.
    package func beginBackup(_ uuid: String, xml: String) async throws {
        try await withDomain(uuid, "virDomainBackupBegin") { domain in
            if virDomainBackupBegin(domain, xml, nil, 0) < 0 { throw LibvirtError.last("virDomainBackupBegin") }
        }
    }

    /// The progress of the copy. The end is reported only once.
    package func backupState(_ uuid: String) async throws -> DomainBackupState {
        try await withDomain(uuid, "virDomainGetJobStats") { domain in
            let running = try Hypervisor.job(domain, flags: 0)
            if running.isBackup {
                return .running(done: running.number("disk_processed"), total: running.number("disk_total"))
            }
            let ended = try Hypervisor.job(domain, flags: VIR_DOMAIN_JOB_STATS_COMPLETED.rawValue)
            guard ended.isBackup else { return .none }
            if ended.figures["success"] == .flag(true) { return .completed }
            guard case .text(let text)? = ended.figures["errmsg"] else { return .failed("the copy was ended") }
            return .failed(text)
        }
    }

    /// Cancels the copy; does not wait until it has ended. Succeeds if there is none.
    package func abortBackup(_ uuid: String) async throws {
        try await withDomain(uuid, "virDomainAbortJob") { domain in
            guard virDomainIsActive(domain) == 1, try Hypervisor.job(domain, flags: 0).isBackup else { return }
            if virDomainAbortJob(domain) < 0 {
                let error = LibvirtError.last("virDomainAbortJob")
                if !error.isInvalidState { throw error }
            }
        }
    }

    /// Makes the guest agent flush and freeze the guest's file systems; waits for at most `seconds`.
    package func freeze(_ uuid: String, seconds: Int) async throws {
        try await withAgent(uuid, seconds, "virDomainFSFreeze") { virDomainFSFreeze($0, nil, 0, 0) }
    }

    /// Lets a frozen guest write again.
    package func thaw(_ uuid: String, seconds: Int) async throws {
        try await withAgent(uuid, seconds, "virDomainFSThaw") { virDomainFSThaw($0, nil, 0, 0) }
    }

    /// The agent runs in the guest and may never answer.
    private func withAgent(
        _ uuid: String, _ seconds: Int, _ name: String, _ body: @escaping @Sendable (OpaquePointer) -> Int32
    ) async throws {
        try await withDomain(uuid, name) { domain in
            guard virDomainAgentSetResponseTimeout(domain, Int32(clamping: seconds), 0) == 0 else {
                throw LibvirtError.last("virDomainAgentSetResponseTimeout")
            }
            if body(domain) < 0 { throw LibvirtError.last(name) }
        }
    }

    private struct Job {
        let isBackup: Bool
        let figures: [String: DomainStatistic]

        func number(_ name: String) -> Int {
            guard case .integer(let value)? = figures[name] else { return 0 }
            return Int(clamping: value)
        }
    }

    private static func job(_ domain: OpaquePointer, flags: UInt32) throws -> Job {
        var type: Int32 = 0
        var parameters: UnsafeMutablePointer<virTypedParameter>?
        var count: Int32 = 0
        guard virDomainGetJobStats(domain, &type, &parameters, &count, flags) == 0 else {
            let error = LibvirtError.last("virDomainGetJobStats")
            if error.isInvalidState { return Job(isBackup: false, figures: [:]) }
            throw error
        }
        defer { virTypedParamsFree(parameters, count) }
        let figures = parameters.map { Hypervisor.figures($0, count: Int(count)) } ?? [:]
        let isBackup = figures["operation"] == .integer(Int64(VIR_DOMAIN_JOB_OPERATION_BACKUP.rawValue))
        return Job(isBackup: isBackup && type != VIR_DOMAIN_JOB_NONE.rawValue, figures: figures)
    }
}
