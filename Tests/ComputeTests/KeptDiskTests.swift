@testable import ComputeService
import Database
import JSON
import Kernel
import ServiceKit
import Synchronization
import TestKit
import Testing
import Workflow

/// Disks on hosts that a server has left are removed when they cannot be needed any more, and not before.
@Suite struct KeptDiskTests {
    private func act(_ cloud: TestCloud, _ id: String, _ body: JSONValue, as token: String = "admin") async throws -> TestCloud.Answer {
        try await cloud.call("POST", "/v2.1/servers/\(id)/action", body, as: token)
    }

    private func with(_ body: (TestCloud) async throws -> Void) async throws {
        try await TestCloud.with { cloud in
            try await cloud.cloud.send(Fixtures.hello(host: "host-2"), cloud.consumer)
            try await cloud.database.write { try $0.execute("DELETE FROM outbox") }
            try await body(cloud)
        }
    }

    private func migrated(_ cloud: TestCloud) async throws -> String {
        let id = try await cloud.createServer()
        #expect(try await act(cloud, id, ["migrate": nil]).status == 202)
        try await cloud.engine().drain()
        try await cloud.cloud.deliver(to: cloud.consumer)
        #expect(cloud.cloud.hosts(withDisksOf: id) == ["host-1", "host-2"])
        return id
    }

    private func kept(_ cloud: TestCloud) async throws -> Int {
        try await cloud.database.read { try $0.query("SELECT count(*) AS n FROM server_kept_disks")[0].int("n") }
    }

    /// The server is deleted while its return waits for the host that has it.
    @Test func aServerDeletedWhileItReturnsLeavesNoDisks() async throws {
        try await with { cloud in
            let id = try await migrated(cloud)
            cloud.cloud.silence("host-2")
            #expect(try await act(cloud, id, ["revertResize": nil], as: "member").status == 202)
            let isDeleted = Mutex(false)
            cloud.time.whenWaiting {
                let isFirst = isDeleted.withLock { done in
                    defer { done = true }
                    return !done
                }
                if isFirst {
                    #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)").status == 204)
                    cloud.cloud.wake("host-2")
                }
                try await cloud.cloud.work(cloud.consumer)
            }
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.cloud.hosts(withDisksOf: id) == [])
            #expect(try await kept(cloud) == 0)
            #expect(try await cloud.leftovers() == [])
        }
    }

    /// The source host cannot start the server, so only the other host's disks can be used.
    @Test func aServerThatCannotReturnStaysWhereItWas() async throws {
        try await with { cloud in
            let id = try await migrated(cloud)
            cloud.cloud.failOnHost("bad sectors", reason: "its disks cannot be read", only: "host-1")
            #expect(try await act(cloud, id, ["revertResize": nil], as: "member").status == 202)
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            let server = try await cloud.server(id, as: "admin")
            #expect(server["status"] == "VERIFY_RESIZE" && server["OS-EXT-SRV-ATTR:host"] == "host-2", "\(server)")
            #expect(cloud.cloud.domains(on: "host-2")[id]?.power == "running")
            #expect(cloud.cloud.domains(on: "host-1")[id] == nil)
            #expect(cloud.cloud.hosts(withDisksOf: id) == ["host-1", "host-2"])
            let actions = try await cloud.call("GET", "/v2.1/servers/\(id)/os-instance-actions", as: "admin").json["instanceActions"]
            let action = actions?.arrayValue?.first { $0["action"] == "revertResize" }
            #expect(action?["message"] == "Error", "\(action ?? .null)")
            #expect(try await cloud.leftovers() == [])

            cloud.cloud.failOnHost(nil)
            #expect(try await act(cloud, id, ["revertResize": nil], as: "member").status == 202)
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(cloud.cloud.hosts(withDisksOf: id) == ["host-1"])
            #expect(try await kept(cloud) == 0)
            #expect(try await cloud.leftovers() == [])
        }
    }

    /// As before, and the other host cannot start it again either.
    @Test func aServerThatNoHostStartsIsInError() async throws {
        try await with { cloud in
            let id = try await migrated(cloud)
            cloud.cloud.failOnHost("bad sectors", reason: "its disks cannot be read", only: "host-1")
            #expect(try await act(cloud, id, ["revertResize": nil], as: "member").status == 202)
            cloud.time.whenWaiting {
                if cloud.cloud.failures > 0 { cloud.cloud.failOnHost("no memory", reason: "it has no memory") }
                try await cloud.cloud.work(cloud.consumer)
            }
            try await cloud.engine().drain()
            let server = try await cloud.server(id, as: "admin")
            #expect(server["status"] == "ERROR" && server["OS-EXT-SRV-ATTR:host"] == "host-2", "\(server)")
            let message = server["fault"]?["message"]?.stringValue ?? ""
            #expect(message.contains("its disks cannot be read") && message.contains("it has no memory"), "\(message)")
            #expect(server["fault"]?["details"]?.stringValue?.contains("host host-2: no memory") == true, "\(server)")
            #expect(try await cloud.migrations(of: id).first?["status"] == "error")
            #expect(cloud.cloud.hosts(withDisksOf: id) == ["host-1", "host-2"], "they may be needed")

            cloud.cloud.failOnHost(nil)
            #expect(try await act(cloud, id, ["reboot": ["type": "HARD"]], as: "member").status == 202)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            try await ComputePeriodicTasks(cloud.compute).runOnce()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.cloud.hosts(withDisksOf: id) == ["host-2"])
            #expect(try await cloud.leftovers() == [])
        }
    }

    /// As above, and the operator has declared the host down while the server returned to it.
    @Test func aServerStaysIfItsFirstHostGoesDown() async throws {
        try await with { cloud in
            let id = try await migrated(cloud)
            cloud.cloud.silence("host-1")
            #expect(try await act(cloud, id, ["revertResize": nil], as: "member").status == 202)
            cloud.time.whenWaiting {
                if try await cloud.server(id, as: "admin")["OS-EXT-SRV-ATTR:host"] == "host-1" {
                    _ = try await cloud.database.write {
                        try $0.execute("UPDATE compute_services SET forced_down = true WHERE host = 'host-1'")
                    }
                }
                try await cloud.cloud.work(cloud.consumer)
            }
            try await cloud.engine().drain()
            let server = try await cloud.server(id, as: "admin")
            #expect(server["status"] == "VERIFY_RESIZE" && server["OS-EXT-SRV-ATTR:host"] == "host-2", "\(server)")
            #expect(cloud.cloud.domains(on: "host-2")[id]?.power == "running")
        }
    }

    /// A move is undone and the source host cannot start the guest: the other host keeps its disks until the source can.
    @Test func disksStayUntilTheFirstHostHasStartedTheGuest() async throws {
        try await with { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == "server.migrate" })
            let engine = cloud.engine([WorkflowChecks(definition).failing(step: "finish")])
            let id = try await cloud.createServer()
            #expect(try await act(cloud, id, ["migrate": nil]).status == 202)
            cloud.time.whenWaiting {
                if cloud.cloud.domains(on: "host-2")[id] != nil { cloud.cloud.failOnHost("bad", reason: "bad", only: "host-1") }
                try await cloud.cloud.work(cloud.consumer)
            }
            try await engine.drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            let server = try await cloud.server(id, as: "admin")
            #expect(server["status"] == "ERROR" && server["OS-EXT-SRV-ATTR:host"] == "host-1", "\(server)")
            #expect(server["fault"]?["message"]?.stringValue?.contains("could not start the server") == true, "\(server)")
            #expect(cloud.cloud.hosts(withDisksOf: id) == ["host-1", "host-2"])
            #expect(cloud.cloud.domains(on: "host-2")[id] == nil)

            cloud.cloud.failOnHost(nil)
            #expect(try await act(cloud, id, ["reboot": ["type": "HARD"]], as: "member").status == 202)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            try await ComputePeriodicTasks(cloud.compute).runOnce()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.cloud.hosts(withDisksOf: id) == ["host-1"])
            #expect(try await kept(cloud) == 0)
        }
    }

    private func keep(_ cloud: TestCloud, _ id: String, on host: String) async throws {
        _ = try await cloud.database.write { try KeptDisks.keep($0, server: id, on: host) }
    }

    /// A move of a stopped server is undone while the first host is down. Nothing is started, and the host keeps its disks.
    @Test func disksOfAServerThatIsOffStayUntilItsHostIsBack() async throws {
        try await with { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == "server.migrate" })
            let engine = cloud.engine([WorkflowChecks(definition).failing(step: "finish")])
            let id = try await cloud.createServer()
            #expect(try await act(cloud, id, ["os-stop": nil], as: "member").status == 202)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await act(cloud, id, ["migrate": nil]).status == 202)
            cloud.time.whenWaiting {
                if cloud.cloud.domains(on: "host-2")[id] != nil { cloud.cloud.silence("host-1") }
                try await cloud.cloud.work(cloud.consumer)
            }
            try await engine.drain()
            try await ComputePeriodicTasks(cloud.compute).runOnce()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.cloud.hosts(withDisksOf: id) == ["host-1", "host-2"])

            cloud.cloud.wake("host-1")
            cloud.time.advance(by: .seconds(60))
            for _ in 0..<2 {
                try await ComputePeriodicTasks(cloud.compute).runOnce()
                try await cloud.cloud.work(cloud.consumer)
            }
            #expect(try await cloud.server(id)["status"] == "SHUTOFF")
            #expect(cloud.cloud.hosts(withDisksOf: id) == ["host-1"])
            #expect(try await kept(cloud) == 0)
        }
    }

    /// The host failed to start the server. That the server is off there now says nothing about its disks.
    @Test func disksStayWhileTheHostHasOnlyFailed() async throws {
        try await with { cloud in
            let id = try await cloud.createServer()
            try await keep(cloud, id, on: "host-2")
            cloud.cloud.failOnHost("bad sectors", reason: "its disks cannot be read")
            #expect(try await act(cloud, id, ["reboot": ["type": "HARD"]], as: "member").status == 202)
            try await cloud.cloud.deliver(to: cloud.consumer)
            cloud.cloud.failOnHost(nil)
            #expect(try await act(cloud, id, ["os-stop": nil], as: "member").status == 202)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "SHUTOFF")
            try await ComputePeriodicTasks(cloud.compute).runOnce()
            #expect(try await kept(cloud) == 1)

            #expect(try await act(cloud, id, ["os-start": nil], as: "member").status == 202)
            try await cloud.cloud.deliver(to: cloud.consumer)
            try await ComputePeriodicTasks(cloud.compute).runOnce()
            #expect(try await kept(cloud) == 0)
        }
    }

    /// Steps of an earlier version ordered the other host to remove its disks, so it would create new ones.
    @Test func aServerDoesNotReturnToAHostWithoutItsDisks() async throws {
        try await with { cloud in
            let id = try await migrated(cloud)
            cloud.cloud.failOnHost("bad sectors", reason: "its disks cannot be read", only: "host-1")
            #expect(try await act(cloud, id, ["revertResize": nil], as: "member").status == 202)
            cloud.time.whenWaiting {
                if try await cloud.server(id, as: "admin")["OS-EXT-SRV-ATTR:host"] == "host-1" {
                    _ = try await cloud.database.write { try $0.execute("DELETE FROM server_kept_disks") }
                }
                try await cloud.cloud.work(cloud.consumer)
            }
            try await cloud.engine().drain()
            #expect(try await cloud.server(id, as: "admin")["OS-EXT-SRV-ATTR:host"] == "host-1")
            #expect(cloud.cloud.domains(on: "host-2")[id] == nil)
        }
    }

    /// A replica that does not know the table has executed the move.
    @Test(arguments: [true, false]) func disksThatAnEarlierReplicaHasKeptAreRemoved(confirms: Bool) async throws {
        try await with { cloud in
            let id = try await migrated(cloud)
            _ = try await cloud.database.write { try $0.execute("DELETE FROM server_kept_disks") }
            if confirms {
                #expect(try await act(cloud, id, ["confirmResize": nil], as: "member").status == 204)
            } else {
                #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)").status == 204)
            }
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.cloud.hosts(withDisksOf: id) == (confirms ? ["host-2"] : []))
            #expect(try await kept(cloud) == 0)
        }
    }

    @Test func theHostOfARunningServerKeepsIt() async throws {
        try await with { cloud in
            let id = try await cloud.createServer()
            try await keep(cloud, id, on: "host-1")
            try await keep(cloud, id, on: "host-2")
            try await ComputePeriodicTasks(cloud.compute).runOnce()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.cloud.domains(on: "host-1")[id]?.power == "running")
            #expect(cloud.cloud.hosts(withDisksOf: id) == ["host-1"])
            #expect(try await kept(cloud) == 0)
        }
    }

    /// The host would mistake the disks that it has for the server's current ones.
    @Test func aServerIsNotUnshelvedWhereDisksOfItAreKept() async throws {
        try await with { cloud in
            let id = try await cloud.createServer()
            #expect(try await act(cloud, id, ["shelve": nil]).status == 202)
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "SHELVED_OFFLOADED")
            try await keep(cloud, id, on: "host-1")
            #expect(try await act(cloud, id, ["unshelve": nil]).status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id, as: "admin")["OS-EXT-SRV-ATTR:host"] == "host-2")
        }
    }
}
