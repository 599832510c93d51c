import Authorization
import BlockStorageCore
import BlockStorageService
import Cryptography
import Database
import FileTransfer
import Foundation
import ImageAccess
import JSON
import Kernel
import Logging
import NIOCore
import ServiceCatalog
import ServiceKit
import Synchronization
import Telemetry
import TestKit
import Testing
import WebAPI
import Workflow

/// The images of a test and their data.
final class FakeImages: ImageSource {
    let data = Mutex<[String: [UInt8]]>([:])
    /// The subjects for which data was read, in order.
    let subjects = Mutex<[ActingSubject]>([])
    /// Images that were created from volumes, and the error for further ones.
    let created = Mutex<[String: JSONObject]>([:])
    let refusal = Mutex<ResourceError?>(nil)

    func download(_ imageID: String, as subject: ActingSubject, _ receive: @escaping @Sendable (ByteBuffer) async throws -> Void)
        async throws
    {
        subjects.withLock { $0.append(subject) }
        guard let bytes = data.withLock({ $0[imageID] }) else { throw ResourceError.notFound("no image \(imageID)") }
        try await receive(ByteBuffer(bytes: bytes))
    }
}

extension FakeImages: VolumeImages {
    func createImage(_ image: JSONObject, as subject: ActingSubject) async throws {
        if let refusal = refusal.withLock({ $0 }) { throw refusal }
        let id = image["id"]?.stringValue ?? ""
        created.withLock { $0[id] = image }
    }

    func deleteImage(_ id: String, as subject: ActingSubject) async throws { created.withLock { $0[id] = nil } }

    func upload(
        _ imageID: String, from path: String, as subject: ActingSubject, _ progress: @escaping @Sendable (Int) -> Void
    ) async throws {
        guard created.withLock({ $0[imageID] }) != nil else { throw ResourceError.notFound("no image \(imageID)") }
        guard data.withLock({ $0[imageID] }) == nil else { throw ResourceError.conflict("image \(imageID) has data") }
        let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
        defer { try? file.close() }
        let start = Array(try file.read(upToCount: 4096) ?? Data())
        data.withLock { $0[imageID] = start }
        subjects.withLock { $0.append(subject) }
    }

    func look(_ imageID: String, as subject: ActingSubject) async throws -> UploadedImage {
        guard created.withLock({ $0[imageID] }) != nil else { throw ResourceError.notFound("no image \(imageID)") }
        let size = data.withLock { $0[imageID]?.count }
        return UploadedImage(status: size == nil ? "queued" : "active", size: size)
    }
}

/// The Block Storage API with a private database and directory.
struct VolumeFixture: Sendable {
    let module: ServiceModule
    var api: API { module.api }
    let database: Database
    let driver: FileDriver
    let images: FakeImages
    let engine: WorkflowEngine
    let log: Logger
    let time: ManualTime
    let directory: String

    static func with(
        settings: BlockStorageSettings = BlockStorageSettings(), imagePolicy: [String: String] = [:], policy: [String: String] = [:],
        protections: PropertyProtections? = nil,
        _ body: (VolumeFixture) async throws -> Void
    ) async throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent(
            "wolke-volumes-" + SystemRandom().uuid().compact
        ).path
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try await TestDatabase.with { test in
            let images = FakeImages()
            let driver = try FileDriver(directory: directory, images: images, sandbox: RecordedTools.shared.sandbox)
            let time = ManualTime()
            let ambient = Ambient(time: time, random: SeededRandom(seed: 6))
            let log = Telemetry.logger(service: "test", level: "critical")
            let callers = StaticAuthenticator([
                "admin": StaticAuthenticator.caller(user: "admin", project: "admin", roles: ["admin", "manager", "member", "reader"]),
                "member": StaticAuthenticator.caller(), "reader": StaticAuthenticator.caller(user: "u2", roles: ["reader"]),
                "other": StaticAuthenticator.caller(user: "u3", project: "p2"),
                "service": StaticAuthenticator.service,
            ])
            let module = try BlockStorageModule.make(
                driver: driver, images: try ImageAccess(policyOverrides: imagePolicy, protections: protections), uploads: images,
                settings: settings,
                .test(
                    test.database, .blockStorage, ambient: ambient, authenticator: callers, policy: policy,
                    publicURL: "http://volumes.example"))
            try await body(
                VolumeFixture(
                    module: module, database: test.database, driver: driver, images: images, engine: module.engine(),
                    log: log, time: time,
                    directory: directory))
            #expect(RecordedTools.shared.newProblems() == [], "S2: disks are opened without a format")
        }
    }

    /// Runs the workflows while a request waits.
    func workWhileWaiting(_ other: WorkflowEngine? = nil) {
        let engine = other ?? engine
        time.whenWaitingTogether {
            // It throws after its maximum number of rounds, which is not a failure here.
            try? await engine.drain(roundsMax: 1)
        }
    }

    /// Compute's row for a volume of a server; the server does not exist.
    func plug(_ volume: String, into server: String) async throws {
        try await database.write { connection in
            try connection.script("SET LOCAL session_replication_role = replica")
            try connection.execute(
                """
                INSERT INTO server_volumes (id, server_id, volume_id, device, created_at)
                VALUES (gen_random_uuid(), \(server)::uuid, \(volume)::uuid, '/dev/vdb', now())
                """)
        }
    }

    struct Answer {
        let status: Int
        let json: JSONValue
        let headers: Headers
        subscript(_ name: String) -> JSONValue? { json[name] }
    }

    func call(
        _ method: String, _ target: String, token: String? = "member", version: String? = nil, key: String? = nil,
        _ body: JSONValue? = nil
    ) async throws -> Answer {
        var fields = Headers()
        if let token { fields["x-auth-token"] = token }
        if let version { fields["openstack-api-version"] = "volume " + version }
        if let key { fields["idempotency-key"] = key }
        if token == "service" {
            for (name, value) in ActingSubject.accepted(project: "p1", user: "u1").headers { fields[name] = value }
        }
        let response = await api.respond(to: try IncomingRequest(method, target, headers: fields, body: body?.encoded ?? []))
        let bytes = response.bytes ?? []
        let json = bytes.isEmpty ? JSONValue.null : try JSONValue.parse(bytes)
        if response.status < 300, !bytes.isEmpty, let method = WebAPI.Method(rawValue: method) {
            #expect(api.answerFindings(method, String(target.prefix { $0 != "?" }), json) == [])
        }
        return Answer(status: response.status, json: json, headers: response.headers)
    }

    /// Runs all workflows to their end. Copies are done by another thread, and the manual clock waits for them.
    func settle(_ other: WorkflowEngine? = nil) async throws {
        let engine = other ?? engine
        for _ in 0..<2000 {
            let open = try await database.read {
                try $0.query("SELECT count(*) AS n FROM workflows WHERE finished_at IS NULL")[0].int("n")
                    + $0.query("SELECT count(*) AS n FROM intents")[0].int("n")
            }
            if open == 0 { return }
            // It throws after its maximum number of rounds, which is not a failure here.
            try? await engine.drain(roundsMax: 4)
            try await SystemTime().sleep(for: .milliseconds(2))
        }
        throw ResourceError.internalError("workflows did not finish within 2000 rounds")
    }

    func create(_ body: JSONValue = ["size": 1], token: String = "member") async throws -> String {
        let answer = try await call("POST", "/v3/p1/volumes", token: token, ["volume": body])
        guard let id = answer["volume"]?["id"]?.stringValue else { throw ResourceError.internalError("\(answer.json)") }
        try await settle()
        return id
    }

    func volume(_ id: String) async throws -> JSONValue {
        try await call("GET", "/v3/volumes/\(id)", token: "admin", version: "3.70")["volume"] ?? .null
    }

    func status(_ id: String) async throws -> String? { try await volume(id)["status"]?.stringValue }

    /// The reason for the volume's error as shown to operators; empty if it is not in error.
    func fault(_ id: String) async throws -> String {
        try await database.read {
            try $0.query("SELECT coalesce(fault, '') AS fault FROM volumes WHERE id = \(id)::uuid")[0].string("fault")
        }
    }

    var files: [String] { ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).sorted() }

    func usage(_ project: String = "p1") async throws -> [String: Int] {
        let set = try await call("GET", "/v3/admin/os-quota-sets/\(project)?usage=True", token: "admin")["quota_set"]
        var result: [String: Int] = [:]
        for name in ["volumes", "gigabytes", "snapshots"] { result[name] = set?[name]?["in_use"]?.intValue }
        return result
    }

    /// An image as the Image service would return it.
    func addImage(
        _ bytes: [UInt8], format: String = "raw", hash: String? = nil, properties: JSONValue = ["hw_disk_bus": "virtio"]
    ) async throws -> String {
        let id = SystemRandom().uuid().description
        let digest = hash ?? Hexadecimal.encode(HashAlgorithm.sha512.hash(bytes))
        images.data.withLock { $0[id] = bytes }
        _ = try await database.write { connection in
            try connection.execute(
                """
                INSERT INTO images (id, project_id, name, status, visibility, disk_format, container_format, size, checksum,
                    os_hash_algo, os_hash_value, file_id, properties, created_at, updated_at)
                VALUES (\(id)::uuid, 'admin', 'i', 'active', 'public', \(format), 'bare', \(bytes.count), 'x', 'sha512',
                    \(digest), \(id)::uuid, \(properties)::jsonb, now(), now())
                """)
        }
        return id
    }
}
