import Authorization
import ComputeService
import Database
import JSON
import Kernel
import TestKit
import Testing
import WebAPI
import Workflow

/// Compute's API as its clients see it.
@Suite struct WireTests {
    @Test func versionsAreNegotiated() async throws {
        try await TestCloud.with { cloud in
            let root = try await cloud.call("GET", "/", as: "", version: nil)
            #expect(root.status == 200)
            let versions = root.json["versions"]?.arrayValue ?? []
            #expect(versions.map { $0["id"]?.stringValue } == ["v2.0", "v2.1"])
            #expect(versions.map { $0["version"]?.stringValue } == ["", "2.104"])
            // The version in the list exists: 2.1 without microversions.
            #expect(try await cloud.call("GET", "/v2/", as: "", version: nil).json["version"]?["id"] == "v2.0")
            let older = try await cloud.call("GET", "/v2/servers", version: "2.96")
            #expect(older.status == 200 && older.headers["openstack-api-version"] == "compute 2.1")
            #expect(try await cloud.call("GET", "/v2/servers", as: "", version: nil).status == 401)
            #expect(try await cloud.call("GET", "/v2.1/", as: "", version: nil).json["version"]?["id"] == "v2.1")
            let tooNew = try await cloud.call("GET", "/v2.1/servers", version: "2.200")
            #expect(tooNew.status == 406)
            #expect(try await cloud.call("GET", "/v2.1/servers", version: "latest").headers["openstack-api-version"] == "compute 2.104")
            #expect(try await cloud.call("GET", "/v2.1/servers", version: "x").status == 400)
            #expect(try await cloud.call("GET", "/v2.1/servers", version: nil).headers["x-openstack-nova-api-version"] == "2.1")
        }
    }

    @Test func aServerLooksAsItsVersionSays() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer([
                "description": "a web server", "tags": ["blue"], "metadata": ["role": "web"], "accessIPv6": "::babe:220.12.22.2",
            ])
            let old = try await cloud.server(id, version: "2.1")
            #expect(old["flavor"]?["id"] == "1")
            #expect(old["image"]?["id"] == .string(Fixtures.image))
            for name in ["locked", "description", "tags", "host_status", "OS-EXT-SRV-ATTR:host"] { #expect(old[name] == nil, "\(name)") }
            for name in [
                "hostId", "links", "updated", "created", "accessIPv4", "accessIPv6", "OS-DCF:diskConfig", "config_drive",
                "key_name", "OS-SRV-USG:launched_at", "OS-EXT-STS:vm_state", "os-extended-volumes:volumes_attached", "progress",
                "tenant_id", "user_id", "metadata", "addresses",
            ] { #expect(old[name] != nil, "\(name)") }
            #expect(old["fault"] == nil)
            #expect(old["accessIPv6"] == "::babe:dc0c:1602")
            #expect(try await cloud.call("GET", "/v2.1/servers?limit=0").json["servers"] == [])
            for (version, isWhole) in [("2.74", false), ("2.75", true)] {
                let changed = try await cloud.call("PUT", "/v2.1/servers/\(id)", ["server": ["name": "web"]], version: version)
                #expect(changed.json["server"]?["name"] == "web")
                #expect((changed.json["server"]?["OS-EXT-STS:vm_state"] != nil) == isWhole)
            }
            let new = try await cloud.server(id, version: "2.96")
            #expect(new["flavor"]?["original_name"] == "m1.tiny")
            #expect(new["flavor"]?["id"] == nil)
            #expect(new["locked"] == false)
            #expect(new["description"] == "a web server")
            #expect(new["tags"] == ["blue"])
            #expect(new["server_groups"] == [])
            #expect(new["pinned_availability_zone"] == .null)
            #expect(new["OS-EXT-SRV-ATTR:hostname"] == "web")
            #expect(new["host_status"] == nil)
            let admin = try await cloud.server(id, as: "admin")
            #expect(admin["OS-EXT-SRV-ATTR:host"] == "host-1")
            #expect(admin["host_status"] != nil)
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)", as: "other").status == 404)
            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)", as: "reader").status == 403)
        }
    }

    @Test func aHostIsDownWhenTheSettingSaysSo() async throws {
        try await TestCloud.with(settings: ComputeSettings(hostDownAfter: .seconds(300))) { cloud in
            let id = try await cloud.createServer()
            for (silence, status) in [(100, "UP"), (301, "DOWN")] {
                try await cloud.database.write {
                    try $0.execute(
                        "UPDATE compute_services SET last_seen_at = statement_timestamp() - \(Duration.seconds(silence))::interval")
                }
                #expect(try await cloud.server(id, as: "admin")["host_status"] == .string(status))
            }
        }
    }

    @Test func listsFilterAndPage() async throws {
        try await TestCloud.with { cloud in
            for name in ["web-1", "web-2", "db-1"] { _ = try await cloud.createServer(["name": .string(name)]) }
            func names(_ query: String, as token: String = "member") async throws -> [String] {
                let answer = try await cloud.call("GET", "/v2.1/servers/detail?\(query)", as: token)
                #expect(answer.status == 200, "\(query): \(answer.json)")
                return (answer.json["servers"]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue }
            }
            #expect(try await names("").count == 3)
            #expect(try await names("name=web").count == 2)
            #expect(try await names("name=^db").count == 1)
            #expect(try await names("status=ACTIVE").count == 3)
            #expect(try await names("status=ERROR").isEmpty)
            #expect(try await names("deleted=False").count == 3)
            #expect(try await names("ip=10.0.0").count == 3)
            #expect(try await names("flavor=1&image=\(Fixtures.image)").count == 3)
            #expect(try await names("sort_key=display_name&sort_dir=asc") == ["db-1", "web-1", "web-2"])
            #expect(try await names("all_tenants=1", as: "admin").count == 3)
            #expect(try await names("", as: "admin").isEmpty)
            #expect(try await names("", as: "other").isEmpty)
            #expect(try await cloud.call("GET", "/v2.1/servers?all_tenants=1").status == 403)
            #expect(try await cloud.call("GET", "/v2.1/servers?nonsense=1").status == 400)
            #expect(try await cloud.call("GET", "/v2.1/servers?nonsense=1", version: "2.1").status == 200)
            #expect(try await cloud.call("GET", "/v2.1/servers?name=%5B").status == 400)
            let first = try await cloud.call("GET", "/v2.1/servers?limit=2")
            #expect(first.json["servers"]?.arrayValue?.count == 2)
            let next = try #require(first.json["servers_links"]?.arrayValue?.first?["href"]?.stringValue)
            let rest = try await cloud.call("GET", String(next.dropFirst("http://compute.example".count)))
            #expect(rest.json["servers"]?.arrayValue?.count == 1)
            #expect(rest.json["servers_links"] == nil)
            #expect(try await cloud.call("GET", "/v2.1/servers?marker=\(Fixtures.port)").status == 400)
        }
    }

    @Test func badInputIsRefusedInWordsAndWithoutEffect() async throws {
        try await TestCloud.with { cloud in
            let long = String(repeating: "x", count: 256)
            let port: (String) -> JSONObject = { ["networks": [["port": .string($0)]]] }
            let cases: [(JSONValue, Int, String)] = [
                (TestCloud.body(["name": .string(long)]), 400, "server.name"), (TestCloud.body(["name": 5]), 400, "server.name"),
                (TestCloud.body(["name": "  "]), 400, "server.name"), (TestCloud.body(["surprise": true]), 400, "surprise"),
                (TestCloud.body(["flavorRef": "99"]), 400, "99"), (TestCloud.body(["flavorRef": "3"]), 400, "3"),
                (TestCloud.body(["imageRef": "<absent>"]), 400, "imageRef"), (TestCloud.body(["imageRef": "nonsense"]), 400, "imageRef"),
                (TestCloud.body(["imageRef": .string(Fixtures.port)]), 400, "Image"),
                (TestCloud.body(["imageRef": .string(Fixtures.foreignImage)]), 400, "could not be found"),
                (TestCloud.body(["imageRef": .string(Fixtures.queuedImage)]), 400, "not active"),
                (TestCloud.body(["networks": "<absent>"]), 400, "networks"), (TestCloud.body(["networks": "nonsense"]), 400, "networks"),
                (TestCloud.body(["networks": [["uuid": .string(Fixtures.foreignNetwork)]]]), 400, "Network"),
                (TestCloud.body(port(Fixtures.foreignPort)), 400, "Port id"),
                (TestCloud.body(["networks": [["uuid": .string(Fixtures.network), "fixed_ip": "192.0.2.1"]]]), 400, "192.0.2.1"),
                (TestCloud.body(["key_name": "none"]), 400, "key_name"), (TestCloud.body(["user_data": "%%%"]), 400, "user_data"),
                (TestCloud.body(["min_count": 3, "max_count": 2]), 400, "min_count"),
                (TestCloud.body(["max_count": 0]), 400, "max_count"),
                (TestCloud.body(["availability_zone": "mars"]), 400, "availability zone"),
                (TestCloud.body(["availability_zone": "nova:host-1"]), 403, "forced_host"),
                (TestCloud.body(["security_groups": [["name": "none"]]]), 400, "none"),
                (TestCloud.body(["metadata": ["a": 5]]), 400, "metadata"), (TestCloud.body(["tags": ["a", .string(long)]]), 400, "tags"),
                (TestCloud.body(["tags": ["a,b"]]), 400, "a,b"), (TestCloud.body(["tags": ["a/b"]]), 400, "a/b"),
                (TestCloud.body(top: ["os:scheduler_hints": ["group": .string(Fixtures.port)]]), 400, "group"),
                (TestCloud.body(["flavorRef": "4", "max_count": 2, "min_count": 2]), 403, "Quota exceeded"),
                (TestCloud.body(["min_count": 11]), 403, "Quota exceeded for instances"),
                (["nonsense": 1], 400, "server"), ([], 400, "object"),
            ]
            for (body, status, words) in cases {
                let answer = try await cloud.call("POST", "/v2.1/servers", body)
                #expect(answer.status == status && answer.message.contains(words), "\(body) → \(answer.status) \(answer.json)")
            }
            let malformed = try await cloud.call("POST", "/v2.1/servers", bytes: Array("{\"server\":".utf8))
            #expect(malformed.status == 400)
            #expect(malformed.json["badRequest"]?["code"] == 400)
            #expect(try await cloud.call("GET", "/v2.1/servers/nonsense").status == 404)
            #expect(try await cloud.call("GET", "/v2.1/servers/\(Fixtures.port)").json["itemNotFound"]?["code"] == 404)
            #expect(try await cloud.call("POST", "/v2.1/servers", TestCloud.body(), as: "reader").status == 403)
            #expect(try await cloud.call("POST", "/v2.1/servers", TestCloud.body(), as: "nobody").status == 401)
            #expect(try await cloud.call("GET", "/v2.1/os-security-groups").status == 404)
            let servers = try await cloud.database.read { try $0.query("SELECT count(*) AS count FROM servers")[0].int("count") }
            #expect(servers == 0)
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func theSameRequestTwiceMakesOneServer() async throws {
        try await TestCloud.with { cloud in
            let key = [("idempotency-key", "abc")]
            let answers = try await withThrowingTaskGroup(of: TestCloud.Answer.self) { group in
                for _ in 0..<6 { group.addTask { try await cloud.call("POST", "/v2.1/servers", TestCloud.body(), headers: key) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(Set(answers.map { $0.json["server"]?["id"] }).count == 1)
            #expect(answers.allSatisfy { $0.status == 202 })
            #expect(try await cloud.call("POST", "/v2.1/servers", TestCloud.body(["name": "x"]), headers: key).status == 422)
        }
    }

    @Test("S19: quotas hold in a race") func s19QuotasAreExactUnderConcurrency() async throws {
        try await TestCloud.with { cloud in
            let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
                for _ in 0..<40 { group.addTask { try await cloud.call("POST", "/v2.1/servers", TestCloud.body()).status } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(statuses.filter { $0 == 202 }.count == 10)
            #expect(statuses.filter { $0 == 403 }.count == 30)
            try await cloud.engine().drain()
            #expect(try await cloud.leftovers() == [])
            let limits = try await cloud.call("GET", "/v2.1/limits").json["limits"]?["absolute"]
            #expect(limits?["totalInstancesUsed"] == 10)
            #expect(limits?["totalCoresUsed"] == 10)
        }
    }

    @Test func manyServersInOneRequest() async throws {
        try await TestCloud.with { cloud in
            let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(["min_count": 2, "max_count": 12]))
            #expect(answer.status == 202)
            try await cloud.engine().drain()
            let list = try await cloud.call("GET", "/v2.1/servers?sort_key=display_name&sort_dir=asc").json["servers"]?.arrayValue ?? []
            #expect(list.count == 10)
            #expect(list.first?["name"] == "web-1")
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func aUsersPortIsUsedOnceAndGivenBack() async throws {
        try await TestCloud.with { cloud in
            let body = TestCloud.body(["networks": [["port": .string(Fixtures.port)]]])
            let first = try await cloud.call("POST", "/v2.1/servers", body)
            #expect(first.status == 202)
            #expect(try await cloud.call("POST", "/v2.1/servers", body).status == 409)
            try await cloud.engine().drain()
            let id = try #require(first.json["server"]?["id"]?.stringValue)
            #expect(try await cloud.call("POST", "/v2.1/servers", body).status == 409)
            try await cloud.call("DELETE", "/v2.1/servers/\(id)")
            try await cloud.engine().drain()
            let device = try await cloud.database.read {
                try $0.query("SELECT device_id FROM ports WHERE id = \(Fixtures.port)")[0].string("device_id")
            }
            #expect(device == "")
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func everyRouteDecides() async throws {
        try await TestCloud.with { cloud in
            for route in cloud.api.resources.flatMap(\.routes) where route.action != nil {
                let path = route.path.replacing(/\{[a-z_]+\}/, with: Fixtures.port)
                var body: JSONValue?
                if case .json = route.body { body = .object([route.bodyKey ?? "x": [:]]) }
                let version = (route.versions.through ?? Microversion(2, 104)).description
                for token in ["admin", "member", "reader", "other", "unscoped"] {
                    let answer = try await cloud.call(route.method.rawValue, path, body, as: token, version: version)
                    #expect(answer.status != 500, "\(token) \(route.method) \(path) \(answer.json)")
                }
                #expect(try await cloud.call(route.method.rawValue, path, body, as: "none", version: version).status == 401)
                #expect(try await cloud.call(route.method.rawValue, path, body, as: "unscoped", version: version).status >= 200)
            }
        }
    }
}
