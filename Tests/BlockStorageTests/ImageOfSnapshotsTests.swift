import JSON
import TestKit
import Testing

/// Volumes from images that have no data of their own, but name snapshots.
@Suite struct ImageOfSnapshotsTests {
    private func image(_ cloud: VolumeFixture, of snapshot: String, bootIndex: Int = 0) async throws -> String {
        let mapping: JSONValue = [
            ["source_type": "snapshot", "destination_type": "volume", "snapshot_id": .string(snapshot), "boot_index": JSONValue(bootIndex)]
        ]
        let text = String(decoding: mapping.encoded, as: UTF8.self)
        return try await cloud.addImage([], properties: ["block_device_mapping": .string(text), "bdm_v2": "True"])
    }

    private func create(_ cloud: VolumeFixture, from image: String, version: String = "3.46") async throws -> VolumeFixture.Answer {
        try await cloud.call("POST", "/v3/volumes", version: version, ["volume": ["size": 1, "imageRef": .string(image)]])
    }

    @Test func theVolumeHasTheContentOfTheSnapshot() async throws {
        try await VolumeFixture.with { cloud in
            let data = try await cloud.addImage([UInt8](repeating: 7, count: 4096))
            let source = try await cloud.create(["size": 1, "imageRef": .string(data)])
            let taken = try await cloud.call("POST", "/v3/p1/snapshots", ["snapshot": ["volume_id": .string(source)]])
            let snapshot = taken["snapshot"]?["id"]?.stringValue ?? ""
            try await cloud.settle()
            let answer = try await create(cloud, from: try await image(cloud, of: snapshot))
            #expect(answer.status == 202, "\(answer.json)")
            try await cloud.settle()
            let volume = try await cloud.volume(answer["volume"]?["id"]?.stringValue ?? "")
            #expect(
                volume["status"] == "available" && volume["snapshot_id"] == .string(snapshot) && volume["bootable"] == "true", "\(volume)")
        }
    }

    @Test func anImageWithoutABootSnapshotIsRefused() async throws {
        try await VolumeFixture.with { cloud in
            let source = try await cloud.create()
            let taken = try await cloud.call("POST", "/v3/p1/snapshots", ["snapshot": ["volume_id": .string(source)]])
            let snapshot = taken["snapshot"]?["id"]?.stringValue ?? ""
            try await cloud.settle()
            let other = try await create(cloud, from: try await image(cloud, of: snapshot, bootIndex: 1))
            #expect(other.status == 400 && other.json.description.contains("names no snapshot"), "\(other.json)")
            let old = try await create(cloud, from: try await image(cloud, of: snapshot), version: "3.45")
            #expect(old.status == 400 && old.json.description.contains("3.46"), "\(old.json)")
            let absent = "22222222-2222-4222-8222-222222222222"
            let missing = try await create(cloud, from: try await image(cloud, of: absent))
            #expect(missing.status == 404 && missing.json.description.contains(absent), "\(missing.json)")
        }
    }
}
