import ComputeService
import Database
import JSON
import Kernel
import Testing

/// Crash dumps and passwords.
@Suite struct GuestActionTests {
    private func action(_ cloud: TestCloud, _ id: String, _ body: JSONValue, version: String = "2.96") async throws -> TestCloud.Answer {
        try await cloud.call("POST", "/v2.1/servers/\(id)/action", body, version: version)
    }

    private func actions(_ cloud: TestCloud, _ id: String) async throws -> [String] {
        try await cloud.database.read { connection in
            try connection.query("SELECT action, result FROM server_actions WHERE server_id = \(id) ORDER BY id").map {
                "\(try $0.string("action")) \(try $0.optionalString("result") ?? "-")"
            }
        }
    }

    private func set(_ cloud: TestCloud, _ id: String, _ change: SQL) async throws {
        _ = try await cloud.database.write { try $0.execute("UPDATE servers SET \(change) WHERE id = \(id)") }
    }

    @Test func aCrashDumpIsOrderedOfTheHost() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let body: JSONValue = ["trigger_crash_dump": nil]
            #expect(try await action(cloud, id, body, version: "2.16").status == 400)
            #expect(try await action(cloud, id, body, version: "2.17").status == 202)
            #expect(cloud.cloud.orders.map { $0["type"] } == ["crash_dump"])
            try await set(cloud, id, "vm_state = 'stopped'")
            let refused = try await action(cloud, id, body)
            #expect(refused.status == 409)
            #expect(refused.message == "Cannot 'trigger_crash_dump' instance \(id) while it is in vm_state stopped")
            try await set(cloud, id, "vm_state = 'active', locked_by = 'admin'")
            #expect(try await action(cloud, id, body).message == "Instance \(id) is locked")
            try await set(cloud, id, "vm_state = 'error', locked_by = NULL, host = NULL")
            #expect(try await action(cloud, id, body).status == 409)
            #expect(cloud.cloud.orders.count == 1)
            #expect(try await actions(cloud, id) == ["create Success", "trigger_crash_dump Success"])
        }
    }

    @Test("S7: a password goes to the host and nowhere else") func s7_passwordsAreSetThroughTheHost() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let body: JSONValue = ["changePassword": ["adminPass": "correct horse"]]
            #expect(try await action(cloud, id, body).status == 202)
            try await set(cloud, id, #"image_properties = '{"os_type": "windows"}'"#)
            #expect(try await action(cloud, id, body).status == 202)
            try await set(cloud, id, #"image_properties = '{"os_type": "windows", "os_admin_user": "debian"}'"#)
            #expect(try await action(cloud, id, body).status == 202)
            #expect(cloud.cloud.orders.map { $0["user"] } == ["root", "Administrator", "debian"])
            #expect(cloud.cloud.orders.allSatisfy { $0["password"] == "correct horse" })
            cloud.cloud.refuseOrders(.conflict("QEMU guest agent is not enabled"))
            let refused = try await action(cloud, id, body)
            #expect(refused.status == 409)
            #expect(refused.message == "QEMU guest agent is not enabled")
            #expect(try await actions(cloud, id).last == "changePassword Error")
            for bad: JSONValue in [["adminPass": ""], ["adminPass": 7], [:], ["adminPass": "x", "user": "me"]] {
                #expect(try await action(cloud, id, ["changePassword": bad]).status == 400)
            }
            try await set(cloud, id, "vm_state = 'paused'")
            #expect(try await action(cloud, id, body).status == 409)
            let kept = try await cloud.database.read { connection in
                try ["audit_records", "idempotency_keys", "servers", "server_actions"].map { table in
                    try connection.query("SELECT count(*) AS count FROM \(raw: table) t WHERE t::text LIKE '%correct horse%'")[0].int(
                        "count")
                }
            }
            #expect(kept == [0, 0, 0, 0])
        }
    }

    @Test func theFirstPasswordOfAGuestStaysUntilItIsCleared() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let path = "/v2.1/servers/\(id)/os-server-password"
            func leave(_ password: String, host: String = "host-1") async throws {
                try await cloud.cloud.send(
                    ["type": "guest_password", "host": .string(host), "server_id": .string(id), "password": .string(password)],
                    cloud.consumer)
            }
            func shown() async throws -> JSONValue? { try await cloud.call("GET", path).json["password"] }
            #expect(try await shown() == "")
            try await leave("wrong", host: "host-2")
            #expect(try await shown() == "")
            try await leave("c2VjcmV0")
            try await leave("other")
            #expect(try await shown() == "c2VjcmV0")
            try await cloud.cloud.work(cloud.consumer)
            #expect(cloud.cloud.received.last?["server"]?["guest_password"] == "c2VjcmV0")
            #expect(try await cloud.call("DELETE", path, as: "reader").status == 403)
            #expect(try await cloud.call("DELETE", path).status == 204)
            #expect(try await shown() == "")
            try await cloud.cloud.work(cloud.consumer)
            #expect(cloud.cloud.received.last?["server"]?["guest_password"] == nil)
            try await leave("again")
            #expect(try await shown() == "again")
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
        }
    }
}
