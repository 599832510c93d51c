import Authorization
import BlockStorageService
import Client
import ComputeService
import Contracts
import Database
import ImageAccess
import JSON
import Kernel
import Messaging
import NetworkService
import PlacementService
import ServiceCatalog
import Telemetry
import TestKit
import Workflow

/// The plane's programs, wired as their applications wire them, on simulated surroundings.
struct Plane {
    let world: World
    /// Added to, or put in the place of, each replica's workflows.
    var changed: [WorkflowDefinition] = []

    static let hosts = ["host-1", "host-2", "host-3"]

    private static let callers: StaticAuthenticator = {
        func member(_ project: String) -> Caller { StaticAuthenticator.caller(user: "user-\(project)", project: project) }
        return StaticAuthenticator([
            "admin": StaticAuthenticator.caller(user: "admin", project: "admin", roles: ["admin", "manager", "member", "reader"]),
            "service": StaticAuthenticator.caller(
                user: "wolke", project: "service", roles: ["admin", "manager", "member", "reader", "service"]),
            "p1": member("p1"), "p2": member("p2"),
        ])
    }()

    /// Adds every program to the world.
    ///
    /// - Parameter replicas: of each service.
    func install(replicas: Int) {
        for number in 1...replicas {
            world.add("placement-\(number)") { try placement($0) }
            world.add("compute-\(number)") { try compute($0) }
            world.add("network-\(number)") { try network($0) }
            world.add("block-storage-\(number)") { try blockStorage($0) }
        }
        for host in Plane.hosts {
            let hypervisor = SimulatedHypervisor(name: host)
            world.hosts[host] = hypervisor
            world.add("agent-\(host)") { SimulatedAgent($0, hypervisor).start() }
        }
    }

    private func client(_ process: SimulatedProcess) -> RESTClient {
        let world = world
        return RESTClient(
            .serviceUser(
                endpoints: Dictionary(uniqueKeysWithValues: CloudService.all.map { ($0, World.url($0.name)) }), user: "wolke",
                password: Secret("secret"), domain: "default", project: "service"),
            ambient: process.ambient, transport: HTTPTransport { try await world.exchange($0, timeout: $1) },
            requestID: { RequestScope.current })
    }

    // MARK: programs

    private func placement(_ process: SimulatedProcess) throws {
        let placement = Placement(database: process.database, ambient: process.ambient, metrics: Metrics())
        process.api = try PlacementAPI.make(
            placement, publicURL: World.url("placement"), policyOverrides: [:], authenticator: Plane.callers, log: world.log,
            metrics: Metrics())
        let workers = placement.workers(bus: process.bus, decisions: ConsumeOptions(prefetch: 4), log: world.log)
        for (number, worker) in workers.enumerated() { process.loop("worker \(number)", worker) }
    }

    private func compute(_ process: SimulatedProcess) throws {
        let bus = process.bus
        let compute = Compute(
            database: process.database, ambient: process.ambient, bus: bus,
            clients: ServiceClients(client: client(process), bus: bus), images: try ImageAccess(), log: world.log)
        process.api = try ComputeAPI.make(
            compute, publicURL: World.url("compute"), authenticator: Plane.callers, metrics: Metrics())
        let definitions = ComputeWorkflows.definitions(compute).map { own in changed.first { $0.kind == own.kind } ?? own }
        let engine = ComputeWorkflows.engine(compute, replacing: definitions.map { world.steps.watching($0, in: process) })
        let relay = OutboxRelay(database: process.database, bus: bus, ambient: process.ambient, logger: world.log)
        let consumer = AgentConsumer(compute)
        let audit = ComputePeriodicTasks(compute)
        process.loop("engine") { try await engine.run() }
        process.loop("relay") { try await relay.run() }
        process.loop("consumer") { try await consumer.run() }
        process.loop("audit") { try await audit.run() }
    }

    private func blockStorage(_ process: SimulatedProcess) throws {
        let driver = SimulatedVolumeDriver(process: process)
        let settings = BlockStorageSettings()
        let workflows = VolumeWorkflows(
            database: process.database, driver: driver, images: try ImageAccess(), settings: settings, ambient: process.ambient)
        process.api = try BlockStorageAPI.make(
            database: process.database, driver: driver, workflows: workflows, settings: settings,
            publicURL: World.url("block-storage"), authenticator: Plane.callers, ambient: process.ambient, log: world.log,
            metrics: Metrics())
        let engine = WorkflowEngine(
            service: "block_storage", definitions: workflows.definitions.map { world.steps.watching($0, in: process) },
            intents: workflows.intents,
            database: process.database, ambient: process.ambient, log: world.log)
        let heartbeat = ServiceReportTask(
            database: process.database, driver: driver, settings: settings, ambient: process.ambient, log: world.log)
        process.loop("engine") { try await engine.run() }
        process.loop("heartbeat") { try await heartbeat.run() }
    }

    private func network(_ process: SimulatedProcess) throws {
        process.api = try NetworkAPI(
            database: process.database, ambient: process.ambient, options: NetworkOptions(), fleet: SimulatedFleetView()
        ).make(publicURL: World.url("network"), authenticator: Plane.callers, log: world.log, metrics: Metrics())
        let ports = PortStates(process: process)
        process.loop("ports") { try await ports.run() }
    }
}

/// The simulated hosts as chassis.
struct SimulatedFleetView: FleetView {
    func members() async -> [FleetMember] {
        Plane.hosts.enumerated().map { number, host in
            FleetMember(
                id: UUID128(high: 5, low: UInt64(number)), chassis: host, host: host, isGateway: false,
                physicalNetworks: ["physnet1"], heardAt: nil)
        }
    }
}

/// What OVN says about ports, written down as the northbound reconciler does it.
struct PortStates: Sendable {
    let process: SimulatedProcess

    func run() async throws {
        while true {
            do { try await once() } catch { try Task.checkCancellation() }
            try await process.ambient.time.sleep(for: .milliseconds(400))
        }
    }

    private func once() async throws {
        let database = process.database
        let ports = try await database.read { connection in
            try connection.query("SELECT id, status FROM ports WHERE device_owner LIKE 'compute:%' ORDER BY id")
                .map { (id: try $0.string("id"), status: try $0.string("status")) }
        }
        let bound = process.world.network.bound
        let changed = ports.filter { ($0.status == "ACTIVE") != (bound[$0.id] != nil) }
        guard !changed.isEmpty else { return }
        let ids = changed.map(\.id)
        let statuses = changed.map { $0.status == "ACTIVE" ? "DOWN" : "ACTIVE" }
        let now = process.ambient.now
        try await database.write { connection in
            let devices = try connection.query(
                """
                UPDATE ports p SET status = v.status, updated_at = \(now)
                FROM unnest(\(ids)::uuid[], \(statuses)::text[]) AS v(id, status)
                WHERE p.id = v.id RETURNING p.device_id
                """
            ).map { try $0.string("device_id") }
            for device in Set(devices).sorted() where !device.isEmpty { try connection.notify(.wake, Wake(subject: device)) }
        }
    }
}
