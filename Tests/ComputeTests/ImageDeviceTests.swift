import ComputeCore
import Database
import JSON
import Kernel
import Testing
import Workflow

@testable import ComputeService

/// Servers from images that define disks, and block device mappings of requests.
@Suite struct ImageDeviceTests {
    private func setMapping(_ cloud: TestCloud, _ mapping: JSONValue, bdm: String? = "True") async throws {
        var properties: JSONObject = ["block_device_mapping": .string(String(decoding: mapping.encoded, as: UTF8.self))]
        if let bdm { properties["bdm_v2"] = .string(bdm) }
        let text = properties
        _ = try await cloud.database.write {
            try $0.execute("UPDATE images SET properties = \(text)::jsonb WHERE id = \(Fixtures.image)")
        }
    }

    private func snapshot(_ cloud: TestCloud, project: String = "p1") async throws -> String {
        let id = cloud.compute.ambient.newUUID().description
        _ = try await cloud.database.write { connection in
            try connection.execute(
                """
                INSERT INTO volume_snapshots (id, volume_id, project_id, user_id, name, status, size, format, created_at, updated_at)
                VALUES (\(id), \(Fixtures.volume), \(project), 'u1', 's', 'available', 1, 'raw', now(), now())
                """)
        }
        return id
    }

    private func entry(_ snapshot: String, _ changes: JSONObject = [:]) -> JSONValue {
        var entry: JSONObject = [
            "source_type": "snapshot", "destination_type": "volume", "snapshot_id": .string(snapshot), "volume_size": 1, "boot_index": 0,
            "device_name": "/dev/vda", "delete_on_termination": true, "no_device": .null, "guest_format": .null, "device_type": "disk",
            "disk_bus": "virtio",
        ]
        for (name, value) in changes.members { entry[name] = value }
        return .object(entry)
    }

    @Test func serversAreMadeFromImagesThatDefineDisks() async throws {
        try await TestCloud.with { cloud in
            let (root, data) = (try await snapshot(cloud), try await snapshot(cloud))
            try await setMapping(cloud, [entry(root), entry(data, ["boot_index": .null, "device_name": "/dev/vdb", "tag": "data"])])
            let id = try await cloud.createServer()
            let server = try await cloud.server(id)
            #expect(server["status"] == "ACTIVE" && server["image"] == "")
            func volumes(_ id: String) async throws -> [(boot: Int?, ends: Bool, tag: String?)] {
                try await cloud.database.read { connection in
                    try connection.query(
                        "SELECT boot_index, delete_on_termination, tag FROM server_volumes WHERE server_id = \(id) ORDER BY device"
                    )
                    .map { (try $0.optionalInt("boot_index"), try $0.bool("delete_on_termination"), try $0.optionalString("tag")) }
                }
            }
            let creation = try await volumes(id)
            #expect(creation.map(\.boot) == [0, nil] && creation.map(\.ends) == [true, true] && creation.map(\.tag) == [nil, "data"])
            // The request's own devices replace those of the image with the same name, or remove them.
            let other = try await cloud.createServer([
                "block_device_mapping_v2": [["device_name": "vdb", "no_device": true]]
            ])
            #expect(try await volumes(other).map(\.boot) == [0])
            let own = try await cloud.createServer([
                "imageRef": .string(Fixtures.image),
                "block_device_mapping_v2": [
                    [
                        "device_name": "/dev/vdb", "source_type": "blank", "destination_type": "volume", "volume_size": 2, "tag": "own",
                    ]
                ],
            ])
            #expect(try await volumes(own).map(\.tag) == [nil, "own"])
        }
    }

    @Test("S3: images cannot give a server the snapshots of other projects") func s3ForeignSnapshots() async throws {
        try await TestCloud.with { cloud in
            let foreign = try await snapshot(cloud, project: "p2")
            try await setMapping(cloud, [entry(foreign)])
            let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body([:]))
            #expect(answer.status == 400 && answer.message.contains("failed to get snapshot \(foreign)"))
        }
    }

    @Test func mappingsThatCannotBeHonouredAreRefused() async throws {
        try await TestCloud.with { cloud in
            let root = try await snapshot(cloud)
            let cases: [(JSONValue, String?, String)] = [
                ("[", nil, "not a list"), ([entry(root)], nil, "form before version 2"), ([1], "True", "not an object"),
                ([entry(root, ["disk_bus": "scsi"])], "True", "disk_bus 'scsi'"),
                ([entry(root, ["device_type": "cdrom"])], "True", "device_type 'cdrom'"),
                ([entry(root, ["guest_format": "ntfs"])], "True", "guest_format 'ntfs'"),
                ([entry(root), entry(root)], "True", "Boot sequence"),
                (.array(Array(repeating: entry(root, ["boot_index": .null]), count: 26)), "True", "more than 25"),
            ]
            for (mapping, bdm, message) in cases {
                try await setMapping(cloud, mapping, bdm: bdm)
                let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body([:]))
                #expect(answer.status == 400 && answer.message.contains(message), "\(answer.json)")
            }
        }
    }

    @Test func localDisksAreTheFlavors() async throws {
        try await TestCloud.with { cloud in
            _ = try await cloud.database.write { try $0.execute("UPDATE flavors SET ephemeral_gb = 2, swap_mb = 64") }
            func create(_ devices: [JSONValue]) async throws -> TestCloud.Answer {
                let root: JSONValue = [
                    "boot_index": 0, "uuid": .string(Fixtures.image), "source_type": "image", "destination_type": "local", "tag": "system",
                ]
                return try await cloud.call(
                    "POST", "/v2.1/servers", TestCloud.body(["block_device_mapping_v2": .array([root] + devices)]))
            }
            func blank(_ changes: JSONObject = [:]) -> JSONValue {
                var device: JSONObject = ["source_type": "blank", "destination_type": "local", "boot_index": -1]
                for (name, value) in changes.members { device[name] = value }
                return .object(device)
            }
            let good = try await create([blank(["volume_size": 2]), blank(["guest_format": "swap", "volume_size": 64])])
            #expect(good.status == 202, "\(good.json)")
            try await cloud.engine().drain()
            let spec = try #require(cloud.cloud.received.last { $0["server"] != nil })
            #expect(spec["server"]?["ephemeral_gb"] == 2 && spec["server"]?["swap_mb"] == 64)
            #expect(spec["server"]?["metadata"]?["devices"]?.arrayValue?.first?["tags"] == ["system"])
            // Replicas of release 0.1.0 would create a volume for each entry.
            let stored = try await cloud.database.read {
                try $0.query("SELECT requested_devices FROM servers WHERE NOT deleted").map { try $0.json("requested_devices") }
            }
            #expect(stored == [[]])
            let cases: [([JSONValue], String)] = [
                ([blank(["volume_size": 1])], "the ephemeral disk has the flavor's size"), ([blank(), blank()], "one ephemeral disk"),
                ([blank(["guest_format": "swap", "volume_size": 65])], "the swap disk has the flavor's size"),
                ([blank(["uuid": .string(Fixtures.image)])], "Invalid device UUID"), ([blank(["tag": "t"])], "cannot have a tag"),
                (
                    [["source_type": "image", "destination_type": "local", "uuid": .string(Fixtures.image), "boot_index": 1] as JSONValue],
                    "Mapping image to local is not supported"
                ),
            ]
            for (devices, message) in cases {
                let answer = try await create(devices)
                #expect(answer.status == 400 && answer.message.contains(message), "\(answer.json)")
            }
            _ = try await cloud.database.write { try $0.execute("UPDATE flavors SET ephemeral_gb = 0, swap_mb = 0") }
            #expect(try await create([blank()]).message.contains("the flavor has no ephemeral disk"))
        }
    }
}
