import Commands
import ComputeAgentCore
import ComputeAgentService
import Contracts
import DiskTool
import FileTransfer
import Kernel
import NIOCore
import Telemetry

/// The agent of a simulated machine: the real agent with simulated libvirt, switch and disk tools.
enum SimulatedAgent {
    static func start(_ process: SimulatedProcess, on machine: SimulatedMachine) throws {
        let directory = MetadataDirectory()
        var options = AgentOptions(stateDirectory: machine.directory, domains: DomainOptions(virtType: .kvm))
        options.heartbeatInterval = .seconds(10)
        options.shutdownTimeout = .seconds(10)
        options.moves.uri = "qemu+tls://\(machine.name)/system"
        options.moves.parallel = 1 + process.world.random.below(2)
        // Files have this machine's time, not the simulated time.
        options.imageLifetime = .seconds(1_000_000_000)
        let module = try AgentModule.make(
            options,
            AgentSurroundings(
                host: machine.name, hypervisor: SimulatedLibvirt(process: process, machine: machine),
                events: machine.events(for: process), links: SimulatedLinks(process: process, machine: machine),
                bridge: SimulatedBridge(process: process, machine: machine),
                metadata: SimulatedMetadata(process, directory), directory: directory, disks: SimulatedDiskMaker(process: process),
                images: SimulatedImages(process: process), uploads: SimulatedImages(process: process),
                facts: SimulatedFacts(process: process), threads: WorkerThreads(inline: { try await process.reach("disk") }),
                copyThreads: WorkerThreads(inline: { try await process.reach("copy") }), bus: process.bus, ambient: process.ambient,
                metrics: Metrics(), log: process.world.log))
        process.loop("agent") { try await module.run() }
    }
}

// MARK: - network

/// The network devices of a simulated machine.
struct SimulatedLinks: HostLinks {
    let process: SimulatedProcess
    let machine: SimulatedMachine

    func index(_ name: String) -> UInt32 { machine.links[name] ?? 0 }

    func hasQueues(_ name: String) async throws -> Bool { false }

    func ensureTap(_ name: String, mtu: Int, hasQueues: Bool) async throws {
        try await process.reach("tap")
        guard machine.links[name] == nil else { return }
        machine.links[name] = machine.nextLink
        machine.nextLink += 1
    }

    func setMTU(_ name: String, _ mtu: Int) async throws {}

    func guardRouters(_ name: String, _ isOn: Bool) async throws {
        try await process.reach("guard")
        guard machine.links[name] != nil else { throw FileError(operation: "guard", path: name, number: 19) }
    }

    func remove(_ name: String) async throws {
        try await process.reach("remove tap")
        machine.links[name] = nil
    }
}

/// The integration bridge of a simulated machine.
struct SimulatedBridge: SwitchBridge {
    let process: SimulatedProcess
    let machine: SimulatedMachine

    private func change(_ what: String, _ body: () -> Void) async throws {
        try await process.reach(what)
        if process.world.happens(process.world.faults.hostTrouble, "switch trouble") {
            if process.world.random.below(2) == 0 { body() }
            throw ResourceError.unavailable("the switch does not answer")
        }
        body()
        try await process.reach("\(what) done")
    }

    func requireSession() async throws {
        if process.world.happens(process.world.faults.hostTrouble / 4, "switch away") {
            throw ResourceError.unavailable("the switch's database is away")
        }
    }

    func isPlugged(_ device: String, interfaceID: String) async -> Bool { machine.bridge[device]?.interfaceID == interfaceID }
    func has(_ device: String) async -> Bool { machine.bridge[device] != nil }
    func owned() async -> [(device: String, kind: SwitchPortKind, networkID: String)] {
        machine.bridge.values.sorted { $0.device < $1.device }.map { ($0.device, $0.kind, $0.networkID) }
    }
    func plug(_ port: SwitchPort) async throws { try await change("plug") { machine.plug(port) } }
    func unplug(_ device: String) async throws { try await change("unplug") { machine.unplug(device) } }
    func settle(_ time: any TimeSource) async throws { try await time.sleep(for: .milliseconds(25)) }
    func protectDatapath() async throws -> Bool { false }
}

/// The metadata service of networks, which ends with the agent.
final class SimulatedMetadata: MetadataService, @unchecked Sendable {
    private let process: SimulatedProcess
    private let directory: MetadataDirectory
    private var networks: [String: MetadataPort] = [:]

    init(_ process: SimulatedProcess, _ directory: MetadataDirectory) {
        self.process = process
        self.directory = directory
    }

    func ensure(_ networkID: String, port: MetadataPort, mtu: Int) async throws {
        if networks[networkID] == port { return }
        try await process.reach("metadata")
        networks[networkID] = port
    }

    func isReady(_ networkID: String, port: MetadataPort) async -> Bool { networks[networkID] == port }

    func prune() async throws {
        let used = directory.networks
        networks = networks.filter { used.contains($0.key) }
    }
}

// MARK: - disks and images

/// Disks with a qcow2 header and no data.
struct SimulatedDiskMaker: DiskMaker {
    let process: SimulatedProcess

    func create(_ path: String, size: Int, backing: DiskSource?) throws {
        if process.world.happens(process.world.faults.hostTrouble, "host without room") {
            throw CommandError(arguments: ["qemu-img"], status: 1, output: "No space left on device")
        }
        var disk: [UInt8] = [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3] + [UInt8](repeating: 0, count: 504)
        SimulatedDiskMaker.set(size, &disk)
        if let backing {
            let name = Array(backing.path.utf8)
            disk[14] = 2
            disk[19] = UInt8(name.count)
            disk += name
        }
        try Files.replace(path, with: disk)
    }

    private static func set(_ size: Int, _ disk: inout [UInt8]) {
        for index in 0..<8 { disk[24 + index] = UInt8(truncatingIfNeeded: size >> (56 - 8 * index)) }
    }

    func grow(_ path: String, to size: Int) throws {
        if process.world.happens(process.world.faults.hostTrouble, "host without room") {
            throw CommandError(arguments: ["qemu-img"], status: 1, output: "No space left on device")
        }
        guard var disk = try Files.read(path) else { throw FileError(operation: "open", path: path, number: 2) }
        SimulatedDiskMaker.set(size, &disk)
        try Files.replace(path, with: disk)
    }

    func makeISO(of tree: String, into file: String, sizes: [Int]) throws { try Files.replace(file, with: Array("CD001".utf8)) }

    func copy(_ layers: [DiskSource], to path: String, _ format: DiskDriver, size: Int, _ cancellation: CopyCancellation) throws {
        try create(path, size: size, backing: nil)
    }

    func resize(_ disk: DiskSource, to size: Int, shrinks: Bool) throws {}

    func hasVolume(_ path: String) -> Bool {
        process.world.storage.disks["volume-" + (path.split(separator: "/").last ?? "")] != nil
    }
}

/// The resources of a simulated machine.
struct SimulatedFacts: HostFacts {
    let process: SimulatedProcess

    func inventory() async throws -> HostInventory {
        HostInventory(cpus: 4, memoryMiB: 4096, diskGiB: 40, virtType: .kvm, hypervisorVersion: 7_002_000)
    }
    func sandboxProblem() async -> String? { nil }
    func network() async -> SwitchReport { SwitchReport(datapath: "system") }
    func usage() async throws -> (freeMemoryMiB: Int, freeDiskGiB: Int) { (1024, 20) }
    func uptime() async throws -> HostUptimeQuestion.Answer { HostUptimeQuestion.Answer(uptime: 3600, loadAverages: [1, 0.5, 0.25]) }
}
