import ComputeService
import Database
import JSON
import Kernel
import ServiceKit
import Telemetry
import TestKit
import Testing
import WebAPI
import Workflow

/// Behaviour that clients other than OpenStack's own rely on.
@Suite struct ComputeClientTests {
    private static let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHmOyuYQ2jYGmc1RuGLh7oQJoqCg0QeVvFmhbnv4lNfr me@here"

    // MARK: values are returned as sent

    @Test(arguments: ["\n", "\r\n", " ", "\n\n", ""])
    func aPublicKeyComesBackAsItWasSent(_ end: String) async throws {
        try await TestCloud.with { cloud in
            let sent = JSONValue.string(ComputeClientTests.key + end)
            let creation = try await cloud.call("POST", "/v2.1/os-keypairs", ["keypair": ["name": "mine", "public_key": sent]])
            #expect(creation.json["keypair"]?["public_key"] == sent, "\(creation.json)")
            #expect(try await cloud.call("GET", "/v2.1/os-keypairs/mine").json["keypair"]?["public_key"] == sent)
            let listed = try await cloud.call("GET", "/v2.1/os-keypairs").json["keypairs"]?.arrayValue?.first
            #expect(listed?["keypair"]?["public_key"] == sent)
            let two = try await cloud.call(
                "POST", "/v2.1/os-keypairs",
                ["keypair": ["name": "two", "public_key": .string(ComputeClientTests.key + "\n" + ComputeClientTests.key)]])
            #expect(two.status == 400 && two.message.contains("more than one line"))
        }
    }

    /// Nova refuses such names; shortening a name would change it.
    @Test func namesAreNotShortened() async throws {
        try await TestCloud.with { cloud in
            let server = try await cloud.createServer()
            let cases: [(String, String, JSONValue)] = [
                ("POST", "/v2.1/servers", TestCloud.body(["name": " web"])),
                ("PUT", "/v2.1/servers/\(server)", ["server": ["name": "web\n"]]),
                ("PUT", "/v2.1/servers/\(server)", ["server": ["name": "web "]]),
                ("POST", "/v2.1/flavors", ["flavor": ["name": "x ", "ram": 1, "vcpus": 1, "disk": 1]]),
                ("POST", "/v2.1/os-aggregates", ["aggregate": ["name": " x"]]),
                ("POST", "/v2.1/os-aggregates", ["aggregate": ["name": "x", "availability_zone": "east "]]),
                ("POST", "/v2.1/os-server-groups", ["server_group": ["name": "x ", "policy": "affinity"]]),
                ("POST", "/v2.1/os-keypairs", ["keypair": ["name": " x", "public_key": .string(ComputeClientTests.key)]]),
            ]
            for (method, path, body) in cases {
                let answer = try await cloud.call(method, path, body, as: "admin")
                #expect(
                    answer.status == 400 && (answer.message.contains("white space") || answer.message.contains("control character")),
                    "\(body) → \(answer.json)")
            }
        }
    }

    @Test func textsOfAServerComeBackAsTheyWereSent() async throws {
        try await TestCloud.with { cloud in
            let description = "  two\nlines \u{e9}e\u{301} ", value = " v\t"
            let id = try await cloud.createServer([
                "description": .string(description), "metadata": ["k ": .string(value)], "user_data": "IyEK\n",
            ])
            let server = try await cloud.server(id, as: "admin")
            #expect(server["description"] == .string(description))
            #expect(server["metadata"] == .object(["k ": .string(value)]))
            #expect(server["OS-EXT-SRV-ATTR:user_data"] == "IyEK\n")
        }
    }

    @Test func aNullRemovesAnAggregatesItem() async throws {
        try await TestCloud.with { cloud in
            let creation = try await cloud.call(
                "POST", "/v2.1/os-aggregates", ["aggregate": ["name": "a", "availability_zone": "east"]], as: "admin")
            let path = "/v2.1/os-aggregates/\(creation.json["aggregate"]?["id"]?.intValue ?? 0)"
            func set(_ metadata: JSONValue) async throws -> JSONValue? {
                try await cloud.call("POST", path + "/action", ["set_metadata": ["metadata": metadata]], as: "admin").json["aggregate"]
            }
            #expect(try await set(["ssd": "true", "rack": "7"])?["metadata"] == ["ssd": "true", "rack": "7", "availability_zone": "east"])
            #expect(try await set(["ssd": nil, "never": nil])?["metadata"] == ["rack": "7", "availability_zone": "east"])
            let shown = try await set(["availability_zone": nil])
            #expect(shown?["availability_zone"] == .null && shown?["metadata"] == ["rack": "7"], "\(shown ?? .null)")
            #expect(try await cloud.call("GET", path, as: "admin").json["aggregate"]?["metadata"] == ["rack": "7"])
        }
    }

    // MARK: personality

    @Test func aServerStartsWithItsFiles() async throws {
        try await TestCloud.with { cloud in
            let files: JSONValue = [["path": "/etc/motd", "contents": "SGVsbG8K"], ["path": "/etc/empty", "contents": ""]]
            let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(["personality": files]), version: "2.56")
            #expect(answer.status == 202, "\(answer.json)")
            try await cloud.engine().drain()
            let ensure = try #require(cloud.cloud.received.last { $0["server"]?["id"] == answer.json["server"]?["id"] })
            #expect(ensure["server"]?["personality"] == files)
            let refused = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(["personality": files]), version: "2.57")
            #expect(refused.status == 400 && refused.message.contains("'personality' was unexpected"), "\(refused.json)")
        }
    }

    @Test func filesHaveLimits() async throws {
        try await TestCloud.with { cloud in
            func file(_ path: String, _ bytes: Int) -> JSONValue {
                ["path": .string(path), "contents": .string(Base64.encode([UInt8](repeating: 65, count: bytes)))]
            }
            func post(_ files: [JSONValue]) async throws -> TestCloud.Answer {
                try await cloud.call("POST", "/v2.1/servers", TestCloud.body(["personality": .array(files)]), version: "2.1")
            }
            // Limits count decoded bytes.
            #expect(try await post([file("/a", 10_240)]).status == 202)
            let large = try await post([file("/a", 10_241)])
            #expect(large.status == 403 && large.message == "Personality file content exceeds maximum 10240", "\(large.json)")
            let many = try await post((0..<6).map { file("/\($0)", 1) })
            #expect(many.status == 403 && many.message.contains("Personality file limit exceeded"))
            let long = try await post([file("/" + String(repeating: "p", count: 255), 1)])
            #expect(long.status == 403 && long.message == "Personality file path exceeds maximum 255")
            #expect(try await post([["path": "/a", "contents": "%%%"]]).status == 400)
            #expect(try await post([["contents": ""]]).status == 400)
            let limits = try await cloud.call("GET", "/v2.1/limits", version: "2.56").json["limits"]?["absolute"]
            #expect(limits?["maxPersonality"] == 5 && limits?["maxPersonalitySize"] == 10_240)
            let set = try await cloud.call(
                "PUT", "/v2.1/os-quota-class-sets/default", ["quota_class_set": ["injected_files": 6]], as: "admin", version: "2.56")
            #expect(set.status == 200, "\(set.json)")
            #expect(try await post((0..<6).map { file("/\($0)", 1) }).status == 202)
        }
    }

    // MARK: services, extensions, default quota

    @Test func thePlanesServicesAreListed() async throws {
        try await TestCloud.with { cloud in
            let log = Telemetry.logger(service: "test", level: "critical")
            for (kind, host) in [("nova-scheduler", "c-1"), ("nova-conductor", "c-1"), ("nova-conductor", "c-2")] {
                let heartbeat = ProcessHeartbeat(kind, host: host, database: cloud.database, ambient: cloud.compute.ambient, log: log)
                try await heartbeat.record()
                try await heartbeat.record()
            }
            _ = try await cloud.database.write { connection in
                try connection.execute("UPDATE plane_services SET last_seen_at = last_seen_at - interval '61 seconds' WHERE host = 'c-2'")
            }
            func list(_ query: String, version: String = "2.96") async throws -> [JSONValue] {
                try await cloud.call("GET", "/v2.1/os-services" + query, as: "admin", version: version).json["services"]?.arrayValue ?? []
            }
            #expect(try await list("").map { $0["binary"] } == ["nova-compute", "nova-scheduler", "nova-conductor", "nova-conductor"])
            let conductors = try await list("?binary=nova-conductor")
            #expect(
                conductors.map { $0["state"] } == ["up", "down"] && conductors.allSatisfy { $0["zone"] == "internal" }, "\(conductors)")
            #expect(try await list("?binary=nova-scheduler&host=c-1").count == 1)
            #expect(try await list("?binary=nova-scheduler&host=host-1").isEmpty)
            let numbers = try await list("", version: "2.1").compactMap { $0["id"]?.intValue }
            #expect(Set(numbers).count == 4)
            let id = try #require(conductors[1]["id"]?.stringValue)
            let disabled = try await cloud.call("PUT", "/v2.1/os-services/\(id)", ["status": "disabled"], as: "admin")
            #expect(disabled.status == 400 && disabled.message.contains("Only nova-compute services can be updated"), "\(disabled.json)")
            let old = try await cloud.call(
                "PUT", "/v2.1/os-services/disable", ["host": "c-1", "binary": "nova-conductor"], as: "admin", version: "2.1")
            #expect(old.status == 400, "\(old.json)")
            #expect(try await cloud.call("DELETE", "/v2.1/os-services/\(id)", as: "admin").status == 204)
            #expect(try await cloud.call("DELETE", "/v2.1/os-services/\(id)", as: "admin").status == 404)
            #expect(try await cloud.call("DELETE", "/v2.1/os-services/5", as: "admin").status == 400)
            #expect(try await list("").count == 3)
            let zones =
                try await cloud.call("GET", "/v2.1/os-availability-zone/detail", as: "admin").json["availabilityZoneInfo"]?.arrayValue ?? []
            #expect(zones.last?["zoneName"] == "internal")
            #expect(zones.last?["hosts"]?["c-1"]?.objectValue?.count == 2)
            #expect(try await cloud.call("GET", "/v2.1/os-availability-zone").json["availabilityZoneInfo"]?.arrayValue?.count == 1)
        }
    }

    @Test func extensionsNameSupportedFeatures() async throws {
        try await TestCloud.with { cloud in
            let list = try await cloud.call("GET", "/v2.1/extensions").json["extensions"]?.arrayValue ?? []
            let aliases = list.compactMap { $0["alias"]?.stringValue }
            #expect(Set(aliases).count == aliases.count)
            for alias in ["os-admin-actions", "OS-EXT-STS", "os-personality", "os-quota-class-sets", "os-server-start-stop"] {
                #expect(aliases.contains(alias), "\(alias)")
            }
            #expect(!aliases.contains("os-shelve") && !aliases.contains("os-cells"))
            for alias in aliases {
                #expect(try await cloud.call("GET", "/v2.1/extensions/\(alias)").json["extension"]?["alias"] == .string(alias))
            }
            #expect(try await cloud.call("GET", "/v2.1/extensions/os-cells").status == 404)
        }
    }

    @Test func theDefaultQuotaCanBeChanged() async throws {
        try await TestCloud.with { cloud in
            let path = "/v2.1/os-quota-class-sets/default"
            let set = try await cloud.call("PUT", path, ["quota_class_set": ["instances": 1, "cores": 2]], as: "admin")
            #expect(
                set.status == 200 && set.json["quota_class_set"]?["instances"] == 1 && set.json["quota_class_set"]?["id"] == nil,
                "\(set.json)")
            #expect(try await cloud.call("GET", path, as: "admin").json["quota_class_set"]?["cores"] == 2)
            #expect(try await cloud.call("GET", "/v2.1/os-quota-sets/p1/defaults").json["quota_set"]?["instances"] == 1)
            #expect(try await cloud.call("GET", "/v2.1/limits").json["limits"]?["absolute"]?["maxTotalInstances"] == 1)
            _ = try await cloud.createServer()
            let refused = try await cloud.call("POST", "/v2.1/servers", TestCloud.body())
            #expect(refused.status == 403 && refused.message.contains("1 of 1 instances"), "\(refused.json)")
            // A project's own limit takes precedence.
            _ = try await cloud.database.write { connection in
                try connection.execute(
                    "INSERT INTO projects (id, name, is_domain, created_at, updated_at) VALUES ('p1', 'p1', true, now(), now())")
            }
            #expect(try await cloud.call("PUT", "/v2.1/os-quota-sets/p1", ["quota_set": ["instances": 2]], as: "admin").status == 200)
            #expect(try await cloud.call("POST", "/v2.1/servers", TestCloud.body()).status == 202)
            #expect(try await cloud.call("DELETE", "/v2.1/os-quota-sets/p1", as: "admin").status == 202)
            #expect(try await cloud.call("POST", "/v2.1/servers", TestCloud.body()).status == 403)
            #expect(try await cloud.call("PUT", path, ["quota_class_set": ["instances": 3]]).status == 403)
            #expect(
                try await cloud.call("PUT", "/v2.1/os-quota-class-sets/gold", ["quota_class_set": ["instances": 3]], as: "admin").status
                    == 400)
            #expect(try await cloud.call("PUT", path, ["quota_class_set": ["instances": -2]], as: "admin").status == 400)
            #expect(try await cloud.call("PUT", path, ["quota_class_set": ["fixed_ips": 3]], as: "admin", version: "2.50").status == 400)
            #expect(try await cloud.call("PUT", path, ["quota_class_set": ["fixed_ips": 3]], as: "admin", version: "2.49").status == 200)
        }
    }

    // MARK: attachments

    /// Between the row with the device's name and Block Storage's response there is no attachment to show.
    @Test func anAttachmentHasItsIdWheneverItIsSeen() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            _ = try await cloud.database.write { connection in
                try connection.execute(
                    """
                    INSERT INTO server_volumes (id, server_id, volume_id, device, created_at)
                    VALUES (gen_random_uuid(), \(id)::uuid, \(Fixtures.volume)::uuid, '/dev/vdb', now())
                    """)
            }
            let path = "/v2.1/servers/\(id)/os-volume_attachments"
            #expect(try await cloud.call("GET", path).json["volumeAttachments"] == [])
            #expect(try await cloud.call("GET", "\(path)/\(Fixtures.volume)").status == 404)
            _ = try await cloud.database.write { connection in
                try connection.execute("UPDATE server_volumes SET attachment_id = gen_random_uuid() WHERE server_id = \(id)::uuid")
            }
            #expect(try await cloud.call("GET", path).json["volumeAttachments"]?.arrayValue?.first?["attachment_id"]?.stringValue != nil)
        }
    }

    // MARK: faults

    /// The tenant sees the reason in terms of the API, the operator also the host's error.
    @Test func s17_aFailedBuildSaysWhyWithoutTheHostsSecrets() async throws {
        try await TestCloud.with { cloud in
            cloud.cloud.failOnHost(
                "qemu-img: /var/lib/secret/disk: No space left on device", reason: "its host lacks disk space for the server's disks")
            let id = try await cloud.createServer()
            let mine = try await cloud.server(id)
            #expect(mine["fault"]?["message"] == "The host could not start the server: its host lacks disk space for the server's disks.")
            #expect(!mine.description.contains("secret"), "\(mine)")
            let all = try await cloud.server(id, as: "admin")["fault"]?["details"]?.stringValue
            #expect(all == "host host-1: qemu-img: /var/lib/secret/disk: No space left on device")
            for path in ["", "/\(id)/os-instance-actions"] {
                let seen = try await cloud.call("GET", "/v2.1/servers" + (path.isEmpty ? "/detail" : path))
                #expect(!seen.json.description.contains("secret"))
            }
        }
    }

    /// A host that fails repeatedly until the deadline has a reason too.
    @Test func overdueBuildsReportTheLastFailure() async throws {
        try await TestCloud.with { cloud in
            cloud.cloud.failOnHost(
                "libvirt: connection refused at 10.9.8.7", reason: "an error on its host while starting it", permanent: false)
            let id = try await cloud.createServer()
            let mine = try await cloud.server(id)
            #expect(mine["status"] == "ERROR")
            #expect(
                mine["fault"]?["message"]
                    == "The operation did not finish in time. The last failure: an error on its host while starting it.", "\(mine)")
            let details = try await cloud.server(id, as: "admin")["fault"]?["details"]?.stringValue ?? ""
            #expect(
                details.contains("waited past its deadline") && details.contains("host host-1: libvirt: connection refused at 10.9.8.7"),
                "\(details)")
            #expect(try await cloud.leftovers() == [])
        }
    }
}
