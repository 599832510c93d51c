import ComputeCore
import Database
import JSON
import Kernel
import Logging
import Messaging
import Synchronization
import Telemetry

/// Takes what the hosts' agents say, and what Network says of the ports of their servers.
package final class AgentConsumer: Sendable {
    /// The queue of all agents.
    package static let queue = "compute.agents"

    private let compute: Compute
    /// When hosts last spoke, by the monotonic clock.
    private let beats = Mutex<[String: UInt64]>([:])

    package init(_ compute: Compute) { self.compute = compute }

    /// Consumes until the task is cancelled.
    package func run() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await self.compute.bus.consume(
                    queue: AgentConsumer.queue, options: ConsumeOptions(prefetch: 32)
                ) { try await self.handle($0) }
            }
            group.addTask {
                while true {
                    try await self.compute.ambient.time.sleep(for: .seconds(2))
                    do { try await self.writeBeats() } catch is CancellationError {
                        throw CancellationError()
                    } catch {
                        self.compute.log.warning("signs of life were not written", metadata: ["error": "\(error)"])
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    /// Handles one message; the same message twice changes nothing more.
    ///
    /// - Throws: `PoisonMessage` for what cannot be read; other errors mean delivery again.
    package func handle(_ message: Message) async throws {
        let body = message.body
        if body["type"] == "ports_changed" { return try await portsChanged(body) }
        guard let type = body["type"]?.stringValue, let host = body["host"]?.stringValue, !host.isEmpty,
            host.utf8.count <= 255
        else { throw PoisonMessage("a message of an agent needs type and host") }
        switch type {
        case "hello":
            try await hello(host, body)
        case "heartbeat":
            heard(from: host)
        case "observed":
            try await observed(host, body)
        default: throw PoisonMessage("unknown message \(type)")
        }
    }

    // MARK: hosts

    private func hello(_ host: String, _ body: JSONValue) async throws {
        let compute = compute
        guard let capabilities = body["capabilities"] else { throw PoisonMessage("hello without capabilities") }
        let version = body["version"]?.stringValue
        try await compute.database.write { connection in
            try Hosts.register(connection, host: host, version: version, capabilities: capabilities, compute: compute)
            let servers = try DesiredState.all(connection, host: host)
            let sync: JSONValue = ["type": "sync", "host": .string(host), "servers": .array(servers)]
            try Outbox.add(
                connection,
                Message(id: compute.ambient.newUUID(), type: "sync", body: sync, requestID: RequestScope.current),
                to: DesiredState.queue(host: host), ambient: compute.ambient)
        }
        compute.log.notice("a host has come", metadata: ["host": "\(host)"])
    }

    private func heard(from host: String) {
        let clock = compute.ambient.time.monotonicNanoseconds()
        beats.withLock { $0[host] = clock }
    }

    /// Writes the signs of life of all hosts that gave one since the last time, in one statement.
    package func writeBeats() async throws {
        let taken = beats.withLock { beats in
            defer { beats = [:] }
            return beats
        }
        guard !taken.isEmpty else { return }
        let hosts = Array(taken.keys)
        let ambient = compute.ambient
        try await compute.database.write { connection in
            let clock = ambient.time.monotonicNanoseconds()
            let ages = hosts.map { Duration.microseconds(Int64((clock - (taken[$0] ?? clock)) / 1000)) }
            try connection.execute(
                """
                UPDATE compute_services c SET last_seen_at = greatest(c.last_seen_at, \(ambient.databaseNow) - b.age)
                FROM unnest(\(hosts)::text[], \(ages)::interval[]) AS b(host, age) WHERE c.host = b.host
                """)
        }
    }

    // MARK: servers

    private func portsChanged(_ body: JSONValue) async throws {
        guard let values = body["servers"]?.arrayValue else { throw PoisonMessage("ports_changed needs servers") }
        // A device_id of a port is the tenant's to write, and need not be a server's.
        let servers = values.compactMap { $0.stringValue.flatMap { UUID128($0) }?.description }
        guard !servers.isEmpty else { return }
        let ambient = compute.ambient
        try await compute.database.write { try DesiredState.portsChanged($0, servers: servers, ambient: ambient) }
    }

    private func observed(_ host: String, _ body: JSONValue) async throws {
        guard let id = body["server_id"]?.stringValue.flatMap({ UUID128($0)?.description }),
            let power = body["power_state"]?.stringValue
        else { throw PoisonMessage("observed needs server_id and power_state") }
        let report = AgentReport(
            host: host, server: id, power: power, generation: body["generation"]?.intValue ?? 0,
            applied: body["state"]?.stringValue == "applied", error: body["error"]?.stringValue,
            reason: body["reason"]?.stringValue.map { String($0.prefix(255)) },
            permanent: body["permanent"]?.boolValue ?? false, metadataReady: body["metadata_ready"]?.boolValue ?? false,
            operationID: body["operation_id"]?.stringValue, isUnknown: body["unknown"]?.boolValue ?? false)
        let ambient = compute.ambient
        let stray = try await compute.database.write { try Observations.record($0, report, ambient: ambient) }
        if stray {
            compute.log.warning(
                "a host has a server that it was not given", metadata: ["host": "\(host)", "server": "\(id)"])
        }
        heard(from: host)
    }
}

/// An agent's word on one server.
struct AgentReport: Sendable {
    let host: String
    let server: String
    let power: String
    let generation: Int
    let applied: Bool
    let error: String?
    /// The error in words for the server's owner.
    let reason: String?
    let permanent: Bool
    let metadataReady: Bool
    let operationID: String?
    let isUnknown: Bool
}
