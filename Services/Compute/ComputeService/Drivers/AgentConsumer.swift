import ComputeCore
import Contracts
import Database
import Inspections
import JSON
import Kernel
import Logging
package import Messaging
import Synchronization
import Telemetry

/// Consumes messages from the hosts' agents, and from Network about ports of servers.
package final class AgentConsumer: Sendable {
    private let compute: Compute
    /// Last heartbeat of each host, by the monotonic clock.
    private let beats = Mutex<[String: UInt64]>([:])

    package init(_ compute: Compute) { self.compute = compute }

    /// Consumes until the task is cancelled.
    package func run() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await self.compute.bus.consume(
                    queue: .computeAgents, options: ConsumeOptions(prefetch: 32)
                ) { try await self.handle($0) }
            }
            group.addTask {
                try await PeriodicTask.repeating(
                    every: .seconds(2), self.compute.ambient, self.compute.log, failure: "heartbeats could not be written"
                ) {
                    try await self.writeBeats()
                }
            }
            try await group.waitForAll()
        }
    }

    /// Handles one message; idempotent.
    ///
    /// - Throws: `PoisonMessage` for a malformed message; on other errors the message is delivered again.
    package func handle(_ message: Message) async throws {
        switch try message.bodyType() {
        case AgentHello.type:
            let hello: AgentHello = try message.decode()
            try await welcome(hello, host: try AgentConsumer.hostName(hello.host))
        case AgentHeartbeat.type:
            let heartbeat: AgentHeartbeat = try message.decode()
            let host = try AgentConsumer.hostName(heartbeat.host)
            heard(from: host)
            if let servers = heartbeat.servers { try await compare(servers, host: host) }
        case ObservedReport.type:
            let report: ObservedReport = try message.decode()
            try await observed(report, host: try AgentConsumer.hostName(report.host))
        case GuestPassword.type:
            let left: GuestPassword = try message.decode()
            try await guestPassword(left, host: try AgentConsumer.hostName(left.host))
        case PortsChanged.type: try await portsChanged(try message.decode())
        case let type: throw PoisonMessage("unknown message \(type)")
        }
    }

    private static func hostName(_ text: String) throws(PoisonMessage) -> String {
        guard (1...255).contains(text.utf8.count) else { throw PoisonMessage("host: must have 1 to 255 bytes, not \(text.utf8.count)") }
        return text
    }

    // MARK: hosts

    private func welcome(_ hello: AgentHello, host: String) async throws {
        let compute = compute
        try await compute.database.write { connection in
            try Hosts.register(connection, hello, compute: compute)
            let sync = SyncServers(host: host, servers: try DesiredState.all(connection, host: host))
            try Outbox.add(connection, sync, to: .agent(host: host), ambient: compute.ambient)
        }
        compute.log.notice("a host registered", metadata: ["host": "\(host)"])
    }

    private func heard(from host: String) {
        let clock = compute.ambient.time.monotonicNanoseconds()
        beats.withLock { $0[host] = clock }
    }

    /// Writes the heartbeats received since the last call in one statement.
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

    /// Repairs the effect of lost reports from the host.
    private func compare(_ servers: [HeldServer], host: String) async throws {
        let ambient = compute.ambient
        let advancing = servers.filter { $0.progress != nil }
        if !advancing.isEmpty {
            try await compute.database.write { try HostProgress.record($0, advancing, host: host, ambient: ambient) }
        }
        let comparison = try await compute.database.read { try HeldServers.compare($0, servers, host: host, ambient: ambient) }
        guard !comparison.isEmpty else { return }
        try await compute.database.write { try HeldServers.ask($0, comparison, host: host, ambient: ambient) }
        compute.log.warning(
            "a host has servers in another state than it reported",
            metadata: [
                "host": "\(host)", "differing": "\(comparison.differing.joined(separator: " "))",
                "strays": "\(comparison.strays.joined(separator: " "))",
            ])
    }

    private func portsChanged(_ changed: PortsChanged) async throws {
        // Tenants can write any `device_id`; it need not be the id of a server.
        let servers = changed.servers.compactMap { UUID128($0)?.description }
        guard !servers.isEmpty else { return }
        let ambient = compute.ambient
        compute.report(
            unreadable: try await compute.database.write { try DesiredState.portsChanged($0, servers: servers, ambient: ambient) })
    }

    /// The first password that a guest posts is kept until the server's owner clears it.
    private func guestPassword(_ left: GuestPassword, host: String) async throws {
        guard let id = UUID128(left.serverID)?.description else { throw PoisonMessage("guest_password: server_id: must be a UUID") }
        guard (1...GuestPassword.bytesMax).contains(left.password.utf8.count) else {
            throw PoisonMessage("guest_password: password: must have 1 to \(GuestPassword.bytesMax) bytes")
        }
        let ambient = compute.ambient
        try await compute.database.write { connection in
            // Only the server's own host may report for its guest.
            let changed = try connection.execute(
                """
                UPDATE servers SET guest_password = \(left.password)
                WHERE id = \(id) AND host = \(host) AND guest_password IS NULL AND NOT deleted
                """)
            if changed > 0 { try DesiredState.refresh(connection, server: id, ambient: ambient) }
        }
    }

    private func observed(_ report: ObservedReport, host: String) async throws {
        guard let id = UUID128(report.serverID)?.description else { throw PoisonMessage("observed: server_id: must be a UUID") }
        var report = report
        report.serverID = id
        report.reason = report.reason.map { String($0.prefix(255)) }
        let ambient = compute.ambient
        let stray = try await compute.database.write { [report] in try Observations.record($0, report, ambient: ambient) }
        if stray {
            compute.log.warning(
                "a host has a server that it was not given", metadata: ["host": "\(host)", "server": "\(id)"])
        }
        heard(from: host)
    }
}
