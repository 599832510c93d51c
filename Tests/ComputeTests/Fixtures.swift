import Authorization
import ComputeService
import Contracts
import Database
import Foundation
import ImageAccess
import JSON
import Kernel
import Logging
import Messaging
import ServiceCatalog
import ServiceKit
import Synchronization
import Telemetry
import TestKit
import WebAPI
import Workflow

/// A cloud for one test: database with the rows of other services, fakes, engine and API.
struct TestCloud: Sendable {
    let database: Database
    let time: ManualTime
    let cloud: FakeCloud
    let compute: Compute
    let consumer: AgentConsumer
    let module: ServiceModule
    var api: API { module.api }

    static func with<Value: Sendable>(
        probe: EffectProbe = EffectProbe(), seed: UInt64 = 1, settings: ComputeSettings = ComputeSettings(),
        imagePolicy: [String: String] = [:], policy: [String: String] = [:], protections: PropertyProtections? = nil,
        _ body: (TestCloud) async throws -> Value
    ) async throws -> Value {
        try await TestDatabase.with { test in
            let time = ManualTime()
            let ambient = Ambient(time: time, random: SeededRandom(seed: seed))
            let cloud = FakeCloud(database: test.database, ambient: ambient, probe: probe)
            let bus = InMemoryBus()
            let agent = Task {
                try await bus.serve(queue: .agent(host: "host-1")) { try cloud.answer($0) }
            }
            defer { agent.cancel() }
            let surroundings = ServiceSurroundings.test(
                test.database, .compute, ambient: ambient, bus: bus, policy: policy, publicURL: "http://compute.example")
            let compute = Compute(
                surroundings, clients: cloud.clients, images: try ImageAccess(policyOverrides: imagePolicy, protections: protections),
                settings: settings)
            let consumer = AgentConsumer(compute)
            let module = try ComputeModule.make(compute, surroundings)
            try await Fixtures.fill(test.database, at: ambient.now)
            try await cloud.send(Fixtures.hello(host: "host-1"), consumer)
            try await test.database.write { try $0.execute("DELETE FROM outbox") }
            time.whenWaiting { try await cloud.work(consumer) }
            return try await body(
                TestCloud(
                    database: test.database, time: time, cloud: cloud, compute: compute, consumer: consumer, module: module))
        }
    }

    // MARK: requests

    struct Answer: Sendable {
        let status: Int
        let headers: Headers
        let json: JSONValue

        var message: String {
            json.objectValue?.members.first?.value["message"]?.stringValue ?? json["error"]?["message"]?.stringValue ?? ""
        }
    }

    @discardableResult
    func call(
        _ method: String, _ target: String, _ body: JSONValue? = nil, as token: String = "member",
        version: String? = "2.96", headers: [(String, String)] = []
    ) async throws -> Answer {
        try await call(method, target, bytes: body?.encoded ?? [], as: token, version: version, headers: headers)
    }

    func call(
        _ method: String, _ target: String, bytes: [UInt8], as token: String = "member", version: String? = "2.96",
        headers: [(String, String)] = []
    ) async throws -> Answer {
        var all = Headers(headers)
        all["x-auth-token"] = token
        if let version { all["openstack-api-version"] = "compute \(version)" }
        let response = await api.respond(to: try IncomingRequest(method, target, headers: all, body: bytes))
        let content = response.bytes ?? []
        return Answer(
            status: response.status, headers: response.headers,
            json: content.isEmpty ? .null : try JSONValue.parse(content))
    }

    /// A body that boots from the image on the network.
    static func body(_ changes: JSONObject = [:], top: JSONObject = [:]) -> JSONValue {
        var server: JSONObject = [
            "name": "web", "flavorRef": "1", "imageRef": .string(Fixtures.image),
            "networks": [["uuid": .string(Fixtures.network)]],
        ]
        for member in changes.members {
            server[member.name] = member.value == .string("<absent>") ? nil : member.value
        }
        var body: JSONObject = ["server": .object(server)]
        for member in top.members { body[member.name] = member.value }
        return .object(body)
    }

    // MARK: work

    /// An engine with these definitions in place of the service's own ones of the same kinds.
    func engine(_ changed: [WorkflowDefinition] = []) -> WorkflowEngine {
        module.engine(replacing: changed)
    }

    /// Creates a server and runs all workflows to their end.
    func createServer(_ changes: JSONObject = [:]) async throws -> String {
        let answer = try await call("POST", "/v2.1/servers", TestCloud.body(changes))
        guard let id = answer.json["server"]?["id"]?.stringValue else {
            throw ResourceError.internalError("no server: \(answer.json)")
        }
        try await engine().drain()
        return id
    }

    func server(_ id: String, as token: String = "member", version: String = "2.96") async throws -> JSONValue {
        try await call("GET", "/v2.1/servers/\(id)", as: token, version: version).json["server"] ?? .null
    }

    /// Runs the service's engine and the hosts while a request waits.
    func workWhileWaiting(_ changed: [WorkflowDefinition] = []) {
        let this = self
        // An engine that waits for the lease of a dead one waits longer than a host may be silent.
        let hosts: @Sendable () async throws -> Void = {
            try await this.cloud.beat(this.consumer)
            try await this.cloud.work(this.consumer)
        }
        time.whenWaitingTogether(nested: hosts) {
            try await this.cloud.beat(this.consumer)
            try await this.engine(changed).drain()
            try await this.cloud.work(this.consumer)
        }
    }

    // MARK: invariants

    /// Describes leftovers of servers that do not exist, and inexact quotas.
    func leftovers() async throws -> [String] {
        try await database.read { connection in
            func count(_ sql: SQL) throws -> Int { try connection.query(sql)[0].int("count") }
            var found: [String] = []
            func expectNone(_ what: String, _ sql: SQL) throws {
                let number = try count(sql)
                if number > 0 { found.append("\(number) \(what)") }
            }
            let living: SQL = "SELECT id FROM servers WHERE NOT deleted AND vm_state <> 'error'"
            let moving: SQL = "SELECT uuid FROM server_migrations WHERE status IN ('migrating', 'finished', 'reverting')"
            try expectNone(
                "allocations",
                "SELECT count(*) AS count FROM fake_allocations WHERE consumer_id NOT IN (\(living) UNION \(moving))")
            try expectNone(
                "expecting hosts", "SELECT count(*) AS count FROM server_arrivals")
            try expectNone("jobs of hosts", "SELECT count(*) AS count FROM server_jobs")
            try expectNone("second bindings of ports", "SELECT count(*) AS count FROM port_bindings")
            try expectNone(
                "flavors of servers that are not resized",
                "SELECT count(*) AS count FROM servers WHERE (other_flavor IS NOT NULL OR keeps_disks) AND (vm_state <> 'resized') AND NOT deleted"
            )
            try expectNone(
                "wrong allocations",
                """
                SELECT count(*) AS count FROM servers s WHERE NOT deleted AND vm_state <> 'error'
                    AND s.host IS NOT NULL AND (s.flavor->>'ram')::bigint IS DISTINCT FROM
                    (SELECT a.used FROM fake_allocations a WHERE a.consumer_id = s.id AND a.resource_class = 'MEMORY_MB')
                """)
            let memory = try connection.query(
                """
                SELECT coalesce((SELECT used FROM quota_usages WHERE project_id = 'p1' AND resource = 'compute:ram'), 0) AS used,
                    (SELECT coalesce(sum(greatest((flavor->>'ram')::bigint, (other_flavor->>'ram')::bigint)), 0)::bigint FROM servers
                        WHERE project_id = 'p1' AND NOT deleted) AS servers
                """)[0]
            if try memory.int("used") != memory.int("servers") {
                found.append("quota says \(try memory.int("used")) of \(try memory.int("servers")) MiB")
            }
            try expectNone(
                "ports",
                "SELECT count(*) AS count FROM ports WHERE device_owner LIKE 'compute:%' AND device_id NOT IN (SELECT s.id::text FROM (\(living)) s)"
            )
            try expectNone("interfaces", "SELECT count(*) AS count FROM server_interfaces WHERE server_id NOT IN (\(living))")
            try expectNone("volume rows", "SELECT count(*) AS count FROM server_volumes WHERE server_id NOT IN (\(living))")
            try expectNone("attachments", "SELECT count(*) AS count FROM volume_attachments WHERE server_id NOT IN (\(living))")
            try expectNone("unfinished workflows", "SELECT count(*) AS count FROM workflows WHERE finished_at IS NULL")
            try expectNone("intents", "SELECT count(*) AS count FROM intents")
            try expectNone("tasks", "SELECT count(*) AS count FROM servers WHERE task_state IS NOT NULL")
            try expectNone(
                "double ports",
                "SELECT count(*) AS count FROM (SELECT device_id FROM ports WHERE device_owner LIKE 'compute:%' GROUP BY device_id HAVING count(*) > 1) d"
            )
            let used = try connection.query(
                """
                SELECT coalesce((SELECT used FROM quota_usages WHERE project_id = 'p1' AND resource = 'compute:instances'), 0) AS used,
                    (SELECT count(*) FROM servers WHERE project_id = 'p1' AND NOT deleted) AS servers
                """)[0]
            if try used.int("used") != used.int("servers") {
                found.append("quota says \(try used.int("used")) of \(try used.int("servers")) servers")
            }
            return found
        }
    }
}

enum Fixtures {
    static let network = "11111111-1111-4111-8111-111111111111"
    static let subnet = "11111111-1111-4111-8111-222222222222"
    static let foreignNetwork = "11111111-1111-4111-8111-333333333333"
    static let image = "22222222-2222-4222-8222-222222222222"
    static let queuedImage = "22222222-2222-4222-8222-333333333333"
    static let foreignImage = "22222222-2222-4222-8222-444444444444"
    static let volume = "33333333-3333-4333-8333-333333333333"
    static let port = "44444444-4444-4444-8444-444444444444"
    static let foreignPort = "44444444-4444-4444-8444-555555555555"

    static func hello(host: String) throws -> JSONValue {
        try AgentHello(
            host: host, agentVersion: "1.0",
            capabilities: HostCapabilities(
                cpus: 8, memoryMiB: 16_384, diskGiB: 100, virtType: "qemu", hypervisorType: "QEMU", hypervisorVersion: 7_002_000,
                reserved: .init(vcpu: 0, memoryMiB: 0, diskGiB: 0),
                allocationRatios: .init(vcpu: 4, memoryMiB: 1, diskGiB: 1),
                processor: .init(
                    arch: "x86_64", model: "qemu64", vendor: "", features: [], topology: .init(sockets: 1, cores: 8, threads: 1)),
                traits: ["COMPUTE_NODE"], release: WolkeVersion.current)
        ).document()
    }

    static func fill(_ database: Database, at now: Timestamp) async throws {
        try await database.write { connection in
            try connection.script(
                "CREATE TABLE fake_allocations (consumer_id uuid, resource_class text, used bigint, PRIMARY KEY (consumer_id, resource_class))"
            )
            for (id, name, vcpus, ram, disk, isPublic) in [
                ("1", "m1.tiny", 1, 512, 1, true), ("2", "m1.large", 4, 8192, 40, true), ("3", "m1.private", 1, 512, 1, false),
                ("4", "m1.huge", 19, 51_200, 1, true),
            ] {
                try connection.execute(
                    """
                    INSERT INTO flavors (id, flavorid, name, vcpus, memory_mb, root_gb, is_public, created_at)
                    VALUES (gen_random_uuid(), \(id), \(name), \(vcpus), \(ram), \(disk), \(isPublic), \(now))
                    """)
            }
            for (id, project, name) in [(network, "p1", "net"), (foreignNetwork, "p2", "theirs")] {
                try connection.execute(
                    """
                    INSERT INTO networks (id, project_id, name, mtu, provider_type, segmentation_id, created_at, updated_at)
                    VALUES (\(id), \(project), \(name), 1442, 'geneve', 1, \(now), \(now))
                    """)
            }
            try connection.execute(
                """
                INSERT INTO subnets (id, network_id, project_id, ip_version, cidr, gateway_ip, created_at, updated_at)
                VALUES (\(subnet), \(network), 'p1', 4, '10.0.0.0/24', '10.0.0.1', \(now), \(now))
                """)
            for (id, project, owner) in [(image, "p1", "public"), (queuedImage, "p1", "private"), (foreignImage, "p2", "private")] {
                let isActive = id != queuedImage
                try connection.execute(
                    """
                    INSERT INTO images (id, project_id, name, status, visibility, disk_format, container_format, size,
                        checksum, os_hash_algo, os_hash_value, file_id, created_at, updated_at)
                    VALUES (\(id), \(project), 'guest', \(isActive ? "active" : "queued"), \(owner), 'qcow2', 'bare',
                        1000000, 'c', 'sha512', 'h', \(isActive ? id : nil)::uuid, \(now), \(now))
                    """)
            }
            for (id, project, number) in [(port, "p1", 1), (foreignPort, "p2", 2)] {
                try connection.execute(
                    """
                    INSERT INTO ports (id, network_id, project_id, mac_address, created_at, updated_at)
                    VALUES (\(id), \(network), \(project), \("fa:16:3e:ff:00:0\(number)"), \(now), \(now))
                    """)
            }
            try insertVolume(connection, id: volume, project: "p1", size: 1)
        }
    }

    static func insertVolume(_ connection: Connection, id: String, project: String, size: Int) throws {
        try connection.execute(
            """
            INSERT INTO volumes (id, project_id, user_id, name, status, size, bootable, volume_type_id, availability_zone,
                service_host, format, created_at, updated_at)
            SELECT \(id), \(project), 'u1', 'v', 'available', \(size), true, t.id, 'nova', 'h', 'raw', now(), now()
            FROM volume_types t LIMIT 1
            """)
    }
}
