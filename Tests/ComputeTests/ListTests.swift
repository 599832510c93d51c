import Database
import JSON
import Kernel
import TestKit
import Testing
import WebAPI
import Workflow

@testable import ComputeService

/// Reads lists page by page: with null or equal values too, each item is returned once, and the pages end.
@Suite struct ComputeListTests {
    private static let publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDmM4HVkmAMsHtvH5uqx9rNJH6pFR7B1YvNJ2rjaT2vY u1"

    private static func servers(_ cloud: TestCloud, _ count: Int) async throws -> [String] {
        var ids: [String] = []
        for n in 0..<count {
            let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(["name": .string("s\(n % 2)")]))
            ids.append(try #require(answer.json["server"]?["id"]?.stringValue, "\(answer.json)"))
        }
        return ids
    }

    @Test func sortedServersAreListedOnceDespiteNulls() async throws {
        try await TestCloud.with { cloud in
            let ids = try await Self.servers(cloud, 5)
            try await cloud.database.write { connection in
                try connection.execute(
                    """
                    UPDATE servers SET key_name = CASE WHEN id <= \(UUID128(ids[0])) THEN 'k' END, host = CASE WHEN id > \(UUID128(ids[0])) THEN 'host-1' END,
                        availability_zone = CASE WHEN id = \(UUID128(ids[1])) THEN 'a' END, task_state = NULL, launched_at = NULL,
                        power_state = 0, created_at = '2026-01-01', access_ip_v4 = CASE WHEN id = \(UUID128(ids[2])) THEN '10.0.0.1' END
                    """)
            }
            let sweep = ListSweep(cloud.api, token: "member", headers: [("openstack-api-version", "compute 2.96")])
            let keys = ResourceKind.servers(hostDownAfter: .seconds(30)).table.fields.filter(\.sortable).map(\.name)
            #expect(keys.count > 15)
            for target in ["/v2.1/servers", "/v2.1/servers/detail"] {
                try await sweep.walk(target, collection: "servers", sortKeys: target.hasSuffix("detail") ? ["key_name"] : keys)
            }
        }
    }

    @Test func operatorsFilterByNovasOtherNames() async throws {
        try await TestCloud.with { cloud in
            let ids = try await Self.servers(cloud, 2)
            try await cloud.database.write { connection in
                try connection.execute(
                    """
                    UPDATE servers SET name = 'one', description = 'first', locked_by = 'owner', disk_config = 'AUTO',
                        image_id = \(UUID128(ids[0])) WHERE id = \(UUID128(ids[0]))
                    """)
            }
            for query in [
                "display_name=on", "display_description=irs", "locked_by=owner", "auto_disk_config=true",
                "image_ref=http://images.example/\(ids[0])",
            ] {
                func found(_ token: String) async throws -> [JSONValue?]? {
                    let answer = try await cloud.call("GET", "/v2.1/servers?all_tenants=1&\(query)", as: token, version: "2.96")
                    return answer.json["servers"]?.arrayValue?.map { $0["id"] }
                }
                #expect(try await found("admin") == [.string(ids[0])], "\(query)")
                let own = try await cloud.call("GET", "/v2.1/servers?\(query)", version: "2.96")
                #expect(own.json["servers"]?.arrayValue?.count == 2, "\(query) has no effect for tenants")
            }
        }
    }

    @Test func everyListComesInPages() async throws {
        try await TestCloud.with { cloud in
            let ids = try await Self.servers(cloud, 3)
            try await cloud.engine().drain()
            for n in 0..<3 {
                let things: [(String, JSONValue)] = [
                    ("/v2.1/os-server-groups", ["server_group": ["name": .string("g\(n)"), "policy": "affinity"]]),
                    ("/v2.1/os-aggregates", ["aggregate": ["name": .string("a\(n)")]]),
                    (
                        "/v2.1/os-keypairs",
                        ["keypair": ["name": .string("k\(n)"), "type": "ssh", "public_key": .string(ComputeListTests.publicKey)]]
                    ),
                ]
                for (path, body) in things {
                    let answer = try await cloud.call("POST", path, body, as: path.hasSuffix("aggregates") ? "admin" : "member")
                    #expect(answer.status < 300, "\(answer.json)")
                }
            }
            try await cloud.cloud.send(Fixtures.hello(host: "host-2"), cloud.consumer)
            let parameters = ["server_id": ids[0], "project_id": "p1", "flavor_id": "1"]
            let (findings, walked) = try await RouteSweep(cloud.api, parameters: parameters).unpaged(["member", "admin"])
            #expect(findings == [])
            #expect(walked >= 8)
            // Before 2.35 there are no links, but pages.
            #expect(try await cloud.call("GET", "/v2.1/os-keypairs?limit=1", version: "2.1").json["keypairs"]?.arrayValue?.count == 1)
            for empty in ["/v2.1/os-migrations", "/v2.1/servers/\(ids[0])/migrations"] {
                #expect(try await cloud.call("GET", "\(empty)?limit=1", as: "admin").json["migrations"] == [], "\(empty)")
                #expect(try await cloud.call("GET", "\(empty)?limit=x", as: "admin").status == 400, "\(empty)")
                #expect(try await cloud.call("GET", "\(empty)?marker=\(ids[0])", as: "admin").status == 400, "\(empty)")
            }
            let sorted = try await cloud.call("GET", "/v2.1/os-simple-tenant-usage/p1?sort_key=name")
            #expect(sorted.status == 400 && sorted.message.contains("sort_key") && sorted.message.contains("'name'"), "\(sorted.json)")
        }
    }

    @Test func usageComesInPagesOfServers() async throws {
        try await TestCloud.with { cloud in
            _ = try await Self.servers(cloud, 3)
            try await cloud.engine().drain()
            let one = "/v2.1/os-simple-tenant-usage/p1"
            let whole = try await cloud.call("GET", one).json["tenant_usage"]?["server_usages"]?.arrayValue ?? []
            #expect(whole.count == 3)
            for version in ["2.96", "2.40", "2.1"] {
                var found: [JSONValue] = []
                var marker = ""
                for _ in 0..<5 {
                    let answer = try await cloud.call("GET", "\(one)?limit=2\(marker)", version: version).json
                    let usages = answer["tenant_usage"]?["server_usages"]?.arrayValue ?? []
                    #expect((answer["tenant_usage_links"] != nil) == (version != "2.1" && usages.count == 2))
                    guard let last = usages.last?["instance_id"]?.stringValue else {
                        #expect(answer == ["tenant_usage": [:]])
                        break
                    }
                    found += usages
                    marker = "&marker=\(last)"
                }
                #expect(found.map { $0["instance_id"] } == whole.map { $0["instance_id"] }, "\(version)")
            }
            let last = try #require(whole.last?["instance_id"]?.stringValue)
            let all = "/v2.1/os-simple-tenant-usage"
            #expect(try await cloud.call("GET", "\(all)?marker=\(last)", as: "admin").json == ["tenant_usages": []])
            let page = try await cloud.call("GET", "\(all)?limit=1&detailed=1", as: "admin").json
            #expect(page["tenant_usages"]?.arrayValue?.first?["server_usages"]?.arrayValue?.count == 1)
            #expect(page["tenant_usages_links"]?.arrayValue?.first?["rel"] == "next")
            for bad in ["marker=\(SystemRandom().uuid())", "marker=x", "limit=-1", "limit=x"] {
                #expect(try await cloud.call("GET", "\(one)?\(bad)").status == 400, "\(bad)")
                #expect(try await cloud.call("GET", "\(all)?\(bad)", as: "admin").status == 400, "\(bad)")
            }
        }
    }

    @Test("S18: catastrophic patterns are refused in every filter")
    func s18EvilPatternsAreRefused() async throws {
        try await TestCloud.with { cloud in
            _ = try await Self.servers(cloud, 1)
            let evil = PercentEncoding.encode(#"^(.+)(.+)(.+)\1\2\3$"#)
            for name in ["name", "ip", "ip6", "hostname", "description"] {
                let answer = try await cloud.call("GET", "/v2.1/servers?\(name)=\(evil)", as: "admin", version: "2.60")
                #expect(answer.status == 400, "\(name)")
                #expect(answer.message.contains("'\(name)'"), "\(answer.message)")
            }
            #expect(try await cloud.call("GET", "/v2.1/servers?name=%5Es0%24").json["servers"]?.arrayValue?.count == 1)
            #expect(try await cloud.call("GET", "/v2.1/servers?name=s%5B0-9%5D").json["servers"]?.arrayValue?.count == 1)
        }
    }
}
