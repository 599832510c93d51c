package import ComputeAgentCore
package import Contracts
package import FileTransfer
import GuestKeys
package import Kernel
import Libvirt
package import Logging
package import Telemetry

/// Dependencies shared by all server workers.
package struct ServerTools: Sendable {
    package let host: String
    package let domains: DomainDriver
    package let disks: ServerDisks
    package let network: HostNetwork
    package let store: StateStore
    package let directory: MetadataDirectory
    package let reports: ReportQueue
    /// Disk building and starting, which cost the host most.
    package let heavyWork: Gate
    /// Copies of disks.
    package let copies: Gate
    package let images: any ImageTarget
    package let processors: DedicatedProcessors
    package let ambient: Ambient
    package let metrics: Metrics
    package let log: Logger

    package init(
        host: String, domains: DomainDriver, disks: ServerDisks, network: HostNetwork, store: StateStore,
        directory: MetadataDirectory, reports: ReportQueue, heavyWork: Gate, copies: Gate, images: any ImageTarget,
        processors: DedicatedProcessors, ambient: Ambient, metrics: Metrics, log: Logger
    ) {
        self.copies = copies
        self.images = images
        self.processors = processors
        self.host = host
        self.domains = domains
        self.disks = disks
        self.network = network
        self.store = store
        self.directory = directory
        self.reports = reports
        self.heavyWork = heavyWork
        self.ambient = ambient
        self.metrics = metrics
        self.log = log
    }
}

/// Reconciles one server, one attempt at a time, until the desired state is reached.
package actor ServerWorker {
    package nonisolated let serverID: String
    let tools: ServerTools
    var record: LocalServerRecord
    private let saving = Gate(width: 1)
    /// Held while the guest is changed, and by code that needs the guest not to change.
    let guestChanges = Gate(width: 1)

    private var loop: Task<Void, Never>?
    private var attempt: Task<Void, any Error>?
    private var pause: Task<Void, any Error>?
    var runningJobs: [String: RunningJob] = [:]
    private var again = false
    private var isStopped = false
    private var waitsForGuest = false
    /// Whether the control plane has confirmed, since this process started, that the server belongs here. While the host was down, its
    /// server may have been started on another host with the same volumes.
    private(set) var isConfirmed = false
    private var backoff = Backoff()
    private var restarts = RestartLimiter()
    /// The target generation of the current attempt.
    private var attempted = -1
    /// The generation that failed permanently.
    private var hopelessGeneration: Int?
    private var lastReport: ObservedReport?
    /// Id of the API request behind the current desired state, for the log.
    private var requestID: String?
    /// The current activity, for the tenant's error message if it fails.
    var activity: String?
    /// Images that only this server uses and from which its disks are being created.
    var ownImages: Set<DesiredImage> = []
    /// The provisioning in progress, and how often it was found queued.
    var provisioning: (server: DesiredServer, waits: Bool, rounds: Int)?

    package init(record: LocalServerRecord, tools: ServerTools) {
        serverID = record.serverID
        self.record = record
        self.tools = tools
        tools.directory.set(record.serverID, record.isGone ? nil : record.desired)
    }

    package var current: LocalServerRecord { record }
    /// The server with its last report; nil if it is not on the host.
    package var held: HeldServer? {
        get async {
            let progress = await progress
            guard record.desired != nil else { return nil }
            var held = lastReport.map { HeldServer($0) } ?? HeldServer(serverID: serverID, generation: record.generation)
            held.epoch = record.highestEpoch
            held.progress = progress
            return held
        }
    }
    /// Whether the desired state is reached and nothing is in progress.
    package var isSettled: Bool { loop == nil && (record.isGone || record.appliedGeneration == record.generation) }

    // MARK: desired state

    /// Accepts a desired state, which is on disk when this returns.
    ///
    /// - Throws: `FileError`; the message must then be redelivered.
    package func accept(_ server: DesiredServer) async throws -> Acceptance {
        let isNew = server.generation > record.generation
        let verdict = record.accept(server)
        guard verdict == .accepted else { return verdict }
        isConfirmed = true
        if server.power != .absent { tools.directory.set(serverID, server) }
        try await save()
        if isNew { hopelessGeneration = nil }
        requestID = RequestScope.current ?? (isNew ? nil : requestID)
        // A repeated message is answered even if nothing has changed.
        lastReport = nil
        backoff.reset()
        if server.power == .absent || isNew && waitsForGuest { attempt?.cancel() }
        pause?.cancel()
        kick()
        return .accepted
    }

    /// Triggers reconciliation of the server.
    package func kick() {
        again = true
        if loop == nil, !isStopped { loop = Task { await self.work() } }
    }

    var isStopping: Bool { isStopped }

    /// Stops reconciling permanently, after the current operation.
    package func stop() {
        isStopped = true
        attempt?.cancel()
        pause?.cancel()
        stopJobs()
    }

    func save() async throws { try await saving.run { try await self.tools.store.save(self.current) } }

    // MARK: attempts

    private func work() async {
        while again, !isStopped {
            again = false
            let task = Task {
                try await RequestScope.$current.withValue(self.requestID) { try await self.reconcile() }
            }
            attempt = task
            do {
                try await task.value
                backoff.reset()
            } catch is CancellationError {
                again = true
            } catch {
                await failed(error)
            }
            attempt = nil
        }
        loop = nil
    }

    private func failed(_ error: any Error) async {
        let reason = (error as? ResourceError).map { $0.context ?? $0.message } ?? "\(error)"
        let permanent = error is PermanentFailure
        let message = FailureMessage.message(error, during: activity)
        tools.metrics.increment(
            "wolke_agent_failures_total", [("permanent", "\(permanent)")],
            help: "Attempts to bring a server to its desired state that failed.")
        tools.log.warning(
            "not as desired yet",
            metadata: [
                "server": "\(serverID)", "generation": "\(attempted)", "error": "\(reason)",
                "permanent": "\(permanent)",
            ])
        // A newer desired state may have been accepted meanwhile. The failure says nothing about that one.
        if permanent { hopelessGeneration = attempted }
        await report(power: await powerNow(), generation: attempted, error: reason, reason: message, permanent: permanent)
        guard !isStopped else { return }
        guard attempted == record.generation else {
            again = true
            return
        }
        guard !permanent else { return }
        again = true
        let duration = backoff.next()
        let sleeper = Task { [ambient = tools.ambient] in try await ambient.time.sleep(for: duration) }
        pause = sleeper
        _ = await sleeper.result
        pause = nil
    }

    /// The actual power state, for a failure report.
    private func powerNow() async -> ReportedPower {
        do {
            return try await tools.domains.observe(serverID)?.reportedPower(desired: record.desired?.power) ?? .absent
        } catch {
            return lastReport?.power ?? .absent
        }
    }

    private func reconcile() async throws {
        guard let wanted = record.desired else { return }
        attempted = wanted.generation
        activity = nil
        try await dropJobs(wanted)
        try await guestChanges.run { try await self.reconcile(wanted) }
    }

    private func reconcile(_ wanted: DesiredServer) async throws {
        // Continues when the job ends.
        if record.jobs.contains(where: \.holdsGuest) { return try await beginJobs(wanted) }
        let desired = try wanted.exchanging(record)
        let observed = try await tools.domains.observe(serverID)
        try await tools.network.requireSwitch()
        if hopelessGeneration == desired.generation {
            if let lastReport, lastReport.state == .failed { return }
            throw hopelessFailure
        }
        var lostPorts: Set<String> = []
        for port in record.pluggedPorts where await !tools.network.isPlugged(port) { lostPorts.insert(port.id) }
        if try await isRestartRefused(desired, observed) { return }
        let plan = Reconciler.plan(desired, observed: observed, record: record, lostPorts: lostPorts)
        activity = "connecting its networks"
        if [.running, .paused, .expected].contains(desired.power) { try await tools.network.ensureMetadata(desired.ports) }
        if !isConfirmed, plan.contains(where: \.startsGuest) {
            tools.log.notice("waits for the control plane before the guest is started", metadata: ["server": "\(serverID)"])
            return
        }
        let started = tools.ambient.time.monotonicNanoseconds()
        for action in plan {
            try Task.checkCancellation()
            guard record.generation == desired.generation || action.isShort else { throw CancellationError() }
            tools.log.info("\(action.name)", metadata: ["server": "\(serverID)"])
            activity = action.activity
            try await perform(action, desired)
        }
        if !plan.isEmpty {
            tools.metrics.observe(
                "wolke_agent_convergence_seconds",
                Double(tools.ambient.time.monotonicNanoseconds() - started) / 1e9,
                help: "Time from a plan to its end.")
        }
        try await beginJobs(desired)
        try await conclude(desired, observed: plan.isEmpty ? observed : try await tools.domains.observe(serverID))
    }

    private var hopelessFailure = PermanentFailure("the server cannot be brought to its desired state")

    /// A guest whose QEMU crashes repeatedly is left off; the control plane then decides.
    private func isRestartRefused(_ desired: DesiredServer, _ observed: ObservedDomain?) async throws -> Bool {
        guard let observed, observed.power == .shutoff, observed.offReason == .failure || observed.offReason == .destroyed,
            desired.power == .running, record.appliedPower == .running, !Reconciler.isLeaving(desired, record),
            record.appliedGeneration == desired.generation,
            desired.operation == nil || desired.operation?.id == record.lastOperationID
        else { return false }
        guard restarts.mayRestart(at: tools.ambient.now) else {
            await report(power: .crashed, error: nil, permanent: false)
            return true
        }
        tools.log.warning("the server is off against its desired state and is started again", metadata: ["server": "\(serverID)"])
        tools.metrics.increment("wolke_agent_restarts_total", help: "Servers started again because their QEMU had ended.")
        await report(
            power: .crashed, error: "The server's process on its host ended; it is being started again.",
            permanent: false)
        return false
    }

    /// The desired state is reached.
    private func conclude(_ desired: DesiredServer, observed: ObservedDomain?) async throws {
        guard observed?.power != .stopping else { return }
        if desired.power == .expected || Reconciler.hasArrived(desired, observed) || Reconciler.isLeaving(desired, record) {
            return try await concludeMove(desired, observed: observed)
        }
        if desired.power == .absent {
            if !record.isGone || record.desired != nil, record.generation == desired.generation {
                record.hasKeptDisks = desired.keepsDisks
                if !desired.keepsDisks { record.diskOrigins = [:] }
                record.goneSince = record.goneSince ?? tools.ambient.now
                record.appliedGeneration = -1
                record.appliedPower = nil
                record.pluggedPorts = []
                record.pins = []
                record.desired = nil
                await tools.processors.release(serverID)
                tools.directory.set(serverID, nil)
                do { try await save() } catch {
                    // A repeated message may have cancelled this attempt; the next attempt reports the removal.
                    if record.desired == nil, record.generation == desired.generation { record.desired = desired }
                    throw error
                }
            }
            await report(power: .absent, generation: desired.generation)
            do { try await tools.network.closeUnusedMetadata() } catch {
                tools.log.info("metadata is not closed yet; it will be retried", metadata: ["error": "\(error)"])
            }
            return
        }
        let leftByGuest = Reconciler.poweredOffByItself(desired, observed, record)
        if !leftByGuest, record.appliedGeneration != desired.generation || record.appliedPower != desired.power {
            record.appliedGeneration = desired.generation
            record.appliedPower = desired.power
            record.hasKeptDisks = false
            try await save()
        }
        await report(
            power: observed?.reportedPower(desired: desired.power) ?? .shutoff, generation: desired.generation,
            metadataReady: await tools.network.isMetadataReady(desired.ports))
    }

    /// Reports for a server that is being moved, which belongs to neither host alone.
    private func concludeMove(_ desired: DesiredServer, observed: ObservedDomain?) async throws {
        if record.appliedGeneration != desired.generation {
            record.appliedGeneration = desired.generation
            try await save()
        }
        let power: ReportedPower
        if Reconciler.isLeaving(desired, record) {
            // The guest continues to run, on this host or the other.
            power = ReportedPower(desired.power)
        } else {
            power = observed?.isWhole == true ? observed?.reportedPower(desired: nil) ?? .expected : .expected
        }
        await report(
            power: power, generation: desired.generation, metadataReady: await tools.network.isMetadataReady(desired.ports),
            endpoint: desired.power == .expected ? try await tools.domains.endpoint(desired) : nil)
    }

    private func report(
        power: ReportedPower, generation: Int? = nil, metadataReady: Bool = false, error: String? = nil,
        reason: String? = nil, permanent: Bool = false, endpoint: MigrationEndpoint? = nil
    ) async {
        let report = ObservedReport(
            host: tools.host, serverID: serverID, generation: generation ?? record.generation,
            epoch: record.highestEpoch, power: power, state: error == nil ? .applied : .failed, error: error,
            reason: reason, permanent: permanent, metadataReady: metadataReady, operationID: record.lastOperationID,
            jobs: jobReports, endpoint: endpoint)
        if let error, permanent {
            hopelessFailure = PermanentFailure(reason ?? error, details: reason == nil || error == reason ? nil : error)
        }
        guard report != lastReport else { return }
        lastReport = report
        await tools.reports.put(report)
    }

    /// Repeats the last report with the present state of the jobs. If there was no report yet, an attempt is about to send one.
    func reportJobs() async {
        guard var report = lastReport, report.jobs != jobReports else { return }
        report.jobs = jobReports
        lastReport = report
        await tools.reports.put(report)
    }
}

// MARK: - actions

extension ServerWorker {
    private func perform(_ action: AgentAction, _ desired: DesiredServer) async throws {
        let domains = tools.domains
        switch action {
        case .fetch: try await tools.disks.fetch(desired)
        case .discard(let disks): try await tools.disks.discard(disks, of: serverID)
        case .keep: try await tools.heavyWork.run { [tools] in try await tools.disks.keep(desired) }
        case .restore: try await tools.disks.restore(desired)
        case .grow: try await tools.disks.grow(desired)
        case .provision: try await provision(desired, activity: action.activity)
        case .plug(let ports): try await plug(ports)
        case .unplug(let ports): try await unplug(ports)
        case .define:
            if !desired.keepsDisks { try await tools.disks.discard(.kept, of: serverID) }
            try await assignProcessors(desired)
            try await domains.define(desired, pins: record.pins)
        case .start(let paused):
            try await tools.heavyWork.run { [serverID] in try await domains.start(serverID, paused: paused) }
        case .suspend: try await domains.suspend(serverID)
        case .resume: try await domains.resume(serverID)
        case .save: try await tools.heavyWork.run { [serverID] in try await domains.save(serverID) }
        case .discardSave: try await domains.discardSave(serverID)
        case .shutdown:
            waitsForGuest = true
            defer { waitsForGuest = false }
            try await domains.shutdown(serverID)
        case .destroy: try await domains.destroy(serverID)
        case .extendVolumes: try await domains.extendVolumes(of: desired)
        case .attachVolume(let volume): try await domains.attachVolume(volume, to: desired)
        case .detachVolume(let target): try await domains.detachVolume(target, from: serverID)
        case .attachPort(let port): try await domains.attachPort(port, to: desired)
        case .detachPort(let mac, _): try await domains.detachPort(mac, from: serverID)
        case .undefine: try await domains.undefine(serverID)
        case .removeFiles:
            try await tools.disks.remove(serverID)
            await releaseImages()
        case .complete(let operationID):
            record.lastOperationID = operationID
            try await save()
        }
    }

    /// Assigns dedicated processors to the server; they are recorded before they are used. A running guest keeps its own.
    ///
    /// - Throws: 503 while the host has too few; `FileError`.
    private func assignProcessors(_ desired: DesiredServer) async throws {
        let count = desired.hardware.dedicatedProcessors(vcpus: desired.vcpus)
        if count == record.pins.count {
            guard count > 0, try await tools.domains.observe(serverID)?.power ?? .shutoff == .shutoff else { return }
        }
        let pins = try await tools.processors.assign(count, to: serverID)
        guard pins != record.pins else { return }
        record.pins = pins
        try await save()
    }

    private func plug(_ ports: [DesiredPort]) async throws {
        let known = Set(record.pluggedPorts.map(\.id))
        let added = ports.filter { !known.contains($0.id) }
        if !added.isEmpty {
            // Recorded before it is done, so that it can be reverted after a crash.
            record.pluggedPorts += added.map { .init(id: $0.id, tap: $0.tapName, networkID: $0.networkID) }
            try await save()
        }
        let hasQueues = record.desired.map { $0.hardware.interfaceQueues(vcpus: $0.vcpus) > 1 } ?? false
        for port in ports {
            try await tools.network.plug(port, serverID: serverID, hasQueues: hasQueues) { [tools, serverID] in
                try await tools.domains.observe(serverID).map { $0.power == .shutoff } ?? true
            }
        }
    }

    private func unplug(_ ports: [LocalServerRecord.PluggedPort]) async throws {
        for port in ports { try await tools.network.unplug(port) }
        let removed = Set(ports.map(\.id))
        record.pluggedPorts.removeAll { removed.contains($0.id) }
        try await save()
    }
}

extension AgentAction {
    /// The action's name in the log.
    var name: String {
        let text = "\(self)"
        return String(text.prefix { $0 != "(" })
    }

    /// Whether the action is carried to its end although a newer desired state has arrived: stopping in the middle would leave
    /// a partial change.
    var isShort: Bool {
        switch self {
        case .fetch, .provision, .keep, .shutdown, .start: false
        default: true
        }
    }

    var startsGuest: Bool { if case .start = self { true } else { false } }
}
