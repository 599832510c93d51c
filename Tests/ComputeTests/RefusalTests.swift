@testable import ComputeService
import Database
import JSON
import Kernel
import TestKit
import Testing
import Workflow

/// Permanent refusals of other services do not delay the deletion of a server forever.
@Suite struct RefusalTests {
    private func details(_ cloud: TestCloud, _ id: String, _ action: String) async throws -> (result: String?, details: String?) {
        try await cloud.database.read { connection in
            let row = try connection.query(
                "SELECT result, details FROM server_actions WHERE server_id = \(id) AND action = \(action) ORDER BY id DESC LIMIT 1")[0]
            return (try row.optionalString("result"), try row.optionalString("details"))
        }
    }

    @Test func refusedReleasesDoNotBlockDeletion() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.refuseReleases(.conflict("it is locked by its operator"))
            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)").status == 204)
            try await cloud.engine().drain()
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)").status == 404)
            let record = try await details(cloud, id, "delete")
            #expect(record.details?.contains("it is locked by its operator") == true, "\(record)")
            cloud.cloud.refuseReleases(nil)
            try await ComputePeriodicTasks(cloud.compute).runOnce()
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func aVolumeThatCannotBeDetachedStaysAttached() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.workWhileWaiting()
            let path = "/v2.1/servers/\(id)/os-volume_attachments"
            #expect(try await cloud.call("POST", path, ["volumeAttachment": ["volumeId": .string(Fixtures.volume)]]).status == 200)
            try await cloud.engine().drain()
            cloud.cloud.refuseReleases(.badRequest("the attachment is locked"))
            #expect(try await cloud.call("DELETE", "\(path)/\(Fixtures.volume)").status == 202)
            try await cloud.engine().drain()
            let state = try await cloud.database.read {
                try $0.query("SELECT state FROM server_volumes WHERE server_id = \(id)")[0].string("state")
            }
            #expect(state == "attached")
            let record = try await details(cloud, id, "detach_volume")
            #expect(record.result == "Error" && record.details?.contains("the attachment is locked") == true, "\(record)")
            cloud.cloud.refuseReleases(nil)
            #expect(try await cloud.call("DELETE", "\(path)/\(Fixtures.volume)").status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.database.read { try $0.query("SELECT 1 FROM server_volumes WHERE server_id = \(id)").count } == 0)
        }
    }

    /// The device would be attached on the host that the server leaves.
    @Test func noServerMovesWhileItGetsADevice() async throws {
        try await TestCloud.with { cloud in
            try await cloud.cloud.send(Fixtures.hello(host: "host-2"), cloud.consumer)
            let id = try await cloud.createServer()
            for action in ["attach_interface", "detach_volume"] {
                _ = try await cloud.database.write {
                    try $0.execute(
                        """
                        INSERT INTO server_actions (server_id, request_id, action, user_id, project_id, start_time, updated_at, event)
                        VALUES (\(id), 'req-1', \(action), 'u1', 'p1', now(), now(), 'compute')
                        """)
                }
                for body: JSONValue in [
                    ["migrate": nil], ["resize": ["flavorRef": "2"]], ["os-migrateLive": ["host": nil, "block_migration": "auto"]],
                ] {
                    let refused = try await cloud.call("POST", "/v2.1/servers/\(id)/action", body, as: "admin")
                    #expect(refused.status == 409 && refused.message.contains(action), "\(refused.message)")
                }
                _ = try await cloud.database.write { try $0.execute("UPDATE server_actions SET finish_time = now()") }
            }
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["migrate": nil], as: "admin").status == 202)
        }
    }

    @Test func aServerThatCannotBeReadDoesNotHideOthers() async throws {
        try await TestCloud.with { cloud in
            let bad = try await cloud.createServer()
            let good = try await cloud.createServer()
            _ = try await cloud.database.write { try $0.execute("UPDATE servers SET image = '{\"disk_gb\": \"large\"}' WHERE id = \(bad)") }
            let answer = try await cloud.call(
                "POST", "/v2.1/os-wolke-scheduling/host-failure", ["host": "host-1"], as: "admin", version: nil)
            let servers = answer.json["host_failure"]?["servers"]?.arrayValue ?? []
            #expect(servers.first { $0["id"] == .string(good) }?["result"] == "scheduled", "\(answer.json)")
            let lost = servers.first { $0["id"] == .string(bad) }
            #expect(lost?["result"] == "rejected" && lost?["message"]?.stringValue?.contains("cannot be read") == true, "\(answer.json)")
        }
    }
}
