import Database
import JSON
import Kernel
import TestKit
import Testing

@testable import ComputeService

/// Parameters that would be ignored, and members by version.
@Suite struct IgnoredParameterTests {
    @Test func theyAreRefused() async throws {
        try await TestCloud.with { cloud in
            let requests: [(String, String, JSONValue?, String, String)] = [
                ("PUT", "/v2.1/os-quota-sets/p1?user_id=u1", ["quota_set": ["cores": 1]], "2.96", "user_id"),
                ("DELETE", "/v2.1/os-quota-sets/p1?user_id=u1", nil, "2.96", "user_id"),
                ("GET", "/v2.1/os-hypervisors?with_servers=x", nil, "2.96", "with_servers"),
                ("GET", "/v2.1/os-simple-tenant-usage?detailed=x", nil, "2.96", "detailed"),
                ("GET", "/v2.1/servers?deleted=x", nil, "2.96", "deleted"),
                ("GET", "/v2.1/servers?status=nonsense", nil, "2.38", "nonsense"),
            ]
            for (method, path, body, version, name) in requests {
                let answer = try await cloud.call(method, path, body, as: "admin", version: version)
                #expect(answer.status == 400 && answer.message.contains(name), "\(method) \(path): \(answer.status) \(answer.json)")
            }
            #expect(try await cloud.call("GET", "/v2.1/servers?status=nonsense", as: "admin", version: "2.37").status == 200)
            #expect(try await cloud.call("GET", "/v2.1/servers?status=deleted", as: "admin", version: "2.96").status == 200)
            _ = try await cloud.database.write { connection in
                try connection.execute(
                    "INSERT INTO projects (id, name, is_domain, created_at, updated_at) VALUES ('p1', 'p1', true, now(), now())")
            }
            let shown = try await cloud.call("GET", "/v2.1/os-quota-sets/p1?user_id=u1", as: "admin")
            #expect(shown.status == 200, "\(shown.json)")
        }
    }

    @Test func membersOfAServerByVersion() async throws {
        try await TestCloud.with { cloud in
            var hints = TestCloud.body(["name": "n"])
            let group = "22222222-2222-4222-8222-222222222222"
            var both = hints.objectValue ?? [:]
            both["os:scheduler_hints"] = ["different_host": .string(group)]
            both["OS-SCH-HNT:scheduler_hints"] = ["same_host": .string(group)]
            hints = .object(both)
            let answer = try await cloud.call("POST", "/v2.1/servers", hints)
            #expect(answer.status == 400 && answer.message.contains("OS-SCH-HNT"), "\(answer.json)")
            for (version, status) in [("2.90", 400), ("2.93", 400), ("2.94", 202)] {
                let named = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(["hostname": "a.example"]), version: version)
                #expect(named.status == status, "\(version): \(named.json)")
            }
            let network: JSONValue = [["uuid": .string(Fixtures.network), "tag": "blue"]]
            for (version, status) in [("2.31", 400), ("2.32", 202), ("2.36", 202), ("2.41", 400), ("2.42", 202)] {
                let tagged = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(["networks": network]), version: version)
                #expect(tagged.status == status, "\(version): \(tagged.json)")
            }
        }
    }

    @Test func theTwoFormsOfAHostHaveTheirOwnRules() async throws {
        let forced: JSONObject = ["availability_zone": "nova:host-1"]
        let requested: JSONObject = ["host": "host-1"]
        for (action, member, operators) in [
            ("os_compute_api:servers:create:forced_host", forced, requested),
            ("compute:servers:create:requested_destination", requested, forced),
        ] {
            try await TestCloud.with(policy: [action: "@"]) { cloud in
                #expect(try await cloud.call("POST", "/v2.1/servers", TestCloud.body(member)).status == 202)
                let refused = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(operators))
                #expect(refused.status == 403, "\(refused.json)")
            }
        }
    }
}
