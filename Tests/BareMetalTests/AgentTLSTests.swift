import Commands
import Foundation
import Kernel
import TestKit
import Testing

@testable import BareMetalService

/// The connection to an agent's command API, with a certificate that the agent has made itself.
@Suite struct AgentTLSTests {
    /// A server with the certificate `own`, which is valid for 127.0.0.1, and another certificate.
    private static func with(subject: String, _ body: (_ url: String, _ own: String, _ other: String) async throws -> Void) async throws {
        let directory = FileManager.default.temporaryDirectory.path + "/wolke-agent-" + SystemRandom().uuid().compact
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        for (name, address) in [("own", subject), ("other", "127.0.0.1")] {
            try Command([
                "/usr/bin/openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                "-subj",
                "/CN=agent", "-addext", "subjectAltName=IP:\(address)", "-keyout", "\(directory)/\(name).key", "-out",
                "\(directory)/\(name).pem",
            ]).run(timeout: .seconds(30))
        }
        let port = try FreePorts.take(1)[0]
        let server = Process()
        server.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
        server.arguments = [
            "s_server", "-accept", "127.0.0.1:\(port)", "-cert", "\(directory)/own.pem", "-key", "\(directory)/own.key", "-www", "-quiet",
        ]
        server.standardOutput = FileHandle.nullDevice
        server.standardError = FileHandle.nullDevice
        server.standardInput = FileHandle.nullDevice
        try server.run()
        defer {
            // It does not end by SIGTERM.
            kill(server.processIdentifier, SIGKILL)
            server.waitUntilExit()
        }
        func text(_ name: String) throws -> String { try String(contentsOfFile: "\(directory)/\(name).pem", encoding: .utf8) }
        try await body("https://127.0.0.1:\(port)", try text("own"), try text("other"))
    }

    /// The failure of a question to the agent. The server answers with a page, so there always is one.
    private static func failure(_ url: String, _ certificate: String?) async throws -> String {
        let channel = HTTPAgentChannel(url: url, token: Secret("t"), certificate: certificate)
        for _ in 0..<100 {
            do { _ = try await channel.commands() } catch let failure as HardwareFailure {
                // The server has not begun to listen.
                guard failure.description.contains("connection refused") else { return failure.description }
            }
            try await SystemTime().sleep(for: .milliseconds(50))
        }
        return "the server never listened"
    }

    @Test("S22: an agent is only spoken to if its certificate is the one that it has announced")
    func s22AgentsAreVerified() async throws {
        try await AgentTLSTests.with(subject: "127.0.0.1") { url, own, other in
            let trusted = try await AgentTLSTests.failure(url, own)
            #expect(trusted.contains("has answered 200"), "\(trusted)")
            for certificate in [other, nil] {
                let refused = try await AgentTLSTests.failure(url, certificate)
                #expect(refused.contains("cannot be reached") && !refused.contains("refused"), "\(refused)")
            }
            let unreadable = try await AgentTLSTests.failure(url, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")
            #expect(unreadable.contains("cannot be read"), "\(unreadable)")
        }
        // A certificate for another address.
        try await AgentTLSTests.with(subject: "192.0.2.1") { url, own, _ in
            let refused = try await AgentTLSTests.failure(url, own)
            #expect(refused.contains("cannot be reached"), "\(refused)")
        }
    }
}
