@testable import ComputeService
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Every member of a request has a visible effect or is refused by name.
@Suite struct ComputeRequestMemberTests {
    /// A member of `POST /servers`, and where its effect is visible.
    private struct Member: Sendable {
        let name: String
        let value: JSONValue
        /// A member of the server as shown to operators, or of the response; nil if the member is refused by name.
        var shows: (name: String, value: JSONValue)?
        var version = "2.96"
    }

    private static let address: JSONValue = "192.0.2.7"
    private static let image = Fixtures.image

    private static let members: [Member] = [
        Member(name: "name", value: "n", shows: ("name", "n")),
        Member(name: "description", value: "d", shows: ("description", "d")),
        Member(name: "metadata", value: ["k": "v"], shows: ("metadata", ["k": "v"])),
        Member(name: "tags", value: ["a", "b"], shows: ("tags", ["a", "b"])),
        Member(name: "hostname", value: "guest", shows: ("OS-EXT-SRV-ATTR:hostname", "guest")),
        Member(name: "user_data", value: "aGk=", shows: ("OS-EXT-SRV-ATTR:user_data", "aGk=")),
        Member(name: "config_drive", value: true, shows: ("config_drive", "True")),
        Member(name: "accessIPv4", value: address, shows: ("accessIPv4", address)),
        Member(name: "accessIPv6", value: "2001:db8::1", shows: ("accessIPv6", "2001:db8::1")),
        Member(name: "OS-DCF:diskConfig", value: "AUTO", shows: ("OS-DCF:diskConfig", "AUTO")),
        Member(name: "availability_zone", value: "nova", shows: ("pinned_availability_zone", "nova")),
        Member(name: "availability_zone", value: "elsewhere"),
        Member(name: "adminPass", value: "secret-1", shows: ("adminPass", "secret-1")),
        Member(name: "key_name", value: "absent"), Member(name: "security_groups", value: [["name": "absent"]]),
        Member(name: "trusted_image_certificates", value: ["c"]),
        Member(name: "personality", value: [["path": "/a", "contents": "aGk="]]),
        Member(name: "block_device_mapping", value: []), Member(name: "shares", value: []), Member(name: "admin_pass", value: "x"),
        Member(name: "imageRef", value: "22222222-2222-4222-8222-000000000000"), Member(name: "flavorRef", value: "absent"),
    ]

    @Test func membersOfANewServerAreSeenOrRefused() async throws {
        try await TestCloud.with { cloud in
            for member in ComputeRequestMemberTests.members {
                let body = TestCloud.body(JSONObject([(member.name, member.value)]))
                let answer = try await cloud.call("POST", "/v2.1/servers", body, version: member.version)
                guard let shows = member.shows else {
                    let named = [member.name, "Flavor", "Image", "ecurity group", "ecurity_group", "availability zone"].contains {
                        answer.message.contains($0)
                    }
                    #expect((400...404).contains(answer.status) && named, "\(member.name): \(answer.status) \(answer.json)")
                    continue
                }
                #expect(answer.status == 202, "\(member.name): \(answer.json)")
                let created = answer.json["server"] ?? .null
                let shown = try await cloud.server(created["id"]?.stringValue ?? "", as: "admin", version: member.version)
                #expect((shown[shows.name] ?? created[shows.name]) == shows.value, "\(member.name): \(shown)")
                _ = try await cloud.database.write { try $0.execute("UPDATE quota_usages SET used = 0") }
            }
        }
    }

    @Test func membersOfChangesAreSeenOrRefused() async throws {
        try await TestCloud.with { cloud in
            let server = TestCloud.body()["server"]?.objectValue ?? [:]
            let kinds = [
                RequestMembers(
                    "/v2.1/servers", "server", change: .put, base: server,
                    seen: [
                        .init("name", "n#"), .init("description", "d"), .init("accessIPv4", ComputeRequestMemberTests.address),
                        .init("accessIPv6", "2001:db8::1"), .init("OS-DCF:diskConfig", "AUTO"),
                        .init("hostname", "guest", shownAs: "OS-EXT-SRV-ATTR:hostname"),
                    ],
                    refused: [
                        .init("metadata", ["k": "v"]), .init("flavorRef", "2"),
                        .init("status", "ERROR"), .init("key_name", "absent"), .init("locked", true), .init("id", "x"),
                    ], elsewhere: ["pinned_availability_zone": "ServerZoneTests"]),
                RequestMembers(
                    "/v2.1/flavors", "flavor", change: .put, base: ["name": "f#", "vcpus": 1, "ram": 64, "disk": 1],
                    seen: [.init("description", "d")],
                    refused: [.init("name", "g#", with: ["description": "d"]), .init("vcpus", 2, with: ["description": "d"])]),
                RequestMembers(
                    "/v2.1/os-aggregates", "aggregate", change: .put, base: ["name": "a#"],
                    seen: [.init("name", "b#"), .init("availability_zone", "z")], refused: [.init("metadata", [:]), .init("hosts", ["h"])]),
            ]
            for kind in kinds {
                let findings = try await kind.findings(cloud.api, cloud.database) { method, path, body in
                    _ = try await cloud.database.write { try $0.execute("UPDATE quota_usages SET used = 0") }
                    let answer = try await cloud.call(method, path, body, as: "admin", version: "2.104")
                    return (answer.status, answer.json)
                }
                #expect(findings == [])
            }
        }
    }

    @Test func membersOfADeviceAreSeenOrRefused() async throws {
        try await TestCloud.with { cloud in
            let refused: [(String, JSONValue)] = [
                ("disk_bus", "ide"), ("device_type", "cdrom"), ("guest_format", "ext4"),
                ("encrypted", true), ("encryption_options", "x"), ("connection_info", "x"), ("volume_id", "x"),
            ]
            for (name, value) in refused {
                var device: JSONObject = [
                    "source_type": "volume", "destination_type": "volume", "uuid": .string(Fixtures.volume), "boot_index": 1,
                ]
                device[name] = value
                let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(["block_device_mapping_v2": [.object(device)]]))
                #expect(answer.status == 400 && answer.message.contains(name), "\(name): \(answer.status) \(answer.json)")
            }
        }
    }

    /// Actions without parameters take nothing: null, an empty object, or the empty text that gophercloud sends.
    @Test func membersOfActionsAreRefused() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let actions = [
                "os-start", "os-stop", "pause", "unpause", "suspend", "resume", "restore", "unlock", "forceDelete", "confirmResize",
                "revertResize", "unrescue", "shelve", "injectNetworkInfo",
            ]
            for action in actions {
                let path = "/v2.1/servers/\(id)/action"
                let refused = try await cloud.call("POST", path, .object(JSONObject([(action, ["x": 1] as JSONValue)])), as: "admin")
                #expect(refused.status == 400 && refused.message.contains("'x' was unexpected"), "\(action): \(refused.json)")
                for empty in ["", .null, [:]] as [JSONValue] {
                    let answer = try await cloud.call("POST", path, .object(JSONObject([(action, empty)])), as: "admin")
                    #expect(answer.status != 400, "\(action) \(empty): \(answer.json)")
                }
            }
        }
    }

    /// A body may repeat the project of the path, and name no other.
    @Test func quotasOfAnotherProjectAreRefused() async throws {
        try await TestCloud.with { cloud in
            _ = try await cloud.database.write { connection in
                try connection.execute(
                    "INSERT INTO projects (id, name, is_domain, created_at, updated_at) VALUES ('p1', 'p1', true, now(), now())")
            }
            let path = "/v2.1/os-quota-sets/p1"
            let own = try await cloud.call("PUT", path, ["quota_set": ["cores": 700, "tenant_id": "p1"]], as: "admin")
            #expect(own.status == 200, "\(own.json)")
            let other = try await cloud.call("PUT", path, ["quota_set": ["cores": 800, "tenant_id": "p2"]], as: "admin")
            #expect(other.status == 400 && other.message.contains("quota_set.tenant_id"), "\(other.json)")
        }
    }

    @Test func unsupportedHintsAreRefused() async throws {
        try await TestCloud.with { cloud in
            for hint in ["query", "build_near_host_ip", "cidr", "target_cell", "different_cell", "anything"] {
                for member in ["os:scheduler_hints", "OS-SCH-HNT:scheduler_hints"] {
                    let hints = JSONObject([(hint, JSONValue.string("x"))])
                    let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(top: JSONObject([(member, .object(hints))])))
                    #expect(answer.status == 400 && answer.message.contains(hint), "\(hint): \(answer.json)")
                }
            }
        }
    }

    @Test("S26: a server whose flavor or image requires a missing feature is refused, also if it boots from a volume")
    func s26UnsupportedHardwareIsRefused() async throws {
        try await TestCloud.with { cloud in
            func setImage(_ properties: JSONObject) async throws {
                _ = try await cloud.database.write { connection in
                    try connection.execute("UPDATE images SET properties = \(properties)::jsonb WHERE id = \(Fixtures.image)")
                    try connection.execute("UPDATE volumes SET image_metadata = \(properties)::jsonb WHERE id = \(Fixtures.volume)")
                }
            }
            let image = JSONValue.string(Fixtures.image)
            let fromVolume: JSONObject = [
                "imageRef": "<absent>",
                "block_device_mapping_v2": [
                    ["source_type": "volume", "uuid": .string(Fixtures.volume), "boot_index": 0, "destination_type": "volume"]
                ],
            ]
            let viaVolume: JSONObject = [
                "imageRef": "<absent>",
                "block_device_mapping_v2": [
                    ["source_type": "image", "uuid": image, "boot_index": 0, "destination_type": "volume", "volume_size": 2]
                ],
            ]
            try await setImage(["os_secure_boot": "required"])
            for changes in [[:], fromVolume, viaVolume] as [JSONObject] {
                for path in ["/v2.1/servers", "/v2.1/os-wolke-scheduling"] {
                    let answer = try await cloud.call("POST", path, TestCloud.body(changes))
                    #expect(answer.status == 400 && answer.message.contains("os_secure_boot"), "\(path) \(answer.status) \(answer.json)")
                }
            }
            try await setImage([:])
            let specs = "/v2.1/flavors/1/os-extra_specs"
            #expect(try await cloud.call("POST", specs, ["extra_specs": ["hw:cpu_policy": "mixed"]], as: "admin").status == 200)
            let pinned = try await cloud.call("POST", "/v2.1/servers", TestCloud.body())
            #expect(pinned.status == 400 && pinned.message.contains("hw:cpu_policy"), "\(pinned.json)")
            #expect(try await cloud.call("PUT", specs + "/hw:cpu_policy", ["hw:cpu_policy": "shared"], as: "admin").status == 200)
            for (name, value) in [("hw:cpu_policy", "perhaps"), ("hw:numa_nodes", "0"), ("quota:cpu_share", "1"), ("os:x", "y")] {
                let answer = try await cloud.call(
                    "POST", specs, ["extra_specs": .object(JSONObject([(name, .string(value))]))], as: "admin")
                #expect(answer.status == 400 && answer.message.contains(name), "\(name): \(answer.json)")
            }
            // Before 2.86 any value can be set; a server with it is still refused.
            let old = try await cloud.call(
                "POST", specs, ["extra_specs": ["hw:cpu_policy": "CPU-POLICY"]], as: "admin", version: "2.85")
            #expect(old.status == 200, "\(old.json)")
            let meaningless = try await cloud.call("POST", "/v2.1/servers", TestCloud.body())
            #expect(meaningless.status == 400 && meaningless.message.contains("hw:cpu_policy"), "\(meaningless.json)")
            #expect(try await cloud.call("PUT", specs + "/hw:cpu_policy", ["hw:cpu_policy": "shared"], as: "admin").status == 200)
            // Supported requests reach the scheduler and the agent.
            try await setImage(["img_config_drive": "mandatory", "hw_firmware_type": "uefi", "hw_architecture": "x86_64"])
            for changes in [[:], fromVolume, viaVolume] as [JSONObject] {
                let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body(changes))
                #expect(answer.status == 202, "\(answer.json)")
                let id = answer.json["server"]?["id"]?.stringValue ?? ""
                #expect(try await cloud.server(id)["config_drive"] == "True")
                let (asked, desired) = try await cloud.database.read { connection in
                    (
                        try SchedulingQuestion.load(connection, server: id, operation: id),
                        try DesiredState.load(connection, where: "s.id = \(id)").first?.spec
                    )
                }
                #expect(asked?.imageProperties["hw_architecture"] == "x86_64")
                #expect(desired?.imageProperties?["hw_firmware_type"] == "uefi")
            }
        }
    }

    @Test func unsupportedSortKeysAreRefused() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            for list in [
                "/v2.1/os-server-groups", "/v2.1/servers/\(id)/os-volume_attachments", "/v2.1/os-keypairs", "/v2.1/os-aggregates",
                "/v2.1/os-services", "/v2.1/servers/\(id)/os-instance-actions",
            ] {
                for version in ["2.1", "2.96"] {
                    let answer = try await cloud.call("GET", list + "?sort_key=nonsense&sort_dir=asc", as: "admin", version: version)
                    #expect(
                        answer.status == 400 && answer.message.contains("sort_key"), "\(list) \(version): \(answer.status) \(answer.json)")
                }
                let unknown = try await cloud.call("GET", list + "?nonsense=1", as: "admin", version: "2.75")
                #expect(unknown.status == 400 && unknown.message.contains("nonsense"), "\(list): \(unknown.json)")
            }
            let twice = try await cloud.call("GET", "/v2.1/servers?sort_key=name&sort_dir=asc&sort_dir=desc")
            #expect(twice.status == 400 && twice.message.contains("sort_dir"))
        }
    }

    @Test func aDirectionAloneTurnsTheUsualOrder() async throws {
        try await TestCloud.with { cloud in
            for name in ["a", "b", "c"] {
                #expect(
                    try await cloud.call("POST", "/v2.1/os-server-groups", ["server_group": ["name": .string(name), "policy": "affinity"]])
                        .status == 200)
            }
            func ids(_ query: String) async throws -> [String] {
                try await cloud.call("GET", "/v2.1/os-server-groups" + query).json["server_groups"]?.arrayValue?.compactMap {
                    $0["id"]?.stringValue
                } ?? []
            }
            let defaultOrder = try await ids("")
            #expect(defaultOrder.count == 3)
            #expect(try await ids("?sort_dir=desc") == defaultOrder.reversed())
            #expect(try await ids("?offset=1") == Array(defaultOrder.dropFirst()))
        }
    }
}
