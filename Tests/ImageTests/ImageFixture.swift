import Client
import Database
import Foundation
import ImageCore
import ImageService
import JSON
import Kernel
import NIOCore
import ServiceCatalog
import ServiceKit
import Telemetry
import TestKit
import WebAPI
import Workflow

/// The image API with a private database and directory.
struct ImageFixture: Sendable {
    let api: API
    let database: Database
    let files: FileStore
    let stores: ImageStores
    let cleanupTask: ImageCleanupTask
    let module: ServiceModule
    let cache: MachineImageCache?
    let time: ManualTime?

    static func with(
        limits: ImageServiceLimits = ImageServiceLimits(), policy: [String: String] = [:],
        resolve: @escaping PublicDownload.Resolve = { _ in [] }, time: any TimeSource = SystemTime(), stores names: [String] = [],
        default defaultStore: String = "file", cacheBytes: Int? = nil,
        _ body: (ImageFixture) async throws -> Void
    ) async throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent(
            "wolke-images-" + SystemRandom().uuid().compact
        ).path
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try await TestDatabase.with { test in
            let files = try FileStore(directory: directory, threads: 2)
            let stores = try ImageStores(
                base: files, names.compactMap { StoreDeclaration("\($0)=file:\(directory)/stores/\($0)") }, default: defaultStore)
            let ambient = Ambient(time: time, random: SeededRandom(seed: 4))
            let log = Telemetry.logger(service: "test", level: "critical")
            let surroundings = ServiceSurroundings.test(
                test.database, .image, ambient: ambient, policy: policy, publicURL: "http://images.example")
            let cache = try cacheBytes.map { bytes in
                let files = try FileStore(directory: directory + "/cache", sharing: files.threads)
                return MachineImageCache(files: files, bytesMax: bytes, stores: stores, surroundings)
            }
            let module = try ImageModule.make(stores: stores, limits: limits, cache: cache, resolve: resolve, surroundings)
            let cleanupTask = ImageCleanupTask(database: test.database, stores: stores, ambient: ambient, log: log)
            try await body(
                ImageFixture(
                    api: module.api, database: test.database, files: files, stores: stores, cleanupTask: cleanupTask, module: module,
                    cache: cache, time: time as? ManualTime))
        }
    }

    struct Answer {
        let status: Int
        let json: JSONValue
        let bytes: [UInt8]
        let headers: Headers
        subscript(_ name: String) -> JSONValue? { json[name] }
    }

    func call(
        _ method: String, _ target: String, token: String? = "member", headers: [(String, String)] = [],
        bytes: [UInt8] = []
    ) async throws -> Answer {
        var fields = Headers(headers)
        if let token { fields["x-auth-token"] = token }
        let response = await api.respond(to: try IncomingRequest(method, target, headers: fields, body: bytes))
        return try await ImageFixture.answer(response)
    }

    static func answer(_ response: Response) async throws -> Answer {
        var bytes = response.bytes ?? []
        if case .stream(_, let write) = response.body {
            let collector = Collector()
            var sink: any ByteSink = collector
            try await write(&sink)
            bytes = collector.bytes
        }
        let isJSON = response.headers["content-type"] == "application/json"
        return Answer(
            status: response.status, json: isJSON ? try JSONValue.parse(bytes) : .null, bytes: bytes,
            headers: response.headers)
    }

    func call(
        _ method: String, _ target: String, token: String? = "member", headers: [(String, String)] = [],
        json: JSONValue
    ) async throws -> Answer {
        try await call(method, target, token: token, headers: headers, bytes: json.encoded)
    }

    /// Registers an image and returns its id.
    func create(_ body: JSONValue = ["name": "i", "disk_format": "raw", "container_format": "bare"], token: String = "member") async throws
        -> String
    {
        try await call("POST", "/v2/images", token: token, json: body)["id"]?.stringValue ?? ""
    }

    func upload(_ id: String, _ bytes: [UInt8], token: String = "member") async throws -> Answer {
        try await call(
            "PUT", "/v2/images/\(id)/file", token: token, headers: [("Content-Type", "application/octet-stream")], bytes: bytes)
    }

    func stage(_ id: String, _ bytes: [UInt8], token: String = "member") async throws -> Answer {
        try await call(
            "PUT", "/v2/images/\(id)/stage", token: token,
            headers: [("Content-Type", "application/octet-stream"), ("Accept", "application/json")], bytes: bytes)
    }

    /// Requests an import without running it.
    func beginImport(_ id: String, _ method: String = "glance-direct", uri: String? = nil, token: String = "member") async throws -> Answer
    {
        var body: JSONObject = ["name": .string(method)]
        if let uri { body["uri"] = .string(uri) }
        return try await call(
            "POST", "/v2/images/\(id)/import", token: token, headers: [("Accept", "application/json")], json: ["method": .object(body)])
    }

    /// Runs all workflows to their end.
    func settle(_ engine: WorkflowEngine? = nil) async throws {
        let engine = engine ?? module.engine()
        for _ in 0..<2000 {
            let open = try await database.read { try $0.query("SELECT count(*) AS n FROM workflows WHERE finished_at IS NULL")[0].int("n") }
            if open == 0 { return }
            // It throws after its maximum number of rounds, which is not a failure here.
            try? await engine.drain(roundsMax: 4)
        }
        throw ResourceError.internalError("workflows did not finish within 2000 rounds")
    }

    /// The image's latest task.
    func task(_ id: String) async throws -> JSONValue {
        try await call("GET", "/v2/images/\(id)/tasks", token: "admin")["tasks"]?.arrayValue?.first ?? .null
    }

    func patch(_ id: String, _ operations: JSONValue, token: String = "member") async throws -> Answer {
        try await call(
            "PATCH", "/v2/images/\(id)", token: token,
            headers: [("Content-Type", "application/openstack-images-v2.1-json-patch")], json: operations)
    }

    func status(_ id: String) async throws -> String? {
        try await call("GET", "/v2/images/\(id)", token: "admin")["status"]?.stringValue
    }

    var stored: [String] { stored(in: files.directory).filter { $0 != "stores" && $0 != "cache" } }
    var cachePath: String { files.directory + "/cache" }

    /// The files of an additional store.
    func stored(in store: String) -> [String] {
        let path = store.hasPrefix("/") ? store : "\(files.directory)/stores/\(store)"
        return ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted()
    }
}

final class Collector: ByteSink {
    var bytes: [UInt8] = []
    func write(_ buffer: ByteBuffer) async throws { bytes += Array(buffer.readableBytesView) }
}
