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
import ServiceKit
import Telemetry
import TestKit
import Workflow

/// The services of the control plane, assembled as in their executables, with simulated dependencies.
struct Plane {
    let world: World
    /// Added to each replica's workflows, or replacing them.
    var changed: [WorkflowDefinition] = []

    /// Callers are given and images are only requested by id, because Identity and Image have no process here. Optional services
    /// have none either.
    private static let services = CloudService.all.filter { $0 != .identity && $0 != .image && !$0.isOptional }
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
    /// - Parameter replicas: the number of replicas of each service.
    func install(replicas: Int) {
        for number in 1...replicas {
            for service in Plane.services {
                world.add("\(service.name)-\(number)") { run(try module(service, $0), in: $0) }
            }
        }
        for host in Plane.hosts {
            let machine = SimulatedMachine(name: host, world: world)
            world.hosts[host] = machine
            world.add("agent-\(host)") { try SimulatedAgent.start($0, on: machine) }
            machine.liveOn()
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

    private func surroundings(_ service: CloudService, _ process: SimulatedProcess) -> ServiceSurroundings {
        ServiceSurroundings(
            database: process.database, ambient: process.ambient, log: world.log, metrics: Metrics(), bus: process.bus,
            authenticator: Plane.callers, publicURL: World.url(service.name), machine: "machine-\(process.name.suffix(1))")
    }

    /// Runs the loops of the service's process.
    private func run(_ module: ServiceModule, in process: SimulatedProcess) {
        process.api = module.api
        let module = module.changingWorkflows { own in
            world.steps.watching(changed.first { $0.kind == own.kind } ?? own, in: process)
        }
        if !module.workflows.isEmpty {
            let engine = module.engine()
            process.loop("engine") { try await engine.run() }
        }
        for loop in module.allLoops { process.loop(loop.name, loop.run) }
    }

    private func module(_ service: CloudService, _ process: SimulatedProcess) throws -> ServiceModule {
        let surroundings = surroundings(service, process)
        switch service {
        case .placement:
            let placement = Placement(database: process.database, ambient: process.ambient, metrics: surroundings.metrics)
            return try PlacementModule.make(placement, surroundings)
        case .compute:
            let remote = ServiceClients(client: client(process), bus: surroundings.bus)
            let clients = ServiceClients(
                scheduler: remote.scheduler, network: remote.network, volumes: remote.volumes, images: SimulatedImages(process: process))
            let compute = Compute(surroundings, clients: clients, images: try ImageAccess())
            return try ComputeModule.make(compute, surroundings)
        case .blockStorage:
            return try BlockStorageModule.make(
                driver: SimulatedVolumeDriver(process: process), images: try ImageAccess(), uploads: SimulatedImages(process: process),
                surroundings)
        case .network:
            let ports = PortStates(process: process)
            let backend = NetworkBackend(fleet: SimulatedFleetView(), loops: [.init("ports") { try await ports.run() }])
            return try NetworkModule.make(NetworkOptions(), backend, surroundings)
        default: throw ResourceError.internalError("the simulation has no \(service.name)")
        }
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

/// Reports the state of ports as the northbound reconciler does.
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
            try connection.query("SELECT id, status, host_id FROM ports WHERE device_owner LIKE 'compute:%' ORDER BY id")
                .map { (id: try $0.string("id"), status: try $0.string("status"), host: try $0.string("host_id")) }
        }
        let bound = process.world.network.bound
        let changed = ports.filter { ($0.status == "ACTIVE") != (bound[$0.id]?.contains($0.host) == true) }
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
