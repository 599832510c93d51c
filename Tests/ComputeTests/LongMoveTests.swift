import Contracts
import Database
import JSON
import Kernel
import ServiceKit
import Synchronization
import TestKit
import Testing
import Workflow

@testable import ComputeService

/// Moves that take a very long time, because disks are large or many guests leave a host.
@Suite struct LongMoveTests {
    private static let live: JSONValue = ["os-migrateLive": ["host": nil, "block_migration": "auto"]]

    private func with(_ body: (TestCloud) async throws -> Void) async throws {
        try await TestCloud.with { cloud in
            try await cloud.cloud.send(Fixtures.hello(host: "host-2"), cloud.consumer)
            try await cloud.database.write { try $0.execute("DELETE FROM outbox") }
            try await body(cloud)
        }
    }

    /// Advances the clock whenever the engine waits, in steps short enough that no process counts as stopped.
    private func pass(_ cloud: TestCloud, _ hook: @escaping @Sendable (Duration) async throws -> Void) {
        let start = cloud.time.now()
        cloud.time.whenWaiting {
            cloud.time.advance(by: .seconds(50))
            try await hook(cloud.time.now() - start)
            try await cloud.cloud.work(cloud.consumer)
        }
    }

    @Test func theTimeInTheQueueOfTheHostDoesNotCount() async throws {
        try await with { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.queueMoves(true)
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", LongMoveTests.live, as: "admin").status == 202)
            pass(cloud) { if $0 > .seconds(7 * 3600) { cloud.cloud.queueMoves(false) } }
            try await cloud.engine().drain()
            let server = try await cloud.server(id, as: "admin")
            #expect(server["status"] == "ACTIVE" && server["OS-EXT-SRV-ATTR:host"] == "host-2", "\(server)")
            #expect(try await cloud.leftovers() == [])
        }
    }

    /// Moves a server with 60 GiB of disk while it runs.
    ///
    /// - Parameters:
    ///   - time: when the source has sent the guest; nil if it never has.
    ///   - sends: whether the source sends all the time.
    /// - Returns: the server's host, how long it took, and the reason of a failure.
    private func transfer(
        _ cloud: TestCloud, endingAfter time: Duration?, sends: Bool
    ) async throws -> (host: JSONValue?, time: Duration, reason: String?) {
        let id = try await cloud.createServer()
        _ = try await cloud.database.write {
            try $0.execute("UPDATE servers SET flavor = jsonb_set(flavor, '{disk}', '60') WHERE id = \(id)")
        }
        cloud.cloud.holdJobs(true)
        #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", LongMoveTests.live, as: "admin").status == 202)
        let begin = cloud.time.now()
        pass(cloud) { passed in
            if sends { cloud.cloud.send(bytes: Int(passed.components.seconds)) }
            if let time, passed > time { cloud.cloud.holdJobs(false) }
        }
        try await cloud.engine().drain()
        let server = try await cloud.server(id, as: "admin")
        #expect(server["status"] == "ACTIVE", "\(server)")
        #expect(try await cloud.leftovers() == [])
        let reason = try await cloud.database.read {
            try $0.query("SELECT details FROM server_actions WHERE server_id = \(id) AND action = 'live-migration'")[0].optionalString(
                "details")
        }
        return (server["OS-EXT-SRV-ATTR:host"], cloud.time.now() - begin, reason)
    }

    @Test func aTransferThatStandsStillIsGivenUpAfterAnHour() async throws {
        try await with { cloud in
            let (host, time, _) = try await transfer(cloud, endingAfter: nil, sends: false)
            #expect(host == "host-1")
            #expect(time > .seconds(3600) && time < .seconds(2 * 3600), "\(time)")
        }
    }

    @Test func aLargeDiskMayTakeLong() async throws {
        try await with { cloud in
            let (host, time, _) = try await transfer(cloud, endingAfter: .seconds(10 * 3600), sends: true)
            #expect(host == "host-2" && time > .seconds(10 * 3600), "\(time)")
        }
    }

    /// A guest that changes its memory faster than it is sent.
    @Test func aTransferThatDoesNotEndIsGivenUp() async throws {
        try await with { cloud in
            let (host, time, reason) = try await transfer(cloud, endingAfter: nil, sends: true)
            #expect(host == "host-1")
            // 61 GiB of 800 s.
            #expect(time > .seconds(48_800) && time < .seconds(50_000), "\(time)")
            #expect(reason?.contains("live_migration_completion_timeout") == true, "\(reason ?? "")")
        }
    }

    /// Migrates a server to a host that works on its disks for three hours.
    ///
    /// - Parameter advances: whether the host reports progress.
    private func migrate(_ cloud: TestCloud, advances: Bool) async throws -> JSONValue {
        let id = try await cloud.createServer()
        #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["migrate": nil], as: "admin").status == 202)
        cloud.cloud.silence("host-2")
        pass(cloud) { passed in
            if passed > .seconds(3 * 3600) {
                cloud.cloud.wake("host-2")
                try await ComputePeriodicTasks(cloud.compute).runOnce()
            }
            guard try await cloud.server(id, as: "admin")["OS-EXT-SRV-ATTR:host"] == "host-2" else { return }
            let progress = advances ? Int(passed.components.seconds) : 7
            let heartbeat = AgentHeartbeat(
                host: "host-2", agentVersion: "1", servers: [HeldServer(serverID: id, epoch: 1_000_000, progress: progress)])
            try await cloud.cloud.send(try heartbeat.document(), cloud.consumer)
        }
        try await cloud.engine().drain()
        #expect(try await cloud.leftovers() == [])
        return try await cloud.server(id, as: "admin")
    }

    @Test func aHostMayWorkAsLongAsItAdvances() async throws {
        try await with { cloud in
            let server = try await migrate(cloud, advances: true)
            #expect(server["status"] == "VERIFY_RESIZE" && server["OS-EXT-SRV-ATTR:host"] == "host-2", "\(server)")
        }
    }

    @Test func aHostThatStandsStillIsGivenUp() async throws {
        try await with { cloud in
            let server = try await migrate(cloud, advances: false)
            #expect(server["status"] == "ACTIVE" && server["OS-EXT-SRV-ATTR:host"] == "host-1", "\(server)")
        }
    }

    /// The host reports progress.
    private func advance(_ cloud: TestCloud, _ id: String, to progress: Int) async throws {
        let heartbeat = AgentHeartbeat(
            host: "host-1", agentVersion: "1", servers: [HeldServer(serverID: id, epoch: 1_000_000, progress: progress)])
        try await cloud.cloud.send(try heartbeat.document(), cloud.consumer)
    }

    private func isExtended(_ cloud: TestCloud, _ id: String) async throws -> Bool {
        let result = try await ServerSteps(compute: cloud.compute).wait(.seconds(1), for: id, on: "host-1")
        if case .progress = result { return true }
        return false
    }

    /// A download that breaks off and starts again makes progress each time.
    @Test func aHostMayNotAdvanceForEver() async throws {
        try await with { cloud in
            let id = try await cloud.createServer()
            _ = try await cloud.database.write {
                try $0.execute(
                    "UPDATE servers SET flavor = jsonb_set(flavor, '{disk}', '12'), generation = generation + 1 WHERE id = \(id)")
            }
            // A day and two hours.
            for hour in 0..<26 {
                try await advance(cloud, id, to: hour % 3 * 1000)
                #expect(try await isExtended(cloud, id), "hour \(hour)")
                cloud.time.advance(by: .seconds(3600))
            }
            try await advance(cloud, id, to: 7)
            #expect(try await !isExtended(cloud, id))

            // The host has finished after all, and creates other disks.
            _ = try await cloud.database.write {
                try $0.execute("UPDATE servers SET observed_generation = generation, generation = generation + 1 WHERE id = \(id)")
            }
            try await advance(cloud, id, to: 8)
            #expect(try await isExtended(cloud, id))
        }
    }

    /// The host cannot start the server as it was before, and does not report that this is permanent.
    @Test(arguments: [["migrate": nil], ["resize": ["flavorRef": "2"]]] as [JSONValue]) func aServerThatIsNotStartedAgainIsInError(
        body: JSONValue
    ) async throws {
        try await with { cloud in
            let kind = body["migrate"] == nil ? "server.resize" : "server.migrate"
            let definition = try #require(cloud.module.workflows.first { $0.kind == kind })
            let engine = cloud.engine([WorkflowChecks(definition).failing(step: "finish")])
            let id = try await cloud.createServer()
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", body, as: "admin").status == 202)
            pass(cloud) { _ in
                let unwinds = try await cloud.database.read { try !$0.query("SELECT 1 FROM workflows WHERE state = 'unwinding'").isEmpty }
                if unwinds { cloud.cloud.failOnHost("busy", reason: "its disks are busy", permanent: false, only: "host-1") }
            }
            try await engine.drain()
            let server = try await cloud.server(id, as: "admin")
            #expect(server["status"] == "ERROR" && server["OS-EXT-SRV-ATTR:host"] == "host-1", "\(server)")
            let message = server["fault"]?["message"]?.stringValue ?? ""
            #expect(message.contains("within an hour (its disks are busy)") && message.contains("hard reboot"), "\(message)")
            #expect(server["fault"]?["details"]?.stringValue?.contains("host host-1: busy") == true, "\(server)")

            cloud.cloud.failOnHost(nil)
            let reboot: JSONValue = ["reboot": ["type": "HARD"]]
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", reboot, as: "member").status == 202)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(try await cloud.leftovers() == [])
        }
    }

    // MARK: images that only a move needs

    /// Protects every image of the server.
    private func protect(_ cloud: TestCloud, _ id: String) {
        cloud.time.whenWaiting {
            _ = try await cloud.database.write {
                try $0.execute("UPDATE images SET protected = true WHERE properties->>'instance_uuid' = \(id)")
            }
            try await cloud.cloud.work(cloud.consumer)
        }
    }

    private func images(_ cloud: TestCloud, _ id: String) async throws -> Int {
        try await cloud.database.read {
            try $0.query("SELECT count(*) AS n FROM images WHERE properties->>'instance_uuid' = \(id)")[0].int("n")
        }
    }

    @Test(arguments: [false, true]) func aProtectedCopyOfADiskIsDeleted(fails: Bool) async throws {
        try await with { cloud in
            let id = try await cloud.createServer()
            if fails { cloud.cloud.failJobs("no") }
            protect(cloud, id)
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["migrate": nil], as: "admin").status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == (fails ? "ACTIVE" : "VERIFY_RESIZE"))
            #expect(try await images(cloud, id) == 0)
            #expect(try await cloud.leftovers() == [])
        }
    }

    /// The image belongs to its owner; a protected image that cannot be deleted does not hold up the server.
    @Test func aProtectedImageThatFailsStays() async throws {
        try await with { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.failJobs("no")
            try await cloud.database.write { connection in
                try connection.script(
                    """
                    CREATE FUNCTION protect() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.protected := true; RETURN NEW; END $$;
                    CREATE TRIGGER protect BEFORE INSERT ON images FOR EACH ROW EXECUTE FUNCTION protect();
                    """)
            }
            cloud.workWhileWaiting()
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["createImage": ["name": "copy"]]).status / 100 == 2)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["OS-EXT-STS:task_state"] == .null)
            #expect(try await images(cloud, id) == 1)
        }
    }
}
