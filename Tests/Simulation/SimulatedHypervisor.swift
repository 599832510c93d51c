import ComputeAgentCore
import ComputeAgentService
import Contracts
import JSON
import Kernel
import Messaging

/// A host: what runs there and what its agent wrote down, whatever becomes of the agent.
final class SimulatedHypervisor: @unchecked Sendable {
    struct Domain {
        var power: String
        var ports: Set<String>
        var volumes: Set<String>
    }

    /// The agent's record of a server, as on disk.
    struct Record {
        var desired: DesiredServer
        var applied: Int
        var operationID: String?
        var isRefused = false
    }

    let name: String
    var domains: [String: Domain] = [:]
    var records: [String: Record] = [:]

    init(name: String) { self.name = name }
}

/// Which ports are plugged in on which host: what OVN would say.
final class SimulatedNetwork: @unchecked Sendable {
    var bound: [String: String] = [:]
}

/// The agent of a host: level-triggered, fenced, remembering across its own deaths.
final class SimulatedAgent: @unchecked Sendable {
    private let process: SimulatedProcess
    private let hypervisor: SimulatedHypervisor
    private let reports: ReportQueue
    private var busy: Set<String> = []

    private var world: World { process.world }
    private var time: any TimeSource { process.ambient.time }

    init(_ process: SimulatedProcess, _ hypervisor: SimulatedHypervisor) {
        self.process = process
        self.hypervisor = hypervisor
        reports = ReportQueue(bus: process.bus, ambient: process.ambient, log: process.world.log)
    }

    func start() {
        process.loop("reports") { try await self.reports.run() }
        process.loop("listen") {
            try await self.process.bus.serve(queue: .agent(host: self.hypervisor.name)) { try await self.handle($0.body) }
        }
        process.loop("announce") { try await self.announce() }
        process.loop("watch") { try await self.watch() }
    }

    // MARK: signs of life

    private func announce() async throws {
        var isIntroduced = false
        var beats = 0
        while true {
            do {
                let id = process.ambient.newUUID()
                beats += 1
                let heartbeat = AgentHeartbeat(host: hypervisor.name, agentVersion: "1.0", servers: beats % 6 == 0 ? held : nil)
                try await process.bus.publish(
                    isIntroduced ? try Message(heartbeat, id: id) : try Message(hello, id: id), to: .computeAgents)
                // A hello may be lost; the broker's session is not for ever either.
                isIntroduced = world.random.below(4) != 0
            } catch { try Task.checkCancellation() }
            try await time.sleep(for: .seconds(10))
        }
    }

    private var held: [HeldServer] {
        hypervisor.records.sorted { $0.key < $1.key }.filter { $0.value.desired.power != .absent }.map { id, record in
            let isDone = record.applied == record.desired.generation
            return HeldServer(
                serverID: id, generation: record.applied, power: isDone ? hypervisor.domains[id]?.power ?? "absent" : nil,
                metadataReady: true)
        }
    }

    private var hello: AgentHello {
        AgentHello(
            host: hypervisor.name, agentVersion: "1.0",
            capabilities: HostInventory(
                cpus: 4, memoryMiB: 4096, diskGiB: 40, virtType: .kvm, hypervisorVersion: 7_002_000
            ).capabilities)
    }

    // MARK: the plane's words

    private func handle(_ body: JSONValue) async throws -> JSONValue {
        switch try PlaneMessage.decode(body) {
        case .ensure(let server): try await ensure(server)
        case .sync(let servers, _):
            for server in servers { try await ensure(server) }
            let listed = Set(servers.map(\.id))
            for (id, record) in hypervisor.records.sorted(by: { $0.key < $1.key })
            where !listed.contains(id) && record.desired.power != .absent {
                await report(id, unknown: true)
            }
        case .consoleLog, .diagnostics: return [:]
        }
        return [:]
    }

    private func ensure(_ server: DesiredServer) async throws {
        if let known = hypervisor.records[server.id] {
            if server.epoch < known.desired.epoch || server.generation < known.desired.generation { return }
            if server.generation > known.desired.generation || server.epoch > known.desired.epoch {
                hypervisor.records[server.id]?.desired = server
                hypervisor.records[server.id]?.isRefused = false
            }
        } else {
            hypervisor.records[server.id] = .init(desired: server, applied: 0)
        }
        try await apply(server.id)
    }

    /// Takes the server to what its record says, one at a time.
    private func apply(_ id: String) async throws {
        while busy.contains(id) { try await time.sleep(for: .milliseconds(50)) }
        busy.insert(id)
        defer { busy.remove(id) }
        guard let record = hypervisor.records[id] else { return }
        let desired = record.desired
        if record.isRefused { return await report(id, error: "the host refuses it", permanent: true) }
        if record.applied >= desired.generation { return await report(id) }
        let current = hypervisor.domains[id]
        let starts = desired.power == .running && current?.power != "running"
        try await time.sleep(for: starts ? world.between(.milliseconds(200), .seconds(5)) : world.between(.milliseconds(20), .seconds(1)))
        try await process.reach("apply")
        if world.happens(world.faults.hostTrouble, "host trouble") {
            return await report(id, error: "libvirt does not answer", permanent: false)
        }
        if starts, current == nil, world.happens(world.faults.hostRefusals, "host refusal") {
            hypervisor.records[id]?.isRefused = true
            return await report(id, error: "the host refuses it", permanent: true)
        }
        take(desired, current)
        hypervisor.records[id]?.applied = desired.generation
        hypervisor.records[id]?.operationID = desired.operation?.id
        world.trace("\(process.name) \(id) is \(desired.power.rawValue) at \(desired.generation)")
        try await process.reach("applied")
        await report(id)
    }

    private func take(_ desired: DesiredServer, _ current: SimulatedHypervisor.Domain?) {
        let id = desired.id
        for port in current?.ports ?? [] where world.network.bound[port] == hypervisor.name { world.network.bound[port] = nil }
        guard desired.power != .absent else { return hypervisor.domains[id] = nil }
        let domain = SimulatedHypervisor.Domain(
            power: desired.power.rawValue, ports: Set(desired.ports.map(\.id)), volumes: Set(desired.volumes.map(\.volumeID)))
        if domain.power == "running" {
            for other in world.hosts.values where other !== hypervisor && other.domains[id]?.power == "running" {
                world.violation("I7: server \(id) runs on \(other.name) and is started on \(hypervisor.name)")
            }
            for port in domain.ports { world.network.bound[port] = hypervisor.name }
        }
        for other in world.hosts.values {
            for (server, held) in other.domains where server != id && !held.volumes.isDisjoint(with: domain.volumes) {
                world.violation("I6: servers \(id) and \(server) have the same volume")
            }
        }
        hypervisor.domains[id] = domain
    }

    // MARK: watching

    /// Takes up what was left undone, and sees guests die.
    private func watch() async throws {
        while true {
            for id in hypervisor.records.keys.sorted() {
                guard let record = hypervisor.records[id] else { continue }
                if record.applied < record.desired.generation, !record.isRefused { try await apply(id) }
            }
            for id in hypervisor.domains.keys.sorted() where hypervisor.domains[id]?.power == "running" {
                guard world.happens(world.faults.guestCrashes, "guest crash") else { continue }
                world.trace("\(process.name) guest \(id) crashes")
                hypervisor.domains[id]?.power = "shutoff"
                for port in hypervisor.domains[id]?.ports ?? [] { world.network.bound[port] = nil }
                await report(id)
            }
            try await time.sleep(for: .seconds(7))
        }
    }

    private func report(_ id: String, error: String? = nil, permanent: Bool = false, unknown: Bool = false) async {
        guard process.isAlive, let record = hypervisor.records[id] else { return }
        await reports.put(
            ObservedReport(
                host: hypervisor.name, serverID: id,
                generation: error == nil ? record.applied : record.desired.generation, epoch: record.desired.epoch,
                power: hypervisor.domains[id]?.power ?? "absent", state: error == nil ? .applied : .failed, error: error,
                permanent: permanent, metadataReady: true, operationID: record.operationID, unknown: unknown))
    }
}
