import ComputeAgentCore
import Contracts
import JSON
package import Kernel
package import Logging
package import Messaging

/// Many simulated hosts in one process, on the real broker: introduces them, and lets each follow its queue.
package struct SimulatedFleet: Sendable {
    private let options: SimulationOptions
    private let bus: any MessageBus
    private let reports: ReportQueue
    private let chassis: SimulatedChassis?
    private let heartbeatInterval: Duration
    private let ambient: Ambient
    private let log: Logger
    private let hosts: [(name: String, host: SimulatedHost)]
    private let silentHosts: SilentHosts

    package init(
        options: SimulationOptions, bus: any MessageBus, reports: ReportQueue, chassis: SimulatedChassis?,
        heartbeatInterval: Duration, ambient: Ambient, log: Logger
    ) {
        self.options = options
        self.bus = bus
        self.reports = reports
        self.chassis = chassis
        self.heartbeatInterval = heartbeatInterval
        self.ambient = ambient
        self.log = log
        silentHosts = SilentHosts(directory: options.silenced, ambient: ambient)
        hosts = (1...options.hosts).map { number in
            let name = options.hostName(number)
            return (
                name,
                SimulatedHost(name: name, options: options, ambient: ambient, reports: reports, chassis: chassis)
            )
        }
    }

    /// Runs until the task is cancelled.
    package func run() async throws {
        try await chassis?.register(hosts: hosts.map(\.name))
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (name, host) in hosts {
                group.addTask { [bus] in
                    try await bus.serve(queue: .agent(host: name)) { try await host.handle($0.body) }
                }
            }
            if let chassis { group.addTask { try await chassis.run() } }
            group.addTask { [reports] in try await reports.run() }
            group.addTask { try await self.announce() }
            if options.silenced != nil { group.addTask { try await self.followSilence() } }
            try await group.waitForAll()
        }
    }

    private func announce() async throws {
        var introduced = false
        while true {
            if !bus.isConnected {
                introduced = false
            } else {
                do {
                    let first = !introduced
                    try await publish { first ? try hello($0) : try heartbeat($0) }
                    if !introduced { log.notice("introduced", metadata: ["hosts": "\(hosts.count)"]) }
                    introduced = true
                } catch {
                    try Task.checkCancellation()
                    log.warning("the control plane could not be informed", metadata: ["error": "\(error)"])
                }
            }
            try await ambient.time.sleep(for: introduced ? heartbeatInterval : .milliseconds(500))
        }
    }

    /// Lets hosts fail and come back, as the directory says.
    private func followSilence() async throws {
        var silent: Set<String> = []
        while true {
            try await ambient.time.sleep(for: .milliseconds(500))
            for (name, host) in hosts where silentHosts.isSilent(name) != silent.contains(name) {
                guard silent.remove(name) != nil else {
                    silent.insert(name)
                    await host.fail()
                    log.notice("a host has failed", metadata: ["host": "\(name)"])
                    continue
                }
                do { try await bus.publish(try hello(name), to: .computeAgents) } catch {
                    try Task.checkCancellation()
                    silent.insert(name)
                    continue
                }
                log.notice("a host is back", metadata: ["host": "\(name)"])
            }
        }
    }

    /// One message per host; a bounded number awaits the broker's confirmation at a time.
    private func publish(_ message: @escaping @Sendable (String) throws -> Message) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, (name, _)) in hosts.filter({ !silentHosts.isSilent($0.name) }).enumerated() {
                if index >= 200 { try await group.next() }
                group.addTask { [bus] in try await bus.publish(try message(name), to: .computeAgents) }
            }
            try await group.waitForAll()
        }
    }

    private func hello(_ host: String) throws -> Message {
        let inventory = HostInventory(
            cpus: options.cpus, memoryMiB: options.memoryMiB, diskGiB: options.diskGiB, virtType: .kvm,
            hypervisorVersion: 7_002_000)
        let hello = AgentHello(host: host, agentVersion: PlaneLink.version, capabilities: inventory.capabilities)
        return try Message(hello, id: ambient.newUUID())
    }

    private func heartbeat(_ host: String) throws -> Message {
        try Message(
            AgentHeartbeat(host: host, agentVersion: PlaneLink.version), id: ambient.newUUID(), expiration: heartbeatInterval * 5)
    }
}
