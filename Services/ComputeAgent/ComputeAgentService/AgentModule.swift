package import Commands
package import ComputeAgentCore
import Contracts
package import FileTransfer
package import Kernel
package import Libvirt
package import Logging
package import Messaging
package import Telemetry

/// The dependencies of an agent, so that the same agent runs in its process, in tests and in the simulation.
package struct AgentSurroundings: Sendable {
    package var host: String
    package var hypervisor: any HypervisorDriver
    /// A stream of libvirt's events, only for this agent.
    package var events: AsyncStream<LibvirtEvent>
    package var links: any HostLinks
    package var bridge: any SwitchBridge
    package var metadata: any MetadataService
    /// The servers for which `metadata` answers.
    package var directory: MetadataDirectory
    package var disks: any DiskMaker
    package var images: any ImageSource
    /// The client that uploads copies of disks.
    package var uploads: any ImageTarget
    package var facts: any HostFacts
    /// The threads for blocking calls.
    package var threads: WorkerThreads
    /// The threads for copies of disks, which block for long.
    package var copyThreads: WorkerThreads
    package var bus: any MessageBus
    package var ambient: Ambient
    package var metrics: Metrics
    package var log: Logger

    package init(
        host: String, hypervisor: any HypervisorDriver, events: AsyncStream<LibvirtEvent>, links: any HostLinks,
        bridge: any SwitchBridge, metadata: any MetadataService, directory: MetadataDirectory, disks: any DiskMaker,
        images: any ImageSource, uploads: any ImageTarget, facts: any HostFacts, threads: WorkerThreads,
        copyThreads: WorkerThreads, bus: any MessageBus, ambient: Ambient, metrics: Metrics, log: Logger
    ) {
        self.uploads = uploads
        self.copyThreads = copyThreads
        self.host = host
        self.hypervisor = hypervisor
        self.events = events
        self.links = links
        self.bridge = bridge
        self.metadata = metadata
        self.directory = directory
        self.disks = disks
        self.images = images
        self.facts = facts
        self.threads = threads
        self.bus = bus
        self.ambient = ambient
        self.metrics = metrics
        self.log = log
    }
}

/// Settings of an agent.
package struct AgentOptions: Sendable {
    /// The directory of records, images and the servers' files.
    package var stateDirectory: String
    package var domains: DomainOptions
    /// Processors that can be dedicated to servers.
    package var dedicatedProcessors: [Int] = []
    /// The directory in which libvirt keeps the state of trusted platform modules.
    package var tpmDirectory = "/var/lib/libvirt/swtpm"
    /// The user of the tools that convert images.
    package var sandbox = Sandbox()
    package var heartbeatInterval: Duration = .seconds(2)
    package var auditInterval: Duration = .seconds(15)
    package var shutdownTimeout: Duration = .seconds(60)
    /// How long an image is kept after its last use.
    package var imageLifetime: Duration = .seconds(86_400)
    package var parallelStarts = 4
    package var moves = MoveOptions()
    /// `host:port` of the console service.
    package var consoleAddress = ""
    /// Number of disks that are copied at the same time.
    package static let parallelCopies = 2

    package init(stateDirectory: String, domains: DomainOptions) {
        self.stateDirectory = stateDirectory
        self.domains = domains
    }
}

/// The agent of a host as one value: its servers and its background work.
package struct AgentModule: Sendable {
    /// A background loop that runs until its task is cancelled, as long as the process.
    package struct Loop: Sendable {
        package let name: String
        package let run: @Sendable () async throws -> Void
    }

    package let fleet: ServerFleet
    package let images: ImageCache
    package let disks: ServerDisks
    package let loops: [Loop]

    /// - Throws: `FileError` if the state directory cannot be used.
    package static func make(_ options: AgentOptions, _ surroundings: AgentSurroundings) throws -> AgentModule {
        let (state, threads, ambient, log) = (options.stateDirectory, surroundings.threads, surroundings.ambient, surroundings.log)
        let images = try ImageCache(
            directory: state + "/images", source: surroundings.images, sandbox: options.sandbox, threads: threads, ambient: ambient,
            log: log)
        let disks = try ServerDisks(
            directory: state + "/servers", images: images, maker: surroundings.disks, threads: threads,
            copyThreads: surroundings.copyThreads, tpmDirectory: options.tpmDirectory)
        let (bus, host) = (surroundings.bus, surroundings.host)
        surroundings.directory.sendPasswords { serverID, password in
            let message = GuestPassword(host: host, serverID: serverID, password: password)
            try await bus.publish(try Message(message, id: ambient.newUUID()), to: .computeAgents)
        }
        let reports = ReportQueue(bus: surroundings.bus, ambient: ambient, log: log)
        let tools = ServerTools(
            host: surroundings.host,
            domains: DomainDriver(
                hypervisor: surroundings.hypervisor, options: options.domains, disks: disks, ambient: ambient,
                shutdownTimeout: options.shutdownTimeout, moves: options.moves, log: log),
            disks: disks,
            network: HostNetwork(
                links: surroundings.links, ports: surroundings.bridge, metadata: surroundings.metadata, time: ambient.time),
            store: try StateStore(directory: state + "/records", threads: threads), directory: surroundings.directory,
            reports: reports, heavyWork: Gate(width: options.parallelStarts), copies: Gate(width: AgentOptions.parallelCopies),
            images: surroundings.uploads, processors: DedicatedProcessors(options.dedicatedProcessors), ambient: ambient,
            metrics: surroundings.metrics, log: log)
        let fleet = ServerFleet(
            tools: tools, hypervisor: surroundings.hypervisor, images: images, consoles: ConsoleLinks(address: options.consoleAddress),
            imageLifetime: options.imageLifetime)
        let plane = PlaneLink(
            host: surroundings.host, bus: surroundings.bus, fleet: fleet, inspector: surroundings.facts,
            heartbeatInterval: options.heartbeatInterval, ambient: ambient, log: log)
        let (events, auditInterval) = (surroundings.events, options.auditInterval)
        return AgentModule(
            fleet: fleet, images: images, disks: disks,
            loops: [
                Loop(name: "reports") { try await reports.run() },
                Loop(name: "events") { try await fleet.follow(events) },
                Loop(name: "audit") { try await fleet.watch(every: auditInterval) },
                Loop(name: "listen") { try await plane.listen() },
                Loop(name: "announce") { try await plane.announce() },
            ])
    }

    /// Continues the work of the previous process. Must be called before the loops run.
    ///
    /// - Throws: `FileError`.
    package func restore() async throws { try await fleet.restore() }

    /// Restores, and runs all loops until the task is cancelled.
    package func run() async throws {
        try await restore()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for loop in loops { group.addTask { try await loop.run() } }
            try await group.waitForAll()
        }
    }
}
