import ComputeCore
import ComputeService
import Database
import JSON
import Kernel
import TestKit
import Testing
import Workflow

/// Servers that are kept after their deletion.
@Suite struct SoftDeleteTests {
    private static func settings(_ fallback: Duration = .seconds(600), projects: [String] = []) throws -> ComputeSettings {
        ComputeSettings(reclaim: try ReclaimIntervals(fallback, projects: projects))
    }

    private func used(_ cloud: TestCloud) async throws -> [Int] {
        let set = try await cloud.call("GET", "/v2.1/os-quota-sets/p1/detail", as: "admin").json["quota_set"]
        return ["instances", "cores", "ram"].map { set?[$0]?["in_use"]?.intValue ?? -1 }
    }

    private func listed(_ cloud: TestCloud, _ query: String = "", as token: String = "member") async throws -> [String] {
        let list = try await cloud.call("GET", "/v2.1/servers\(query)", as: token).json["servers"]?.arrayValue ?? []
        return list.compactMap { $0["id"]?.stringValue }
    }

    private func prepared(_ cloud: TestCloud) async throws {
        try await cloud.database.write { connection in
            try connection.execute(
                """
                INSERT INTO projects (id, name, is_domain, domain_id, parent_id, created_at, updated_at) VALUES
                    ('default', 'Default', true, NULL, NULL, now(), now()), ('p1', 'p1', false, 'default', 'default', now(), now())
                """)
        }
    }

    @Test("S24: a deleted server is stopped, kept, restored") func s24_aDeletedServerIsKeptAndRestored() async throws {
        try await TestCloud.with(settings: try Self.settings()) { cloud in
            try await prepared(cloud)
            let id = try await cloud.createServer()
            #expect(try await used(cloud) == [1, 1, 512])
            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)").status == 204)
            #expect(try await cloud.server(id)["OS-EXT-STS:task_state"] == "soft-deleting")
            // A second request changes nothing.
            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)").status == 204)
            try await cloud.cloud.work(cloud.consumer)
            let server = try await cloud.server(id)
            #expect(server["status"] == "SOFT_DELETED")
            #expect(server["OS-EXT-STS:vm_state"] == "soft-delete")
            #expect(cloud.cloud.domains(on: "host-1")[id]?.power == "shutoff")
            #expect(try await used(cloud) == [0, 0, 0])
            #expect(try await listed(cloud) == [])
            #expect(try await listed(cloud, "?status=SOFT_DELETED") == [id])
            #expect(try await listed(cloud, "?deleted=true&all_tenants=1", as: "admin") == [id])
            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)").status == 204)
            for key in ["os-start", "reboot", "pause"] {
                let body: JSONValue = .object([key: key == "reboot" ? ["type": "HARD"] : nil])
                #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", body).status == 409)
            }
            let reset: JSONValue = ["os-resetState": ["state": "active"]]
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", reset, as: "admin").status == 409)
            let restore: JSONValue = ["restore": nil]
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", restore, as: "reader").status == 403)
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", restore).status == 202)
            #expect(try await used(cloud) == [1, 1, 512])
            try await cloud.cloud.work(cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(cloud.cloud.domains(on: "host-1")[id]?.power == "running")
            #expect(try await used(cloud) == [1, 1, 512])
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", restore).status == 409)
            let actions = try await cloud.call("GET", "/v2.1/servers/\(id)/os-instance-actions").json["instanceActions"]?.arrayValue
            #expect(actions?.compactMap { $0["action"]?.stringValue } == ["restore", "delete", "create"])
        }
    }

    @Test func aKeptServerIsReclaimedInTime() async throws {
        try await TestCloud.with(settings: try Self.settings()) { cloud in
            try await prepared(cloud)
            let id = try await cloud.createServer()
            try await cloud.call("DELETE", "/v2.1/servers/\(id)")
            try await cloud.cloud.work(cloud.consumer)
            let tasks = ComputePeriodicTasks(cloud.compute)
            cloud.time.advance(by: .seconds(590))
            try await tasks.runOnce()
            #expect(try await cloud.server(id)["OS-EXT-STS:task_state"] == .null)
            cloud.time.advance(by: .seconds(11))
            try await tasks.runOnce()
            try await cloud.engine().drain()
            try await cloud.cloud.work(cloud.consumer)
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)").status == 404)
            #expect(cloud.cloud.domains(on: "host-1")[id] == nil)
            #expect(try await used(cloud) == [0, 0, 0])
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func forceDeleteEndsItAtOnce() async throws {
        try await TestCloud.with(settings: try Self.settings()) { cloud in
            try await prepared(cloud)
            for isRestoring in [false, true] {
                let id = try await cloud.createServer()
                try await cloud.call("DELETE", "/v2.1/servers/\(id)")
                try await cloud.cloud.work(cloud.consumer)
                if isRestoring { try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["restore": nil]) }
                #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["forceDelete": nil]).status == 202)
                #expect(try await used(cloud) == [0, 0, 0])
                try await cloud.engine().drain()
                #expect(try await cloud.call("GET", "/v2.1/servers/\(id)").status == 404)
                #expect(try await used(cloud) == [0, 0, 0])
                let open = try await cloud.database.read {
                    try $0.query("SELECT count(*) AS count FROM server_actions WHERE server_id = \(id) AND finish_time IS NULL")[0].int(
                        "count")
                }
                #expect(open == 0)
            }
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func aRestoreTakesQuotaAgain() async throws {
        try await TestCloud.with(settings: try Self.settings()) { cloud in
            try await prepared(cloud)
            let id = try await cloud.createServer()
            try await cloud.call("DELETE", "/v2.1/servers/\(id)")
            try await cloud.cloud.work(cloud.consumer)
            try await cloud.call("PUT", "/v2.1/os-quota-sets/p1", ["quota_set": ["instances": 0]], as: "admin")
            let refused = try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["restore": nil])
            #expect(refused.status == 403, "\(refused.json)")
            #expect(try await cloud.server(id)["status"] == "SOFT_DELETED")
            #expect(try await used(cloud) == [0, 0, 0])
        }
    }

    @Test func projectsHaveIntervalsOfTheirOwn() async throws {
        try await TestCloud.with(settings: try Self.settings(.seconds(600), projects: ["p1=0s"])) { cloud in
            try await prepared(cloud)
            let id = try await cloud.createServer()
            try await cloud.call("DELETE", "/v2.1/servers/\(id)")
            try await cloud.engine().drain()
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)").status == 404)
        }
        #expect(throws: ResourceError.self) { try ReclaimIntervals(.zero, projects: ["p1"]) }
        #expect(throws: ResourceError.self) { try ReclaimIntervals(.zero, projects: ["p1=soon"]) }
    }

    @Test func aBusyServerIsNotTakenByADelete() async throws {
        try await TestCloud.with(settings: try Self.settings()) { cloud in
            try await prepared(cloud)
            let id = try await cloud.createServer()
            cloud.cloud.silence("host-1")
            try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["os-stop": nil])
            let refused = try await cloud.call("DELETE", "/v2.1/servers/\(id)")
            #expect(refused.status == 409)
            #expect(refused.message == "Cannot 'delete' instance \(id) while it is in task_state powering-off")
            // A server that is still being built is deleted at once.
            let creation = try await cloud.call("POST", "/v2.1/servers", TestCloud.body())
            let young = try #require(creation.json["server"]?["id"]?.stringValue)
            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(young)").status == 204)
            #expect(try await cloud.server(young)["OS-EXT-STS:task_state"] == "deleting")
        }
    }
}
