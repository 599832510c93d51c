import Contracts
import Database
import JSON
import Kernel
import TestKit
import Testing

@testable import ComputeService

/// A host's list of servers makes up for reports that were lost.
@Suite struct HeldServerTests {
    private func list(_ servers: [HeldServer], _ cloud: TestCloud) async throws {
        let heartbeat = AgentHeartbeat(host: "host-1", agentVersion: "1", servers: servers)
        try await cloud.cloud.send(try heartbeat.document(), cloud.consumer)
    }

    private func orders(_ cloud: TestCloud) async throws -> [String] {
        try await cloud.database.read { connection in
            try connection.query("SELECT body FROM outbox WHERE queue = 'agent.host-1' ORDER BY id").map {
                let server = try $0.json("body")["server"]
                return "\(server?["id"]?.stringValue ?? "") \(server?["power"]?.stringValue ?? "")"
            }
        }
    }

    private func held(_ id: String, _ cloud: TestCloud, power: String = "running") throws -> HeldServer {
        let domain = try #require(cloud.cloud.domains(on: "host-1")[id])
        return HeldServer(
            serverID: id, generation: domain.generation, epoch: domain.epoch, power: ReportedPower(rawValue: power), metadataReady: true)
    }

    @Test func aLostReportIsAskedFor() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let stopped = try held(id, cloud, power: "shutoff")
            // A report may still be on its way.
            try await list([stopped], cloud)
            #expect(try await orders(cloud) == [])
            cloud.time.advance(by: .seconds(20))
            try await list([stopped], cloud)
            #expect(try await orders(cloud) == ["\(id) running"])
            // The agent answers a desired state that it has already applied with a report.
            try await cloud.cloud.report(
                id, host: "host-1", power: "shutoff", generation: stopped.generation, epoch: 0, cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "SHUTOFF")
        }
    }

    @Test func matchingServersAreNotSentAgain() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.time.advance(by: .seconds(20))
            let known = try held(id, cloud)
            var older = try held(id, cloud, power: "shutoff")
            older.generation -= 1
            // The agent has just started and has not audited its servers yet.
            let unseen = HeldServer(serverID: id, generation: known.generation, epoch: known.epoch)
            for server in [known, older, unseen] { try await list([server], cloud) }
            // An agent that does not list its servers gets no orders.
            try await cloud.cloud.send(try AgentHeartbeat(host: "host-1", agentVersion: "1").document(), cloud.consumer)
            #expect(try await orders(cloud) == [])
        }
    }

    /// A change of ports has a new epoch and the same generation, so that the repetition of generations does not cover it.
    @Test("S15: a change of port security that the broker loses is sent again")
    func s15LostChangesOfPortsAreSentAgain() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            try await cloud.cloud.send(try PortsChanged(servers: [id]).document(), cloud.consumer)
            _ = try await cloud.database.write { try $0.execute("DELETE FROM outbox") }
            cloud.time.advance(by: .seconds(20))
            var server = try held(id, cloud)
            try await list([server], cloud)
            #expect(try await orders(cloud) == ["\(id) running"])
            server.epoch += 1
            cloud.time.advance(by: .seconds(20))
            try await list([server], cloud)
            #expect(try await orders(cloud).count == 1)
        }
    }

    /// Network counts the changes of each port. If Network's message is lost, Compute finds unsent changes by the count.
    @Test("S15: a change of port security whose message from Network is lost reaches the host")
    func s15LostMessagesOfNetworkAreMadeUpFor() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let tasks = ComputePeriodicTasks(cloud.compute)
            func change(secured: Bool) async throws {
                let now = cloud.compute.ambient.databaseNow
                try await cloud.database.write { connection in
                    try connection.execute("UPDATE ports SET port_security_enabled = \(secured) WHERE device_id = \(id)")
                    try connection.execute(
                        """
                        INSERT INTO port_changes (port_id, number, changed_at)
                        SELECT p.id, 1, \(now) FROM ports p WHERE p.device_id = \(id)
                        ON CONFLICT (port_id) DO UPDATE SET number = port_changes.number + 1, changed_at = EXCLUDED.changed_at
                        """)
                }
            }
            func ports() async throws -> [JSONValue?] {
                try await cloud.database.read { connection in
                    try connection.query("SELECT body FROM outbox WHERE queue = 'agent.host-1' ORDER BY id").map {
                        try $0.json("body")["server"]?["ports"]?.arrayValue?.first?["port_security_enabled"]
                    }
                }
            }
            try await change(secured: false)
            // The message may still be in flight.
            #expect(try await tasks.runOnce() == 0)
            cloud.time.advance(by: .seconds(20))
            #expect(try await tasks.runOnce() == 1)
            #expect(try await ports() == [false])
            // Once; the agent's list shows whether it has arrived.
            #expect(try await tasks.runOnce() == 0)

            // Nothing is repeated if the message came.
            try await change(secured: true)
            try await cloud.cloud.send(try PortsChanged(servers: [id]).document(), cloud.consumer)
            #expect(try await ports() == [false, true])
            cloud.time.advance(by: .seconds(10))
            #expect(try await tasks.runOnce() == 0)
            cloud.time.advance(by: .seconds(10))
            #expect(try await tasks.runOnce() == 0)
        }
    }

    @Test("S15: a row that cannot be read does not hold up the messages of other servers")
    func s15UnreadableRowsDoNotBlockOthers() async throws {
        try await TestCloud.with { cloud in
            let ids = [try await cloud.createServer(), try await cloud.createServer(), try await cloud.createServer()]
            let (broken, others) = (ids[1], [ids[0], ids[2]].sorted())
            let tasks = ComputePeriodicTasks(cloud.compute)
            let now = cloud.compute.ambient.databaseNow
            try await cloud.database.write { connection in
                try connection.execute("DELETE FROM outbox")
                try connection.execute("UPDATE servers SET flavor = '{\"broken\": true}' WHERE id = \(broken)")
                try connection.execute(
                    """
                    INSERT INTO port_changes (port_id, number, changed_at)
                    SELECT p.id, 1, \(now) FROM ports p WHERE p.device_id = ANY(\(ids)::text[])
                    """)
            }
            func sent() async throws -> [String] {
                try await cloud.database.write { connection in
                    try connection.query("DELETE FROM outbox WHERE queue = 'agent.host-1' RETURNING body").map {
                        try $0.json("body")["server"]?["id"]?.stringValue ?? ""
                    }.sorted()
                }
            }
            try await cloud.cloud.send(try PortsChanged(servers: ids).document(), cloud.consumer)
            #expect(try await sent() == others)
            // Its changes count as not sent; those of the others do not.
            cloud.time.advance(by: .seconds(20))
            _ = try await tasks.runOnce()
            #expect(try await sent() == [])
            let unsent = try await cloud.database.read {
                try DesiredState.serversWithUnsentPorts($0, changedBefore: "now() + interval '1 year'", limit: 10)
            }
            #expect(unsent == [broken])
            // States that no host has applied are sent again too.
            try await cloud.database.write { connection in
                try connection.execute("UPDATE servers SET generation = generation + 1 WHERE id = ANY(\(ids)::uuid[])")
            }
            cloud.time.advance(by: .seconds(20))
            _ = try await tasks.runOnce()
            #expect(try await sent() == others)
            try await cloud.database.write { connection in
                try connection.execute(
                    "UPDATE servers SET flavor = (SELECT flavor FROM servers WHERE id = \(ids[0])) WHERE id = \(broken)")
            }
            cloud.time.advance(by: .seconds(20))
            _ = try await tasks.runOnce()
            #expect(try await sent().contains(broken))
        }
    }

    @Test func aServerThatItsHostLostIsOrderedAgain() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.time.advance(by: .seconds(20))
            try await list([], cloud)
            #expect(try await orders(cloud) == ["\(id) running"])
            cloud.time.advance(by: .seconds(20))
            try await list([HeldServer(serverID: id, power: .running, unknown: true)], cloud)
            #expect(try await orders(cloud).count == 2)
        }
    }

    @Test func aServerOfAnotherHostIsOrderedAway() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.time.advance(by: .seconds(20))
            let stray = try held(id, cloud)
            _ = try await cloud.database.write { connection in
                try connection.execute("UPDATE servers SET host = 'host-2', observed_host = 'host-2' WHERE id = \(id)")
            }
            for _ in 1...2 { try await list([stray], cloud) }
            #expect(try await orders(cloud) == ["\(id) absent"])
        }
    }

    /// Servers that the control plane did not create are not removed.
    @Test func foreignDomainsAreLeftAlone() async throws {
        try await TestCloud.with { cloud in
            let foreign = "77777777-7777-4777-8777-777777777777"
            try await list(
                [HeldServer(serverID: foreign, power: .running, unknown: true), HeldServer(serverID: "nonsense", power: .running)], cloud)
            #expect(try await orders(cloud) == [])
        }
    }
}
