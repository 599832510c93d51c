import ComputeAgentCore
import ComputeAgentService
import Kernel
import Libvirt

/// libvirt of a simulated machine, from the view of one process of its agent.
struct SimulatedLibvirt: HypervisorDriver {
    let process: SimulatedProcess
    let machine: SimulatedMachine

    private var world: World { process.world }

    /// A call without side effects.
    private func look<Value>(_ body: () throws -> Value) async throws -> Value {
        try await process.ambient.time.sleep(for: world.between(.microseconds(50), .milliseconds(1)))
        return try body()
    }

    private func change(
        _ uuid: String, _ call: String, _ low: Duration = .milliseconds(10), _ high: Duration = .milliseconds(500),
        _ body: @escaping () throws -> Void
    ) async throws {
        try await process.reach(call)
        if world.happens(world.faults.hostTrouble, "host trouble") {
            // Half of the failures happen after the operation.
            if world.random.below(2) == 0 { try body() }
            throw LibvirtError.noConnection(call: call)
        }
        try await machine.job(uuid, takes: world.between(low, high), for: process, body)
        world.trace("\(process.name) \(call) \(uuid)")
        try await process.reach("\(call) done")
    }

    // MARK: domains

    func domains() async throws -> [DomainSummary] {
        try await look { machine.domains.sorted { $0.key < $1.key }.map { $0.value.summary($0.key) } }
    }

    func domain(_ uuid: String) async throws -> DomainSummary? { try await look { machine.domains[uuid]?.summary(uuid) } }

    func xml(_ uuid: String, inactive: Bool) async throws -> String {
        try await look {
            guard let domain = machine.domains[uuid] else { throw LibvirtError.noDomain(uuid, call: "xml") }
            return (inactive ? domain.definition : domain.live ?? domain.definition).rendered
        }
    }

    func baselineProcessor(emulator: String, machine: String, type: String, definitions: [String]) async throws -> String {
        definitions[0]
    }

    func define(xml: String) async throws {
        let (uuid, devices) = try SimulatedDevices.domain(xml)
        if machine.domains[uuid] == nil, world.happens(world.faults.hostRefusals, "host refusal") { machine.refused.insert(uuid) }
        let machine = machine
        try await change(uuid, "define") {
            guard !machine.refused.contains(uuid) else { throw LibvirtError.badDefinition("the host refuses it", call: "define") }
            machine.define(uuid, devices)
        }
    }

    func openDisplay(_ uuid: String) async throws -> Int32 {
        throw LibvirtError.noDomain(uuid, call: "openDisplay")
    }

    func undefine(_ uuid: String) async throws { try await change(uuid, "undefine") { [machine] in try machine.undefine(uuid) } }

    // MARK: power

    func start(_ uuid: String, paused: Bool) async throws {
        try await change(uuid, "start", .milliseconds(200), .seconds(5)) { [machine, world] in
            try machine.change(uuid, "start") { domain in
                guard domain.live == nil else { return }
                (domain.live, domain.state, domain.hasManagedSave) = (domain.definition, paused ? .paused : .running, false)
                domain.boots += 1
                domain.memory = world.nextMemory()
            }
        }
    }

    func destroy(_ uuid: String) async throws {
        try await change(uuid, "destroy") { [machine] in
            guard machine.domains[uuid] != nil else { throw LibvirtError.noDomain(uuid, call: "destroy") }
            machine.stop(uuid, .destroyed)
        }
    }

    /// Some guests ignore the request.
    func shutdown(_ uuid: String, by method: ShutdownMethod) async throws {
        try await change(uuid, "shutdown") { [machine, world] in
            guard let domain = machine.domains[uuid] else { throw LibvirtError.noDomain(uuid, call: "shutdown") }
            guard domain.live != nil else { throw LibvirtError.invalidState(call: "shutdown") }
            guard world.random.below(8) != 0 else { return }
            world.executor.after(world.between(.milliseconds(100), .seconds(4))) {
                if machine.domains[uuid]?.boots == domain.boots { machine.stop(uuid, .guestShutdown) }
            }
        }
    }

    private func running(_ uuid: String, _ call: String, _ body: @escaping (inout SimulatedMachine.Domain) -> Void) async throws {
        try await change(uuid, call) { [machine] in
            try machine.change(uuid, call) { domain in
                guard domain.live != nil else { throw LibvirtError.invalidState(call: call) }
                body(&domain)
            }
        }
    }

    func suspend(_ uuid: String) async throws { try await running(uuid, "suspend") { $0.state = .paused } }

    func resume(_ uuid: String) async throws { try await running(uuid, "resume") { ($0.state, $0.isLeaving) = (.running, false) } }

    func managedSave(_ uuid: String) async throws {
        try await running(uuid, "save") { ($0.live, $0.state, $0.reason, $0.hasManagedSave) = (nil, .shutoff, .saved, true) }
    }

    func discardManagedSave(_ uuid: String) async throws {
        try await change(uuid, "discard save") { [machine] in
            try machine.change(uuid, "discard save") { $0.hasManagedSave = false }
        }
    }

    // MARK: devices

    func attach(_ uuid: String, device xml: String, to scope: DeviceScope) async throws {
        let device = try XMLTree.parse(xml)
        try await running(uuid, "attach") { $0.live?.add(device) }
    }

    /// A guest that is still booting misses the request.
    func detach(_ uuid: String, device xml: String, from scope: DeviceScope) async throws {
        let device = try XMLTree.parse(xml)
        try await change(uuid, "detach") { [machine, world] in
            guard let domain = machine.domains[uuid], domain.live != nil else { throw LibvirtError.invalidState(call: "detach") }
            guard world.random.below(8) != 0 else { return }
            world.executor.after(world.between(.milliseconds(50), .seconds(3))) {
                guard let now = machine.domains[uuid], now.boots == domain.boots, now.live != nil else { return }
                do { try machine.change(uuid, "detach") { $0.live?.remove(device) } } catch { world.violation("detach: \(error)") }
            }
        }
    }

    // MARK: copies

    func beginBackup(_ uuid: String, xml: String) async throws {
        let paths = try XMLTree.parse(xml).child("disks")?.all("disk").compactMap { $0.child("target")?["file"] } ?? []
        let end = world.executor.now + UInt64(world.between(.milliseconds(100), .seconds(15)).microseconds) * 1000
        try await change(uuid, "backup") { [machine] in
            try machine.change(uuid, "backup") { domain in
                guard domain.live != nil, domain.backup == nil else { throw LibvirtError.invalidState(call: "backup") }
                domain.backup = .init(paths: paths, endsAt: end)
            }
        }
    }

    func backupState(_ uuid: String) async throws -> DomainBackupState {
        try await look {
            guard let domain = machine.domains[uuid] else { throw LibvirtError.noDomain(uuid, call: "backup state") }
            guard let backup = domain.backup else { return .none }
            guard let end = backup.endsAt else {
                try machine.change(uuid, "backup state") { $0.backup = nil }
                return .failed("cancelled")
            }
            guard end <= world.executor.now else { return .running(done: 1, total: 2) }
            for path in backup.paths { try Files.replace(path, with: SimulatedImages.content) }
            try machine.change(uuid, "backup state") { $0.backup = nil }
            return .completed
        }
    }

    func abortBackup(_ uuid: String) async throws {
        try await change(uuid, "abort backup") { [machine] in
            try machine.change(uuid, "abort backup") { $0.backup?.endsAt = nil }
        }
    }

    // The simulation swaps no volumes.
    func beginBlockCopy(_ uuid: String, disk: String, xml: String) async throws { throw LibvirtError.invalidState(call: "block copy") }
    func blockCopyState(_ uuid: String, disk: String) async throws -> DomainBlockCopyState? { nil }
    func endBlockCopy(_ uuid: String, disk: String, pivots: Bool) async throws { throw LibvirtError.invalidState(call: "block copy") }
    /// No story extends a volume, so each disk has the size that it must have.
    func diskSize(_ uuid: String, disk: String) async throws -> Int {
        try await running(uuid, "block info") { _ in }
        return Int.max
    }
    func resizeDisk(_ uuid: String, disk: String, bytes: Int) async throws { throw LibvirtError.invalidState(call: "resize") }

    func freeze(_ uuid: String, seconds: Int) async throws { try await running(uuid, "freeze") { _ in } }

    func thaw(_ uuid: String, seconds: Int) async throws { try await running(uuid, "thaw") { _ in } }

    // MARK: moves

    func movableXML(_ uuid: String) async throws -> String { try await xml(uuid, inactive: false) }

    /// The transfer runs between the two libvirt daemons, even if the agent dies.
    func move(_ uuid: String, _ order: DomainMove) async throws {
        try await process.reach("move")
        let target = world.hosts.values.first { order.uri == "qemu+tls://\($0.name)/system" }
        guard let target, target !== machine, !target.isOff else { throw LibvirtError.noConnection(call: "move") }
        let wait = Wait<Void>()
        let watch = process.watch { wait.finish(.failure(CancellationError())) }
        defer { process.unwatch(watch) }
        let devices = try SimulatedDevices.domain(order.xml).devices
        try SimulatedMove.begin(uuid, from: machine, to: target, devices, world) { wait.finish($0) }
        world.trace("\(process.name) move \(uuid) to \(target.name)")
        try await wait.kept()
        try await process.reach("move done")
    }

    func moveState(_ uuid: String) async throws -> DomainMoveState? {
        try await look {
            guard let domain = machine.domains[uuid] else { throw LibvirtError.noDomain(uuid, call: "move state") }
            return domain.move?.state(at: world.executor.now)
        }
    }

    func abortMove(_ uuid: String) async throws {
        try await change(uuid, "abort move") { [machine] in machine.domains[uuid]?.move?.abort() }
    }

    func beginPostCopy(_ uuid: String) async throws { throw LibvirtError.invalidState(call: "post-copy") }

    func statistics(_ uuid: String) async throws -> [String: DomainStatistic] { try await look { [:] } }

    func injectNMI(_ uuid: String) async throws { try await running(uuid, "nmi") { _ in } }

    func setPassword(_ uuid: String, user: String, password: String) async throws { throw LibvirtError.noAgent(call: "set password") }
}
