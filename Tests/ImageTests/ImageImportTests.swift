import Client
import Cryptography
import Database
import ImageCore
@testable import ImageService
import JSON
import Kernel
import ServiceKit
import Synchronization
import TestKit
import Testing
import WebAPI
import Workflow

/// Staging, importing, and leftovers.
@Suite struct ImageImportTests {
    private static let path = "/v2/images"

    private static func used(_ cloud: ImageFixture) async throws -> JSONValue? {
        try await cloud.call("GET", "/v2/info/usage")["usage"]?["image_size_total"]?["usage"]
    }

    @Test func stagedDataBecomesTheImage() async throws {
        try await ImageFixture.with { (cloud: ImageFixture) async throws -> Void in
            let creation = try await cloud.call("POST", "/v2/images", json: ["disk_format": "qcow2", "container_format": "bare"])
            #expect(creation.headers["openstack-image-import-methods"] == "glance-direct,web-download")
            #expect(creation.headers["openstack-image-store-ids"] == "file")
            let id = creation["id"]?.stringValue ?? ""
            #expect(try await cloud.beginImport(id).status == 409)
            let bytes = DiskImages.qcow2()
            #expect(try await cloud.stage(id, bytes).status == 204)
            #expect(try await cloud.status(id) == "uploading")
            #expect(try await ImageImportTests.used(cloud) == 1)
            #expect(try await cloud.stage(id, bytes).status == 409)
            #expect(try await cloud.upload(id, bytes).status == 409)
            #expect(try await cloud.call("GET", "/v2/images/\(id)/file").status == 204)
            let answer = try await cloud.beginImport(id)
            #expect(answer.status == 202 && answer.bytes.isEmpty)
            #expect(try await cloud.status(id) == "importing")
            #expect(try await cloud.beginImport(id).status == 409)
            #expect(try await cloud.call("GET", "/v2/images/\(id)")["os_glance_importing_to_stores"] == "file")
            try await cloud.settle()
            let image = try await cloud.call("GET", "/v2/images/\(id)")
            #expect(image["status"] == "active" && image["size"]?.intValue == bytes.count && image["stores"] == "file")
            #expect(image["virtual_size"]?.intValue != nil && image["os_glance_importing_to_stores"] == "")
            #expect(image["os_hash_value"]?.stringValue == Hexadecimal.encode(HashAlgorithm.sha512.hash(bytes)))
            #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes == bytes)
            let task = try await cloud.task(id)
            #expect(task["status"] == "success" && task["type"] == "api_image_import" && task["owner"] == "p1")
            #expect(task["request_id"]?.stringValue == answer.headers["x-openstack-request-id"])
            #expect(task["input"]?["import_req"]?["method"]?["name"] == "glance-direct" && task["result"]?["image_id"] == .string(id))
            #expect(try await ImageImportTests.used(cloud) == 1)
            #expect(try await cloud.call("GET", "/v2/tasks/\(task["id"]?.stringValue ?? "")", token: "other").status == 404)
            #expect(try await cloud.call("GET", "/v2/tasks", token: "other")["tasks"] == [])
            #expect(try await cloud.call("GET", "/v2/tasks?status=success")["tasks"]?.arrayValue?.count == 1)
            // Deleting the image leaves nothing.
            #expect(try await cloud.call("DELETE", "/v2/images/\(id)").status == 204)
            try await cloud.cleanupTask.runOnce()
            #expect(cloud.stored.isEmpty)
            #expect(try await ImageImportTests.used(cloud) == 0)
        }
    }

    @Test func requestsThatAreNoImport() async throws {
        try await ImageFixture.with { (cloud: ImageFixture) async throws -> Void in
            let id = try await cloud.create()
            for (body, status) in [
                (["method": ["name": "copy-image"]], 400), (["method": ["name": "glance-download"]], 400), (["method": [:]], 400),
                ([:], 400),
                (["method": ["name": "web-download"]], 400), (["method": ["name": "glance-direct", "uri": "http://x.example/"]], 400),
                (["method": ["name": "glance-direct"], "stores": ["rbd"]], 409),
                (["method": ["name": "glance-direct"], "stores": []], 400),
                (["method": ["name": "glance-direct"], "all_stores": "yes"], 400),
                (["method": ["name": "glance-direct"], "all_stores": true, "stores": ["file"]], 400),
                (["method": ["name": "glance-direct"], "surprise": 1], 400),
            ] as [(JSONValue, Int)] {
                let answer = try await cloud.call("POST", "/v2/images/\(id)/import", json: body)
                #expect(answer.status == status, "\(body)")
            }
            let bare = try await cloud.create(["name": "no format"])
            #expect(try await cloud.stage(bare, [1]).status == 204)
            #expect(try await cloud.beginImport(bare).status == 409)
            let wrong = try await cloud.call("PUT", "/v2/images/\(id)/stage", headers: [("Content-Type", "text/plain")], bytes: [1])
            #expect(wrong.status == 415)
            #expect(try await cloud.status(id) == "queued")
        }
        try await ImageFixture.with(limits: ImageServiceLimits(importMethods: [])) { (cloud: ImageFixture) async throws -> Void in
            let id = try await cloud.create()
            #expect(try await cloud.stage(id, [1]).status == 404)
            #expect(try await cloud.beginImport(id).status == 400)
            #expect(try await cloud.call("GET", "/v2/info/import")["import-methods"]?["value"] == [])
        }
    }

    @Test("S1: hostile images are refused by the import of staged data, also compressed, and leave nothing behind")
    func s1HostileImagesAreRefused() async throws {
        try await ImageFixture.with { (cloud: ImageFixture) async throws -> Void in
            let corpus = HostileImages.corpus(canary: "/canary").filter { DiskFormat.accepted.map(\.rawValue).contains($0.declared) }
            #expect(corpus.count > 40)
            for hostile in corpus {
                for bytes in [hostile.bytes, GzipSample.stored(hostile.bytes)] {
                    let id = try await cloud.create(["disk_format": .string(hostile.declared), "container_format": "bare"])
                    #expect(try await cloud.stage(id, bytes).status == 204)
                    #expect(try await cloud.beginImport(id).status == 202)
                    try await cloud.settle()
                    #expect(try await cloud.status(id) == "queued", "\(hostile.name)")
                    let task = try await cloud.task(id)
                    #expect(task["status"] == "failure", "\(hostile.name)")
                    #expect(task["message"]?.stringValue?.contains("not accepted as an image") == true, "\(hostile.name): \(task)")
                    #expect(try await cloud.call("GET", "/v2/images/\(id)")["os_glance_failed_import"] == "file")
                    #expect(try await cloud.call("DELETE", "/v2/images/\(id)").status == 204)
                }
            }
            try await cloud.cleanupTask.runOnce()
            #expect(cloud.stored.isEmpty)
            #expect(try await ImageImportTests.used(cloud) == 0)
        }
    }

    // MARK: compressed data

    @Test func compressedDataIsDecompressed() async throws {
        try await ImageFixture.with { (cloud: ImageFixture) async throws -> Void in
            let bytes = DiskImages.qcow2() + Array(repeating: 7, count: 200_000)
            for members in [GzipSample.stored(bytes), GzipSample.stored(Array(bytes[..<1000])) + GzipSample.stored(Array(bytes[1000...]))] {
                let id = try await cloud.create(["disk_format": "qcow2", "container_format": "bare"])
                _ = try await cloud.stage(id, members)
                _ = try await cloud.beginImport(id)
                try await cloud.settle()
                #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes == bytes)
                #expect(try await cloud.call("GET", "/v2/images/\(id)")["size"]?.intValue == bytes.count)
            }
            // The container format means that the data stays compressed.
            let id = try await cloud.create(["disk_format": "raw", "container_format": "compressed"])
            let packed = GzipSample.stored([1, 2, 3])
            _ = try await cloud.stage(id, packed)
            _ = try await cloud.beginImport(id)
            try await cloud.settle()
            #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes == packed)
        }
    }

    @Test("S3: a decompression bomb ends at the limit of the size") func s3BombsAreBounded() async throws {
        try await ImageFixture.with(limits: ImageServiceLimits(uploadBytesMax: 2 << 20)) { (cloud: ImageFixture) async throws -> Void in
            let bomb = GzipSample.zeros(1 << 20)
            #expect(bomb.count < 2 << 20)
            var truncated = GzipSample.stored(Array(repeating: 1, count: 100))
            truncated.removeLast(20)
            for (bytes, reason) in [
                (bomb, "larger than the maximum"), (truncated, "cannot be decompressed"),
                (GzipSample.stored([1]) + [1, 2, 3], "cannot be decompressed"), ([0x1f, 0x8b, 1, 2, 3], "cannot be decompressed"),
            ] {
                let id = try await cloud.create()
                #expect(try await cloud.stage(id, bytes).status == 204)
                _ = try await cloud.beginImport(id)
                try await cloud.settle()
                #expect(try await cloud.status(id) == "queued")
                let message = try await cloud.task(id)["message"]?.stringValue ?? ""
                #expect(message.contains(reason), "\(message)")
            }
            try await cloud.cleanupTask.runOnce()
            #expect(cloud.stored.isEmpty)
        }
    }

    // MARK: interruptions

    @Test func interruptedStagingLeavesNoFiles() async throws {
        try await ImageFixture.with(limits: ImageServiceLimits(uploadBytesMax: 10)) { (cloud: ImageFixture) async throws -> Void in
            let id = try await cloud.create()
            #expect(try await cloud.stage(id, Array(repeating: 1, count: 11)).status == 413)
            #expect(try await cloud.status(id) == "queued")
            #expect(cloud.stored.isEmpty)
            // A process that died while it received the data.
            let file = SystemRandom().uuid().description
            try await cloud.database.write {
                try $0.execute("UPDATE images SET status = 'uploading', staging_id = \(file)::uuid WHERE id = \(id)::uuid")
            }
            #expect(try await cloud.beginImport(id).status == 409)
            try await cloud.cleanupTask.runOnce()
            #expect(try await cloud.status(id) == "queued")
        }
    }

    @Test("S21: an image can be deleted while it is staged and imported, and nothing remains") func s21DeletingDuringAnImport() async throws
    {
        try await ImageFixture.with { (cloud: ImageFixture) async throws -> Void in
            for imports in [false, true] {
                let id = try await cloud.create()
                _ = try await cloud.stage(id, [1, 2, 3])
                if imports { #expect(try await cloud.beginImport(id).status == 202) }
                let task = try await cloud.task(id)["id"]?.stringValue
                #expect(try await cloud.call("DELETE", "/v2/images/\(id)").status == 204)
                try await cloud.settle()
                if let task {
                    let shown = try await cloud.call("GET", "/v2/tasks/\(task)")
                    #expect(shown["status"] == "failure" && shown["message"] == "The image was deleted.")
                }
                try await cloud.cleanupTask.runOnce()
                #expect(cloud.stored.isEmpty)
                #expect(try await ImageImportTests.used(cloud) == 0)
            }
        }
    }

    @Test func storedFramesMatchEarlierReleases() async throws {
        try await ImageFixture.with { (cloud: ImageFixture) async throws -> Void in
            #expect(try WorkflowRecords.differences(cloud.module.workflows, file: "image-workflows.json") == [])
            let missing = try DisturbanceTests.missing(cloud.module.workflows.map(\.kind), file: #filePath)
            #expect(missing == [])
        }
    }

    /// The process may die at any point: the image is complete or queued, and no data is left over.
    @Test(arguments: ["staged", "compressed", "downloaded"]) func importUnderEveryDisturbance(_ source: String) async throws {
        let bytes = Array(repeating: UInt8(5), count: 3000)
        let server = try StubServer { _ in .bytes(200, bytes) }
        defer { server.stop() }
        let time = ManualTime()
        try await ImageFixture.with(limits: DownloadSample.limits(server.url), time: time) { (cloud: ImageFixture) async throws -> Void in
            let definition = try #require(cloud.module.workflows.first { $0.kind == "image_import" })
            for variant in WorkflowChecks(definition).variants {
                let id = try await cloud.create()
                if source == "downloaded" {
                    #expect(try await cloud.beginImport(id, "web-download", uri: server.url + "/x").status == 202)
                } else {
                    #expect(try await cloud.stage(id, source == "staged" ? bytes : GzipSample.stored(bytes)).status == 204)
                    #expect(try await cloud.beginImport(id).status == 202)
                }
                let ambient = Ambient(time: time, random: SeededRandom(seed: 9))
                try await cloud.settle(cloud.module.engine(replacing: [variant.definition], ambient: ambient))
                let status = try await cloud.status(id)
                // After the image is published, a failure is too late to revert anything.
                let isLate = variant.name.hasPrefix("publish fails after") || variant.name.hasPrefix("end fails")
                #expect(status == (variant.succeeds || isLate ? "active" : "queued"), "\(variant.name)")
                #expect(try await cloud.task(id)["status"] == (variant.succeeds || isLate ? "success" : "failure"), "\(variant.name)")
                if status == "active" { #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes == bytes, "\(variant.name)") }
                try await cloud.cleanupTask.runOnce()
                #expect(cloud.stored.count == (status == "active" ? 1 : 0), "\(variant.name): \(cloud.stored)")
                #expect(try await ImageImportTests.used(cloud) == (status == "active" ? 1 : 0), "\(variant.name)")
                #expect(try await cloud.call("DELETE", "/v2/images/\(id)").status == 204)
            }
        }
    }
}
