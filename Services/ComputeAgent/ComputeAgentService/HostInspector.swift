package import ComputeAgentCore
package import Contracts
package import DiskTool
import JSON
package import Kernel
package import Libvirt

/// The reported properties of a host. `HostInspector` inspects the machine; the simulation has fixed values.
package protocol HostFacts: Sendable {
    func inventory() async throws -> HostInventory
    /// Why images cannot be read on this host; nil if they can.
    func sandboxProblem() async -> String?
    /// The current state of the host's switch.
    func network() async -> SwitchReport
    /// Values that change between heartbeats.
    func usage() async throws -> (freeMemoryMiB: Int, freeDiskGiB: Int)
    /// How long the host has been running, and its load.
    func uptime() async throws -> HostUptimeQuestion.Answer
}

/// Finds out what the host offers.
package struct HostInspector: HostFacts {
    private let hypervisor: Hypervisor
    private let threads: WorkerThreads
    private let settings: AgentSettings
    private let virtType: VirtType
    private let sandbox: SandboxWatch
    private let keeper: SwitchKeeper

    package init(
        hypervisor: Hypervisor, threads: WorkerThreads, settings: AgentSettings, virtType: VirtType, sandbox: SandboxWatch,
        keeper: SwitchKeeper
    ) {
        self.sandbox = sandbox
        self.keeper = keeper
        self.hypervisor = hypervisor
        self.threads = threads
        self.settings = settings
        self.virtType = virtType
    }

    /// - Throws: `LibvirtError`, `FileError`.
    package func inventory() async throws -> HostInventory {
        let node = try await hypervisor.nodeInfo()
        let directory = settings.stateDirectory
        let space = try await threads.run { try Files.space(directory) }
        var inventory = HostInventory(
            cpus: node.cpus, memoryMiB: node.memoryMiB, diskGiB: space.total >> 30, virtType: virtType,
            hypervisorVersion: try await hypervisor.hypervisorVersion())
        inventory.reservedCPUs = settings.reservedCPUs
        inventory.reservedMemoryMiB = settings.reservedMemoryMiB
        // Space used by others on the same file system is not available for servers.
        inventory.reservedDiskGiB = settings.reservedDiskGiB
        inventory.cpuRatio = settings.cpuRatio
        inventory.memoryRatio = settings.memoryRatio
        inventory.diskRatio = settings.diskRatio
        inventory.sandboxProblem = await sandboxProblem()
        (inventory.sockets, inventory.cores, inventory.threads) = (node.sockets, node.cores, node.threads)
        try inventory.readCapabilities(xml: try await hypervisor.capabilities())
        for machine in ["pc", "q35"] {
            try inventory.readDomainCapabilities(
                xml: try await hypervisor.domainCapabilities(emulator: settings.emulator, machine: machine, type: virtType.rawValue))
        }
        inventory.dedicatedCPUs = settings.dedicatedCPUs.count
        inventory.hasProcessorRates = settings.hasProcessorRates
        return inventory
    }

    /// The last result, at most `SandboxWatch.interval` old.
    package func sandboxProblem() async -> String? { await sandbox.problem() }

    /// The current state of the host's switch.
    package func network() async -> SwitchReport { await keeper.report }

    /// Values that change between heartbeats.
    package func usage() async throws -> (freeMemoryMiB: Int, freeDiskGiB: Int) {
        let directory = settings.stateDirectory
        let space = try await threads.run { try Files.space(directory) }
        return (try await hypervisor.freeMemoryMiB(), space.free >> 30)
    }

    /// How long the host has been running, and its load (proc(5): `/proc/uptime`, `/proc/loadavg`).
    package func uptime() async throws -> HostUptimeQuestion.Answer {
        try await threads.run {
            func numbers(_ path: String, _ count: Int) throws -> [Double] {
                // Files in /proc have no size.
                let words = String(decoding: try Files.read(path, offset: 0, count: 256), as: UTF8.self).split(separator: " ")
                let numbers = words.prefix(count).compactMap { Double($0) }
                guard numbers.count == count else { throw ResourceError.unavailable("\(path) is malformed") }
                return numbers
            }
            return HostUptimeQuestion.Answer(
                uptime: Int(try numbers("/proc/uptime", 1)[0]), loadAverages: try numbers("/proc/loadavg", 3))
        }
    }
}
