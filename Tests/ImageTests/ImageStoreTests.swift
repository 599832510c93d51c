import Cryptography
import Database
import Foundation
import ImageCore
@testable import ImageService
import JSON
import Kernel
import ServiceKit
import TestKit
import Testing
import WebAPI
import Workflow

/// Several stores: uploads, copies and leftovers.
@Suite struct ImageStoreTests {
    private static let bytes = Array(repeating: UInt8(5), count: 1_500_000)
    private static let names = ["archive", "fast"]

    private static func used(_ cloud: ImageFixture) async throws -> Int? {
        try await cloud.call("GET", "/v2/info/usage")["usage"]?["image_size_total"]?["usage"]?.intValue
    }

    private static func importing(
        _ cloud: ImageFixture, _ id: String, _ method: String, _ more: JSONObject = [:], token: String = "admin"
    ) async throws -> ImageFixture.Answer {
        var body: JSONObject = ["method": ["name": .string(method)]]
        for member in more.members { body[member.name] = member.value }
        return try await cloud.call("POST", "/v2/images/\(id)/import", token: token, json: .object(body))
    }

    private static func with(_ defaultStore: String = "file", _ body: (ImageFixture) async throws -> Void) async throws {
        let limits = ImageServiceLimits(importMethods: ImageImport.Method.allCases)
        try await ImageFixture.with(limits: limits, stores: names, default: defaultStore, body)
    }

    private static func uploaded(_ cloud: ImageFixture, to store: String? = nil) async throws -> String {
        let id = try await cloud.create()
        var headers = [("Content-Type", "application/octet-stream")]
        if let store { headers.append(("X-Image-Meta-Store", store)) }
        let answer = try await cloud.call("PUT", "/v2/images/\(id)/file", headers: headers, bytes: bytes)
        #expect(answer.status == 204)
        return id
    }

    private static func shown(_ cloud: ImageFixture, _ id: String) async throws -> JSONValue? {
        try await cloud.call("GET", "/v2/images/\(id)")["stores"]
    }

    @Test func storesAreListed() async throws {
        try await ImageStoreTests.with("fast") { cloud in
            let answer = try await cloud.call("GET", "/v2/info/stores")
            #expect(answer["stores"] == [["id": "fast", "default": "true"], ["id": "file"], ["id": "archive"]])
            #expect(try await cloud.call("GET", "/v2/info/stores/detail").status == 403)
            let details = try await cloud.call("GET", "/v2/info/stores/detail", token: "admin")["stores"]?.arrayValue ?? []
            #expect(details.count == 3 && details[1]["type"] == "file")
            #expect(details[1]["properties"]?["data_dir"]?.stringValue == cloud.files.directory)
            let creation = try await cloud.call("POST", "/v2/images", json: ["name": "x"])
            #expect(creation.headers["openstack-image-store-ids"] == "fast,file,archive")
        }
    }

    @Test func anUploadGoesToItsStore() async throws {
        try await ImageStoreTests.with("fast") { cloud in
            for (name, directory) in [(nil, "fast"), ("archive", "archive"), ("file", cloud.files.directory)] {
                let id = try await ImageStoreTests.uploaded(cloud, to: name)
                #expect(try await ImageStoreTests.shown(cloud, id) == .string(name ?? "fast"))
                #expect(cloud.stored(in: directory).count { $0 != "stores" } == 1)
                try await cloud.cleanupTask.runOnce()
                #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes == ImageStoreTests.bytes)
                #expect(try await cloud.call("DELETE", "/v2/images/\(id)").status == 204)
                #expect(cloud.stored(in: directory).count { $0 != "stores" } == 0)
            }
            let id = try await cloud.create()
            let wrong = try await cloud.call(
                "PUT", "/v2/images/\(id)/file", headers: [("Content-Type", "application/octet-stream"), ("X-Image-Meta-Store", "tape")],
                bytes: [1])
            #expect(wrong.status == 400)
            #expect(try await cloud.status(id) == "queued")
        }
    }

    /// Images of releases with one store have no store in the database.
    @Test func imagesOfEarlierReleasesStayWhereTheyAre() async throws {
        try await ImageStoreTests.with("fast") { cloud in
            let id = try await ImageStoreTests.uploaded(cloud, to: "file")
            try await cloud.database.write { try $0.execute("UPDATE images SET stores = '{}' WHERE id = \(id)::uuid") }
            try await cloud.cleanupTask.runOnce()
            #expect(try await ImageStoreTests.shown(cloud, id) == "file")
            #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes == ImageStoreTests.bytes)
            #expect(try await ImageStoreTests.importing(cloud, id, "copy-image", ["stores": ["fast"]]).status == 202)
            try await cloud.settle()
            #expect(try await ImageStoreTests.shown(cloud, id) == "file,fast")
            try await cloud.cleanupTask.runOnce()
            #expect(cloud.stored.count == 1 && cloud.stored(in: "fast").count == 1)
            #expect(try await cloud.call("DELETE", "/v2/images/\(id)").status == 204)
            #expect(cloud.stored.isEmpty && cloud.stored(in: "fast").isEmpty)
        }
    }

    @Test func anImportFillsSeveralStores() async throws {
        try await ImageStoreTests.with { cloud in
            for (request, expected) in [
                (["all_stores": true], "file,archive,fast"), (["stores": ["archive", "fast"]], "archive,fast"),
            ] as [(JSONObject, String)] {
                let id = try await cloud.create()
                #expect(try await cloud.stage(id, ImageStoreTests.bytes).status == 204)
                #expect(try await ImageStoreTests.importing(cloud, id, "glance-direct", request, token: "member").status == 202)
                #expect(try await cloud.call("GET", "/v2/images/\(id)")["os_glance_importing_to_stores"] == .string(expected))
                try await cloud.settle()
                #expect(try await ImageStoreTests.shown(cloud, id) == .string(expected))
                let count = expected.split(separator: ",").count
                #expect(try await ImageStoreTests.used(cloud) == 2 * count)
                #expect(cloud.stored.count == (expected.hasPrefix("file") ? 1 : 0))
                #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes == ImageStoreTests.bytes)
                #expect(try await cloud.call("DELETE", "/v2/images/\(id)").status == 204)
                #expect(try await ImageStoreTests.used(cloud) == 0)
            }
            #expect(cloud.stored.isEmpty && cloud.stored(in: "fast").isEmpty && cloud.stored(in: "archive").isEmpty)
        }
    }

    /// A store that cannot be written: its directory is a file.
    private static func damage(_ store: String, _ cloud: ImageFixture) throws {
        let path = "\(cloud.files.directory)/stores/\(store)"
        try FileManager.default.removeItem(atPath: path)
        #expect(FileManager.default.createFile(atPath: path, contents: nil))
    }

    @Test func oneStoreFails() async throws {
        try await ImageStoreTests.with { cloud in
            try ImageStoreTests.damage("archive", cloud)
            for needsAll in [true, false] {
                let id = try await cloud.create()
                #expect(try await cloud.stage(id, ImageStoreTests.bytes).status == 204)
                let request: JSONObject = ["stores": ["fast", "archive"], "all_stores_must_succeed": .bool(needsAll)]
                #expect(try await ImageStoreTests.importing(cloud, id, "glance-direct", request).status == 202)
                try await cloud.settle()
                let image = try await cloud.call("GET", "/v2/images/\(id)")
                #expect(image["status"] == (needsAll ? "queued" : "active"))
                #expect(image["os_glance_failed_import"] == (needsAll ? "fast,archive" : "archive"))
                let task = try await cloud.task(id)
                #expect(task["status"] == (needsAll ? "failure" : "success"))
                #expect(task["message"]?.stringValue?.contains("The store 'archive' did not get the data") == true, "\(task)")
                try? await cloud.cleanupTask.runOnce()
                #expect(cloud.stored(in: "fast").count == (needsAll ? 0 : 1))
                #expect(cloud.stored.isEmpty)
                #expect(try await ImageStoreTests.used(cloud) == (needsAll ? 0 : 2))
            }
        }
    }

    @Test func anImageIsCopiedAndRemoved() async throws {
        try await ImageStoreTests.with { cloud in
            let id = try await ImageStoreTests.uploaded(cloud)
            for (request, token, status) in [
                (["stores": ["file"]], "admin", 400), (["stores": ["tape"]], "admin", 409), (["stores": ["fast"]], "member", 403),
            ] as [(JSONObject, String, Int)] {
                #expect(try await ImageStoreTests.importing(cloud, id, "copy-image", request, token: token).status == status)
            }
            #expect(try await ImageStoreTests.importing(cloud, id, "copy-image", ["stores": ["fast"]]).status == 202)
            #expect(try await ImageStoreTests.importing(cloud, id, "copy-image", ["stores": ["archive"]]).status == 409)
            #expect(try await cloud.call("DELETE", "/v2/stores/file/\(id)").status == 409)
            // The image can be used while it is copied.
            #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes == ImageStoreTests.bytes)
            try await cloud.settle()
            #expect(try await ImageStoreTests.importing(cloud, id, "copy-image", ["all_stores": true]).status == 202)
            try await cloud.settle()
            #expect(try await ImageStoreTests.shown(cloud, id) == "file,fast,archive")
            #expect(try await ImageStoreTests.importing(cloud, id, "copy-image", ["all_stores": true]).status == 202)
            #expect(try await ImageStoreTests.used(cloud) == 6)
            // The other stores provide the data if one has lost it.
            let file = try #require(cloud.stored.first)
            try FileManager.default.removeItem(atPath: cloud.files.path(file))
            #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes == ImageStoreTests.bytes)
            for (path, token, status) in [
                ("tape/\(id)", "member", 409), ("file/\(SystemRandom().uuid())", "member", 404), ("file/\(id)", "other", 404),
                ("file/\(id)", "member", 204), ("file/\(id)", "member", 404), ("fast/\(id)", "member", 204),
                ("archive/\(id)", "member", 403),
            ] {
                #expect(try await cloud.call("DELETE", "/v2/stores/\(path)", token: token).status == status, "\(path) \(token)")
            }
            #expect(try await ImageStoreTests.shown(cloud, id) == "archive")
            #expect(cloud.stored.isEmpty && cloud.stored(in: "fast").isEmpty)
            #expect(try await ImageStoreTests.used(cloud) == 2)
            #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes == ImageStoreTests.bytes)
        }
    }

    @Test func damagedDataIsNotCopied() async throws {
        try await ImageStoreTests.with { cloud in
            let id = try await ImageStoreTests.uploaded(cloud)
            let file = try #require(cloud.stored.first)
            var damaged = ImageStoreTests.bytes
            damaged[1000] ^= 1
            #expect(FileManager.default.createFile(atPath: cloud.files.path(file), contents: Data(damaged)))
            #expect(try await ImageStoreTests.importing(cloud, id, "copy-image", ["stores": ["fast"]]).status == 202)
            try await cloud.settle()
            let task = try await cloud.task(id)
            #expect(task["status"] == "failure" && task["message"]?.stringValue?.contains("the data is damaged") == true, "\(task)")
            #expect(try await ImageStoreTests.shown(cloud, id) == "file" && cloud.stored(in: "fast").isEmpty)
            #expect(try await cloud.call("GET", "/v2/images/\(id)")["os_glance_failed_import"] == "fast")
        }
    }

    /// The process may die at any point of a copy: the stores that the image names have the data, and no others.
    @Test func copyUnderEveryDisturbance() async throws {
        let time = ManualTime()
        let limits = ImageServiceLimits(importMethods: ImageImport.Method.allCases)
        try await ImageFixture.with(limits: limits, time: time, stores: ImageStoreTests.names) { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == "image_copy" })
            for variant in WorkflowChecks(definition).variants {
                let id = try await ImageStoreTests.uploaded(cloud)
                #expect(try await ImageStoreTests.importing(cloud, id, "copy-image", ["all_stores": true]).status == 202)
                let ambient = Ambient(time: time, random: SeededRandom(seed: 9))
                try await cloud.settle(cloud.module.engine(replacing: [variant.definition], ambient: ambient))
                let isLate = variant.name.hasPrefix("publish fails after") || variant.name.hasPrefix("end fails")
                let isCopied = variant.succeeds || isLate
                let shown = try await ImageStoreTests.shown(cloud, id)
                #expect(shown == (isCopied ? "file,archive,fast" : "file"), "\(variant.name)")
                #expect(try await cloud.task(id)["status"] == (isCopied ? "success" : "failure"), "\(variant.name)")
                try await cloud.cleanupTask.runOnce()
                for store in ImageStoreTests.names {
                    #expect(cloud.stored(in: store).count == (isCopied ? 1 : 0), "\(variant.name)")
                }
                #expect(try await ImageStoreTests.used(cloud) == (isCopied ? 6 : 2), "\(variant.name)")
                #expect(try await cloud.call("DELETE", "/v2/images/\(id)").status == 204)
            }
        }
    }

    @Test func storesMustBeDifferent() throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("wolke-stores-" + SystemRandom().uuid().compact).path
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let base = try FileStore(directory: directory + "/a", threads: 1)
        func stores(_ texts: [String], defaultStore: String = "file") throws -> [String] {
            try ImageStores(base: base, texts.map { try #require(StoreDeclaration($0)) }, default: defaultStore).names
        }
        #expect(try stores([]) == ["file"])
        #expect(try stores(["x=file:\(directory)/b", "y=file:\(directory)/c"], defaultStore: "y") == ["y", "file", "x"])
        try FileManager.default.createSymbolicLink(atPath: directory + "/link", withDestinationPath: directory + "/a")
        for texts in [
            ["x=file:\(directory)/a"], ["x=file:\(directory)/link"], ["x=file:\(directory)/b", "y=file:\(directory)/./b"],
            ["x=file:\(directory)/b", "x=file:\(directory)/c"],
        ] {
            #expect(throws: ResourceError.self, "\(texts)") { try stores(texts) }
        }
        #expect(throws: ResourceError.self) { try stores([], defaultStore: "x") }
        for text in [
            "x", "x=", "x=file", "x=file:relative", "x=rbd:/pool", "file=file:/x", "a b=file:/x", "a,b=file:/x", "os_glance_x=file:/x",
            "=file:/x",
        ] {
            #expect(StoreDeclaration(text) == nil, "\(text)")
        }
    }
}
