import BlockStorageCore
import BlockStorageService
import Database
import JSON
import Kernel
import Testing

/// Resources that clients request and this cloud does not have: their lists are empty, ids are 404, creating one is refused with
/// the reason.
@Suite struct AbsentResourceTests {
    /// Paths of lists with the member of the response, the first version, and whether only operators see them. Listed explicitly,
    /// so that the test notices when a list disappears from the declaration.
    private static let lists: [(path: String, member: String, minor: Int, isOperators: Bool)] = [
        ("backups", "backups", 0, false), ("backups/detail", "backups", 0, false),
        ("os-volume-transfer", "transfers", 0, false), ("os-volume-transfer/detail", "transfers", 0, false),
        ("volume-transfers", "transfers", 0, false), ("volume-transfers/detail", "transfers", 0, false),
        ("groups", "groups", 13, false), ("groups/detail", "groups", 13, false),
        ("group_snapshots", "group_snapshots", 14, false), ("group_snapshots/detail", "group_snapshots", 14, false),
        ("group_types", "group_types", 11, false), ("consistencygroups/detail", "consistencygroups", 0, false),
        ("cgsnapshots/detail", "cgsnapshots", 0, false), ("messages", "messages", 3, false),
        ("qos-specs", "qos_specs", 0, true), ("clusters", "clusters", 7, true), ("clusters/detail", "clusters", 7, true),
        ("default-types", "default_types", 62, true), ("manageable_volumes", "manageable-volumes", 8, true),
        ("manageable_snapshots/detail", "manageable-snapshots", 8, true),
    ]

    @Test func listsThatClientsAskForAreEmpty() async throws {
        try await VolumeFixture.with { cloud in
            for list in Self.lists {
                let token = list.isOperators ? "admin" : "member"
                for path in ["/v3/\(list.path)", "/v3/\(list.isOperators ? "admin" : "p1")/\(list.path)"] {
                    let answer = try await cloud.call("GET", path, token: token, version: "3.70")
                    #expect(answer.status == 200, "\(path): \(answer.json)")
                    #expect(answer[list.member] == [], "\(path): \(answer.json)")
                }
                if list.isOperators {
                    #expect(try await cloud.call("GET", "/v3/\(list.path)", version: "3.70").status == 403, "\(list.path)")
                }
                if list.minor > 0 {
                    let earlier = try await cloud.call("GET", "/v3/\(list.path)", token: token, version: "3.\(list.minor - 1)")
                    #expect(earlier.status == 404, "\(list.path) before its version: \(earlier.json)")
                }
                #expect(
                    try await cloud.call("GET", "/v3/\(list.path)", token: token, version: "3.\(list.minor)").status == 200, "\(list.path)")
            }
        }
    }

    @Test func parametersOfEmptyListsAreChecked() async throws {
        try await VolumeFixture.with { cloud in
            let wrong = [
                "limit=-1", "limit=x", "offset=-1", "sort=name:sideways", "sort_key=nonsense", "sort=name&sort_key=name",
                "all_tenants=perhaps", "nonsense=1",
            ]
            for list in ["backups/detail", "groups/detail", "messages", "volume-transfers"] {
                for query in wrong {
                    let answer = try await cloud.call("GET", "/v3/\(list)?\(query)", version: "3.70")
                    // Whether `all_tenants` is a boolean only matters for lists with items.
                    if query.hasPrefix("all_tenants") { continue }
                    #expect(answer.status == 400, "\(list)?\(query): \(answer.status) \(answer.json)")
                }
                let marker = try await cloud.call("GET", "/v3/\(list)?marker=nobody", version: "3.70")
                #expect(marker.status == 404, "\(list): \(marker.json)")
                let right = try await cloud.call(
                    "GET", "/v3/\(list)?limit=5&offset=0&sort=created_at:asc&all_tenants=1&with_count=True", version: "3.70")
                #expect(right.status == 200, "\(list): \(right.json)")
                #expect(right["count"] == 0)
                // Before 3.31, unknown filters were ignored.
                #expect(try await cloud.call("GET", "/v3/\(list)?nonsense=1", version: "3.30").status == 200, "\(list)")
            }
            #expect(try await cloud.call("GET", "/v3/volumes/detail?nonsense=1", version: "3.31").status == 400)
            #expect(try await cloud.call("GET", "/v3/volumes/detail?nonsense=1", token: "admin", version: "3.31").status == 200)
        }
    }

    @Test func absentResourcesAreNotFoundAndCreatesAreRefused() async throws {
        try await VolumeFixture.with { cloud in
            let id = "0a0a0a0a-0000-4000-8000-00000000000b"
            for kind in AbsentResource.all {
                let shown = try await cloud.call("GET", "/v3/\(kind.path)/\(id)", token: "admin", version: "3.70")
                #expect(shown.status == 404)
                #expect(shown["itemNotFound"]?["message"]?.stringValue?.contains(id) == true, "\(kind.path): \(shown.json)")
            }
            let backup = try await cloud.call("POST", "/v3/backups", version: "3.70", ["backup": ["volume_id": .string(id)]])
            #expect(backup.status == 501)
            #expect(backup.json.description.contains("Backups are not available in this cloud."), "\(backup.json)")
            #expect(try await cloud.call("POST", "/v3/backups", token: "reader", ["backup": [:]]).status == 403)
            #expect(try await cloud.call("POST", "/v3/backups/\(id)/restore", ["restore": [:]]).status == 404)
            #expect(try await cloud.call("POST", "/v3/volume-transfers", ["transfer": [:]]).status == 501)
            #expect(try await cloud.call("DELETE", "/v3/messages/\(id)", version: "3.70").status == 404)
            let volume = try await cloud.create()
            let action = "/v3/volumes/\(volume)/action"
            let migration = try await cloud.call("POST", action, token: "admin", ["os-migrate_volume": ["host": "x"]])
            #expect(migration.status == 501 && migration.json.description.contains("not available in this cloud"), "\(migration.json)")
            #expect(try await cloud.call("POST", action, ["os-migrate_volume": ["host": "x"]]).status == 403)
            #expect(
                try await cloud.call("POST", action, token: "other", version: "3.40", ["revert": ["snapshot_id": .string(id)]]).status
                    == 404)
            #expect(try await cloud.call("PUT", "/v3/clusters/disable", token: "admin", version: "3.70", ["name": "x"]).status == 501)
        }
    }

    @Test func unsupportedExtraSpecsAreRefused() async throws {
        try await VolumeFixture.with { cloud in
            func create(_ name: String, _ specs: JSONValue) async throws -> VolumeFixture.Answer {
                try await cloud.call("POST", "/v3/types", token: "admin", ["volume_type": ["name": .string(name), "extra_specs": specs]])
            }
            for (key, value) in [
                ("replication_enabled", "<is> True"), ("capabilities:replication_enabled", "<is>  true"),
                ("replication_enabled", "True"), ("capabilities:replication_enabled", "true"),
            ] {
                let answer = try await create("t", .object(JSONObject([(key, .string(value))])))
                #expect(answer.status == 400)
                #expect(answer.json.description.contains(key), "\(answer.json)")
            }
            let creation = try await create(
                "plain", ["replication_enabled": "<is> False", "storage": "ssd", "thin_provisioning_support": "<is> True"])
            #expect(creation.status == 200, "\(creation.json)")
            let type = try #require(creation["volume_type"]?["id"]?.stringValue)
            #expect(
                try await cloud.call(
                    "POST", "/v3/types/\(type)/extra_specs", token: "admin", ["extra_specs": ["replication_enabled": "<is> True"]]
                )
                .status == 400)
            #expect(
                try await cloud.call(
                    "PUT", "/v3/types/\(type)/extra_specs/replication_enabled", token: "admin", ["replication_enabled": "<is> True"]
                )
                .status == 400)
            #expect(try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 1, "volume_type": "plain"]]).status == 202)
            // A type that was created before, or that names another backend.
            try await cloud.database.write { connection in
                try connection.execute(
                    "UPDATE volume_types SET extra_specs = '{\"replication_enabled\": \"<is> True\"}' WHERE id = \(type)::uuid")
            }
            let refused = try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 1, "volume_type": "plain"]])
            #expect(refused.status == 400)
            #expect(refused.json.description.contains("replication_enabled"), "\(refused.json)")
            #expect(try await create("other", ["volume_backend_name": "lvm"]).status == 200)
            #expect(try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 1, "volume_type": "other"]]).status == 400)
            let volume = try await cloud.create()
            #expect(try await cloud.call("POST", "/v3/volumes/\(volume)/action", ["os-retype": ["new_type": "plain"]]).status == 400)
            // A copy of a volume with such a type has that type too.
            let old = try await cloud.create()
            try await cloud.database.write {
                _ = try $0.execute("UPDATE volumes SET volume_type_id = \(type)::uuid WHERE id = \(old)::uuid")
            }
            let snapshot = try await cloud.call("POST", "/v3/snapshots", ["snapshot": ["volume_id": .string(old)]])
            #expect(snapshot.status == 202, "\(snapshot.json)")
            try await cloud.settle()
            let sources: [JSONValue] = [["source_volid": .string(old)], ["snapshot_id": snapshot["snapshot"]?["id"] ?? .null]]
            for source in sources {
                let copy = try await cloud.call("POST", "/v3/volumes", ["volume": source])
                #expect(copy.status == 400 && copy.json.description.contains("replication_enabled"), "\(copy.json)")
            }
            let asked = try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 1, "multiattach": "True"]])
            #expect(asked.status == 400 && asked.json.description.contains("multiattach"), "\(asked.json)")
            let all = try await cloud.call("GET", "/v3/volumes/detail")["volumes"]?.arrayValue ?? []
            #expect(!all.isEmpty && all.allSatisfy { $0["multiattach"] == false })
            // Users see, and can filter by, the specs that concern them.
            let found = try await cloud.call(
                "GET", "/v3/types?extra_specs=%7B%22replication_enabled%22:%22%3Cis%3E%20True%22%7D", version: "3.52")
            #expect(found["volume_types"]?.arrayValue?.map { $0["name"] } == ["plain"], "\(found.json)")
            #expect(found["volume_types"]?.arrayValue?.first?["extra_specs"] == ["replication_enabled": "<is> True"])
            let hidden = try await cloud.call("GET", "/v3/types?extra_specs=%7B%22volume_backend_name%22:%22lvm%22%7D", version: "3.52")
            #expect(hidden["volume_types"] == [])
        }
    }

    @Test func aReadOnlyVolumeSaysSo() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create(["size": 1, "metadata": ["k": "v"]])
            #expect(try await cloud.volume(id)["metadata"] == ["k": "v"])
            func set(_ flag: Bool) async throws {
                let answer = try await cloud.call(
                    "POST", "/v3/volumes/\(id)/action", ["os-update_readonly_flag": ["readonly": .bool(flag)]])
                #expect(answer.status == 202)
            }
            try await set(true)
            #expect(try await cloud.volume(id)["metadata"] == ["k": "v", "readonly": "True"])
            #expect(try await cloud.call("GET", "/v3/volumes/detail")["volumes"]?.arrayValue?.first?["metadata"]?["readonly"] == "True")
            // It is not an item of the user's metadata.
            #expect(try await cloud.call("GET", "/v3/volumes/\(id)/metadata")["metadata"] == ["k": "v"])
            let server = "0a0a0a0a-0000-4000-8000-00000000000a"
            let legacy: JSONValue = ["os-attach": ["instance_uuid": .string(server), "mountpoint": "/dev/vdb", "mode": "rw"]]
            #expect(try await cloud.call("POST", "/v3/volumes/\(id)/action", token: "admin", legacy).status == 400)
            let creation = try await cloud.call(
                "POST", "/v3/p1/attachments", token: "service", version: "3.70",
                ["attachment": ["volume_uuid": .string(id), "instance_uuid": .string(server), "connector": ["host": "h1"]]])
            #expect(creation["attachment"]?["attach_mode"] == "ro", "\(creation.json)")
            #expect(creation["attachment"]?["connection_info"]?["read_only"] == true)
            let attachment = creation["attachment"]?["id"]?.stringValue ?? ""
            #expect(try await cloud.call("DELETE", "/v3/p1/attachments/\(attachment)", token: "service", version: "3.70").status == 200)
            try await set(false)
            #expect(try await cloud.volume(id)["metadata"] == ["k": "v", "readonly": "False"])
        }
    }

    @Test func imageMetadataMayBeAsLongAsCinders() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            func set(_ name: String, _ value: String) async throws -> VolumeFixture.Answer {
                try await cloud.call(
                    "POST", "/v3/volumes/\(id)/action",
                    ["os-set_image_metadata": ["metadata": .object(JSONObject([(name, .string(value))]))]])
            }
            let long = String(repeating: "x", count: 65_535)
            #expect(try await set("description", long).status == 200)
            #expect(try await cloud.volume(id)["volume_image_metadata"]?["description"] == .string(long))
            #expect(try await set("description", long + "x").status == 400)
            // Characters of several bytes count as several bytes.
            #expect(try await set("description", String(repeating: "ö", count: 40_000)).status == 400)
            for name in ["", "a&b", String(repeating: "n", count: 256)] {
                #expect(try await set(name, "v").status == 400, "\(name.prefix(10))")
            }
        }
    }

    @Test func anAttachmentIsCompleteAlsoWithoutAConnector() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            let creation = try await cloud.call(
                "POST", "/v3/p1/attachments", version: "3.70",
                ["attachment": ["volume_uuid": .string(id), "instance_uuid": "0a0a0a0a-0000-4000-8000-00000000000a"]])
            let attachment = creation["attachment"]?["id"]?.stringValue ?? ""
            let path = "/v3/p1/attachments/\(attachment)"
            #expect(try await cloud.call("POST", path + "/action", version: "3.70", ["os-complete": [:]]).status == 204)
            #expect(try await cloud.call("GET", path, version: "3.70")["attachment"]?["status"] == "attached")
            let volume = try await cloud.volume(id)
            #expect(volume["status"] == "in-use")
            #expect(volume["attachments"]?.arrayValue?.first?["attachment_id"] == .string(attachment))
            // It is not attached to a server: a caller that reported it attached can report it detached.
            #expect(try await cloud.call("DELETE", path, version: "3.70").status == 200)
            #expect(try await cloud.status(id) == "available")
        }
    }

    @Test func quotasBelowUsageAreRefused() async throws {
        try await VolumeFixture.with { cloud in
            _ = try await cloud.create(["size": 2])
            func set(_ limit: Int) async throws -> VolumeFixture.Answer {
                try await cloud.call(
                    "PUT", "/v3/os-quota-sets/p1", token: "admin", ["quota_set": ["volumes": 7, "gigabytes": JSONValue(limit)]])
            }
            let refused = try await set(1)
            #expect(refused.status == 400)
            #expect(refused.json.description.contains("gigabytes"), "\(refused.json)")
            #expect(try await cloud.call("GET", "/v3/os-quota-sets/p1", token: "admin")["quota_set"]?["volumes"] == 10)
            #expect(try await set(2).status == 200)
            #expect(try await set(-1).status == 200)
            let shown = try await cloud.call("GET", "/v3/os-quota-sets/p1?usage=True", token: "admin")["quota_set"]
            for name in ["volumes", "snapshots", "gigabytes", "per_volume_gigabytes", "backups", "backup_gigabytes", "groups"] {
                #expect(shown?[name]?["limit"]?.intValue != nil && shown?[name]?["in_use"]?.intValue != nil, "\(name)")
            }
        }
    }

    @Test func volumesAreFoundByTime() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            let created = try #require(try await cloud.volume(id)["created_at"]?.stringValue)
            func count(_ filter: String) async throws -> Int? {
                try await cloud.call("GET", "/v3/volumes?\(filter)", version: "3.60")["volumes"]?.arrayValue?.count
            }
            #expect(try await count("created_at=gte:\(created)") == 1)
            #expect(try await count("created_at=gt:\(created)") == 0)
            #expect(try await count("created_at=gte:\(created),lt:2100-01-01T00:00:00") == 1)
            #expect(try await count("created_at=lt:2000-01-01") == 0)
            #expect(try await cloud.call("GET", "/v3/volumes?created_at=gt:yesterday", version: "3.60").status == 400)
            #expect(try await cloud.call("GET", "/v3/volumes?created_at=gt:2000-01-01", version: "3.59").status == 400)
            #expect(try await count("group_id=x") == 0)
            let filters = try await cloud.call("GET", "/v3/resource_filters?resource=volume", version: "3.60")
            #expect(filters["resource_filters"]?.arrayValue?.first?["filters"]?.arrayValue?.contains("created_at") == true)
        }
    }
}
