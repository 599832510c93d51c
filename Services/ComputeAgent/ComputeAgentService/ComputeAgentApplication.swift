import Commands
import CLinux
import Client
import ComputeAgentCore
import DiskTool
import FileTransfer
import Foundation
import Kernel
import Libvirt
import Logging
import Messaging
import OVSDB
import ServiceCatalog
import ServiceKit
import ServiceLifecycle
package import Settings
import Telemetry
import UnixSignals

/// The agent's process: reads the settings, assembles the parts, runs until it is stopped.
package struct ComputeAgentApplication: Sendable {
    private let all: Settings
    private let settings: AgentSettings
    private let ambient = Ambient()
    private let metrics = Metrics()
    private let log: Logger

    /// Runs the executable to its end; a failure is written in words and ends the process with status 1.
    package static func main() async {
        DescriptorLimit.raise()
        do {
            if CommandLine.arguments.dropFirst().first == "--version" {
                print("wolke-compute-agent \(WolkeVersion.current)")
            } else if CommandLine.arguments.dropFirst().first == "simulate" {
                try await SimulationApplication(
                    arguments: Array(CommandLine.arguments.dropFirst(2)), environment: ProcessInfo.processInfo.environment
                ).run()
            } else {
                try await ComputeAgentApplication(arguments: CommandLine.arguments).run()
            }
        } catch is CancellationError {
            return
        } catch {
            let text = (error as? ResourceError).map { $0.context ?? $0.message } ?? "\(error)"
            FileHandle.standardError.write(Data("wolke-compute-agent: \(text)\n".utf8))
            exit(1)
        }
    }

    /// The agent has no access to the database, and needs no settings for it.
    package static var schema: SettingsSchema {
        SettingsSchema.common.without("database") + .section("agent", AgentSettings.keys)
    }

    /// - Throws: `SettingsError`, `ResourceError` for wrong arguments.
    package init(arguments: [String]) throws {
        var path: String?
        if let index = arguments.firstIndex(of: "--config") {
            guard index + 1 < arguments.count else { throw ResourceError.badRequest("--config needs a file name") }
            path = arguments[index + 1]
        }
        all = try Settings.load(
            path: path, environment: ProcessInfo.processInfo.environment, schema: ComputeAgentApplication.schema)
        settings = try AgentSettings(all)
        log = Telemetry.logger(service: "wolke-compute-agent", level: all.string("log.level"))
    }

    // MARK: parts

    /// Two agents over one state would undo each other's work.
    private func lockState() throws -> Int32 {
        try Files.makePassableDirectory(settings.stateDirectory)
        let path = settings.stateDirectory + "/lock"
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FileError.last("open", path) }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            throw ResourceError.conflict("another agent works in \(settings.stateDirectory)")
        }
        return descriptor
    }

    private func makeBus() throws -> RabbitBus {
        RabbitBus(
            BusConfiguration(
                addresses: try BrokerAddress.list(all.requiredSecret("messaging.url").exposed),
                name: "wolke-compute-agent \(settings.host)"),
            ambient: ambient, logger: log, metrics: metrics)
    }

    private func makeImageClient() throws -> RESTClient {
        guard let password = all.secret("service_user.password") else {
            throw ResourceError.badRequest("the setting service_user.password is missing")
        }
        return RESTClient(
            .serviceUser(
                endpoints: all.endpoints,
                user: all.string("service_user.name"), password: password,
                domain: all.string("service_user.domain"), project: all.string("service_user.project")),
            ambient: ambient)
    }

    private func domainOptions(_ virtType: VirtType, _ threads: WorkerThreads) async throws -> DomainOptions {
        let probe = settings.stateDirectory + "/direct"
        var cache = settings.diskCache
        if cache == nil {
            cache = try await threads.run {
                try Files.replace(probe, with: [UInt8](repeating: 0, count: 4096))
                defer { unlink(probe) }
                let descriptor = clinux_open_direct(probe)
                guard descriptor >= 0 else { return "writeback" }
                close(descriptor)
                return "none"
            }
        }
        var options = DomainOptions(
            virtType: virtType, cpuMode: settings.cpuMode, cpuModel: settings.cpuModel, machine: settings.machine,
            diskCache: cache ?? "writeback", nicOffloads: settings.nicOffloads, emulator: settings.emulator)
        options.vncListen = settings.vncListen
        options.hasSecureBoot = Files.exists(DomainXML.Firmware.secureCode)
        let online = try await threads.run { try Files.read("/sys/devices/system/cpu/online") }
        options.sharedProcessors = try settings.sharedProcessors(online: String(decoding: online ?? [], as: UTF8.self))
        return options
    }

    // MARK: run

    /// Runs until SIGTERM or SIGINT. Guests keep running.
    package func run() async throws {
        let lock = try lockState()
        defer { close(lock) }
        let threads = WorkerThreads(name: "agent", count: 8)
        let copyThreads = WorkerThreads(name: "copies", count: AgentOptions.parallelCopies)
        let client = try makeImageClient()
        let runner = CommandRunner(threads: threads)
        let virtType: VirtType
        if let given = settings.virtType {
            virtType = given
        } else {
            virtType = try await VirtTypeProbe(
                runner: runner, threads: threads, emulator: settings.emulator, directory: settings.stateDirectory,
                log: log
            ).detect()
        }
        let hypervisor = Hypervisor(
            uri: settings.libvirtURI, threads: settings.parallelStarts + 4, moves: settings.moves.parallel, log: log)
        let bus = try makeBus()
        let sandbox = Sandbox(user: settings.sandboxUser)
        let sandboxWatch = SandboxWatch(sandbox, time: ambient.time)
        let ovsdb = try OVSDBEndpoint.list(settings.ovsdb)
        // The agent configures the switch of its own machine, over a local socket.
        guard !ovsdb.contains(where: \.isTLS) else { throw OVSDBError.invalid("agent.ovsdb must be unix:PATH or tcp:HOST:PORT") }
        let switchDatabase = OVSDBClient(
            OVSDBConfiguration(
                endpoints: ovsdb, database: "Open_vSwitch",
                monitors: SwitchPorts.monitors),
            ambient: ambient, logger: log)
        let directory = MetadataDirectory()
        let ports = SwitchPorts(client: switchDatabase, bridge: settings.integrationBridge)
        let links = Links(runner: runner, threads: threads)
        let keeper = makeSwitchKeeper(ports)
        var options = AgentOptions(
            stateDirectory: settings.stateDirectory, domains: try await domainOptions(virtType, threads))
        options.dedicatedProcessors = settings.dedicatedCPUs.sorted()
        options.tpmDirectory = settings.tpmDirectory
        options.sandbox = sandbox
        options.heartbeatInterval = settings.heartbeatInterval
        options.auditInterval = settings.auditInterval
        options.shutdownTimeout = settings.shutdownTimeout
        options.imageLifetime = settings.imageLifetime
        options.parallelStarts = settings.parallelStarts
        options.moves = settings.moves
        options.consoleAddress = all.address(.console)
        let module = try AgentModule.make(
            options,
            AgentSurroundings(
                host: settings.host, hypervisor: hypervisor, events: hypervisor.events(), links: links, bridge: ports,
                metadata: MetadataNetworks(
                    links: links, ports: ports, directory: directory, random: ambient.random, metrics: metrics,
                    limits: settings.metadataLimits, log: log),
                directory: directory, disks: SandboxedDiskMaker(sandbox), images: RESTImageSource(client: client),
                uploads: RESTImageTarget(client: client, threads: threads),
                facts: HostInspector(
                    hypervisor: hypervisor, threads: threads, settings: settings, virtType: virtType, sandbox: sandboxWatch,
                    keeper: keeper),
                threads: threads, copyThreads: copyThreads, bus: bus, ambient: ambient, metrics: metrics, log: log))
        let health = AgentHealth(
            hypervisor: hypervisor, switchDatabase: switchDatabase, bus: bus, metrics: metrics)
        try await module.restore()
        try await serve(hypervisor, switchDatabase, keeper, module, health, sandboxWatch)
        bus.close()
        await hypervisor.close()
    }

    /// The keeper's commands run on a separate thread, because a hanging switch must not hold up work on servers.
    private func makeSwitchKeeper(_ ports: SwitchPorts) -> SwitchKeeper {
        let own = WorkerThreads(name: "switch", count: 1)
        return SwitchKeeper(
            ports: ports,
            control: SwitchControl(directory: settings.switchRuntime, runner: CommandRunner(threads: own), threads: own),
            threads: own, limit: settings.connectionsPerPort, directory: settings.stateDirectory, ambient: ambient,
            metrics: metrics, log: log)
    }

    private func serve(
        _ hypervisor: Hypervisor, _ switchDatabase: OVSDBClient, _ keeper: SwitchKeeper, _ module: AgentModule,
        _ health: AgentHealth, _ sandbox: SandboxWatch
    ) async throws {
        let time = ambient.time
        let (host, port) = (all.string("endpoints.operator_bind"), all.integer("endpoints.agent_port"))
        let loops: [BackgroundLoop] =
            [
                BackgroundLoop { try await health.serve(host: host, port: port) },
                BackgroundLoop { await switchDatabase.run() },
                BackgroundLoop { await hypervisor.keepConnected(time: time) },
                BackgroundLoop { try await module.fleet.followSwitch(switchDatabase) },
                BackgroundLoop { try await keeper.run() },
                BackgroundLoop { try await sandbox.run() },
            ] + module.loops.map { loop in BackgroundLoop { try await loop.run() } }
        var quiet = log
        quiet.logLevel = max(.warning, log.logLevel)
        let group = ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: loops.map { .init(service: $0, successTerminationBehavior: .ignore) },
                gracefulShutdownSignals: [.sigterm, .sigint], logger: quiet))
        log.notice("starting", metadata: ["host": "\(settings.host)", "state": "\(settings.stateDirectory)"])
        do { try await group.run() } catch is CancellationError {}
        log.notice("stopped")
    }
}
