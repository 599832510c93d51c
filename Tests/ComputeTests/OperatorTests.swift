import BlockStorageCore
import ComputeCore
import Workflow
@testable import ComputeService
import Contracts
import Database
import Inspections
import JSON
import Kernel
import ServiceCatalog
import Settings
import TestKit
import Testing
import WebAPI

/// Flavors, key pairs, groups, hosts and quotas.
@Suite struct OperatorTests {
    @Test func presetQuotasAreSettings() throws {
        let settings = try Settings.parse(
            "compute:\n  quota_ram: -1\n", name: "f", environment: ["WOLKE_COMPUTE_QUOTA_CORES": "3"],
            schema: .section("compute", ComputeApplication.settingsKeys))
        let quota = ComputeQuota.make(settings)
        #expect([ComputeQuotas.cores, ComputeQuotas.memory, ComputeQuotas.instances].map(quota.preset) == [3, -1, 10])
    }

    @Test("S1: the doctor reports machines whose sandbox does not work") func s1_theDoctorTellsOfSandboxes() async throws {
        try await TestCloud.with { cloud in
            func findings() async throws -> [Finding] {
                try await cloud.database.read { connection in
                    try (ComputeInspections.all + BlockStorageInspections.all).flatMap { try $0.findings(connection, cloud.cloud.ambient) }
                        .filter { $0.invariant == "I15" }
                }
            }
            #expect(try await findings() == [])
            try await cloud.database.write { connection in
                try connection.execute(
                    """
                    UPDATE hypervisors SET capabilities = jsonb_set(capabilities, '{sandbox_problem}', '"no bwrap"') WHERE host = 'host-1'
                    """)
                for (host, age) in [("c-1", "0"), ("c-2", "3600")] {
                    try connection.execute(
                        """
                        INSERT INTO block_storage_services (host, kind, availability_zone, seen_at, sandbox_problem)
                        VALUES (\(host), 'cinder-scheduler', 'nova', \(cloud.cloud.ambient.databaseNow) - (\(age) || ' seconds')::interval, 'no user')
                        """)
                }
            }
            let words = try await findings().map(\.words).sorted()
            #expect(
                words == [
                    "Block Storage on c-1 can make no volumes of images: no user", "the host host-1 can make no disks of images: no bwrap",
                ])
        }
    }

    @Test("S3 S20: a flavor without a disk boots from volumes; where an administrator boots an image, the claim has its size")
    func s3_s20_flavorsWithoutADisk() async throws {
        try await TestCloud.with { cloud in
            let flavor: JSONValue = ["flavor": ["name": "zero", "ram": 512, "vcpus": 1, "disk": 0, "id": "zero"]]
            #expect(try await cloud.call("POST", "/v2.1/flavors", flavor, as: "admin").status == 200)
            _ = try await cloud.database.write { try $0.execute("UPDATE images SET virtual_size = \((3 << 30) + 1)") }
            let refused = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(["flavorRef": "zero"]))
            #expect(refused.status == 403 && refused.json.description.contains("zero disk"), "\(refused.json)")
            let creation = try await cloud.call(
                "POST", "/v2.1/servers",
                TestCloud.body(["flavorRef": "zero", "networks": [["uuid": .string(Fixtures.network)]]]), as: "admin")
            #expect(creation.status == 202, "\(creation.json)")
            let id = creation.json["server"]?["id"]?.stringValue ?? ""
            let (asked, desired) = try await cloud.database.read { connection in
                (
                    try SchedulingQuestion.load(connection, server: id, operation: id)?.resources,
                    try connection.query("SELECT image FROM servers WHERE id = \(id)::uuid")[0].json("image")
                )
            }
            #expect(asked?["DISK_GB"] == 4)
            #expect(desired["disk_gb"] == 4)
        }
    }

    @Test func flavorsHaveSpecsAndAccess() async throws {
        try await TestCloud.with { cloud in
            let body: JSONValue = ["flavor": ["name": "gold", "ram": 1024, "vcpus": 2, "disk": 10, "id": nil, "description": "best"]]
            let creation = try await cloud.call("POST", "/v2.1/flavors", body, as: "admin")
            #expect(creation.status == 200, "\(creation.json)")
            let id = try #require(creation.json["flavor"]?["id"]?.stringValue)
            #expect(try await cloud.call("POST", "/v2.1/flavors", body, as: "admin").status == 409)
            #expect(try await cloud.call("POST", "/v2.1/flavors", body).status == 403)
            #expect(
                try await cloud.call(
                    "POST", "/v2.1/flavors/\(id)/os-extra_specs", ["extra_specs": ["hw:cpu_policy": "shared"]], as: "admin"
                ).status == 200)
            let shown = try await cloud.call("GET", "/v2.1/flavors/\(id)").json["flavor"]
            #expect(shown?["extra_specs"]?["hw:cpu_policy"] == "shared")
            #expect(shown?["swap"] == 0)
            #expect(try await cloud.call("GET", "/v2.1/flavors/\(id)", version: "2.1").json["flavor"]?["swap"] == "")
            #expect(try await cloud.call("GET", "/v2.1/flavors/\(id)", version: "2.1").json["flavor"]?["description"] == nil)
            #expect(try await cloud.call("GET", "/v2.1/flavors/3").status == 404)
            #expect(try await cloud.call("GET", "/v2.1/flavors/3", as: "admin").status == 200)
            #expect(try await cloud.call("GET", "/v2.1/flavors/gold").status == 404)
            let list = try await cloud.call("GET", "/v2.1/flavors/detail?is_public=None").json["flavors"]?.arrayValue ?? []
            #expect(list.count == 4)
            #expect(try await cloud.call("GET", "/v2.1/flavors/detail?minRam=9000").json["flavors"]?.arrayValue?.count == 1)
            #expect(try await cloud.call("DELETE", "/v2.1/flavors/\(id)", as: "admin").status == 202)
            #expect(try await cloud.call("DELETE", "/v2.1/flavors/\(id)", as: "admin").status == 404)
        }
    }

    @Test func keyPairsAreImportedAndGenerated() async throws {
        try await TestCloud.with { cloud in
            let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHmOyuYQ2jYGmc1RuGLh7oQJoqCg0QeVvFmhbnv4lNfr me@here"
            let creation = try await cloud.call("POST", "/v2.1/os-keypairs", ["keypair": ["name": "mine", "public_key": .string(key)]])
            #expect(creation.status == 201, "\(creation.json)")
            #expect(creation.json["keypair"]?["fingerprint"]?.stringValue?.count == 47)
            #expect(
                try await cloud.call("POST", "/v2.1/os-keypairs", ["keypair": ["name": "mine", "public_key": .string(key)]]).status == 409)
            #expect(try await cloud.call("POST", "/v2.1/os-keypairs", ["keypair": ["name": "new"]]).status == 400)
            #expect(
                try await cloud.call("POST", "/v2.1/os-keypairs", ["keypair": ["name": "bad", "public_key": "ssh-rsa nonsense"]]).status
                    == 400)
            #expect(
                try await cloud.call("POST", "/v2.1/os-keypairs", ["keypair": ["name": "bad", "public_key": ""]], version: "2.2").status
                    == 400)
            let generated = try await cloud.call("POST", "/v2.1/os-keypairs", ["keypair": ["name": "new"]], version: "2.1")
            #expect(generated.status == 200)
            #expect(generated.json["keypair"]?["private_key"]?.stringValue?.hasPrefix("-----BEGIN OPENSSH PRIVATE KEY-----") == true)
            #expect(try await cloud.call("GET", "/v2.1/os-keypairs").json["keypairs"]?.arrayValue?.count == 2)
            #expect(try await cloud.call("GET", "/v2.1/os-keypairs", as: "other").json["keypairs"]?.arrayValue?.count == 0)
            #expect(try await cloud.call("GET", "/v2.1/os-keypairs/mine").json["keypair"]?["user_id"] == "u1")
            let server = try await cloud.createServer(["key_name": "mine"])
            #expect(try await cloud.server(server)["key_name"] == "mine")
            let ensure = try #require(cloud.cloud.received.last { $0["server"]?["id"] == .string(server) })
            #expect(ensure["server"]?["metadata"]?["public_keys"]?["mine"] == .string(key))
            #expect(try await cloud.call("DELETE", "/v2.1/os-keypairs/mine").status == 204)
            #expect(try await cloud.call("DELETE", "/v2.1/os-keypairs/mine").status == 404)
        }
    }

    @Test func hostsAreSeenAndSteered() async throws {
        try await TestCloud.with { cloud in
            let services = try await cloud.call("GET", "/v2.1/os-services", as: "admin").json["services"]?.arrayValue ?? []
            #expect(services.count == 1)
            #expect(services[0]["state"] == "up")
            let id = try #require(services[0]["id"]?.stringValue)
            let off = try await cloud.call(
                "PUT", "/v2.1/os-services/\(id)", ["status": "disabled", "disabled_reason": "repair"], as: "admin")
            #expect(off.json["service"]?["status"] == "disabled", "\(off.json)")
            let told = try await cloud.database.read {
                try $0.query("SELECT body FROM outbox WHERE queue = \(MessageQueue.placementHosts.name)").map { try $0.json("body") }
            }
            #expect(told.last?["enabled"] == false)
            #expect(told.last?["inventories"]?["VCPU"]?["total"] == 8)
            try await cloud.call("PUT", "/v2.1/os-services/\(id)", ["status": "enabled"], as: "admin")
            let hypervisors = try await cloud.call("GET", "/v2.1/os-hypervisors/detail", as: "admin").json["hypervisors"]?.arrayValue ?? []
            #expect(hypervisors.first?["hypervisor_hostname"] == "host-1")
            #expect(hypervisors.first?["vcpus"] == nil)
            let old =
                try await cloud.call("GET", "/v2.1/os-hypervisors/detail", as: "admin", version: "2.53").json["hypervisors"]?.arrayValue
                ?? []
            #expect(old.first?["vcpus"] == 8)
            let aggregate = try await cloud.call(
                "POST", "/v2.1/os-aggregates", ["aggregate": ["name": "fast", "availability_zone": "east"]], as: "admin")
            #expect(aggregate.status == 200, "\(aggregate.json)")
            #expect(aggregate.json["aggregate"]?["hosts"] == nil)
            #expect(try await cloud.call("GET", "/v2.1/os-hypervisors/99/uptime", as: "admin", version: "2.1").status == 404)
            let number = try #require(aggregate.json["aggregate"]?["id"]?.intValue)
            #expect(
                try await cloud.call("POST", "/v2.1/os-aggregates/\(number)/action", ["add_host": ["host": "nowhere"]], as: "admin").status
                    == 404)
            let added = try await cloud.call("POST", "/v2.1/os-aggregates/\(number)/action", ["add_host": ["host": "host-1"]], as: "admin")
            #expect(added.json["aggregate"]?["hosts"] == ["host-1"])
            #expect(
                try await cloud.call("POST", "/v2.1/os-aggregates/\(number)/action", ["add_host": ["host": "host-1"]], as: "admin").status
                    == 409)
            let zones = try await cloud.call("GET", "/v2.1/os-availability-zone").json["availabilityZoneInfo"]?.arrayValue ?? []
            #expect(zones.map { $0["zoneName"] } == ["east"])
            let server = try await cloud.createServer(["availability_zone": "east"])
            #expect(try await cloud.server(server)["OS-EXT-AZ:availability_zone"] == "east")
            #expect(try await cloud.call("DELETE", "/v2.1/os-aggregates/\(number)", as: "admin").status == 400)
        }
    }

    @Test func groupsQuotasAndLimits() async throws {
        try await TestCloud.with { cloud in
            let creation = try await cloud.call(
                "POST", "/v2.1/os-server-groups",
                ["server_group": ["name": "apart", "policy": "anti-affinity", "rules": ["max_server_per_host": 2]]])
            #expect(creation.status == 200, "\(creation.json)")
            let group = try #require(creation.json["server_group"]?["id"]?.stringValue)
            let answer = try await cloud.call(
                "POST", "/v2.1/servers", TestCloud.body(top: ["os:scheduler_hints": ["group": .string(group)]]))
            #expect(answer.status == 202, "\(answer.json)")
            try await cloud.engine().drain()
            #expect(try await cloud.call("GET", "/v2.1/os-server-groups/\(group)").json["server_group"]?["members"]?.arrayValue?.count == 1)
            #expect(
                try await cloud.call("GET", "/v2.1/os-server-groups/\(group)", version: "2.1").json["server_group"]?["policies"] == [
                    "anti-affinity"
                ])
            #expect(try await cloud.call("GET", "/v2.1/os-server-groups/\(group)", as: "other").status == 404)
            #expect(try await cloud.call("DELETE", "/v2.1/os-server-groups/\(group)").status == 204)
            _ = try await cloud.database.write { connection in
                try connection.execute(
                    "INSERT INTO projects (id, name, is_domain, created_at, updated_at) VALUES ('p1', 'p1', true, now(), now())")
            }
            let set = try await cloud.call("PUT", "/v2.1/os-quota-sets/p1", ["quota_set": ["cores": 3]], as: "admin")
            #expect(set.json["quota_set"]?["cores"] == 3, "\(set.json)")
            #expect(try await cloud.call("PUT", "/v2.1/os-quota-sets/p1", ["quota_set": ["cores": 0]], as: "admin").status == 400)
            #expect(try await cloud.call("PUT", "/v2.1/os-quota-sets/p1", ["quota_set": ["cores": 0]]).status == 403)
            let old = try await cloud.call("PUT", "/v2.1/os-quota-sets/p1", ["quota_set": ["fixed_ips": 5]], as: "admin", version: "2.1")
            #expect(old.json["quota_set"]?["fixed_ips"] == 5)
            #expect(try await cloud.call("PUT", "/v2.1/os-quota-sets/p1", ["quota_set": ["fixed_ips": 5]], as: "admin").status == 400)
            let detail = try await cloud.call("GET", "/v2.1/os-quota-sets/p1/detail").json["quota_set"]?["cores"]
            #expect(detail == ["limit": 3, "in_use": 1, "reserved": 0])
            #expect(try await cloud.call("POST", "/v2.1/servers", TestCloud.body(["flavorRef": "2"])).status == 403)
            #expect(try await cloud.call("GET", "/v2.1/os-quota-sets/p1", version: "2.1").json["quota_set"]?["injected_files"] == 5)
            #expect(
                try await cloud.call("GET", "/v2.1/os-simple-tenant-usage/p1").json["tenant_usage"]?["server_usages"]?.arrayValue?.count
                    == 1)
            #expect(try await cloud.call("GET", "/v2.1/extensions").status == 200)
        }
    }

    @Test func metadataTagsAndLocks() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer(["metadata": ["a": "1"]])
            let base = "/v2.1/servers/\(id)"
            #expect(try await cloud.call("POST", base + "/metadata", ["metadata": ["b": "2"]]).json["metadata"] == ["a": "1", "b": "2"])
            #expect(try await cloud.call("PUT", base + "/metadata/c", ["meta": ["c": "3"]]).status == 200)
            #expect(try await cloud.call("DELETE", base + "/metadata/a").status == 204)
            #expect(try await cloud.call("GET", base + "/metadata").json["metadata"] == ["b": "2", "c": "3"])
            #expect(try await cloud.call("GET", base + "/metadata/a").status == 404)
            #expect(try await cloud.call("PUT", base + "/tags/red").status == 201)
            #expect(try await cloud.call("PUT", base + "/tags/red").status == 204)
            #expect(try await cloud.call("GET", base + "/tags/red").status == 204)
            #expect(try await cloud.call("GET", base + "/tags").json["tags"] == ["red"])
            #expect(try await cloud.call("GET", base + "/tags", version: "2.1").status == 404)
            #expect(try await cloud.call("PUT", base + "/tags", ["tags": ["c", "a", "c"]]).json == ["tags": ["c", "a"]])
            let added = try await cloud.call("PUT", base + "/tags/b")
            #expect(added.headers["location"]?.hasSuffix(base + "/tags/b") == true)
            #expect(try await cloud.call("GET", base + "/tags").json["tags"] == ["c", "a", "b"])
            #expect(try await cloud.call("DELETE", base + "/tags/a").status == 204)
            for method in ["GET", "DELETE"] { #expect(try await cloud.call(method, base + "/tags/a").status == 404) }
            #expect(try await cloud.call("PUT", base + "/tags/a,b").status == 400)
            #expect(try await cloud.call("PUT", base + "/tags", ["tags": JSONValue((1...50).map { "t\($0)" })]).status == 200)
            #expect(try await cloud.call("PUT", base + "/tags/t50").status == 204)
            #expect(try await cloud.call("PUT", base + "/tags/t51").status == 400)
            #expect(try await cloud.call("DELETE", base + "/tags").status == 204)
            #expect(try await cloud.call("GET", base + "/tags").json["tags"] == [])
            #expect(try await cloud.call("POST", base + "/action", ["lock": ["locked_reason": "mine"]], as: "admin").status == 202)
            #expect(try await cloud.server(id)["locked_reason"] == "mine")
            #expect(try await cloud.call("DELETE", base).status == 409)
            #expect(try await cloud.call("POST", base + "/action", ["unlock": nil]).status == 403)
            #expect(try await cloud.call("POST", base + "/action", ["unlock": nil], as: "admin").status == 202)
            let form: (String, String) -> JSONValue = { ["remote_console": ["protocol": .string($0), "type": .string($1)]] }
            let console = try await cloud.call("POST", base + "/remote-consoles", form("serial", "serial"))
            let url = console.json["remote_console"]?["url"]?.stringValue ?? ""
            #expect(console.status == 200 && url.hasPrefix("http://127.0.0.1:6080/?token="), "\(console.json)")
            let token = url.split(separator: "=").last.map(String.init) ?? ""
            let redeem: @Sendable (Connection) throws -> Int = { connection in
                try connection.query(
                    "SELECT kind FROM published_redeem_console_token(encode(sha256(\(token)::bytea), 'hex'), 'epoch')"
                ).count
            }
            #expect(try await cloud.database.write(redeem) == 1)
            #expect(try await cloud.database.write(redeem) == 0, "a token is valid once")
            #expect(try await cloud.call("POST", base + "/remote-consoles", form("spice", "spice-html5")).status == 400)
            #expect(try await cloud.call("POST", base + "/action", ["nonsense": nil]).status == 400)
            #expect(
                try await cloud.call("PUT", base, ["server": ["name": "renamed", "description": "new"]]).json["server"]?["name"]
                    == "renamed")
            let action = try #require(try await cloud.call("GET", base + "/os-instance-actions").json["instanceActions"]?.arrayValue?.last)
            #expect(action["action"] == "create")
            let shown = try await cloud.call("GET", base + "/os-instance-actions/\(action["request_id"]?.stringValue ?? "")").json
            let event = shown["instanceAction"]?["events"]?.arrayValue?.first
            #expect(event?["result"] == "Success")
            #expect(event?["hostId"] == (try await cloud.server(id)["hostId"]))
            #expect(try await cloud.call("GET", base + "/ips").json["addresses"]?["net"]?.arrayValue?.count == 1)
        }
    }
}

/// The scheduler's explanations, and requests that claim nothing.
@Suite struct ComputeSchedulingTests {
    @Test func trialsChangeNothing() async throws {
        try await TestCloud.with { cloud in
            let answer = try await cloud.call("POST", "/v2.1/os-wolke-scheduling", TestCloud.body())
            #expect(answer.status == 200, "\(answer.json)")
            #expect(answer.json["scheduling"]?["result"] == "scheduled")
            #expect(answer.json["scheduling"]?["host"] == nil)
            #expect(try await cloud.call("POST", "/v2.1/os-wolke-scheduling", TestCloud.body(["flavorRef": "99"])).status == 400)
            #expect(try await cloud.call("POST", "/v2.1/os-wolke-scheduling", TestCloud.body(), as: "reader").status == 403)
            let counts = try await cloud.database.read { connection in
                try connection.query("SELECT (SELECT count(*) FROM servers) + (SELECT count(*) FROM workflows) AS count")[0].int("count")
            }
            #expect(counts == 0)
        }
    }

    @Test func tenantsSeeNoHosts() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            _ = try await cloud.database.write { connection in
                try connection.execute(
                    """
                    INSERT INTO scheduling_explanations (consumer_id, operation_id, answer, explanation, created_at)
                    VALUES (\(id), \(id), '{}', '{"result": "scheduled", "host": "host-1", "filters": [], "operator": []}', now())
                    """)
            }
            let mine = try await cloud.call("GET", "/v2.1/servers/\(id)/os-wolke-scheduling").json["scheduling"]?.arrayValue ?? []
            #expect(mine.first?["result"] == "scheduled")
            #expect(mine.first?["host"] == nil)
            let all =
                try await cloud.call("GET", "/v2.1/servers/\(id)/os-wolke-scheduling", as: "admin").json["scheduling"]?.arrayValue ?? []
            #expect(all.first?["host"] == "host-1")
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)/os-wolke-scheduling", as: "other").status == 404)
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)/os-security-groups").json["security_groups"] == [])
        }
    }

    @Test func rejectionsNameFlavorsThatFit() async throws {
        try await TestCloud.with { cloud in
            cloud.cloud.reject(["result": "rejected", "message": "No valid host was found.", "operator": [], "filters": []])
            cloud.cloud.tryOut { request in
                let memory = request["resources"]?["MEMORY_MB"]?.intValue ?? 0
                return memory <= 512 ? ["result": "scheduled", "host": "secret", "fits": 3] : ["result": "rejected", "fits": 0]
            }
            let answer = try await cloud.call("POST", "/v2.1/os-wolke-scheduling", TestCloud.body(["flavorRef": "2"]))
            let nearest = answer.json["scheduling"]?["nearest"]?["flavors"]?.arrayValue ?? []
            #expect(!nearest.isEmpty && nearest.allSatisfy { $0["fits"] == 3 }, "\(answer.json)")
            #expect(answer.json["scheduling"]?["message"]?.stringValue?.contains("would fit 3 times") == true)
            let id = try await cloud.createServer(["flavorRef": "2"])
            _ = try await cloud.database.write { connection in
                try connection.execute(
                    """
                    INSERT INTO scheduling_explanations (consumer_id, operation_id, answer, explanation, created_at)
                    VALUES (\(id), \(id), '{}', '{"result": "rejected", "filters": [], "operator": [{"host": "secret"}]}', now())
                    """)
            }
            let why = try await cloud.call("GET", "/v2.1/servers/\(id)/os-wolke-scheduling")
            #expect(why.json["now"]?["nearest"]?["flavors"]?.arrayValue?.isEmpty == false, "\(why.json)")
            #expect(!why.json.description.contains("secret"))
            #expect(why.json["now"]?["operator"] == nil)
        }
    }

    @Test func severalAreTriedTogether() async throws {
        try await TestCloud.with { cloud in
            let answer = try await cloud.call(
                "POST", "/v2.1/os-wolke-scheduling", TestCloud.body(["min_count": 2, "max_count": 2]), as: "admin")
            #expect(answer.json["scheduling"]?["servers"]?.arrayValue?.map { $0["host"] } == ["host-2", "host-2"], "\(answer.json)")
            #expect(cloud.cloud.received.last?["together"] == true)
        }
    }

    @Test func aHostThatWouldFail() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let path = "/v2.1/os-wolke-scheduling/host-failure"
            let answer = try await cloud.call("POST", path, ["host": "host-1"], as: "admin")
            let failure = try #require(answer.json["host_failure"], "\(answer.json)")
            #expect(failure["servers"]?.arrayValue?.map { $0["id"] } == [.string(id)])
            #expect(failure["servers"]?.arrayValue?.first?["host"] == "host-2")
            let asked = try #require(cloud.cloud.received.last { $0["requests"] != nil })
            #expect(asked["exclude_hosts"] == ["host-1"])
            #expect(asked["together"] == true)
            #expect(try await cloud.call("POST", path, ["host": "host-9"], as: "admin").status == 404)
            #expect(try await cloud.call("POST", path, ["host": "host-1"]).status == 403)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
        }
    }

    @Test func oldActionsAreDeleted() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            try await cloud.call("DELETE", "/v2.1/servers/\(id)")
            try await cloud.engine().drain()
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)/os-instance-actions").status == 200)
            cloud.time.advance(by: .seconds(100 * 86_400))
            #expect(try await ComputePeriodicTasks(cloud.compute).runOnce() == 1)
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)/os-instance-actions").status == 404)
        }
    }

    /// Lists of a project read its servers in order from an index.
    @Test func listsUseTheirIndex() async throws {
        try await TestCloud.with { cloud in
            let plan = try await cloud.database.write { connection -> String in
                try connection.execute(
                    """
                    INSERT INTO servers (id, project_id, user_id, name, hostname, vm_state, flavor_id, flavor, reservation_id,
                        created_at, updated_at)
                    SELECT gen_random_uuid(), 'p' || n % 50, 'u', 's', 's', 'active', gen_random_uuid(), '{}', 'r',
                        now() - (n || ' s')::interval, now() FROM generate_series(1, 20000) n
                    """)
                try connection.script("ANALYZE servers")
                return try connection.query(
                    """
                    EXPLAIN SELECT t.id FROM servers t WHERE t.project_id = 'p7' AND NOT t.deleted
                    ORDER BY t.created_at DESC, t.id DESC LIMIT 21
                    """
                ).map { try $0.string("QUERY PLAN") }.joined(separator: "\n")
            }
            #expect(plan.contains("servers_project"), "\(plan)")
            #expect(!plan.contains("Sort"), "\(plan)")
        }
    }
}
