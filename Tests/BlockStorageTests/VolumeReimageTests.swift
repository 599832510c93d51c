import BlockStorageCore
import BlockStorageService
import Database
import Foundation
import JSON
import Kernel
import ServiceKit
import TestKit
import Testing
import Workflow

/// Writing an image to an existing volume.
@Suite struct VolumeReimageTests {
    private func reimage(
        _ cloud: VolumeFixture, _ id: String, _ image: String, isReserved: Bool = false, token: String = "member", version: String = "3.68"
    ) async throws -> VolumeFixture.Answer {
        try await cloud.call(
            "POST", "/v3/p1/volumes/\(id)/action", token: token, version: version,
            ["os-reimage": ["image_id": .string(image), "reimage_reserved": .bool(isReserved)]])
    }

    private func start(_ cloud: VolumeFixture, _ id: String) throws -> [UInt8] {
        let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: "\(cloud.directory)/volume-\(id)"))
        defer { try? file.close() }
        return Array(try file.read(upToCount: 3) ?? Data())
    }

    private func volume(_ cloud: VolumeFixture, _ id: String) async throws -> JSONValue {
        try await cloud.call("GET", "/v3/volumes/\(id)")["volume"] ?? .null
    }

    @Test func aVolumeGetsAnImagesContent() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            let image = try await cloud.addImage(Array(repeating: 7, count: 10_000))
            #expect(try await reimage(cloud, id, image, version: "3.67").status == 400)
            #expect(try await reimage(cloud, id, image).status == 202)
            #expect(try await volume(cloud, id)["status"] == "downloading")
            try await cloud.settle()
            let now = try await volume(cloud, id)
            #expect(now["status"] == "available" && now["bootable"] == "true")
            #expect(now["volume_image_metadata"]?["image_id"] == .string(image))
            #expect(try start(cloud, id) == [7, 7, 7])
            #expect(cloud.files == ["volume-\(id)"])
        }
    }

    @Test func invalidReimagesAreRefused() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            #expect(try await reimage(cloud, id, SystemRandom().uuid().description).status == 400)
            let image = try await cloud.addImage([1])
            _ = try await cloud.database.write { try $0.execute("UPDATE images SET min_disk = 5") }
            #expect(try await reimage(cloud, id, image).status == 400)
            _ = try await cloud.database.write { try $0.execute("UPDATE images SET min_disk = 0") }
            _ = try await cloud.database.write { try $0.execute("UPDATE volumes SET status = 'reserved'") }
            #expect(try await reimage(cloud, id, image).status == 400)
            #expect(try await reimage(cloud, id, image, isReserved: true).status == 202)
            try await cloud.settle()
            #expect(try await volume(cloud, id)["status"] == "available")
        }
    }

    @Test("S3: only Compute writes to the volume of a server") func s3VolumeOfAServer() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            let image = try await cloud.addImage(Array(repeating: 7, count: 100))
            let attachment = try await cloud.call(
                "POST", "/v3/attachments", version: "3.70",
                ["attachment": ["volume_uuid": .string(id), "instance_uuid": .string(SystemRandom().uuid().description)]])
            #expect(attachment.status == 200, "\(attachment.json)")
            for token in ["member", "admin"] {
                #expect(try await reimage(cloud, id, image, isReserved: true, token: token).status == 400)
            }
            #expect(try await reimage(cloud, id, image, isReserved: true, token: "service").status == 202)
            try await cloud.settle()
            #expect(try await volume(cloud, id)["status"] == "reserved")
            #expect(try start(cloud, id) == [7, 7, 7])
        }
    }

    @Test func aDetachedVolumeIsNotFreeWhileItIsWritten() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            let image = try await cloud.addImage(Array(repeating: 7, count: 100))
            let attached = try await cloud.call(
                "POST", "/v3/attachments", version: "3.70",
                ["attachment": ["volume_uuid": .string(id), "instance_uuid": .string(SystemRandom().uuid().description)]])
            let attachment = try #require(attached["attachment"]?["id"]?.stringValue, "\(attached.json)")
            #expect(try await reimage(cloud, id, image, isReserved: true, token: "service").status == 202)
            #expect(try await cloud.call("DELETE", "/v3/p1/attachments/\(attachment)", token: "service", version: "3.70").status == 200)
            #expect(try await volume(cloud, id)["status"] == "downloading")
            try await cloud.settle()
            #expect(try await volume(cloud, id)["status"] == "available")
        }
    }

    /// Every step fails, runs twice, or its process dies: the volume has the old content or the new one, and nothing else is left.
    @Test func underEveryDisturbance() async throws {
        try await VolumeFixture.with { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == "volume_reimage" })
            let image = try await cloud.addImage(Array(repeating: 7, count: 100))
            for variant in WorkflowChecks(definition).variants {
                let name = Comment(rawValue: variant.name)
                let id = try await cloud.create()
                #expect(try await reimage(cloud, id, image).status == 202, name)
                let ambient = Ambient(time: cloud.time, random: SeededRandom(seed: 9))
                try await cloud.settle(cloud.module.engine(replacing: [variant.definition], ambient: ambient))
                let status = try await volume(cloud, id)["status"]
                if variant.succeeds {
                    #expect(status == "available", name)
                    #expect(try start(cloud, id) == [7, 7, 7], name)
                } else {
                    #expect(status == "error" || variant.name.hasPrefix("publish fails after"), name)
                    #expect(try [[0, 0, 0], [7, 7, 7]].contains(start(cloud, id)), name)
                }
                #expect(cloud.files.filter { !$0.hasSuffix(".lock") } == ["volume-\(id)"], name)
                #expect(try await cloud.call("DELETE", "/v3/volumes/\(id)").status == 202, name)
                try await cloud.settle()
                #expect(cloud.files == [], name)
            }
        }
    }
}
