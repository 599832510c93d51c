import Foundation
import ImageCore
import ImageService
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// The cache of a machine.
@Suite struct ImageServiceCacheTests {
    private static func image(_ cloud: ImageFixture, _ count: Int) async throws -> String {
        let id = try await cloud.create()
        #expect(try await cloud.upload(id, Array(repeating: UInt8(count & 0xff), count: count)).status == 204)
        return id
    }

    private static func cached(_ cloud: ImageFixture) async throws -> [String: JSONValue] {
        let images = try await cloud.call("GET", "/v2/cache", token: "admin")["cached_images"]?.arrayValue ?? []
        return Dictionary(uniqueKeysWithValues: images.map { ($0["image_id"]?.stringValue ?? "", $0) })
    }

    @Test func withoutACacheThereIsNone() async throws {
        try await ImageFixture.with { cloud in
            let id = try await ImageServiceCacheTests.image(cloud, 10)
            for (method, path) in [
                ("GET", "cache"), ("DELETE", "cache"), ("PUT", "cache/\(id)"), ("DELETE", "cache/\(id)"), ("POST", "cache/clean"),
                ("POST", "cache/prune"),
            ] {
                let answer = try await cloud.call(method, "/v2/\(path)", token: "admin", headers: [("Accept", "application/json")])
                #expect(answer.status == 404, "\(method) \(path)")
                #expect(String(decoding: answer.bytes, as: UTF8.self).contains("not supported at this site"), "\(method) \(path)")
                #expect(try await cloud.call(method, "/v2/\(path)").status == 403, "\(method) \(path)")
            }
        }
    }

    @Test func aQueuedImageIsServedFromTheCache() async throws {
        try await ImageFixture.with(cacheBytes: 1000) { cloud in
            let cache = try #require(cloud.cache)
            let id = try await ImageServiceCacheTests.image(cloud, 100)
            let queued = try await cloud.create()
            #expect(try await cloud.call("PUT", "/v2/cache/\(queued)", token: "admin").status == 400)
            #expect(try await cloud.call("PUT", "/v2/cache/\(SystemRandom().uuid())", token: "admin").status == 404)
            #expect(try await cloud.call("PUT", "/v2/cache/\(id)", token: "admin").status == 202)
            #expect(try await cloud.call("PUT", "/v2/cache/\(id)", token: "admin").status == 202)
            let state = try await cloud.call("GET", "/v2/cache", token: "admin")
            #expect(state["cached_images"] == [] && state["queued_images"] == [.string(id)])
            try await cache.runOnce()
            #expect(try await cloud.call("GET", "/v2/cache", token: "admin")["queued_images"] == [])
            #expect(try await ImageServiceCacheTests.cached(cloud)[id]?["size"] == 100)
            // Even when the store has lost the data.
            let file = try #require(cloud.stored.first { $0 != "cache" })
            try FileManager.default.removeItem(atPath: cloud.files.path(file))
            for _ in 0..<3 {
                #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes == Array(repeating: 100, count: 100))
            }
            #expect(try await cloud.call("GET", "/v2/images/\(id)/file", token: "other").status == 404)
            try await cache.runOnce()
            #expect(try await ImageServiceCacheTests.cached(cloud)[id]?["hits"] == 3)
            #expect(try await cloud.call("DELETE", "/v2/cache/\(id)", token: "admin").status == 204)
            #expect(try await ImageServiceCacheTests.cached(cloud).isEmpty && cloud.stored(in: cloud.cachePath).isEmpty)
            #expect(try await cloud.call("GET", "/v2/images/\(id)/file").status == 503)
        }
    }

    @Test func theCacheKeepsItsSizeAndForgetsDeletedImages() async throws {
        try await ImageFixture.with(time: ManualTime(), cacheBytes: 250) { cloud in
            let cache = try #require(cloud.cache)
            var ids: [String] = []
            for size in [100, 101, 102, 300] {
                ids.append(try await ImageServiceCacheTests.image(cloud, size))
                #expect(try await cloud.call("PUT", "/v2/cache/\(ids[ids.count - 1])", token: "admin").status == 202)
                try await cache.runOnce()
                cloud.time?.advance(by: .seconds(10))
                // The first image is the one in use.
                _ = try await cloud.call("GET", "/v2/images/\(ids[0])/file")
                try await cache.runOnce()
                cloud.time?.advance(by: .seconds(10))
            }
            // The second image is the least recently used; the fourth is larger than the cache.
            #expect(Set(try await ImageServiceCacheTests.cached(cloud).keys) == [ids[0], ids[2]])
            #expect(try await cloud.call("GET", "/v2/cache", token: "admin")["queued_images"] == [])
            #expect(cloud.stored(in: cloud.cachePath).count == 2)
            #expect(try await cloud.call("DELETE", "/v2/images/\(ids[0])").status == 204)
            #expect(try await cloud.call("POST", "/v2/cache/clean", token: "admin").status == 200)
            #expect(cloud.stored(in: cloud.cachePath).count == 1)
            let pruned = try await cloud.call("POST", "/v2/cache/prune", token: "admin")
            #expect(pruned["total_files_pruned"] == 0 && pruned["total_bytes_pruned"] == 0)
            #expect(try await cloud.call("PUT", "/v2/cache/\(ids[1])", token: "admin").status == 202)
            for (target, status, left) in [("x", 400, 2), ("queue", 204, 1), ("cache", 204, 0), ("", 204, 0)] {
                let answer = try await cloud.call(
                    "DELETE", "/v2/cache", token: "admin", headers: [("x-image-cache-clear-target", target)])
                #expect(answer.status == status, "\(target)")
                let state = try await cloud.call("GET", "/v2/cache", token: "admin")
                let count = (state["cached_images"]?.arrayValue?.count ?? 0) + (state["queued_images"]?.arrayValue?.count ?? 0)
                #expect(count == left, "\(target)")
            }
            #expect(cloud.stored(in: cloud.cachePath).isEmpty)
        }
    }
}
