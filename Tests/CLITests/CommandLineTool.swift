import Foundation
import JSON
import Kernel
import Synchronization
import TestKit

/// The built `osctl`, run against a stub cloud with its own home directory.
final class CommandLineTool: Sendable {
    struct Result: Sendable {
        let status: Int32
        let output: String
        let errors: String
    }

    let server: StubServer
    let home: String

    /// - Parameter handler: answers everything but the sign-on.
    init(_ handler: @escaping @Sendable (StubServer.Request) -> StubServer.Answer) throws {
        let address = Mutex("")
        server = try StubServer { request in
            guard request.path == "/v3/auth/tokens", request.method == "POST" else { return handler(request) }
            guard request.json["auth"]?["identity"]?["password"]?["user"]?["password"] == "secret" else {
                return .json(
                    401, ["error": ["code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."]])
            }
            return .json(201, CommandLineTool.token(address.withLock { $0 }), headers: [("x-subject-token", "the-token")])
        }
        let url = server.url
        address.withLock { $0 = url }
        home = NSTemporaryDirectory() + "/osctl-" + Ambient().newUUID().description
        try FileManager.default.createDirectory(atPath: home + "/.config/openstack", withIntermediateDirectories: true)
        try """
        clouds:
          demo: {auth: {auth_url: "\(url)/v3", username: demo, password: secret, project_name: demo}}
          wrong: {auth: {auth_url: "\(url)/v3", username: demo, password: bad, project_name: demo}}
        """.write(toFile: home + "/.config/openstack/clouds.yaml", atomically: true, encoding: .utf8)
    }

    deinit {
        server.stop()
        do { try FileManager.default.removeItem(atPath: home) } catch {}
    }

    private static func token(_ url: String) -> JSONValue {
        func service(_ type: String, _ path: String) -> JSONValue {
            [
                "type": .string(type), "name": .string(type),
                "endpoints": [["interface": "public", "region": "RegionOne", "url": .string(url + path)]],
            ]
        }
        return [
            "token": [
                "expires_at": .string((SystemTime().now() + .seconds(3600)).iso8601Microseconds), "user": ["id": "u1", "name": "demo"],
                "project": ["id": "p1", "name": "demo"], "roles": [["id": "r1", "name": "member"]],
                "catalog": [
                    service("identity", "/v3"), service("compute", "/compute/v2.1"), service("network", "/network"),
                    service("image", "/image"), service("baremetal", "/baremetal"),
                    service("block-storage", "/volume/v3/p1"),
                ],
            ]
        ]
    }

    /// The directory of built executables, next to the test bundle.
    private static let program: String = {
        let bundle = FileManager.default.currentDirectoryPath + "/.build/debug/osctl"
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        let beside = (own as NSString).deletingLastPathComponent + "/osctl"
        return FileManager.default.isExecutableFile(atPath: beside) ? beside : bundle
    }()

    func run(_ line: String, cloud: String = "demo", input: String? = nil) async throws -> Result {
        try await run(line.split(separator: " ").map(String.init), cloud: cloud)
    }

    func run(_ arguments: [String], cloud: String = "demo") async throws -> Result {
        try await offPool { [home] in try CommandLineTool.runBlocking(arguments, home: home, cloud: cloud) }
    }

    private static func runBlocking(_ arguments: [String], home: String, cloud: String) throws -> Result {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: CommandLineTool.program)
        process.arguments = arguments
        process.environment = ["HOME": home, "OS_CLOUD": cloud, "PATH": "/usr/bin:/bin"]
        process.currentDirectoryURL = URL(fileURLWithPath: home)
        let output = home + "/out." + Ambient().newUUID().description
        let errors = output + ".err"
        _ = FileManager.default.createFile(atPath: output, contents: nil)
        _ = FileManager.default.createFile(atPath: errors, contents: nil)
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle(forWritingAtPath: output)
        process.standardError = FileHandle(forWritingAtPath: errors)
        try process.run()
        process.waitUntilExit()
        return Result(
            status: process.terminationStatus, output: try String(contentsOfFile: output, encoding: .utf8),
            errors: try String(contentsOfFile: errors, encoding: .utf8))
    }
}
