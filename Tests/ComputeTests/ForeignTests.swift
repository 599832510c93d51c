import ComputeService
import Database
import JSON
import Kernel
import TestKit
import Testing
import WebAPI
import Workflow

/// Resources of another project cannot be used for a server, in any member of a request; and the subjects with which Compute
/// calls other services.
@Suite struct ForeignTests {
    private static let snapshot = "55555555-5555-4555-8555-555555555555"
    private static let foreignSnapshot = "55555555-5555-4555-8555-666666666666"
    private static let foreignVolume = "33333333-3333-4333-8333-444444444444"
    private static let foreignGroup = "66666666-6666-4666-8666-666666666666"
    private static let foreignServerGroup = "77777777-7777-4777-8777-777777777777"
    private static let shared = "11111111-1111-4111-8111-444444444444"

    private static func with(_ body: (TestCloud) async throws -> Void) async throws {
        try await TestCloud.with { cloud in
            let now = cloud.compute.ambient.now
            try await cloud.database.write { connection in
                try Fixtures.insertVolume(connection, id: foreignVolume, project: "p2", size: 1)
                for (id, volume, project) in [(snapshot, Fixtures.volume, "p1"), (foreignSnapshot, foreignVolume, "p2")] {
                    try connection.execute(
                        """
                        INSERT INTO volume_snapshots (id, volume_id, project_id, user_id, status, size, format, created_at, updated_at)
                        VALUES (\(id), \(volume), \(project), 'u', 'available', 2, 'raw', \(now), \(now))
                        """)
                }
                try connection.execute(
                    "INSERT INTO volume_types (id, name, is_public, created_at) VALUES (gen_random_uuid(), 'theirs', false, \(now))")
                try connection.execute(
                    "INSERT INTO security_groups (id, project_id, name, created_at, updated_at) VALUES (\(foreignGroup), 'p2', 'theirs', \(now), \(now))"
                )
                try connection.execute(
                    """
                    INSERT INTO server_groups (id, project_id, user_id, name, policy, created_at)
                    VALUES (\(foreignServerGroup), 'p2', 'u3', 'theirs', 'affinity', \(now))
                    """)
                try connection.execute(
                    "INSERT INTO keypairs (user_id, name, type, public_key, fingerprint, created_at) VALUES ('u3', 'theirs', 'ssh', 'k', 'f', \(now))"
                )
                try connection.execute(
                    """
                    INSERT INTO networks (id, project_id, name, shared, mtu, provider_type, segmentation_id, created_at, updated_at)
                    VALUES (\(shared), 'p2', 'shared', true, 1442, 'geneve', 9, \(now), \(now))
                    """)
                try connection.execute(
                    """
                    INSERT INTO subnets (id, network_id, project_id, ip_version, cidr, gateway_ip, created_at, updated_at)
                    VALUES (gen_random_uuid(), \(shared), 'p2', 4, '10.9.0.0/24', '10.9.0.1', \(now), \(now)),
                        (gen_random_uuid(), \(Fixtures.foreignNetwork), 'p2', 4, '10.8.0.0/24', '10.8.0.1', \(now), \(now))
                    """)
            }
            try await body(cloud)
        }
    }

    private static func device(_ source: String, _ id: String?, _ more: JSONObject = [:]) -> JSONObject {
        var device: JSONObject = ["source_type": .string(source), "destination_type": "volume", "boot_index": 1, "volume_size": 2]
        device["uuid"] = JSONValue(id)
        for member in more.members { device[member.name] = member.value }
        return ["block_device_mapping_v2": [.object(device)]]
    }

    private static func booting(_ source: String, _ id: String) -> JSONObject {
        var changes = device(source, id, ["boot_index": 0])
        changes["imageRef"] = "<absent>"
        return changes
    }

    @Test("S10: a server cannot use resources of another project: 4xx, and nothing is created")
    func s10ForeignResourcesCannotBeUsedByServers()
        async throws
    {
        try await ForeignTests.with { cloud in
            let cases: [(String, JSONObject)] = [
                ("snapshot", ForeignTests.device("snapshot", ForeignTests.foreignSnapshot)),
                ("boot from snapshot", ForeignTests.booting("snapshot", ForeignTests.foreignSnapshot)),
                ("volume", ForeignTests.device("volume", ForeignTests.foreignVolume)),
                ("boot from volume", ForeignTests.booting("volume", ForeignTests.foreignVolume)),
                ("volume from image", ForeignTests.device("image", Fixtures.foreignImage)),
                ("boot from image's volume", ForeignTests.booting("image", Fixtures.foreignImage)),
                ("image", ["imageRef": .string(Fixtures.foreignImage)]),
                ("volume type", ForeignTests.device("blank", nil, ["volume_type": "theirs"])),
                ("snapshot with volume type", ForeignTests.device("snapshot", ForeignTests.snapshot, ["volume_type": "theirs"])),
                ("network", ["networks": [["uuid": .string(Fixtures.foreignNetwork)]]]),
                ("port", ["networks": [["port": .string(Fixtures.foreignPort)]]]),
                ("address of a shared network", ["networks": [["uuid": .string(ForeignTests.shared), "fixed_ip": "10.9.0.77"]]]),
                ("gateway of a shared network", ["networks": [["uuid": .string(ForeignTests.shared), "fixed_ip": "10.9.0.1"]]]),
                ("security group", ["security_groups": [["name": .string(ForeignTests.foreignGroup)]]]),
                ("key pair", ["key_name": "theirs"]), ("flavor", ["flavorRef": "3"]),
            ]
            for (name, changes) in cases {
                let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(changes))
                #expect([400, 403, 404].contains(answer.status), "\(name): \(answer.status) \(answer.json)")
                let trial = try await cloud.call("POST", "/v2.1/os-wolke-scheduling", TestCloud.body(changes)).status
                #expect(trial >= 400, "\(name), tried: \(trial)")
            }
            let hinted = try await cloud.call(
                "POST", "/v2.1/servers",
                TestCloud.body(top: ["os:scheduler_hints": ["group": .string(ForeignTests.foreignServerGroup)]]))
            #expect(hinted.status == 400, "\(hinted.json)")
            let foreign = cloud.compute.ambient.newUUID().description
            try await cloud.database.write { connection in
                try connection.execute(
                    """
                    INSERT INTO servers (id, project_id, user_id, name, hostname, vm_state, flavor_id, flavor, reservation_id, deleted, created_at, updated_at)
                    SELECT \(foreign), 'p2', 'u3', 'theirs', 'theirs', 'active', id, '{}', 'r-1', false, now(), now() FROM flavors LIMIT 1
                    """)
            }
            for hint in ["same_host", "different_host"] {
                let hints = JSONObject([(hint, JSONValue.array([.string(foreign)]))])
                let answer = try await cloud.call(
                    "POST", "/v2.1/servers", TestCloud.body(top: ["os:scheduler_hints": .object(hints)]))
                #expect(answer.status == 400, "\(hint): \(answer.json)")
            }
            try await cloud.database.write { _ = try $0.execute("DELETE FROM servers WHERE id = \(foreign)") }
            let creation = try await cloud.database.read { connection in
                try ["servers", "workflows", "server_interfaces", "server_volumes", "quota_usages"].filter {
                    try connection.query("SELECT count(*) AS n FROM \(raw: $0)")[0].int("n") > 0
                }
            }
            #expect(creation == [])
            #expect(cloud.cloud.subjects == [])
        }
    }

    @Test("S20: only an administrator can choose a server's host") func s20TenantsChooseNoHost() async throws {
        try await ForeignTests.with { cloud in
            let choices: [JSONObject] = [
                ["availability_zone": "nova:host-1"], ["availability_zone": "nova:host-1:host-1"], ["availability_zone": "nova::host-1"],
                ["host": "host-1"], ["hypervisor_hostname": "host-1"],
            ]
            for choice in choices {
                for path in ["/v2.1/servers", "/v2.1/os-wolke-scheduling"] {
                    let answer = try await cloud.call("POST", path, TestCloud.body(choice))
                    #expect(answer.status == 403, "\(path) \(choice): \(answer.status) \(answer.json)")
                }
            }
            let creation = try await cloud.database.read { try $0.query("SELECT count(*) AS n FROM servers")[0].int("n") }
            #expect(creation == 0)
            let answer = try await cloud.call(
                "POST", "/v2.1/servers",
                TestCloud.body(["availability_zone": "nova:host-1", "networks": [["uuid": .string(Fixtures.network)]]]), as: "admin")
            #expect(answer.status == 202, "\(answer.json)")
        }
    }

    @Test("S10: a running server cannot use resources of another project") func s10ForeignResourcesCannotBeAttached() async throws {
        try await ForeignTests.with { cloud in
            let id = try await cloud.createServer()
            let before = cloud.cloud.subjects
            for (path, body) in [
                ("os-interface", ["interfaceAttachment": ["net_id": .string(Fixtures.foreignNetwork)]]),
                ("os-interface", ["interfaceAttachment": ["port_id": .string(Fixtures.foreignPort)]]),
                (
                    "os-interface",
                    ["interfaceAttachment": ["net_id": .string(ForeignTests.shared), "fixed_ips": [["ip_address": "10.9.0.77"]]]]
                ),
                (
                    "os-interface",
                    ["interfaceAttachment": ["net_id": .string(ForeignTests.shared), "fixed_ips": [["ip_address": "10.9.0.1"]]]]
                ),
                ("os-volume_attachments", ["volumeAttachment": ["volumeId": .string(ForeignTests.foreignVolume)]]),
                ("action", ["addSecurityGroup": ["name": .string(ForeignTests.foreignGroup)]]),
            ] as [(String, JSONValue)] {
                let answer = try await cloud.call("POST", "/v2.1/servers/\(id)/\(path)", body)
                #expect([400, 403, 404].contains(answer.status), "\(path) \(body): \(answer.status) \(answer.json)")
            }
            #expect(cloud.cloud.subjects == before)
        }
    }

    @Test func aSecurityGroupOfAllPortsIsOneCall() async throws {
        try await ForeignTests.with { cloud in
            let id = try await cloud.createServer()
            let group = SystemRandom().uuid().description
            let second = SystemRandom().uuid().description
            try await cloud.database.write { connection in
                try connection.execute(
                    """
                    INSERT INTO security_groups (id, project_id, name, created_at, updated_at)
                    VALUES (\(group)::uuid, 'p1', 'extra', now(), now())
                    """)
                try connection.execute(
                    """
                    INSERT INTO ports (id, network_id, project_id, mac_address, device_id, device_owner, host_id, status, created_at, updated_at)
                    SELECT \(second)::uuid, network_id, project_id, 'fa:16:3e:77:77:77', device_id, device_owner, host_id, status, now(), now()
                    FROM ports WHERE device_id = \(id)
                    """)
                try connection.execute(
                    """
                    INSERT INTO server_interfaces (port_id, server_id, position, network_id, created)
                    SELECT \(second)::uuid, server_id, 1, network_id, true FROM server_interfaces WHERE server_id = \(id)::uuid
                    """)
            }
            func ports() async throws -> Int {
                try await cloud.database.read {
                    try $0.query("SELECT count(*) AS n FROM port_security_groups WHERE security_group_id = \(group)::uuid")[0].int("n")
                }
            }
            for (key, count) in [("addSecurityGroup", 2), ("removeSecurityGroup", 0)] {
                let calls = cloud.cloud.subjects.count
                let body = JSONObject([(key, ["name": "extra"] as JSONValue)])
                #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", .object(body)).status == 202)
                #expect(try await ports() == count)
                #expect(cloud.cloud.subjects.count == calls + 1, "\(key)")
            }
        }
    }

    @Test("S10: Image's rules, including the operator's policy file, decide which image a server can boot")
    func s10ImagePolicyDecides() async throws {
        let foreign = Fixtures.foreignImage
        func boot(_ image: String, _ policy: [String: String], as token: String = "member") async throws -> [(Int, String)] {
            try await TestCloud.with(imagePolicy: policy) { cloud in
                try await cloud.database.write {
                    _ = try $0.execute("UPDATE images SET visibility = 'community' WHERE id = \(foreign)")
                }
                var answers: [(Int, String)] = []
                for changes in [["imageRef": .string(image)], ForeignTests.booting("image", image)] as [JSONObject] {
                    let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(changes), as: token)
                    answers.append((answer.status, answer.message))
                }
                let creation = try await cloud.database.read { try $0.query("SELECT count(*) AS n FROM servers")[0].int("n") }
                #expect(creation == answers.filter { $0.0 == 202 }.count)
                return answers
            }
        }
        for (status, _) in try await boot(foreign, [:]) { #expect(status == 202) }
        for (status, message) in try await boot(foreign, ["get_image": "role:reader and project_id:%(project_id)s"]) {
            #expect(status == 400 && message.contains("could not be found"), "\(status) \(message)")
        }
        for (status, message) in try await boot(Fixtures.image, ["download_image": "rule:admin_required"]) {
            #expect(status == 403 && message.contains("download_image"), "\(status) \(message)")
        }
    }

    @Test("S10: an image that only the user may read is fetched with the user's rights, and no volume is created from it")
    func s10TheUsersRightsAreRecorded() async throws {
        try await TestCloud.with(imagePolicy: ["download_image": "rule:admin_required or user_domain_id:default"]) { cloud in
            let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body())
            #expect(answer.status == 202, "\(answer.json)")
            let id = answer.json["server"]?["id"]?.stringValue ?? ""
            let recorded = try await cloud.database.read { try $0.query("SELECT image FROM servers WHERE id = \(id)")[0].json("image") }
            #expect(recorded["administrator"]?["project"] == "p1" && recorded["administrator"]?["user"] == "u1", "\(recorded)")
            let volume = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(ForeignTests.booting("image", Fixtures.image)))
            #expect(volume.status == 403 && volume.message.contains("may not download"), "\(volume.json)")
        }
    }

    @Test("S10: the rule admin_required decides who is an administrator") func s10AdministratorsAreTheRules() async throws {
        try await TestCloud.with(policy: ["admin_required": "role:cloud_admin"]) { cloud in
            let foreign: JSONObject = ["networks": [["uuid": .string(Fixtures.network)]]]
            let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(foreign), as: "admin")
            #expect(answer.status == 400, "\(answer.status) \(answer.json)")
        }
    }

    @Test("S10: Compute calls on behalf of the server's project, and of an administrator only if the project is not allowed")
    func s10Subjects() async throws {
        try await ForeignTests.with { cloud in
            let member = ActingSubject.accepted(project: "p1", user: "u1")
            _ = try await cloud.createServer(ForeignTests.device("snapshot", ForeignTests.snapshot))
            #expect(Set(cloud.cloud.subjects) == [member])
            let project = ActingSubject.accepted(project: "admin", user: "admin")
            let administrator = ActingSubject(project: "admin", user: "admin", grounds: .user)
            let answer = try await cloud.call(
                "POST", "/v2.1/servers", TestCloud.body(["networks": [["uuid": .string(Fixtures.network)]]]), as: "admin")
            #expect(answer.status == 202)
            try await cloud.engine().drain()
            #expect(cloud.cloud.subjects.last == administrator)
            // Undo and delete do not depend on the administrator's rights at that time.
            let id = answer.json["server"]?["id"]?.stringValue ?? ""
            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)", as: "admin").status == 204)
            try await cloud.engine().drain()
            #expect(cloud.cloud.subjects.last == project)
        }
    }
}
