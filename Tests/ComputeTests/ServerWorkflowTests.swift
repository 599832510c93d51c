@testable import ComputeService
import Database
import ImageAccess
import JSON
import Kernel
import ServiceCatalog
import ServiceKit
import Synchronization
import TestKit
import Testing
import Workflow

/// The generic checks of a server's create and delete, and checks specific to servers.
@Suite struct ServerWorkflowTests {
    @Test func storedFramesMatchEarlierReleases() async throws {
        try await TestCloud.with { cloud in
            let definitions = cloud.module.workflows
            let differences = try WorkflowRecords.differences(definitions, file: "compute-workflows.json")
            #expect(differences == [])
        }
    }

    @Test func aServerIsBuiltAndEnded() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let server = try await cloud.server(id)
            #expect(server["status"] == "ACTIVE")
            #expect(server["OS-EXT-STS:power_state"] == 1)
            #expect(server["addresses"]?["net"]?.arrayValue?.count == 1)
            #expect(server["OS-EXT-AZ:availability_zone"] == "nova")
            #expect(cloud.cloud.domains(on: "host-1").count == 1)
            #expect(try await cloud.leftovers() == [])

            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)").status == 204)
            try await cloud.engine().drain()
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)").status == 404)
            #expect(cloud.cloud.domains(on: "host-1").isEmpty)
            #expect(try await cloud.leftovers() == [])
        }
    }

    /// Network's changes of a port reach the host at once, with the same generation: nothing is started, stopped or defined
    /// again.
    @Test("S15: a change of port security is sent to the host of a running server")
    func s15ChangedPortsAreSentAgain() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let before = try #require(cloud.cloud.domains(on: "host-1")[id])
            try await cloud.database.write {
                try $0.execute("UPDATE ports SET port_security_enabled = false WHERE device_id = \(id)")
            }
            let news: JSONValue = ["type": "ports_changed", "servers": [.string(id), "no server's id", .string(Fixtures.port)]]
            try await cloud.cloud.send(news, cloud.consumer)
            let sent = try await cloud.database.read { connection in
                try connection.query("SELECT queue, body FROM outbox WHERE type = 'ensure'").map {
                    (queue: try $0.string("queue"), server: try $0.json("body")["server"] ?? .null)
                }
            }
            #expect(sent.map(\.queue) == ["agent.host-1"])
            let server = try #require(sent.first?.server)
            #expect(server["id"] == .string(id))
            #expect(server["ports"]?.arrayValue?.first?["port_security_enabled"] == false)
            #expect(server["generation"]?.intValue == before.generation)
            #expect(server["epoch"]?.intValue == before.epoch + 1)
            // A server that is no longer on a host is not sent.
            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)").status == 204)
            try await cloud.engine().drain()
            try await cloud.database.write { try $0.execute("DELETE FROM outbox") }
            try await cloud.cloud.send(news, cloud.consumer)
            #expect(try await cloud.database.read { try $0.query("SELECT 1 AS one FROM outbox").isEmpty })
        }
    }

    @Test func everyWorkflowIsDisturbed() async throws {
        try await TestCloud.with { cloud in
            let missing = try DisturbanceTests.missing(cloud.module.workflows.map(\.kind), file: #filePath)
            #expect(missing == [])
        }
    }

    // MARK: create

    /// Runs every variant of `kind` on a create, then a delete.
    private func check(_ kind: String, changes: JSONObject = [:]) async throws {
        try await TestCloud.with { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == kind })
            for variant in WorkflowChecks(definition).variants { try await run(variant, cloud, changes) }
        }
    }

    private func run(_ variant: WorkflowChecks.Variant, _ cloud: TestCloud, _ changes: JSONObject) async throws {
        let name = Comment(rawValue: variant.name)
        let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(changes))
        let id = try #require(answer.json["server"]?["id"]?.stringValue)
        let engine = cloud.engine([variant.definition])
        try await engine.drain()
        let server = try await cloud.server(id)
        #expect(server["status"] == (variant.succeeds ? "ACTIVE" : "ERROR"), name)
        if !variant.succeeds {
            #expect(server["fault"]?["message"] == "made to fail", name)
            #expect(cloud.cloud.domains(on: "host-1").isEmpty, name)
        }
        #expect(try await cloud.leftovers() == [], name)
        try await cloud.call("DELETE", "/v2.1/servers/\(id)")
        try await engine.drain()
        #expect(try await cloud.call("GET", "/v2.1/servers/\(id)").status == 404, name)
        #expect(cloud.cloud.domains(on: "host-1").isEmpty, name)
        #expect(try await cloud.leftovers() == [], name)
    }

    @Test func createUnderEveryDisturbance() async throws { try await check("server.create") }

    /// A server with a volume as root disk and another volume.
    private static let withVolumes: JSONObject = [
        "imageRef": "",
        "block_device_mapping_v2": [
            [
                "boot_index": 0, "uuid": .string(Fixtures.image), "source_type": "image", "destination_type": "volume",
                "volume_size": 1, "delete_on_termination": true,
            ],
            ["boot_index": -1, "uuid": .string(Fixtures.volume), "source_type": "volume", "destination_type": "volume"],
        ],
    ]

    @Test func createFromVolumeUnderEveryDisturbance() async throws {
        try await check("server.create", changes: ServerWorkflowTests.withVolumes)
    }

    @Test("S21: deleting a server leaves nothing behind, under every disturbance") func s21DeleteUnderEveryDisturbance() async throws {
        try await check("server.delete", changes: ServerWorkflowTests.withVolumes)
    }

    /// Clients that wait for a deletion give up when the server is in ERROR.
    @Test func aServerThatIsDeletedWhileItIsBuiltIsNeverInError() async throws {
        try await TestCloud.with { cloud in
            let create = try #require(cloud.module.workflows.first { $0.kind == "server.create" })
            let delete = try #require(cloud.module.workflows.first { $0.kind == "server.delete" })
            for step in create.steps.map(\.name) {
                let statuses = Mutex<[String]>([])
                let interrupted = create.mapping { own in
                    guard own.name == step else { return own }
                    return WorkflowStep(
                        own.name, deadline: own.deadline,
                        run: { context in
                            let result = try await own.run(&context)
                            try await cloud.call("DELETE", "/v2.1/servers/\(context.subjectID)")
                            return result
                        }, undo: own.undo)
                }
                let watched = delete.mapping { own in
                    WorkflowStep(
                        own.name, deadline: own.deadline,
                        run: { context in
                            let status = try await cloud.server(context.subjectID)["status"]?.stringValue
                            statuses.withLock { $0.append(status ?? "none") }
                            return try await own.run(&context)
                        }, undo: own.undo)
                }
                let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body())
                let id = try #require(answer.json["server"]?["id"]?.stringValue, "\(answer.json)")
                try await cloud.engine([interrupted, watched]).drain()
                let seen = statuses.withLock { $0 }
                #expect(!seen.isEmpty && Set(seen).isSubset(of: ["BUILD", "ACTIVE"]), "\(step): \(seen)")
                #expect(try await cloud.call("GET", "/v2.1/servers/\(id)").status == 404, "\(step)")
                #expect(try await cloud.leftovers() == [], "\(step)")
            }
        }
    }

    @Test func killedAroundEveryEffect() async throws {
        try await TestCloud.with { cloud in
            let probe = cloud.cloud.probe
            func live(_ label: Comment) async throws {
                let id = try await cloud.createServer()
                #expect(try await cloud.server(id)["status"] == "ACTIVE", label)
                try await cloud.call("DELETE", "/v2.1/servers/\(id)")
                try await cloud.engine().drain()
                #expect(try await cloud.leftovers() == [], label)
            }
            try await live("undisturbed")
            let effects = probe.names
            #expect(effects.count >= 4)
            for index in effects.indices {
                for late in [false, true] {
                    probe.arm(killAt: index, late: late)
                    try await live("killed \(late ? "after" : "before") \(effects[index])")
                }
            }
        }
    }

    @Test func undoKilledAroundEveryEffect() async throws {
        try await TestCloud.with { cloud in
            let create = try #require(cloud.module.workflows.first)
            let engine = cloud.engine([WorkflowChecks(create).failing(step: "finish")])
            func unwind(_ label: Comment) async throws {
                let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body())
                let id = try #require(answer.json["server"]?["id"]?.stringValue)
                try await engine.drain()
                #expect(try await cloud.server(id)["status"] == "ERROR", label)
                #expect(try await cloud.leftovers() == [], label)
                try await cloud.call("DELETE", "/v2.1/servers/\(id)")
                try await engine.drain()
            }
            cloud.cloud.probe.arm(killAt: nil)
            try await unwind("undisturbed")
            let effects = cloud.cloud.probe.names
            for index in effects.indices {
                for late in [false, true] {
                    cloud.cloud.probe.arm(killAt: index, late: late)
                    try await unwind("killed \(late ? "after" : "before") \(effects[index])")
                }
            }
        }
    }

    // MARK: what servers have

    @Test func aHostThatRefusesMakesAnError() async throws {
        try await TestCloud.with { cloud in
            cloud.cloud.failOnHost("no such machine type")
            let id = try await cloud.createServer()
            let server = try await cloud.server(id)
            #expect(server["status"] == "ERROR")
            #expect(server["fault"]?["details"] == nil)
            #expect(try await cloud.server(id, as: "admin")["fault"]?["details"] == "host host-1: no such machine type")
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func noHostIsExplained() async throws {
        try await TestCloud.with { cloud in
            cloud.cloud.reject([
                "result": "rejected", "message": "No valid host was found.",
                "filters": [["name": "ComputeFilter", "hosts_before": 3, "hosts_after": 0, "reasons": ["not enough MEMORY_MB": 3]]],
                "operator": [["host": "host-secret", "filter": "ComputeFilter", "reason": "not enough MEMORY_MB"]],
            ])
            let id = try await cloud.createServer()
            let mine = try await cloud.server(id)
            #expect(mine["status"] == "ERROR")
            let message = try #require(mine["fault"]?["message"]?.stringValue)
            #expect(message.contains("ComputeFilter removed 3 of 3 hosts (not enough MEMORY_MB: 3)"))
            #expect(!mine.description.contains("host-secret"))
            #expect(try await cloud.server(id, as: "admin").description.contains("host-secret"))
            #expect(try await cloud.leftovers() == [])
        }
    }

    /// A guest that stops before its build has ended counts as built, and is stopped.
    @Test func aGuestThatEndsAtOnceWasBuilt() async throws {
        try await TestCloud.with { cloud in
            cloud.cloud.silence("host-1")
            let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body())
            let id = try #require(answer.json["server"]?["id"]?.stringValue)
            let begun = cloud.time.now()
            let rounds = Counter()
            cloud.time.whenWaiting {
                guard await rounds.next() == 2 else { return }
                let row = try await cloud.database.read { connection in
                    try connection.query("SELECT generation, epoch FROM servers").map { (try $0.int("generation"), try $0.int("epoch")) }[0]
                }
                try await cloud.cloud.report(
                    id, host: "host-1", power: "shutoff", generation: row.0, epoch: row.1, cloud.consumer)
            }
            try await cloud.engine().drain()
            #expect(cloud.time.now() - begun < .seconds(60))
            let server = try await cloud.server(id)
            #expect(server["status"] == "SHUTOFF")
            #expect(server["OS-EXT-STS:task_state"] == .null)
            let actions = try await cloud.call("GET", "/v2.1/servers/\(id)/os-instance-actions")
            #expect(actions.json["instanceActions"]?.arrayValue?.compactMap { $0["action"]?.stringValue }.sorted() == ["create", "stop"])
        }
    }

    @Test("S21: deleting a server during its build leaves nothing behind") func s21DeleteWhileBuilding() async throws {
        try await TestCloud.with { cloud in
            cloud.cloud.silence("host-1")
            let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body())
            let id = try #require(answer.json["server"]?["id"]?.stringValue)
            let rounds = Counter()
            cloud.time.whenWaiting {
                if await rounds.next() == 2 {
                    cloud.cloud.wake("host-1")
                    #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)").status == 204)
                }
                _ = try await ComputePeriodicTasks(cloud.compute).runOnce()
                try await cloud.cloud.work(cloud.consumer)
            }
            try await cloud.engine().drain()
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)").status == 404)
            #expect(cloud.cloud.domains(on: "host-1").isEmpty)
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test("S21: a host that was down deletes servers after its return") func s21DeleteOnADeadHostIsMadeUpForLater() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.silence("host-1")
            cloud.time.advance(by: .seconds(600))
            try await cloud.call("DELETE", "/v2.1/servers/\(id)")
            try await cloud.engine().drain()
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)").status == 404)
            #expect(cloud.cloud.domains(on: "host-1").count == 1)
            cloud.cloud.wake("host-1")
            try await cloud.cloud.send(Fixtures.hello(host: "host-1"), cloud.consumer)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.cloud.domains(on: "host-1").isEmpty)
            let left = try await cloud.database.read { try $0.query("SELECT count(*) AS count FROM server_absences")[0].int("count") }
            #expect(left == 0)
        }
    }

    /// Whether a host is up is decided by the database's clock: a delete waits for it, regardless of this process's clock.
    @Test(arguments: [-3, 3]) func aWrongClockKillsNoHost(hours: Int) async throws {
        try await TestCloud.with { cloud in
            let ambient = Ambient(time: WrongTime(cloud.time, by: .seconds(hours * 3600)), random: SeededRandom(seed: 2))
            let wrong = Compute(
                .test(cloud.database, .compute, ambient: ambient, bus: cloud.compute.bus), clients: cloud.compute.clients,
                images: try ImageAccess())
            #expect(try await ServerSteps(compute: wrong).isUp(host: "host-1"))
            cloud.time.advance(by: .seconds(600))
            #expect(try await !ServerSteps(compute: wrong).isUp(host: "host-1"))
            let consumer = AgentConsumer(wrong)
            try await cloud.cloud.send(["type": "heartbeat", "host": "host-1"], consumer)
            cloud.time.advance(by: .seconds(50))
            try await consumer.writeBeats()
            for compute in [wrong, cloud.compute] { #expect(try await ServerSteps(compute: compute).isUp(host: "host-1")) }
            // Spoken, not written down: 50 s ago.
            cloud.time.advance(by: .seconds(15))
            for compute in [wrong, cloud.compute] { #expect(try await !ServerSteps(compute: compute).isUp(host: "host-1")) }
        }
    }

    @Test func powerFollowsTheHost() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["os-stop": nil]).status == 202)
            #expect(try await cloud.server(id)["OS-EXT-STS:task_state"] == "powering-off")
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["os-stop": nil]).status == 409)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "SHUTOFF")
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["os-start": nil]).status == 202)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["reboot": ["type": "HARD"]]).status == 202)
            #expect(try await cloud.server(id)["status"] == "HARD_REBOOT")
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
        }
    }

    @Test func aGuestThatStopsItselfStaysOff() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let console = try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["os-getConsoleOutput": ["length": 10]])
            #expect(console.json["output"] == "Welcome")
            let domain = try #require(cloud.cloud.domains(on: "host-1")[id])
            try await cloud.cloud.report(
                id, host: "host-1", power: "shutoff", generation: domain.generation, epoch: domain.epoch, cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "SHUTOFF")
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.cloud.domains(on: "host-1")[id]?.power == "shutoff")
        }
    }

    @Test func aLostMessageIsRepeated() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.silence("host-1")
            try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["os-stop": nil])
            try await cloud.cloud.deliver(to: cloud.consumer)
            cloud.cloud.wake("host-1")
            cloud.time.advance(by: .seconds(20))
            #expect(try await ComputePeriodicTasks(cloud.compute).runOnce() == 1)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "SHUTOFF")
        }
    }
}

actor Counter {
    private var value = 0
    func next() -> Int {
        value += 1
        return value
    }
}
