import BlockStorageCore
import BlockStorageService
import Database
import Foundation
import ImageAccess
import JSON
import Kernel
import ServiceKit
import Synchronization
import Testing
import TestKit
import Workflow

/// Images of volumes.
@Suite struct VolumeUploadTests {
    private func upload(
        _ cloud: VolumeFixture, _ id: String, _ changes: JSONObject = [:], engine: WorkflowEngine? = nil
    ) async throws -> VolumeFixture.Answer {
        var body: JSONObject = ["image_name": "copy", "disk_format": "raw", "container_format": "bare"]
        for (name, value) in changes.members { body[name] = value }
        let request = JSONValue.object(["os-volume_upload_image": .object(body)])
        cloud.workWhileWaiting(engine)
        return try await cloud.call("POST", "/v3/volumes/\(id)/action", version: "3.70", request)
    }

    private func files(_ cloud: VolumeFixture) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: cloud.directory).filter { !$0.hasPrefix("volume-") }
    }

    @Test(arguments: ["raw", "qcow2"]) func aVolumeBecomesAnImage(format: String) async throws {
        try await VolumeFixture.with { cloud in
            let source = try await cloud.addImage(Array(repeating: 3, count: 10_000))
            let id = try await cloud.create(["size": 1, "imageRef": .string(source)])
            let answer = try await upload(cloud, id, ["disk_format": .string(format), "visibility": "shared", "protected": true])
            #expect(answer.status == 202, "\(answer.json)")
            let form = try #require(answer["os-volume_upload_image"])
            #expect(form["status"] == "uploading" && form["size"] == 1 && form["disk_format"] == .string(format))
            #expect(form["visibility"] == "shared" && form["protected"] == true)
            try await cloud.settle()
            let image = try #require(form["image_id"]?.stringValue)
            let createdImage = try #require(cloud.images.created.withLock { $0[image] })
            #expect(
                createdImage["disk_format"] == .string(format) && createdImage["protected"] == true
                    && createdImage["visibility"] == "shared")
            #expect(createdImage["checksum"] == nil && createdImage["image_id"] == nil)
            let data = try #require(cloud.images.data.withLock { $0[image] })
            if format == "raw" {
                #expect(data.prefix(10) == [3, 3, 3, 3, 3, 3, 3, 3, 3, 3])
            } else {
                #expect(data.prefix(4) == [0x51, 0x46, 0x49, 0xfb])
            }
            #expect(try await cloud.call("GET", "/v3/volumes/\(id)")["volume"]?["status"] == "available")
            #expect(try files(cloud) == [])
        }
    }

    @Test func unsupportedUploadsAreRefused() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            for (changes, text) in [
                (["disk_format": "vmdk"], "raw or qcow2"), (["container_format": "ova"], "bare"), (["image_name": ""], "image_name"),
            ] as [(JSONObject, String)] {
                var body: JSONObject = ["image_name": "copy"]
                for (name, value) in changes.members { body[name] = value }
                let answer = try await cloud.call("POST", "/v3/volumes/\(id)/action", ["os-volume_upload_image": .object(body)])
                #expect(answer.status == 400 && answer.json.description.contains(text), "\(answer.json)")
            }
            let body: JSONValue = ["os-volume_upload_image": ["image_name": "copy", "visibility": "public"]]
            #expect(try await cloud.call("POST", "/v3/volumes/\(id)/action", version: "3.1", body).status == 403)
            #expect(try await cloud.call("POST", "/v3/volumes/\(id)/action", version: "3.0", body).status == 400)
            _ = try await cloud.database.write { try $0.execute("UPDATE volumes SET status = 'in-use'") }
            let busy = try await cloud.call(
                "POST", "/v3/volumes/\(id)/action", ["os-volume_upload_image": ["image_name": "copy", "force": true]])
            #expect(busy.status == 400 && busy.json.description.contains("available"))
        }
    }

    @Test("S11: an image of a volume has the properties of the volume's image and those that its user may give it")
    func s11ProtectedProperties() async throws {
        let file =
            "[^hw_disk]\ncreate = admin\nread = @\nupdate = admin\ndelete = admin\n[.*]\ncreate = @\nread = @\nupdate = @\ndelete = @"
        try await VolumeFixture.with(protections: try PropertyProtections(file)) { cloud in
            let source = try await cloud.addImage([UInt8](repeating: 3, count: 1 << 20))
            let id = try await cloud.create(["size": 1, "imageRef": .string(source)])
            let path = "/v3/volumes/\(id)/action"
            let set: JSONValue = ["os-set_image_metadata": ["metadata": ["hw_disk_bus": "scsi"]]]
            let refused = try await cloud.call("POST", path, set)
            #expect(refused.status == 403 && refused.json.description.contains("hw_disk_bus"), "\(refused.json)")
            #expect(try await cloud.call("POST", path, ["os-unset_image_metadata": ["key": "hw_disk_bus"]]).status == 403)
            let other: JSONValue = ["os-set_image_metadata": ["metadata": ["os_type": "linux"]]]
            #expect(try await cloud.call("POST", path, other).status == 200)
            #expect(try await upload(cloud, id).status == 202)
            try await cloud.settle()
            #expect(try await cloud.call("POST", path, token: "admin", set).status == 200)
            // An operator has set it on the volume, which does not allow the volume's user to set it.
            #expect(try await upload(cloud, id).status == 403)
        }
    }

    @Test("S11: a volume shows the properties of its image that Image would show")
    func s11HiddenProperties() async throws {
        let file =
            "[^x_billing]\ncreate = admin\nread = admin\nupdate = admin\ndelete = @\n[.*]\ncreate = @\nread = @\nupdate = @\ndelete = @"
        try await VolumeFixture.with(protections: try PropertyProtections(file)) { cloud in
            let id = try await cloud.create()
            let path = "/v3/volumes/\(id)/action"
            let set: JSONValue = ["os-set_image_metadata": ["metadata": ["x_billing_code": "7", "os_type": "linux", "image_id": "i"]]]
            #expect(try await cloud.call("POST", path, token: "admin", set).status == 200)
            func shown(_ token: String) async throws -> [JSONValue?] {
                let name = "volume_image_metadata"
                let other: JSONValue = ["os-set_image_metadata": ["metadata": ["os_version": "1"]]]
                return [
                    try await cloud.call("POST", path, token: token, other)["metadata"],
                    try await cloud.call("GET", "/v3/volumes/\(id)", token: token)["volume"]?[name],
                    try await cloud.call("GET", "/v3/volumes/detail?all_tenants=1", token: token)["volumes"]?.arrayValue?.first?[name],
                    try await cloud.call("POST", path, token: token, ["os-show_image_metadata": nil])["metadata"],
                ]
            }
            for metadata in try await shown("member") {
                #expect(Set(metadata?.objectValue?.names ?? []) == ["os_type", "os_version", "image_id"], "\(metadata ?? .null)")
            }
            for metadata in try await shown("admin") { #expect(metadata?["x_billing_code"] == "7", "\(metadata ?? .null)") }
            // What cannot be seen is not there.
            #expect(try await cloud.call("POST", path, ["os-unset_image_metadata": ["key": "x_billing_code"]]).status == 404)
            #expect(try await shown("admin")[1]?["x_billing_code"] == "7")
        }
    }

    @Test func aRefusalOfImageIsTheAnswer() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            cloud.images.refusal.withLock { $0 = ResourceError(.forbidden, "The project has the maximum number of images.") }
            let answer = try await upload(cloud, id)
            #expect(answer.status == 400 && answer.json.description.contains("maximum number of images"), "\(answer.json)")
            try await cloud.settle()
            #expect(try await cloud.call("GET", "/v3/volumes/\(id)")["volume"]?["status"] == "available")
        }
    }

    /// Every step fails, runs twice, or its process dies: the volume is available, and the image is complete or does not exist.
    @Test func underEveryDisturbance() async throws {
        try await VolumeFixture.with { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == "volume_upload" })
            let id = try await cloud.create()
            for variant in WorkflowChecks(definition).variants {
                let name = Comment(rawValue: variant.name)
                let ambient = Ambient(time: cloud.time, random: SeededRandom(seed: 9))
                let engine = cloud.module.engine(replacing: [variant.definition], ambient: ambient)
                let answer = try await upload(cloud, id, ["disk_format": "qcow2"], engine: engine)
                // The lease of a dead process expires later than a request waits.
                let isLate = answer.status == 503 && variant.name.hasPrefix("killed") && variant.name.hasSuffix("image")
                #expect(answer.status == 202 || isLate || !variant.succeeds, name)
                try await cloud.settle(engine)
                #expect(try await cloud.call("GET", "/v3/volumes/\(id)")["volume"]?["status"] == "available", name)
                let createdImages = cloud.images.created.withLock { Array($0.keys) }
                #expect(createdImages.count == (variant.succeeds ? 1 : 0), name)
                #expect(createdImages.allSatisfy { image in cloud.images.data.withLock { $0[image] != nil } }, name)
                cloud.images.created.withLock { $0 = [:] }
                #expect(try files(cloud) == [], name)
            }
        }
    }
}
