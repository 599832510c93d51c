import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import ServiceKit
import TestKit
import Testing
import WebAPI
import Workflow

@testable import ComputeService

/// `createImage` and `rebuild` of servers that boot from volumes, and snapshots of volumes in use.
@Suite struct VolumeImageTests {
    private static let onVolume: JSONObject = [
        "imageRef": "",
        "block_device_mapping_v2": [
            [
                "boot_index": 0, "uuid": .string(Fixtures.volume), "source_type": "volume", "destination_type": "volume",
                "delete_on_termination": true,
            ]
        ],
    ]

    private struct StoredImage {
        let status: String
        let size: Int?
        let properties: JSONObject
        var mapping: [JSONValue] {
            get throws { try JSONValue.parse(properties["block_device_mapping"]?.stringValue ?? "").arrayValue ?? [] }
        }
    }

    private func images(_ cloud: TestCloud) async throws -> [StoredImage] {
        try await cloud.database.read { connection in
            try connection.query("SELECT status, size, properties FROM images WHERE properties ? 'bdm_v2' ORDER BY created_at, id").map {
                StoredImage(status: try $0.string("status"), size: try $0.optionalInt("size"), properties: try $0.object("properties"))
            }
        }
    }

    private func snapshots(_ cloud: TestCloud) async throws -> [(id: String, volume: String, status: String)] {
        try await cloud.database.read { connection in
            try connection.query("SELECT id, volume_id, status FROM volume_snapshots ORDER BY created_at, id").map {
                (try $0.string("id"), try $0.string("volume_id"), try $0.string("status"))
            }
        }
    }

    private func jobs(_ cloud: TestCloud) async throws -> Int {
        try await cloud.database.read { try $0.query("SELECT count(*) AS count FROM server_jobs")[0].int("count") }
    }

    private func createImage(_ cloud: TestCloud, _ id: String) async throws -> TestCloud.Answer {
        cloud.workWhileWaiting()
        return try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["createImage": ["name": "copy", "metadata": ["a": "b"]]])
    }

    private func attach(_ cloud: TestCloud, _ server: String, tag: String) async throws -> String {
        let volume = cloud.compute.ambient.newUUID().description
        try await cloud.database.write { try Fixtures.insertVolume($0, id: volume, project: "p1", size: 3) }
        cloud.workWhileWaiting()
        let body: JSONValue = ["volumeAttachment": ["volumeId": .string(volume), "tag": .string(tag)]]
        #expect(try await cloud.call("POST", "/v2.1/servers/\(server)/os-volume_attachments", body).status == 200)
        try await cloud.engine().drain()
        return volume
    }

    @Test func anImageOfAServerOnVolumesNamesTheirSnapshots() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer(VolumeImageTests.onVolume)
            let data = try await attach(cloud, id, tag: "data")
            let answer = try await createImage(cloud, id)
            #expect(answer.status == 202, "\(answer.json)")
            try await cloud.engine().drain()
            let image = try #require(try await images(cloud).first)
            #expect(image.status == "active" && image.size == 0)
            #expect(image.properties["root_device_name"] == "/dev/vda" && image.properties["bdm_v2"] == "True")
            #expect(image.properties["a"] == "b" && image.properties["instance_uuid"] == .string(id))
            let snapshots = try await snapshots(cloud)
            #expect(snapshots.map(\.status) == ["available", "available"])
            let mapping = try image.mapping
            #expect(mapping.map { $0["boot_index"] } == [0, .null])
            #expect(mapping.map { $0["volume_size"] } == [1, 3])
            #expect(mapping.map { $0["tag"] } == [.null, "data"])
            #expect(mapping.map { $0["delete_on_termination"] } == [true, false])
            for (entry, volume) in zip(mapping, [Fixtures.volume, data]) {
                #expect(entry["source_type"] == "snapshot" && entry["destination_type"] == "volume")
                #expect(snapshots.contains { JSONValue.string($0.id) == entry["snapshot_id"] && $0.volume == volume })
            }
            // One job copied both volumes at the same point in time, to files next to the volumes.
            let jobs = Set(
                cloud.cloud.received.compactMap { $0["server"]?["jobs"]?.arrayValue?.first?["copies"]?["volumes"]?.arrayValue?.count })
            #expect(jobs == [2])
            #expect(try await self.jobs(cloud) == 0)
            #expect(try await cloud.server(id)["OS-EXT-STS:task_state"] == .null)
            #expect(try await cloud.leftovers() == [])
        }
    }

    /// Block Storage keeps the attributes of the image that a volume was made from beside its properties.
    @Test func attributesOfTheVolumesImageAreNoProperties() async throws {
        try await TestCloud.with { cloud in
            let metadata: JSONObject = [
                "image_id": .string(Fixtures.image), "image_name": "i", "size": "7", "checksum": "c", "container_format": "bare",
                "disk_format": "raw", "min_ram": "1", "min_disk": "0", "hw_disk_bus": "scsi",
            ]
            func setMetadata(_ table: SQL, _ condition: SQL) async throws {
                try await cloud.database.write { connection in
                    try connection.execute("UPDATE \(table) = \(metadata)::jsonb WHERE \(condition)")
                }
            }
            try await setMetadata("volumes SET image_metadata", "id = \(Fixtures.volume)")
            let id = try await cloud.createServer(VolumeImageTests.onVolume)
            for step in 0..<2 {
                let answer = try await createImage(cloud, id)
                #expect(answer.status == 202, "\(answer.json)")
                try await cloud.engine().drain()
                let image = try #require(try await images(cloud).last)
                #expect(image.properties["hw_disk_bus"] == "scsi" && image.properties["image_name"] == nil, "\(image.properties)")
                // Servers of earlier builds have the attributes among their properties.
                if step == 0 { try await setMetadata("servers SET image_properties", "id = \(id)") }
            }
        }
    }

    @Test func aVolumeWithSnapshotsOutlivesItsServer() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer(VolumeImageTests.onVolume)
            #expect(try await createImage(cloud, id).status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)").status == 204)
            try await cloud.engine().drain()
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)").status == 404)
            let kept = try await cloud.database.read {
                try $0.query("SELECT status FROM volumes WHERE id = \(Fixtures.volume)").map { try $0.string("status") }
            }
            #expect(kept == ["available"])
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func failuresLeaveNeitherImageNorSnapshots() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer(VolumeImageTests.onVolume)
            cloud.cloud.refuseSnapshots(ResourceError(.tooLarge, "Maximum number of snapshots allowed (10) exceeded"))
            let refused = try await createImage(cloud, id)
            #expect(refused.status == 403 && refused.message.contains("snapshots allowed"))
            try await cloud.engine().drain()
            cloud.cloud.refuseSnapshots(nil)
            cloud.cloud.failJobs("no room for the copy")
            #expect(try await createImage(cloud, id).status == 202)
            try await cloud.engine().drain()
            #expect(try await images(cloud).isEmpty)
            #expect(try await snapshots(cloud).isEmpty)
            #expect(try await jobs(cloud) == 0)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
        }
    }

    @Test func snapshotsOfVolumesInUseAreCopiedByTheHost() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer(VolumeImageTests.onVolume)
            let task = VolumeCopyTask(cloud.compute)
            #expect(try await task.runOnce() == 0)
            func ask() async throws {
                _ = try await cloud.cloud.createSnapshot(
                    ["volume_id": .string(Fixtures.volume), "name": "s"], as: .accepted(project: "p1", user: "u1"),
                    operation: cloud.compute.ambient.newUUID().description)
            }
            // Two snapshots of one volume are copied one after the other.
            for _ in 0..<2 { try await ask() }
            cloud.workWhileWaiting()
            #expect(try await task.runOnce() == 1)
            #expect(try await task.runOnce() == 0)
            try await cloud.engine().drain()
            #expect(try await snapshots(cloud).map(\.status).sorted() == ["available", "creating"])
            #expect(try await task.runOnce() == 1)
            try await cloud.engine().drain()
            #expect(try await snapshots(cloud).map(\.status) == ["available", "available"])
            // A failure is reported to Block Storage.
            try await ask()
            cloud.cloud.failJobs("no room for the copy")
            #expect(try await task.runOnce() == 1)
            try await cloud.engine().drain()
            #expect(try await snapshots(cloud).map(\.status).sorted() == ["available", "available", "error"])
            cloud.cloud.failJobs(nil)
            // So is a volume that is no longer attached to a server.
            try await ask()
            _ = try await cloud.database.write { try $0.execute("DELETE FROM server_volumes WHERE server_id = \(id)") }
            #expect(try await task.runOnce() == 1)
            #expect(try await snapshots(cloud).filter { $0.status == "error" }.count == 2)
            #expect(try await jobs(cloud) == 0)
        }
    }

    @Test func unneededCopiesAreCancelled() async throws {
        try await TestCloud.with { cloud in
            _ = try await cloud.createServer(VolumeImageTests.onVolume)
            _ = try await cloud.cloud.createSnapshot(
                ["volume_id": .string(Fixtures.volume), "name": "s"], as: .accepted(project: "p1", user: "u1"), operation: "ask")
            cloud.cloud.holdJobs(true)
            #expect(try await VolumeCopyTask(cloud.compute).runOnce() == 1)
            try? await cloud.engine().drain(roundsMax: 4)
            #expect(try await jobs(cloud) == 1)
            // An operator has deleted it.
            _ = try await cloud.database.write { try $0.execute("DELETE FROM volume_snapshots") }
            try await cloud.engine().drain()
            #expect(try await jobs(cloud) == 0)
        }
    }

    /// Every step fails, runs twice, or its process dies.
    @Test(arguments: ["server.volume_image", "server.copy_volumes", "server.rebuild_volume"]) func underEveryDisturbance(kind: String)
        async throws
    {
        try await TestCloud.with { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == kind })
            for variant in WorkflowChecks(definition).variants {
                let name = Comment(rawValue: variant.name)
                let id = try await cloud.createServer(VolumeImageTests.onVolume)
                if kind == "server.volume_image" { cloud.workWhileWaiting([variant.definition]) }
                let engine = cloud.engine([variant.definition])
                if kind == "server.volume_image" {
                    try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["createImage": ["name": "copy"]])
                } else if kind == "server.rebuild_volume" {
                    try await cloud.call(
                        "POST", "/v2.1/servers/\(id)/action", ["rebuild": ["imageRef": .string(Fixtures.image)]], version: "2.93")
                } else {
                    _ = try await cloud.cloud.createSnapshot(
                        ["volume_id": .string(Fixtures.volume), "name": "s"], as: .accepted(project: "p1", user: "u1"),
                        operation: variant.name)
                    try await VolumeCopyTask(cloud.compute).runOnce()
                }
                try await engine.drain()
                let snapshots = try await snapshots(cloud).map(\.status)
                if kind == "server.volume_image" {
                    #expect(try await images(cloud).map(\.status) == (variant.succeeds ? ["active"] : []), name)
                    #expect(snapshots == (variant.succeeds ? ["available"] : []), name)
                } else if kind == "server.rebuild_volume" {
                    // The host's report that the guest runs again ends the rebuild.
                    let isRebuilt =
                        variant.succeeds || variant.name == "started fails after its effects" || variant.name.hasPrefix("finish")
                    #expect(try await cloud.server(id)["status"] == (isRebuilt ? "ACTIVE" : "ERROR"), name)
                } else {
                    let isReported = variant.succeeds || variant.name == "finish fails after its effects"
                    #expect(snapshots == (isReported ? ["available"] : ["error"]), name)
                }
                #expect(try await jobs(cloud) == 0, name)
                #expect(try await cloud.server(id)["OS-EXT-STS:task_state"] == .null, name)
                try await cloud.database.write { connection in
                    try connection.execute("UPDATE server_volumes SET delete_on_termination = false")
                    try connection.execute("DELETE FROM volume_snapshots")
                    try connection.execute("DELETE FROM images WHERE properties ? 'bdm_v2'")
                }
                cloud.time.whenWaiting { try await cloud.cloud.work(cloud.consumer) }
                try await cloud.call("DELETE", "/v2.1/servers/\(id)")
                try await cloud.engine().drain()
            }
        }
    }

    // MARK: rebuild

    private func rebuild(_ cloud: TestCloud, _ id: String, image: String = Fixtures.image) async throws -> TestCloud.Answer {
        cloud.workWhileWaiting()
        return try await cloud.call(
            "POST", "/v2.1/servers/\(id)/action", ["rebuild": ["imageRef": .string(image)]], version: "2.93")
    }

    private func fault(_ cloud: TestCloud, _ id: String) async throws -> String? {
        try await cloud.server(id)["fault"]?["message"]?.stringValue
    }

    @Test func aVolumeIsWrittenWhileTheGuestIsOff() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer(VolumeImageTests.onVolume)
            let answer = try await rebuild(cloud, id)
            #expect(answer.status == 202, "\(answer.json)")
            #expect(try await cloud.server(id)["status"] == "REBUILD")
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            let source = try await cloud.database.read {
                try $0.query("SELECT source_image_id FROM volumes WHERE id = \(Fixtures.volume)")[0].optionalString("source_image_id")
            }
            #expect(source == Fixtures.image)
            let orders = cloud.cloud.received.compactMap { $0["server"] }.suffix(2)
            #expect(orders.map { $0["power"]?.stringValue } == ["shutoff", "running"])
            #expect(orders.map { $0["operation"]?["kind"]?.stringValue } == [nil, "rebuild"])
            // A server that is off stays off.
            _ = try await cloud.database.write { try $0.execute("UPDATE servers SET vm_state = 'stopped', power = 'shutoff'") }
            #expect(try await rebuild(cloud, id).status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "SHUTOFF")
        }
    }

    @Test func aVolumeThatIsCopiedIsNotWritten() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer(VolumeImageTests.onVolume)
            func ask() async throws {
                _ = try await cloud.cloud.createSnapshot(
                    ["volume_id": .string(Fixtures.volume), "name": "s"], as: .accepted(project: "p1", user: "u1"),
                    operation: cloud.compute.ambient.newUUID().description)
            }
            try await ask()
            let refused = try await rebuild(cloud, id)
            #expect(refused.status == 409 && refused.message.contains("A snapshot of volume"), "\(refused.json)")
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            _ = try await cloud.database.write { try $0.execute("DELETE FROM volume_snapshots") }
            // A snapshot that is requested during a rebuild is not copied by the host.
            #expect(try await rebuild(cloud, id).status == 202)
            try await ask()
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(try await snapshots(cloud).map(\.status) == ["error"])
        }
    }

    @Test func otherServersKeepTheContentOfAVolume() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer(VolumeImageTests.onVolume)
            _ = try await cloud.database.write {
                try $0.execute(
                    """
                    INSERT INTO volume_attachments (id, volume_id, project_id, server_id, status, created_at, updated_at)
                    VALUES (gen_random_uuid(), \(Fixtures.volume), 'p1', gen_random_uuid(), 'attached', now(), now())
                    """)
            }
            let refused = try await rebuild(cloud, id)
            #expect(refused.status == 409 && refused.message.contains("other servers"), "\(refused.json)")
        }
    }

    @Test func aRebuildIsNotResetWhileItsVolumeIsWritten() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer(VolumeImageTests.onVolume)
            #expect(try await rebuild(cloud, id).status == 202)
            let reset: JSONValue = ["os-resetState": ["state": "active"]]
            let refused = try await cloud.call("POST", "/v2.1/servers/\(id)/action", reset, as: "admin")
            #expect(refused.status == 409 && refused.message.contains("rebuild"), "\(refused.json)")
            // If something else ends the task, the image is no longer written.
            _ = try await cloud.database.write { try $0.execute("UPDATE servers SET task_state = NULL") }
            try await cloud.engine().drain()
            let source = try await cloud.database.read {
                try $0.query("SELECT source_image_id FROM volumes WHERE id = \(Fixtures.volume)")[0].optionalString("source_image_id")
            }
            #expect(source == nil)
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", reset, as: "admin").status == 202)
        }
    }

    @Test func aVolumeThatCannotBeWrittenIsAnError() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer(VolumeImageTests.onVolume)
            cloud.cloud.refuseSnapshots(.badRequest("Invalid image"))
            #expect(try await rebuild(cloud, id).status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "ERROR")
            #expect(try await fault(cloud, id) == "Invalid image")
            cloud.cloud.refuseSnapshots(nil)
            #expect(try await rebuild(cloud, id).status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            _ = try await cloud.database.write { try $0.execute("UPDATE images SET min_disk = 2 WHERE id = \(Fixtures.image)") }
            let large = try await rebuild(cloud, id)
            #expect(large.status == 400 && large.message.contains("does not fit"))
        }
    }
}
