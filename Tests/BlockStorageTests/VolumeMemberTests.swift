import Database
import JSON
import Kernel
import TestKit
import Testing

/// Every member of a request has a visible effect or is refused by name.
@Suite struct VolumeMemberTests {
    @Test func membersOfANewVolumeAreSeenOrRefused() async throws {
        try await VolumeFixture.with { cloud in
            let image = try await cloud.addImage([UInt8](repeating: 7, count: 4096))
            let source = try await cloud.create()
            let seen: [(String, JSONValue, String, JSONValue)] = [
                ("name", "n", "name", "n"), ("description", "d", "description", "d"), ("display_name", "n", "name", "n"),
                ("display_description", "d", "description", "d"), ("metadata", ["k": "v"], "metadata", ["k": "v"]),
                ("imageRef", .string(image), "bootable", "true"), ("image_id", .string(image), "bootable", "true"),
                ("source_volid", .string(source), "source_volid", .string(source)),
                ("volume_type", "__DEFAULT__", "volume_type", "__DEFAULT__"),
                ("availability_zone", "nova", "availability_zone", "nova"), ("multiattach", false, "multiattach", false),
                // Older clients send the only possible value.
                ("status", "creating", "size", 1), ("attach_status", "detached", "size", 1),
                ("project_id", "p1", "os-vol-tenant-attr:tenant_id", "p1"),
                ("user_id", "u1", "user_id", "u1"),
            ]
            for (name, value, shown, expected) in seen {
                let id = try await cloud.create(.object(JSONObject([("size", 1), (name, value)])))
                #expect(try await cloud.volume(id)[shown] == expected, "\(name)")
                _ = try await cloud.database.write { try $0.execute("UPDATE quota_usages SET used = 0") }
            }
            let refused: [(String, JSONValue)] = [
                ("multiattach", true), ("consistencygroup_id", "x"), ("group_id", "x"), ("backup_id", "x"), ("source_replica", "x"),
                ("status", "available"), ("attach_status", "attached"), ("availability_zone", "elsewhere"), ("encryption_key_id", "x"),
                ("project_id", "p2"), ("user_id", "u9"), ("replication_status", "enabled"), ("volume_type", "absent"), ("nonsense", 1),
            ]
            for (name, value) in refused {
                let answer = try await cloud.call("POST", "/v3/volumes", ["volume": .object(JSONObject([("size", 1), (name, value)]))])
                let named = [name, "vailability zone", "Volume type", "volume type"].contains { answer.json.description.contains($0) }
                #expect((400...404).contains(answer.status) && named, "\(name): \(answer.status) \(answer.json)")
            }
            for hint in ["different_host", "local_to_instance", "query"] {
                let hints = JSONObject([(hint, JSONValue.string(source))])
                let answer = try await cloud.call(
                    "POST", "/v3/volumes", ["volume": ["size": 1], "OS-SCH-HNT:scheduler_hints": .object(hints)])
                #expect(answer.status == 400 && answer.json.description.contains(hint), "\(hint): \(answer.json)")
            }
            let foreign = try await cloud.call(
                "POST", "/v3/volumes", token: "other",
                ["volume": ["size": 1], "OS-SCH-HNT:scheduler_hints": ["same_host": .string(source)]])
            #expect(foreign.status == 400 && foreign.json.description.contains(source), "\(foreign.json)")
            let own = try await cloud.call(
                "POST", "/v3/volumes", ["volume": ["size": 1], "OS-SCH-HNT:scheduler_hints": ["same_host": [.string(source)]]])
            #expect(own.status == 202, "\(own.json)")
            let two = try await cloud.call(
                "POST", "/v3/volumes", ["volume": ["size": 1, "imageRef": .string(image), "image_id": .string(source)]])
            #expect(two.status == 400 && two.json.description.contains("image_id"))
        }
    }

    @Test func forceOfASnapshotIsRefusedWhereItCannotHelp() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            func snapshot(_ force: Bool, version: String) async throws -> VolumeFixture.Answer {
                try await cloud.call(
                    "POST", "/v3/snapshots", version: version, ["snapshot": ["volume_id": .string(id), "force": .bool(force)]])
            }
            #expect(try await snapshot(true, version: "3.0").status == 202)
            #expect(try await snapshot(false, version: "3.65").status == 202)
            #expect(try await snapshot(true, version: "3.66").status == 202)
            #expect(try await snapshot(false, version: "3.66").status == 400)
            try await cloud.settle()
            _ = try await cloud.database.write { try $0.execute("UPDATE volumes SET status = 'in-use' WHERE id = \(id)::uuid") }
            // It is not attached to a server, so no host can copy it.
            for version in ["3.0", "3.66"] {
                let answer = try await snapshot(true, version: version)
                #expect(answer.status == 400 && answer.json.description.contains("no host can take a consistent copy"), "\(answer.json)")
            }
        }
    }

    @Test func membersOfActionsAreKnownOrRefused() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            let bodies: [(String, JSONValue)] = [
                ("os-extend", ["new_size": 2, "nonsense": 1]), ("os-set_bootable", ["bootable": true, "nonsense": 1]),
                ("os-update_readonly_flag", ["readonly": true, "nonsense": 1]), ("os-retype", ["new_type": "x", "nonsense": 1]),
                ("os-reset_status", ["status": "error", "nonsense": 1]),
                ("os-reset_status", ["status": "error", "attach_status": "attached"]),
                ("os-reset_status", ["status": "error", "migration_status": "migrating"]),
                ("os-attach", ["instance_uuid": .string(id), "mountpoint": "/dev/vdb", "nonsense": 1]),
            ]
            for (key, body) in bodies {
                let answer = try await cloud.call("POST", "/v3/volumes/\(id)/action", token: "admin", .object(JSONObject([(key, body)])))
                let named = ["nonsense", "attach_status", "migration_status"].contains { answer.json.description.contains($0) }
                #expect(answer.status == 400 && named, "\(key): \(answer.status) \(answer.json)")
            }
            let repair: JSONValue = ["os-reset_status": ["status": "available", "attach_status": "detached", "migration_status": "none"]]
            #expect(try await cloud.call("POST", "/v3/volumes/\(id)/action", token: "admin", repair).status == 202)
            let attachment: JSONValue = ["volume_uuid": .string(id), "instance_uuid": .string(id), "nonsense": 1]
            #expect(try await cloud.call("POST", "/v3/attachments", ["attachment": attachment]).status == 400)
            for query in ["force=perhaps", "cascade=perhaps"] {
                #expect(try await cloud.call("DELETE", "/v3/volumes/\(id)?\(query)").status == 400, "\(query)")
            }
        }
    }
}
