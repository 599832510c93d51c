import Database
import JSON
import Kernel
import TestKit
import Testing
import Workflow

@testable import ComputeService

/// Actions on servers while they move, or whose host is down.
@Suite struct MovesAndLostHostsTests {
    private static let live: JSONValue = ["os-migrateLive": ["host": nil, "block_migration": "auto"]]

    @Test func aStateIsNotResetDuringAMove() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            #expect(try await cloud.act(id, MovesAndLostHostsTests.live).status == 202)
            let refused = try await cloud.act(id, ["os-resetState": ["state": "active"]])
            #expect(refused.status == 409 && refused.message.contains("server.live_migrate"), "\(refused.json)")
            try await cloud.engine().drain()
            #expect(try await cloud.act(id, ["os-resetState": ["state": "active"]]).status == 202)
        }
    }

    @Test func aMoveEndsWhenItsSourceIsFenced() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            #expect(try await cloud.act(id, MovesAndLostHostsTests.live).status == 202)
            let start = cloud.time.now()
            // The source begins the transfer, and is lost.
            cloud.time.whenWaiting {
                let step = try await cloud.database.write { connection -> String? in
                    let row = try connection.query("SELECT step FROM workflows WHERE subject_id = \(id)::uuid AND finished_at IS NULL")
                        .first
                    let step = try row?.string("step")
                    if step == "queue" { try connection.execute("UPDATE server_jobs SET state = 'running', phase = 'memory'") }
                    return step
                }
                if step == "queue" { cloud.cloud.silence("host-1") }
                if step == "move" { try await cloud.declare("host-1", isDown: true) }
                try await cloud.cloud.work(cloud.consumer)
            }
            try await cloud.engine().drain()
            #expect(cloud.time.now() - start < .seconds(3600), "the move did not wait for its deadline")
            let evacuated = try await cloud.act(id, ["evacuate": [:]])
            #expect(evacuated.status == 200, "\(evacuated.json)")
        }
    }

    @Test func aResizeIsNotConfirmedWhileItsHostIsDown() async throws {
        try await TestCloud.with(settings: ComputeSettings(resizeConfirmWindow: .seconds(60))) { cloud in
            let id = try await cloud.createServer()
            #expect(try await cloud.act(id, ["resize": ["flavorRef": "2"]]).status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "VERIFY_RESIZE")
            let console = try await cloud.call(
                "POST", "/v2.1/servers/\(id)/remote-consoles", ["remote_console": ["protocol": "vnc", "type": "novnc"]])
            #expect(console.status == 200, "\(console.json)")
            let tasks = ComputePeriodicTasks(cloud.compute)
            try await cloud.declare("host-1", isDown: true)
            cloud.time.advance(by: .seconds(61))
            try await cloud.cloud.beat(cloud.consumer)
            try await tasks.runOnce()
            #expect(try await cloud.server(id)["status"] == "VERIFY_RESIZE")
            try await cloud.declare("host-1", isDown: false)
            try await tasks.runOnce()
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
        }
    }

    @Test func aNamedTargetIsUpAndEnabled() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            for (change, word) in [("enabled = false", "disabled"), ("enabled = true, forced_down = true", "unavailable")] {
                _ = try await cloud.database.write {
                    try $0.execute("UPDATE compute_services SET \(raw: change) WHERE host = 'host-2'")
                }
                let answer = try await cloud.act(id, ["migrate": ["host": "host-2"]])
                #expect(answer.status == 400 && answer.message.contains(word), "\(answer.json)")
            }
        }
    }
}
