import ComputeAgentCore
import Contracts
import Kernel
import Logging

/// A job that this process works on.
struct RunningJob: Sendable {
    let task: Task<Void, Never>
    var phase: String?
    /// Percent.
    var progress = 0
    /// For a guest that is being moved to another host.
    var move: (control: MoveControl, progress: MigrationProgress?)?
    /// Of a volume that takes the place of another one.
    var exchange: ExchangeControl?

    /// A guest counts as queued until it is known to be moving, so that the time does not count against its limit in the control plane.
    init(_ job: ServerJob, task: Task<Void, Never>) {
        self.task = task
        guard let order = job.migration else { return }
        move = (MoveControl(order), nil)
        phase = ServerJobReport.queued
    }
}

/// Long-running work beside the desired state.
///
/// A job is recorded before it starts and until the control plane no longer lists it, so that a restarted agent repeats it or removes its
/// leftovers.
extension ServerWorker {
    /// Cancels the jobs that the desired state no longer has.
    func dropJobs(_ desired: DesiredServer) async throws {
        let wanted = desired.power == .absent ? [] : desired.jobs
        for job in desired.jobs { if let order = job.swap { runningJobs[job.id]?.exchange?.update(order) } }
        for job in JobPlan(wanted: wanted, known: record.jobs, active: Set(runningJobs.keys)).dropped {
            if let running = runningJobs[job.id] {
                // A move is aborted, not cancelled, and its end is awaited.
                if let move = running.move { move.control.cancel() } else { running.task.cancel() }
                await running.task.value
                runningJobs[job.id] = nil
            }
            if job.state == .running {
                tools.log.info("a job is cancelled", metadata: ["server": "\(serverID)", "job": "\(job.id)"])
            }
            if let volume = job.exchange {
                if job.state != .done { try await tools.domains.endExchange(serverID, volume, wanted: desired) }
            } else if job.files.isEmpty {
                try await DiskUploader(tools: tools).clear(job.id, nil, serverID: serverID)
            } else if job.state != .done {
                try await VolumeCopier(tools: tools).clear(job.files, serverID: serverID)
            }
            record.jobs.removeAll { $0.id == job.id }
            try await save()
        }
    }

    /// Starts the jobs of the desired state, once it is reached.
    func beginJobs(_ desired: DesiredServer) async throws {
        guard desired.power != .absent, record.generation == desired.generation else { return }
        if let move = desired.move, let order = move.migration { runningJobs[move.id]?.move?.control.update(order) }
        for job in JobPlan(wanted: desired.jobs, known: record.jobs, active: Set(runningJobs.keys)).begun {
            // While the host was away, the new volume may have been given to another server.
            if job.swap != nil, !isConfirmed { continue }
            if !record.jobs.contains(where: { $0.id == job.id }) {
                let exchange = try job.swap.flatMap { try desired.exchanged($0) }
                record.jobs.append(LocalJob(id: job.id, files: job.copies?.volumes.map(\.path) ?? [], exchange: exchange))
                try await save()
            }
            tools.log.info("a job begins", metadata: ["server": "\(serverID)", "job": "\(job.id)", "kind": "\(job.kind)"])
            var running = RunningJob(job, task: Task { await self.work(on: job, of: desired) })
            if let order = job.swap {
                let isHeld = record.jobs.contains { $0.id == job.id && $0.holdsGuest }
                running.exchange = ExchangeControl(order, isHeld: isHeld)
            }
            runningJobs[job.id] = running
        }
    }

    /// Leaves the jobs to the next process.
    func stopJobs() {
        for job in runningJobs.values { job.task.cancel() }
    }

    private func work(on job: ServerJob, of desired: DesiredServer) async {
        if job.kind == ServerJob.migrate, let order = job.migration { return await move(job.id, order, isPaused: desired.power == .paused) }
        do {
            switch (job.kind, job.upload, job.copies) {
            case (ServerJob.uploadDisk, let upload?, _):
                try await DiskUploader(tools: tools).run(job.id, upload, of: desired) { phase, percent in
                    await self.advance(job.id, phase: phase.rawValue, percent: percent)
                }
            case (ServerJob.copyVolumes, _, let copies?):
                try await VolumeCopier(tools: tools).run(copies, of: desired) { percent in
                    await self.advance(job.id, phase: DiskUploader.Phase.copying.rawValue, percent: percent)
                }
            case (ServerJob.swapVolume, _, _) where job.swap != nil: try await exchange(job, of: desired)
            default: throw PermanentFailure("its host does not know the job \"\(job.kind)\"")
            }
            await end(job.id, .done)
            // Changes to the guest were deferred until here.
            if job.swap != nil { kick() }
        } catch {
            // A cancelled job is ended by `dropJobs`, or by the next process.
            guard !Task.isCancelled else { return }
            let reason = FailureMessage.message(error, during: job.swap == nil ? "copying its disk" : "swapping its volume")
            tools.log.warning("a job failed", metadata: ["server": "\(serverID)", "job": "\(job.id)", "error": "\(error)"])
            await end(job.id, .failed, error: "\(error)", reason: reason)
            if job.swap != nil { kick() }
        }
    }

    private func exchange(_ job: ServerJob, of desired: DesiredServer) async throws {
        guard let order = job.swap, let (old, _) = try desired.replacement(order) else {
            throw PermanentFailure("the volume is not attached to the server")
        }
        guard let new = try desired.exchanged(order) else { throw PermanentFailure("this host cannot swap such volumes") }
        let control = runningJobs[job.id]?.exchange ?? ExchangeControl(order)
        let reports = ExchangeReports(
            copying: { await self.advance(job.id, phase: DiskUploader.Phase.copying.rawValue, percent: $0) },
            hold: { try await self.hold(job.id, control, if: $0) })
        if control.isHeld { await advance(job.id, phase: ServerJobReport.synchronized, percent: 100) }
        try await VolumeExchanger(tools: tools).run(serverID, old, by: new, control, reports)
    }

    /// Defers changes to the guest until a swap has finished. This is recorded before the control plane is told that the new volume has
    /// every write of the guest, so that no later process of the agent invalidates that report.
    private func hold(_ job: String, _ control: ExchangeControl, if isInSync: @escaping @Sendable () async throws -> Bool) async throws {
        try await guestChanges.run {
            guard try await isInSync() else { return }
            try await self.recordHold(job)
            control.hold()
        }
        if control.isHeld { await advance(job, phase: ServerJobReport.synchronized, percent: 100) }
    }

    private func recordHold(_ job: String) async throws {
        guard let index = record.jobs.firstIndex(where: { $0.id == job }) else { throw CancellationError() }
        record.jobs[index].phase = ServerJobReport.synchronized
        try await save()
    }

    private func end(
        _ id: String, _ state: ServerJobReport.State, error: String? = nil, reason: String? = nil, phase: String? = nil
    ) async {
        guard let index = record.jobs.firstIndex(where: { $0.id == id }) else { return }
        record.jobs[index] = LocalJob(
            id: id, state: state, error: error, reason: reason, phase: phase, files: record.jobs[index].files,
            exchange: record.jobs[index].exchange)
        runningJobs[id] = nil
        do { try await save() } catch {
            // Report it nevertheless: in the worst case a restarted agent repeats the job.
            tools.log.warning("the end of a job is not recorded", metadata: ["job": "\(id)", "error": "\(error)"])
        }
        await reportJobs()
    }

    private func advance(_ id: String, phase: String, percent: Int) async {
        guard let job = runningJobs[id], job.phase != phase || job.progress != percent else { return }
        runningJobs[id]?.phase = phase
        runningJobs[id]?.progress = percent
        await reportJobs()
    }

    /// Sends the guest to another host. If this process ends, libvirt continues, and the next process finds out the result.
    ///
    /// - Parameter isPaused: whether the server is paused, and stays paused during the move.
    private func move(_ id: String, _ order: ServerJob.Migration, isPaused: Bool) async {
        let control = runningJobs[id]?.move?.control ?? MoveControl(order)
        do {
            try await tools.domains.move(
                serverID, order, control, isPaused: isPaused, phase: { await self.advance(id, phase: $0, percent: 0) }
            ) { await self.advance(id, $0) }
            await end(id, .done)
        } catch {
            guard !isStopping else { return }
            tools.log.warning("a guest did not leave", metadata: ["server": "\(serverID)", "job": "\(id)", "error": "\(error)"])
            let stays = await tools.domains.hasStayed(serverID, isPaused: isPaused)
            await end(
                id, .failed, error: "\(error)", reason: FailureMessage.message(error, during: "moving it to another host"),
                phase: stays ? ServerJobReport.stayed : nil)
        }
    }

    private func advance(_ id: String, _ progress: MigrationProgress) async {
        guard runningJobs[id] != nil, runningJobs[id]?.move?.progress != progress else { return }
        runningJobs[id]?.move?.progress = progress
        runningJobs[id]?.progress = progress.percent
        await reportJobs()
    }

    /// The state of all jobs that have begun; nil if there are none.
    var jobReports: [ServerJobReport]? {
        guard !record.jobs.isEmpty else { return nil }
        return record.jobs.map { job in
            let running = runningJobs[job.id]
            var report = ServerJobReport(
                id: job.id, state: job.state, phase: running?.phase ?? job.phase,
                progress: running?.progress ?? (job.state == .done ? 100 : 0),
                error: job.error, reason: job.reason)
            report.migration = running?.move?.progress
            return report
        }
    }
}
