import Database
import Foundation
import ImageService
import JSON
import Kernel
import NIOCore
import TestKit
import Testing
import WebAPI

@Suite struct ImageUploadTests {
    private func request(_ id: String, _ stream: AsyncThrowingStream<ByteBuffer, any Error>, length: Int? = nil) -> IncomingRequest {
        var headers: Headers = ["x-auth-token": "member", "content-type": "application/octet-stream"]
        headers["content-length"] = length.map(String.init)
        return IncomingRequest(method: "PUT", path: "/v2/images/\(id)/file", query: Query(), headers: headers, body: stream)
    }

    @Test("S1: images that refer to other files are refused during the upload and leave nothing behind")
    func s1_refusedUploadsLeaveNoFiles()
        async throws
    {
        try await ImageFixture.with { cloud in
            let id = try await cloud.create(["disk_format": "qcow2", "container_format": "bare"])
            for bytes in [HostileImages.qcow2WithBacking("/x"), HostileImages.qcow2WithDataFile("/x"), [1, 2, 3]] {
                // With more data after it, so that it is also refused in the middle of the upload.
                for more in [0, 2 << 20] {
                    let answer = try await cloud.upload(id, bytes + Array(repeating: 0, count: more))
                    #expect(answer.status == 415)
                    #expect(try await cloud.status(id) == "queued")
                    #expect(cloud.stored.isEmpty)
                }
            }
            #expect(try await cloud.upload(id, DiskImages.qcow2()).status == 204)
        }
    }

    @Test func headersOfAnUploadHoldOrAreRefused() async throws {
        try await ImageFixture.with { cloud in
            let id = try await cloud.create()
            for (name, value) in [
                ("x-image-meta-store", "ceph"), ("x-openstack-image-size", "4"), ("x-openstack-image-size", "many"),
                ("x-openstack-image-size", "-1"),
            ] {
                let answer = try await cloud.call(
                    "PUT", "/v2/images/\(id)/file",
                    headers: [("Content-Type", "application/octet-stream"), ("Accept", "application/json"), (name, value)],
                    bytes: [1, 2, 3])
                #expect(answer.status == 400, "\(name): \(answer.status) \(answer.json)")
                #expect(try await cloud.status(id) == "queued")
            }
            let right = try await cloud.call(
                "PUT", "/v2/images/\(id)/file",
                headers: [("Content-Type", "application/octet-stream"), ("x-image-meta-store", "file"), ("x-openstack-image-size", "3")],
                bytes: [1, 2, 3])
            #expect(right.status == 204)
        }
    }

    /// An import by URL refuses these addresses before it fetches anything. No other request takes a URL.
    @Test("S13: no request makes the cloud fetch a URL of its own networks") func s13InternalURLsAreNotFetched() async throws {
        let canary = try StubServer { _ in .bytes(200, Array("fetched".utf8)) }
        try await ImageFixture.with { cloud in
            let id = try await cloud.create()
            let inside = canary.url + "/latest/meta-data"
            for url in [inside, "file:///etc/passwd", "http://169.254.169.254/"] {
                for (name, more) in [
                    ("web-download", ["uri": .string(url)]), ("glance-download", ["glance_image_id": .string(url)]), ("copy-image", [:]),
                ] as [(String, JSONObject)] {
                    var method = more
                    method["name"] = .string(name)
                    let answer = try await cloud.call(
                        "POST", "/v2/images/\(id)/import", json: ["method": .object(method), "stores": ["file"]])
                    #expect(answer.status == 400, "\(name) \(answer.status)")
                }
                let patch: JSONValue = [["op": "add", "path": "/locations/-", "value": ["url": .string(url), "metadata": [:]]]]
                let patched = try await cloud.call(
                    "PATCH", "/v2/images/\(id)", headers: [("Content-Type", "application/openstack-images-v2.1-json-patch")],
                    bytes: patch.encoded)
                #expect([400, 403].contains(patched.status), "\(patched.status)")
                for name in ["locations", "direct_url", "copy_from", "location"] {
                    let creation = try await cloud.call("POST", "/v2/images", json: ["name": "x", name: .string(url)])
                    let shown = creation["id"]?.stringValue ?? ""
                    if creation.status == 201 { #expect(try await cloud.status(shown) == "queued", "\(name)") }
                }
                let headed = try await cloud.call(
                    "PUT", "/v2/images/\(id)/file",
                    headers: [
                        ("x-glance-api-copy-from", url), ("x-image-meta-location", url), ("content-type", "application/octet-stream"),
                    ])
                let data = try await cloud.call("GET", "/v2/images/\(id)/file").bytes
                #expect(headed.status >= 400 || data.isEmpty)
            }
            #expect(canary.requests.isEmpty)
        }
    }

    @Test("S14: an image's id cannot be a path") func s14IdsAreNoPaths() async throws {
        try await ImageFixture.with { cloud in
            let id = try await cloud.create()
            _ = try await cloud.upload(id, [7])
            for path in ["../\(id)", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", ".", "%2e%2e", "\(id)%00", "\(id)%2f..", "\(id).part"] {
                for (method, suffix) in [("GET", "/file"), ("GET", ""), ("DELETE", ""), ("PUT", "/file")] {
                    let answer = try await cloud.call(
                        method, "/v2/images/\(path)\(suffix)", headers: [("content-type", "application/octet-stream")])
                    #expect([400, 404, 405].contains(answer.status), "\(method) \(path)\(suffix): \(answer.status)")
                }
            }
            #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes == [7])
        }
    }

    @Test func interruptedUploadsLeaveNoFiles() async throws {
        try await ImageFixture.with { cloud in
            let id = try await cloud.create()
            struct Broken: Error {}
            let broken = AsyncThrowingStream<ByteBuffer, any Error> { continuation in
                continuation.yield(ByteBuffer(repeating: 1, count: 3 << 20))
                continuation.finish(throwing: Broken())
            }
            #expect(await cloud.api.respond(to: request(id, broken)).status == 500)
            #expect(try await cloud.status(id) == "queued")
            #expect(cloud.stored.isEmpty)
            let short = AsyncThrowingStream<ByteBuffer, any Error> { continuation in
                continuation.yield(ByteBuffer(repeating: 1, count: 10))
                continuation.finish()
            }
            #expect(await cloud.api.respond(to: request(id, short, length: 11)).status == 400)
            #expect(try await cloud.status(id) == "queued")
            #expect(cloud.stored.isEmpty)
        }
    }

    @Test func whileDataArrivesTheImageIsSaving() async throws {
        try await ImageFixture.with { cloud in
            let id = try await cloud.create()
            let (stream, continuation) = AsyncThrowingStream<ByteBuffer, any Error>.makeStream()
            continuation.yield(ByteBuffer(repeating: 1, count: 2 << 20))
            async let answer = cloud.api.respond(to: request(id, stream))
            while try await cloud.status(id) != "saving" { try await SystemTime().sleep(for: .milliseconds(5)) }
            #expect(try await cloud.upload(id, [1]).status == 409)
            // An upload in progress is not cleaned up.
            try await cloud.cleanupTask.runOnce()
            #expect(try await cloud.status(id) == "saving")
            #expect(cloud.stored.count == 1)
            #expect(try await cloud.call("DELETE", "/v2/images/\(id)").status == 204)
            continuation.finish()
            #expect(await answer.status == 410)
            #expect(cloud.stored.isEmpty)
        }
    }

    @Test func orphanedUploadsAreRemoved() async throws {
        try await ImageFixture.with { cloud in
            let id = try await cloud.create()
            let kept = try await cloud.create()
            #expect(try await cloud.upload(kept, [1, 2]).status == 204)
            let upload = SystemRandom().uuid().description
            let orphan = SystemRandom().uuid().description
            for name in [upload + ".part", orphan] {
                #expect(FileManager.default.createFile(atPath: cloud.files.directory + "/" + name, contents: Data([1])))
            }
            _ = try await cloud.database.write {
                try $0.execute("UPDATE images SET status = 'saving', upload_id = \(upload)::uuid WHERE id = \(id)::uuid")
            }
            try await cloud.cleanupTask.runOnce()
            #expect(try await cloud.status(id) == "queued")
            #expect(cloud.stored.count == 1)
            #expect(try await cloud.call("GET", "/v2/images/\(kept)/file").bytes == [1, 2])
            #expect(try await cloud.upload(id, [1]).status == 204)
        }
    }

    @Test("S19: quotas of images are exact") func s19QuotasAreExact() async throws {
        try await ImageFixture.with(limits: ImageServiceLimits(quotas: ["image_count_total": 2, "image_size_total": 3])) { cloud in
            let first = try await cloud.create()
            let second = try await cloud.create()
            #expect(try await cloud.call("POST", "/v2/images", json: [:]).status == 413)
            #expect(try await cloud.upload(first, Array(repeating: 0, count: (1 << 20) + 1)).status == 204)
            #expect(try await cloud.upload(second, Array(repeating: 0, count: (1 << 20) + 1)).status == 413)
            #expect(try await cloud.status(second) == "queued")
            #expect(cloud.stored.count == 1)
            #expect(try await cloud.upload(second, Array(repeating: 0, count: 1 << 20)).status == 204)
            let usage = try await cloud.call("GET", "/v2/info/usage")["usage"]
            #expect(usage?["image_size_total"] == ["limit": 3, "usage": 3])
            #expect(usage?["image_count_total"] == ["limit": 2, "usage": 2])
            for id in [first, second] { #expect(try await cloud.call("DELETE", "/v2/images/\(id)").status == 204) }
            let after = try await cloud.call("GET", "/v2/info/usage")["usage"]
            #expect(after?["image_size_total"] == ["limit": 3, "usage": 0])
            #expect(after?["image_count_total"] == ["limit": 2, "usage": 0])
        }
    }

    @Test func uploadsHaveALargestSize() async throws {
        try await ImageFixture.with(limits: ImageServiceLimits(uploadBytesMax: 100)) { cloud in
            let id = try await cloud.create()
            #expect(try await cloud.upload(id, Array(repeating: 0, count: 101)).status == 413)
            #expect(try await cloud.upload(id, Array(repeating: 0, count: 100)).status == 204)
        }
    }

    @Test func deactivatedDataIsForAdministrators() async throws {
        try await ImageFixture.with { cloud in
            let id = try await cloud.create()
            _ = try await cloud.upload(id, [7])
            #expect(try await cloud.call("POST", "/v2/images/\(id)/actions/deactivate").status == 204)
            #expect(try await cloud.call("GET", "/v2/images/\(id)/file").status == 403)
            #expect(try await cloud.call("GET", "/v2/images/\(id)/file", token: "admin").bytes == [7])
            #expect(try await cloud.call("POST", "/v2/images/\(id)/actions/reactivate").status == 204)
            #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes == [7])
        }
    }
}
