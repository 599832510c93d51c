import Commands
import Foundation
import Kernel
import Logging
import TestKit
import Testing

@testable import OVSDB

/// A database that listens with TLS, and the clients that it accepts.
@Suite struct OVSDBTLSTests {
    /// The authorities `ca` and `untrusted`, and certificates signed by them.
    private static func makeKeys(in directory: String) throws {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        func openssl(_ words: String) throws {
            try Command(["/usr/bin/openssl"] + words.replacing("DIR", with: directory).split(separator: " ").map(String.init)).run(
                timeout: .seconds(30))
        }
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        for ca in ["ca", "untrusted"] {
            try openssl("req -x509 \(key) -days 2 -subj /CN=\(ca) -keyout DIR/\(ca).key -out DIR/\(ca).pem")
        }
        for (name, ca) in [("server", "ca"), ("client", "ca"), ("untrustedClient", "untrusted")] {
            try openssl("req \(key) -subj /CN=\(name) -keyout DIR/\(name).key -out DIR/\(name).csr")
            try openssl("x509 -req -in DIR/\(name).csr -CA DIR/\(ca).pem -CAkey DIR/\(ca).key -CAcreateserial -days 2 -out DIR/\(name).pem")
        }
    }

    private static func with(_ body: (Int, String) async throws -> Void) async throws {
        let keys = FileManager.default.temporaryDirectory.path + "/wolke-keys-" + SystemRandom().uuid().compact
        defer { try? FileManager.default.removeItem(atPath: keys) }
        try makeKeys(in: keys)
        let port = try FreePorts.take(1)[0]
        let server = try PrivateOVSDB(
            schema: "/usr/share/ovn/ovn-nb.ovsschema",
            options: [
                "--remote=pssl:\(port):127.0.0.1", "--private-key=\(keys)/server.key", "--certificate=\(keys)/server.pem",
                "--ca-cert=\(keys)/ca.pem",
            ])
        do { try await body(port, keys) } catch {
            try server.stop()
            throw error
        }
        try server.stop()
    }

    /// Whether a client can connect in time.
    private static func connects(_ port: Int, _ credentials: OVSDBCredentials?, tls: Bool = true) async throws -> Bool {
        let endpoint = tls ? OVSDBEndpoint.tls(host: "127.0.0.1", port: port) : .tcp(host: "127.0.0.1", port: port)
        var configuration = OVSDBConfiguration(
            endpoints: [endpoint], database: "OVN_Northbound", monitors: [OVSDBMonitor("Logical_Switch")])
        configuration.credentials = credentials
        configuration.reconnectDelayMax = .milliseconds(200)
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let client = OVSDBClient(configuration, ambient: Ambient(), logger: logger)
        let task = Task { await client.run() }
        var isConnected = false
        for _ in 0..<40 where !isConnected {
            try await SystemTime().sleep(for: .milliseconds(50))
            isConnected = await client.isConnected
        }
        if isConnected {
            try await client.transact([.insert(table: "Logical_Switch", row: ["name": OVSDBValue("s")])])
            #expect(await client.rows("Logical_Switch").count >= 1)
        }
        task.cancel()
        await task.value
        return isConnected
    }

    @Test("S22: client and server of an OVN database with TLS only accept each other's certificates from the authority")
    func s22_tls() async throws {
        try await OVSDBTLSTests.with { port, keys in
            func credentials(_ name: String, trusting ca: String) throws -> OVSDBCredentials {
                try OVSDBCredentials(
                    privateKey: "\(keys)/\(name).key", certificate: "\(keys)/\(name).pem", authorities: "\(keys)/\(ca).pem")
            }
            let own = try credentials("client", trusting: "ca")
            let credulous = try credentials("client", trusting: "untrusted")
            let untrustedClient = try credentials("untrustedClient", trusting: "ca")
            #expect(try await OVSDBTLSTests.connects(port, own))
            // The client refuses the server, the server refuses the client, and a connection without TLS fails.
            #expect(try await !OVSDBTLSTests.connects(port, credulous))
            #expect(try await !OVSDBTLSTests.connects(port, untrustedClient))
            #expect(try await !OVSDBTLSTests.connects(port, nil))
            #expect(try await !OVSDBTLSTests.connects(port, nil, tls: false))
            for (key, certificate) in [("client", "server"), ("nothing", "client"), ("client", "nothing")] {
                #expect(throws: OVSDBError.self, "\(key) \(certificate)") {
                    try OVSDBCredentials(
                        privateKey: "\(keys)/\(key).key", certificate: "\(keys)/\(certificate).pem", authorities: "\(keys)/ca.pem")
                }
            }
        }
    }
}
