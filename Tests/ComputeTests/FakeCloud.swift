import ComputeCore
import ComputeService
import Contracts
import Database
import Foundation
import JSON
import Kernel
import Messaging
import Synchronization
import TestKit
import Workflow

/// The services around Compute, in the test's database, and the agents of its hosts. Every effect passes the probe, so that a test can make
/// the process die at any of them.
final class FakeCloud: SchedulerClient, NetworkClient, VolumeClient, ImageClient, Sendable {
    struct Domain: Hashable, Sendable {
        var power: String
        var generation: Int
        var epoch: Int
    }

    struct State {
        var keys: [String: String] = [:]
        var domains: [String: [String: Domain]] = [:]
        var addresses = 10
        var rejection: JSONValue?
        var trial: @Sendable (JSONValue) -> JSONValue = { _ in ["result": "scheduled", "host": "host-2", "fits": 4] }
        var imageRefusal: ResourceError?
        var imageQueries: [[String]] = []
        var imagePatches: [JSONValue] = []
        var snapshotRefusal: ResourceError?
        var attachHook: (@Sendable () async throws -> Void)?
        var jobFailure: String?
        var holdsJobs = false
        /// The error with which Network and Block Storage refuse to release ports and volumes.
        var releaseRefusal: ResourceError?
        /// Whether guests wait for others that leave the host.
        var queuesMoves = false
        /// How much source hosts have sent of guests, beyond the beginning.
        var sentBytes = 0
        /// The phase that hosts report for guests that did not leave.
        var failedPhase: String?
        /// Servers whose guests have left the host in the server's row.
        var left: Set<String> = []
        var failsOnHost: (error: String, reason: String?, permanent: Bool)?
        /// The only host that fails, and how often it has.
        var failingHost: String?
        var failures = 0
        /// The servers whose disks each host has.
        var disks: [String: Set<String>] = [:]
        /// Hosts without capacity for a server that is resized or moved.
        var fullHosts: Set<String> = []
        var silentHosts: Set<String> = []
        var received: [JSONValue] = []
        var subjects: [ActingSubject] = []
        var orders: [JSONValue] = []
        var orderRefusal: ResourceError?
        var fullSubnets: Set<String> = []
    }

    let database: Database
    let ambient: Ambient
    let probe: EffectProbe
    let state = Mutex(State())
    private let portUpdates = Mutex<(@Sendable () async throws -> Void)?>(nil)

    init(database: Database, ambient: Ambient, probe: EffectProbe = EffectProbe()) {
        self.database = database
        self.ambient = ambient
        self.probe = probe
    }

    var clients: ServiceClients { ServiceClients(scheduler: self, network: self, volumes: self, images: self) }

    // MARK: settings

    /// Runs before each change of a port.
    func beforePortUpdate(_ body: @escaping @Sendable () async throws -> Void) { portUpdates.withLock { $0 = body } }
    func reject(_ answer: JSONValue?) { state.withLock { $0.rejection = answer } }
    /// Answers each of several trial requests.
    func tryOut(_ answer: @escaping @Sendable (JSONValue) -> JSONValue) { state.withLock { $0.trial = answer } }
    /// The scheduler finds no capacity on this host.
    func fill(_ host: String) { _ = state.withLock { $0.fullHosts.insert(host) } }
    /// The hosts that have disks of the server.
    func hosts(withDisksOf id: String) -> [String] {
        state.withLock { state in state.disks.filter { $0.value.contains(id) }.keys.sorted() }
    }
    /// How many times a host has failed to start a server.
    var failures: Int { state.withLock { $0.failures } }
    /// Requests to the host's agent are refused with this error.
    func refuseOrders(_ error: ResourceError?) { state.withLock { $0.orderRefusal = error } }
    /// Requests to the host's agent, in order.
    var orders: [JSONValue] { state.withLock { $0.orders } }
    /// Network has no free address in this subnet.
    func exhaust(subnet: String) { _ = state.withLock { $0.fullSubnets.insert(subnet) } }
    func silence(_ host: String) { _ = state.withLock { $0.silentHosts.insert(host) } }
    func wake(_ host: String) { _ = state.withLock { $0.silentHosts.remove(host) } }
    func domains(on host: String) -> [String: Domain] { state.withLock { $0.domains[host] ?? [:] } }
    /// The subjects of calls to Network and Block Storage, in order.
    var subjects: [ActingSubject] { state.withLock { $0.subjects } }
    var received: [JSONValue] { state.withLock { $0.received } }

    // MARK: scheduler

    func tryOut(_ trial: ScheduleTrial, operation: UUID128) async throws -> ScheduleTrial.Answer {
        let document = try trial.document()
        state.withLock { $0.received.append(document) }
        let answers = try trial.requests.map { try state.withLock { $0.trial }(try $0.document()).decode(as: SchedulingAnswer.self) }
        let capacity = ScheduleTrial.Answer.Capacity(hosts: 1, resources: [:])
        return .init(answers: answers, capacity: .init(before: capacity, after: capacity))
    }

    func schedule(_ question: ScheduleServer, operation: UUID128) async throws -> SchedulingAnswer {
        if let trial = preview(question) { return trial }
        return try await probe.effect("schedule") {
            if let rejection = state.withLock({ $0.rejection }) { return try rejection.decode() }
            if let host = question.host, state.withLock({ $0.fullHosts.contains(host) }) {
                return try (["result": "rejected", "message": "No valid host was found.", "filters": []] as JSONValue).decode()
            }
            let host = question.host ?? (question.excludedHosts.contains("host-1") ? "host-2" : "host-1")
            try await database.write { connection in
                for (name, amount) in question.resources {
                    try connection.execute(
                        """
                        INSERT INTO fake_allocations (consumer_id, resource_class, used)
                        VALUES (\(question.consumerID), \(name), \(amount)) ON CONFLICT DO NOTHING
                        """)
                }
            }
            return SchedulingAnswer(.scheduled, host: host, providerID: "00000000-0000-4000-8000-000000000001")
        }
    }

    func release(consumer: String) async throws {
        try await probe.effect("release") {
            _ = try await database.write { try $0.execute("DELETE FROM fake_allocations WHERE consumer_id = \(consumer)") }
        }
    }

    func move(_ move: AllocationMove) async throws {
        try await probe.effect("move") {
            try await database.write { connection in
                let held = try connection.query("SELECT 1 AS one FROM fake_allocations WHERE consumer_id = \(move.from)")
                guard !held.isEmpty else { return }
                try connection.execute("DELETE FROM fake_allocations WHERE consumer_id = \(move.to)")
                try connection.execute("UPDATE fake_allocations SET consumer_id = \(move.to) WHERE consumer_id = \(move.from)")
            }
        }
    }

    // MARK: network

    func createPort(_ port: JSONObject, as subject: ActingSubject, operation: String) async throws -> String {
        state.withLock { $0.subjects.append(subject) }
        return try await probe.effect("createPort") {
            if let known = state.withLock({ $0.keys["port " + operation] }) { return known }
            let id = ambient.newUUID().description
            let number = state.withLock { state -> Int in
                state.addresses += 1
                return state.addresses
            }
            let now = ambient.now
            try await database.write { connection in
                try connection.execute(
                    """
                    INSERT INTO ports (id, network_id, project_id, mac_address, device_id, device_owner, host_id, status,
                        created_at, updated_at)
                    VALUES (\(id), \(port["network_id"]?.stringValue), \(port["project_id"]?.stringValue),
                        \(MACAddress(value: 0xfa16_3e00_0000 + UInt64(number)).description),
                        \(port["device_id"]?.stringValue), \(port["device_owner"]?.stringValue),
                        \(port["binding:host_id"]?.stringValue), 'DOWN', \(now), \(now))
                    """)
                try connection.execute(
                    """
                    INSERT INTO port_fixed_ips (port_id, subnet_id, ip_address)
                    SELECT \(id), id, \("10.0.0.\(number)") FROM subnets WHERE network_id = \(port["network_id"]?.stringValue)
                    """)
            }
            state.withLock { $0.keys["port " + operation] = id }
            return id
        }
    }

    func updatePort(_ id: String, _ changes: JSONObject, as subject: ActingSubject) async throws {
        state.withLock { $0.subjects.append(subject) }
        if let body = portUpdates.withLock({ $0 }) { try await body() }
        // As in Network, a router's port cannot be assigned to another device.
        let owner = try await database.read {
            try $0.query("SELECT device_owner FROM ports WHERE id = \(id)").first?.string("device_owner")
        }
        if owner == "network:router_interface", changes["device_id"] != nil {
            throw ResourceError.badRequest("device_id of a port with device owner network:router_interface is set by the service itself.")
        }
        try await probe.effect("updatePort") {
            let full = state.withLock { $0.fullSubnets }
            try await database.write { connection in
                try FakeCloud.setAddresses(connection, id, changes["fixed_ips"]?.arrayValue, full: full)
                let touched = try connection.execute(
                    """
                    UPDATE ports SET device_id = coalesce(\(changes["device_id"]?.stringValue), device_id),
                        device_owner = coalesce(\(changes["device_owner"]?.stringValue), device_owner),
                        host_id = coalesce(\(changes["binding:host_id"]?.stringValue), host_id) WHERE id = \(id)
                    """)
                if touched == 0 { throw ResourceError.notFound("Port \(id) could not be found.") }
            }
        }
    }

    private static func setAddresses(_ connection: Connection, _ port: String, _ list: [JSONValue]?, full: Set<String>) throws {
        guard let list else { return }
        try connection.execute("DELETE FROM port_fixed_ips WHERE port_id = \(port)")
        for (position, fixed) in list.enumerated() {
            let subnet = fixed["subnet_id"]?.stringValue ?? ""
            if fixed["ip_address"] == nil, full.contains(subnet) { throw ResourceError.conflict("No more IP addresses available") }
            let address = fixed["ip_address"]?.stringValue ?? "10.0.0.\(200 + position)"
            try connection.execute(
                """
                INSERT INTO port_fixed_ips (port_id, subnet_id, ip_address, position) VALUES (\(port), \(subnet), \(address), \(position))
                """)
        }
    }

    func changeGroup(_ group: String, adds: Bool, ports: [String], as subject: ActingSubject) async throws {
        state.withLock { $0.subjects.append(subject) }
        try await probe.effect("changeGroup") {
            try await database.write { connection in
                for port in ports {
                    if adds {
                        try connection.execute(
                            "INSERT INTO port_security_groups (port_id, security_group_id) VALUES (\(port), \(group)) ON CONFLICT DO NOTHING"
                        )
                    } else {
                        try connection.execute("DELETE FROM port_security_groups WHERE port_id = \(port) AND security_group_id = \(group)")
                    }
                }
            }
        }
    }

    func deletePort(_ id: String, as subject: ActingSubject) async throws {
        state.withLock { $0.subjects.append(subject) }
        try await probe.effect("deletePort") {
            if let refusal = state.withLock({ $0.releaseRefusal }) { throw refusal }
            _ = try await database.write { try $0.execute("DELETE FROM ports WHERE id = \(id)") }
        }
    }

    func bind(port id: String, host: String, as subject: ActingSubject) async throws {
        state.withLock { $0.subjects.append(subject) }
        try await probe.effect("bind") {
            let now = ambient.now
            _ = try await database.write {
                try $0.execute(
                    """
                    INSERT INTO port_bindings (port_id, host, is_expected, created_at) VALUES (\(id), \(host), true, \(now))
                    ON CONFLICT DO NOTHING
                    """)
            }
        }
    }

    func activateBinding(port id: String, host: String, as subject: ActingSubject) async throws {
        state.withLock { $0.subjects.append(subject) }
        try await probe.effect("activate") {
            let now = ambient.now
            try await database.write { connection in
                let old = try connection.query("SELECT host_id FROM ports WHERE id = \(id)").first?.string("host_id") ?? host
                guard old != host else { return }
                try connection.execute("DELETE FROM port_bindings WHERE port_id = \(id) AND host = \(host)")
                try connection.execute(
                    "INSERT INTO port_bindings (port_id, host, is_expected, created_at) VALUES (\(id), \(old), false, \(now))")
                try connection.execute("UPDATE ports SET host_id = \(host) WHERE id = \(id)")
            }
        }
    }

    func unbind(port id: String, host: String, as subject: ActingSubject) async throws {
        state.withLock { $0.subjects.append(subject) }
        try await probe.effect("unbind") {
            _ = try await database.write { try $0.execute("DELETE FROM port_bindings WHERE port_id = \(id) AND host = \(host)") }
        }
    }

    // MARK: volumes

    func createVolume(_ volume: JSONObject, as subject: ActingSubject, operation: String) async throws -> String {
        state.withLock { $0.subjects.append(subject) }
        return try await probe.effect("createVolume") {
            if let known = state.withLock({ $0.keys["volume " + operation] }) { return known }
            let id = ambient.newUUID().description
            try await database.write {
                try Fixtures.insertVolume($0, id: id, project: subject.project, size: volume["size"]?.intValue ?? 1)
            }
            state.withLock { $0.keys["volume " + operation] = id }
            return id
        }
    }

    func deleteVolume(_ id: String, as subject: ActingSubject) async throws {
        state.withLock { $0.subjects.append(subject) }
        try await probe.effect("deleteVolume") {
            _ = try await database.write { connection in
                let snapshots = try connection.query("SELECT 1 AS one FROM volume_snapshots WHERE volume_id = \(id)::uuid")
                guard snapshots.isEmpty else { throw ResourceError.badRequest("Invalid volume: it must not have snapshots.") }
                try connection.execute("DELETE FROM volumes WHERE id = \(id)")
            }
        }
    }

    /// Runs the body before Block Storage answers about an attachment.
    func whenAttaching(_ body: @escaping @Sendable () async throws -> Void) { state.withLock { $0.attachHook = body } }

    func attach(_ request: VolumeAttachRequest) async throws -> VolumeAttachAnswer {
        state.withLock { $0.subjects.append(request.subject) }
        try await state.withLock(\.attachHook)?()
        return try await probe.effect("attach") {
            let id = state.withLock { $0.keys["attachment " + request.operation] } ?? ambient.newUUID().description
            state.withLock { $0.keys["attachment " + request.operation] = id }
            let now = ambient.now
            try await database.write { connection in
                try connection.execute(
                    """
                    INSERT INTO volume_attachments (id, volume_id, project_id, server_id, host, status, created_at, updated_at)
                    VALUES (\(id), \(request.volumeID), \(request.subject.project), \(request.serverID),
                        \(request.host), \(request.host == nil ? "reserved" : "attaching"), \(now), \(now))
                    ON CONFLICT DO NOTHING
                    """)
                try connection.execute("UPDATE volumes SET status = 'in-use' WHERE id = \(request.volumeID)")
            }
            guard request.host != nil else { return VolumeAttachAnswer(attachmentID: id, connection: nil) }
            return VolumeAttachAnswer(
                attachmentID: id,
                connection: ["driver": "file", "path": .string("/volumes/\(request.volumeID)"), "format": "raw", "read_only": false])
        }
    }

    func connect(attachment: String, host: String, device: String, as subject: ActingSubject) async throws -> JSONValue {
        state.withLock { $0.subjects.append(subject) }
        return try await probe.effect("connect") {
            let volume = try await database.write { connection in
                try connection.query("UPDATE volume_attachments SET host = \(host) WHERE id = \(attachment) RETURNING volume_id").first?
                    .string("volume_id")
            }
            guard let volume else { throw ResourceError.notFound("Attachment \(attachment)") }
            return ["driver": "file", "path": .string("/volumes/\(volume)"), "format": "raw", "read_only": false]
        }
    }

    func complete(attachment: String, as subject: ActingSubject) async throws {
        state.withLock { $0.subjects.append(subject) }
        try await probe.effect("complete") {
            _ = try await database.write {
                try $0.execute("UPDATE volume_attachments SET status = 'attached' WHERE id = \(attachment)::uuid")
            }
        }
    }

    func detach(attachment: String, as subject: ActingSubject) async throws {
        state.withLock { $0.subjects.append(subject) }
        try await probe.effect("detach") {
            if let refusal = state.withLock({ $0.releaseRefusal }) { throw refusal }
            try await database.write { connection in
                let rows = try connection.query("DELETE FROM volume_attachments WHERE id = \(attachment) RETURNING volume_id")
                if let volume = try rows.first?.string("volume_id") {
                    try connection.execute(
                        """
                        UPDATE volumes v SET status = 'available' WHERE id = \(volume)
                            AND NOT EXISTS (SELECT 1 FROM volume_attachments a WHERE a.volume_id = v.id)
                        """)
                }
            }
        }
    }

    // MARK: hosts

    /// The answer of the host's agent to a question.
    func answer(_ question: Message) throws -> JSONValue {
        try state.withLock { state in
            state.orders.append(question.body)
            if let refusal = state.orderRefusal { throw refusal }
        }
        switch question.type {
        case "console_log": return ["output": "Welcome"]
        case "host_uptime": return ["uptime": 90_000, "load_averages": [0.5, 0.25, 0.1]]
        default: return ["state": "running"]
        }
    }

    /// One round of the hosts: heartbeats, and applying their orders.
    func work(_ consumer: AgentConsumer) async throws {
        try await beat(consumer)
        try await deliver(to: consumer)
    }

    /// The heartbeats of the hosts.
    func beat(_ consumer: AgentConsumer) async throws {
        for host in ["host-1", "host-2"] where !state.withLock({ $0.silentHosts.contains(host) }) {
            try await send(["type": "heartbeat", "host": .string(host)], consumer)
        }
        try await consumer.writeBeats()
    }

    /// Delivers the messages in the outbox to the hosts' agents, and their answers to the control plane.
    func deliver(to consumer: AgentConsumer) async throws {
        let rows = try await database.write { connection in
            try connection.query("DELETE FROM outbox WHERE queue LIKE 'agent.%' RETURNING id, queue, body").map {
                (id: try $0.int("id"), host: String(try $0.string("queue").dropFirst(6)), body: try $0.json("body"))
            }.sorted { $0.id < $1.id }
        }
        for row in rows {
            guard !state.withLock({ $0.silentHosts.contains(row.host) }) else { continue }
            state.withLock { $0.received.append(row.body) }
            let servers = row.body["servers"]?.arrayValue ?? row.body["server"].map { [$0] } ?? []
            for server in servers { try await ensure(server, host: row.host, consumer) }
        }
    }

    private func ensure(_ server: JSONValue, host: String, _ consumer: AgentConsumer) async throws {
        let id = server["id"]?.stringValue ?? ""
        let generation = server["generation"]?.intValue ?? 0
        let epoch = server["epoch"]?.intValue ?? 0
        var power = server["power"]?.stringValue ?? ""
        let failure = state.withLock { state -> (error: String, reason: String?, permanent: Bool)? in
            if let known = state.domains[host]?[id], known.epoch > epoch || known.generation > generation { power = known.power }
            if power == "absent", server["operation"]?["kind"] == "withdraw", state.domains[host]?[id]?.power == "running" {
                power = "running"
                return nil
            }
            if power == "absent" {
                state.domains[host]?[id] = nil
                if server["keep_disks"] != true { state.disks[host]?.remove(id) }
                if server["operation"]?["kind"] != "withdraw" { state.left.remove(id) }
                return nil
            }
            if let failure = state.failsOnHost, state.failingHost ?? host == host {
                state.failures += 1
                return failure
            }
            state.disks[host, default: []].insert(id)
            // A guest that has arrived keeps running; one that has left is not on this host.
            let isThere = state.domains[host]?[id]?.power == "running" && power == "expected"
            state.domains[host, default: [:]][id] = Domain(power: isThere ? "running" : power, generation: generation, epoch: epoch)
            return nil
        }
        if power == "running", failure == nil {
            _ = try await database.write { try $0.execute("UPDATE ports SET status = 'ACTIVE' WHERE device_id = \(id)") }
        }
        try await report(
            id, host: host, power: failure == nil ? power : "absent", generation: generation, epoch: epoch,
            error: failure?.error, reason: failure?.reason, permanent: failure?.permanent, operation: server["operation"]?["id"],
            jobs: try await jobReports(server), endpoint: power == "expected" ? FakeCloud.endpoint(host) : .null, consumer)
    }

    /// An agent's report about a server.
    func report(
        _ id: String, host: String, power: String, generation: Int, epoch: Int, error: String? = nil,
        reason: String? = nil, permanent: Bool? = nil, operation: JSONValue? = nil, jobs: JSONValue = .null, endpoint: JSONValue = .null,
        _ consumer: AgentConsumer
    ) async throws {
        try await send(
            [
                "type": "observed", "host": .string(host), "server_id": .string(id), "generation": JSONValue(generation),
                "epoch": JSONValue(epoch), "power_state": .string(power), "state": error == nil ? "applied" : "failed",
                "error": JSONValue(error), "reason": JSONValue(reason), "permanent": .bool(permanent ?? (error != nil)),
                "metadata_ready": true,
                "operation_id": operation ?? .null, "unknown": false, "jobs": jobs, "endpoint": endpoint,
            ], consumer)
    }

    func send(_ body: JSONValue, _ consumer: AgentConsumer) async throws {
        try await consumer.handle(
            Message(id: ambient.newUUID(), type: body["type"]?.stringValue ?? "", body: body))
    }
}
