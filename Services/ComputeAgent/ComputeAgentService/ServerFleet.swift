package import ComputeAgentCore
package import Contracts
package import JSON
import Kernel
package import Libvirt
import Logging
package import OVSDB
import Telemetry

/// All servers of the host: passes messages and events to their workers, and runs periodic audits.
package actor ServerFleet {
    private let tools: ServerTools
    private let hypervisor: any HypervisorDriver
    private let images: ImageCache
    private let consoles: ConsoleLinks
    private let imageLifetime: Duration
    private var workers: [String: ServerWorker] = [:]
    /// libvirt domains without a desired state, with the power that was last reported.
    private var unknownDomains: [String: ReportedPower] = [:]
    private let (audits, auditWanted) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    private var prunes = true
    /// Images that are being loaded ahead of a server.
    private var caching: Task<Void, Never>?
    private var lastProblem: String?

    /// How long the record of a removed server is kept, so that a late message does not recreate it.
    private static let goneRetention = Duration.seconds(86_400)

    /// - Parameter imageLifetime: how long an image is kept after its last use.
    package init(
        tools: ServerTools, hypervisor: any HypervisorDriver, images: ImageCache, consoles: ConsoleLinks, imageLifetime: Duration
    ) {
        self.tools = tools
        self.consoles = consoles
        self.imageLifetime = imageLifetime
        self.hypervisor = hypervisor
        self.images = images
    }

    /// Loads the records of the previous process. Must be called before the first audit, which resumes the work.
    ///
    /// - Throws: `FileError`.
    package func restore() async throws {
        let (records, problems) = try await tools.store.load()
        // Without a server's record its taps would look like leftovers.
        prunes = problems.isEmpty
        for problem in problems { tools.log.error("a state file is set aside", metadata: ["problem": "\(problem)"]) }
        for record in records {
            await tools.processors.adopt(record.serverID, record.pins)
            workers[record.serverID] = ServerWorker(record: record, tools: tools)
        }
        tools.log.info("servers restored", metadata: ["count": "\(records.filter { !$0.isGone }.count)"])
    }

    private func worker(_ serverID: String) -> ServerWorker {
        if let worker = workers[serverID] { return worker }
        let worker = ServerWorker(record: LocalServerRecord(serverID: serverID), tools: tools)
        workers[serverID] = worker
        return worker
    }

    // MARK: messages from Compute

    /// Takes over a desired state; it is on disk when this returns.
    ///
    /// - Throws: `FileError`.
    package func ensure(_ server: DesiredServer) async throws {
        let verdict = try await worker(server.id).accept(server)
        tools.metrics.increment(
            "wolke_agent_desired_states_total", [("verdict", verdict.name)], help: "Desired states that arrived.")
        switch verdict {
        case .accepted: break
        case .staleEpoch(let highest):
            tools.log.warning(
                "a desired state from an old holder of the server is refused",
                metadata: ["server": "\(server.id)", "epoch": "\(server.epoch)", "highest": "\(highest)"])
        case .staleGeneration(let current):
            tools.log.info(
                "an overtaken desired state is ignored",
                metadata: ["server": "\(server.id)", "generation": "\(server.generation)", "current": "\(current)"])
        }
    }

    /// Applies the complete set of servers. Servers on this host that are not in the set are reported and never removed;
    /// the control plane decides.
    ///
    /// - Parameter unreadable: servers of the set that cannot be decoded, each of which is refused.
    package func sync(_ servers: [DesiredServer], unreadable: [UnreadableServer] = []) async throws {
        for server in servers { try await ensure(server) }
        for server in unreadable { await refuse(server) }
        let listed = Set(servers.map(\.id) + unreadable.compactMap(\.serverID))
        for (id, worker) in workers where !listed.contains(id) {
            let record = await worker.current
            guard !record.isGone, let desired = record.desired, desired.power != .absent else { continue }
            await tools.reports.put(
                ObservedReport(
                    host: tools.host, serverID: id, generation: record.generation, epoch: record.highestEpoch,
                    power: record.appliedPower.map { ReportedPower($0) } ?? .shutoff, unknown: true))
        }
        unknownDomains = [:]
        requestAudit()
    }

    /// Reports a desired state that cannot be decoded.
    package func refuse(_ server: UnreadableServer) async {
        let record = await server.serverID.flatMap { workers[$0] }?.current
        let report = server.report(host: tools.host, record: record)
        tools.log.error(
            "a server's desired state cannot be decoded",
            metadata: ["server": "\(server.serverID ?? "?")", "error": "\(server.error)", "reported": "\(report != nil)"])
        if let report { await tools.reports.put(report) }
    }

    // MARK: watching

    /// Requests an audit.
    package func requestAudit() { auditWanted.yield() }

    /// Follows libvirt's events until the task is cancelled.
    package func follow(_ events: AsyncStream<LibvirtEvent>) async throws {
        for await event in events {
            switch event {
            case .connected: requestAudit()
            case .disconnected: break
            case .lifecycle(let uuid, _, _): if let worker = workers[uuid] { await worker.kick() }
            }
        }
        try Task.checkCancellation()
    }

    /// Requests an audit each time the session with the switch's database is restored, and protects its datapath, until the
    /// task is cancelled.
    package func followSwitch(_ client: OVSDBClient) async throws {
        var wasConnected = false
        while true {
            let isConnected = await client.isConnected
            if isConnected, !wasConnected { requestAudit() }
            wasConnected = isConnected
            if isConnected { await protectDatapath() }
            try await tools.ambient.time.sleep(for: .milliseconds(250))
        }
    }

    private func protectDatapath() async {
        do {
            if try await tools.network.protectDatapath() {
                tools.log.notice("removed ct_zero_snat from the userspace datapath")
            }
        } catch {
            // The session has just ended; the next one repeats this.
        }
    }

    /// Runs an audit every `interval` and on request, until the task is cancelled.
    ///
    /// The workers stop with it; the next process continues their work.
    package func watch(every interval: Duration) async throws {
        do { try await auditRepeatedly(every: interval) } catch {
            for worker in workers.values { await worker.stop() }
            throw error
        }
    }

    private func auditRepeatedly(every interval: Duration) async throws {
        let clock = Task { [ambient = tools.ambient, auditWanted] in
            while true {
                try await ambient.time.sleep(for: interval)
                auditWanted.yield()
            }
        }
        defer { clock.cancel() }
        for await _ in audits {
            do {
                try await audit()
                lastProblem = nil
            } catch {
                try Task.checkCancellation()
                let problem = (error as? ResourceError).map { $0.context ?? $0.message } ?? "\(error)"
                if problem != lastProblem {
                    tools.log.warning("the audit was interrupted", metadata: ["error": "\(problem)"])
                }
                lastProblem = problem
            }
        }
        try Task.checkCancellation()
    }

    private func audit() async throws {
        // Without libvirt or the switch every worker would fail, so check both first.
        try await tools.network.requireSwitch()
        let domains = try await hypervisor.domains()
        var running = 0
        for (id, worker) in workers {
            let record = await worker.current
            if let since = record.goneSince, record.desired == nil {
                // The record contains the owner of the disks.
                if record.hasKeptDisks { continue }
                if tools.ambient.now - since > ServerFleet.goneRetention { try await removeGoneServer(id) }
                continue
            }
            if record.appliedPower == .running { running += 1 }
            try await tools.disks.trimConsole(id)
            await worker.kick()
        }
        await report(unknownDomains: domains)
        tools.metrics.set("wolke_agent_servers", Double(running), [("power", "running")], help: "Servers of this host.")
        tools.metrics.set("wolke_agent_reports_waiting", Double(await tools.reports.count), help: "Reports not sent yet.")
        if prunes { try await tools.network.prune { await self.taps() } }
        try await images.prune(inUse: try await tools.disks.backingFiles(), lifetime: imageLifetime)
    }

    private func taps() async -> Set<String> {
        var taps: Set<String> = []
        for worker in workers.values { taps.formUnion(await worker.current.pluggedPorts.map(\.tap)) }
        return taps
    }

    private func removeGoneServer(_ serverID: String) async throws {
        try await tools.store.remove(serverID)
        workers[serverID] = nil
    }

    private func report(unknownDomains domains: [DomainSummary]) async {
        var seen: [String: ReportedPower] = [:]
        for domain in domains {
            if let worker = workers[domain.uuid], await worker.current.desired != nil { continue }
            let power = DomainDriver.observed(domain).reportedPower(desired: nil)
            seen[domain.uuid] = power
            guard unknownDomains[domain.uuid] != power else { continue }
            tools.log.warning(
                "an unknown libvirt domain is left alone",
                metadata: ["domain": "\(domain.uuid)", "name": "\(domain.name)"])
            await tools.reports.put(
                ObservedReport(
                    host: tools.host, serverID: domain.uuid, generation: 0, epoch: 0, power: power, unknown: true))
        }
        unknownDomains = seen
    }

    /// All servers on the host, also unknown ones, in the order of their ids.
    package func held() async -> [HeldServer] {
        var servers = unknownDomains.map { HeldServer(serverID: $0.key, power: $0.value, unknown: true) }
        for worker in workers.values { if let server = await worker.held { servers.append(server) } }
        return servers.sorted { $0.serverID < $1.serverID }
    }

    // MARK: questions

    /// The console's last `lines`; nil for all that is kept.
    ///
    /// - Throws: 404 when the server is not on this host.
    package func consoleLog(_ serverID: String, lines: Int?) async throws -> String {
        guard let worker = workers[serverID], await worker.current.desired != nil else {
            throw ResourceError.notFound("Server \(serverID) is not on this host.")
        }
        return try await tools.disks.consoleLog(serverID, lines: lines)
    }

    /// Connects a console of the server with a session of the console service.
    ///
    /// - Throws: 404 when the server is not on this host, 409 when it does not run, 503 when an end cannot be reached.
    package func connectConsole(_ order: ConsoleConnection) async throws -> Done {
        guard await workers[order.serverID]?.current.desired != nil, let observed = try await tools.domains.observe(order.serverID) else {
            throw ResourceError.notFound("Server \(order.serverID) is not on this host.")
        }
        guard observed.power != .shutoff else { throw ResourceError.conflict("Server \(order.serverID) is not running.") }
        let source: ConsoleLinks.Source
        switch order.kind {
        case .vnc:
            do { source = .descriptor(try await hypervisor.openDisplay(order.serverID)) } catch let error as LibvirtError {
                throw ResourceError.unavailable("The display of server \(order.serverID) cannot be opened: \(error)")
            }
        case .serial: source = .socket(tools.disks.files(order.serverID).serialSocket)
        }
        try await consoles.connect(order, source)
        return Done()
    }

    /// The guest's figures in the form of Compute's API.
    ///
    /// - Parameter ofHypervisor: whether to use libvirt's names, as before 2.48.
    /// - Throws: 404 when the server is not on this host, 409 when it does not run.
    package func diagnostics(_ serverID: String, ofHypervisor: Bool = false) async throws -> JSONValue {
        guard let desired = await workers[serverID]?.current.desired,
            let observed = try await tools.domains.observe(serverID)
        else { throw ResourceError.notFound("Server \(serverID) is not on this host.") }
        guard observed.power != .shutoff else {
            throw ResourceError.conflict("Server \(serverID) is not running.")
        }
        let figures = try await hypervisor.statistics(serverID)
        if ofHypervisor { return Diagnostics.ofHypervisor(figures, memoryMiB: desired.memoryMiB) }
        return Diagnostics.document(desired, power: observed.reportedPower(desired: desired.power).rawValue, figures: figures)
    }

    /// The host's processors dedicated to the server, by virtual processor.
    ///
    /// - Throws: 404 when the server is not on this host.
    package func processors(of serverID: String) async throws -> [Int] {
        guard let record = await workers[serverID]?.current, record.desired != nil else {
            throw ResourceError.notFound("Server \(serverID) is not on this host.")
        }
        return record.pins
    }

    // MARK: images

    /// Downloads images in the background, one after the other. Failures are only logged, because a server that needs the image downloads
    /// it again.
    package func cache(_ wanted: [DesiredImage]) {
        let earlier = caching
        caching = Task { [images, log = tools.log] in
            await earlier?.value
            for image in wanted {
                do { try await images.loadAhead(image) } catch {
                    log.warning("an image was not loaded ahead", metadata: ["image": "\(image.id)", "error": "\(error)"])
                }
            }
        }
    }

    // MARK: orders to the guest

    /// The guest's domain, if the server is on this host and runs.
    ///
    /// - Throws: 404 when the server is not on this host, 409 when it does not run.
    private func requireGuest(_ serverID: String) async throws {
        guard await workers[serverID]?.current.desired != nil, let observed = try await tools.domains.observe(serverID) else {
            throw ResourceError.notFound("Server \(serverID) is not on this host.")
        }
        guard observed.power != .shutoff else { throw ResourceError.conflict("Server \(serverID) is not running.") }
    }

    /// Sends a non-maskable interrupt to the guest.
    ///
    /// - Throws: like `requireGuest`; `LibvirtError`.
    package func crashDump(_ serverID: String) async throws {
        try await requireGuest(serverID)
        try await hypervisor.injectNMI(serverID)
    }

    /// Sets a user's password through the guest agent.
    ///
    /// - Throws: like `requireGuest`; 409 if the guest has no agent, or the agent refuses.
    package func setPassword(_ order: SetPasswordQuestion) async throws {
        try await requireGuest(order.serverID)
        do { try await hypervisor.setPassword(order.serverID, user: order.user, password: order.password) } catch let error as LibvirtError
        {
            tools.log.info("a guest's password was not set", metadata: ["server": "\(order.serverID)", "error": "\(error)"])
            throw GuestAgentFault.conflict(error, order.serverID) ?? error
        }
    }
}

/// Why a request to the guest agent failed, for the server's owner.
enum GuestAgentFault {
    static func missing(_ serverID: String) -> String {
        """
        QEMU guest agent is not enabled for instance \(serverID): its image needs the property hw_qemu_guest_agent=yes, and the \
        agent must be installed in it.
        """
    }

    /// Nil for an error that is not about the agent.
    static func conflict(_ error: LibvirtError, _ serverID: String) -> ResourceError? {
        if error.isAgentMissing { return .conflict(missing(serverID)) }
        if error.isAgentSilent { return .conflict("The QEMU guest agent of instance \(serverID) does not answer.") }
        guard error.isAgentRefusal else { return nil }
        return .conflict("The QEMU guest agent of instance \(serverID) could not set the password.")
    }
}

extension Acceptance {
    var name: String {
        switch self {
        case .accepted: "accepted"
        case .staleEpoch: "stale_epoch"
        case .staleGeneration: "stale_generation"
        }
    }
}
