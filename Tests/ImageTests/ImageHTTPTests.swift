import Foundation
import ImageService
import JSON
import Kernel
import Telemetry
import TestKit
import Testing
import WebAPI

/// Uploads and downloads over real connections.
@Suite(.serialized) struct ImageHTTPTests {
    /// The client's end of a connection.
    private final class Socket: Sendable {
        private let descriptor: Int32

        init(port: Int) async throws {
            descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = in_port_t(UInt16(port)).bigEndian
            address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
            for _ in 0..<500 {
                let connected = withUnsafePointer(to: &address) {
                    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                    }
                }
                if connected == 0 { return }
                try await SystemTime().sleep(for: .milliseconds(10))
            }
            throw ResourceError.internalError("no connection")
        }

        deinit { close(descriptor) }

        func send(_ bytes: [UInt8]) async throws -> Bool {
            try await offPool { [self] in
                var sent = 0
                while sent < bytes.count {
                    let count = bytes[sent...].withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
                    guard count > 0 else { return false }
                    sent += count
                }
                return true
            }
        }

        /// Reads until the other side closes.
        func receive() async throws -> [UInt8] {
            try await offPool { [self] in
                var bytes: [UInt8] = []
                var buffer = [UInt8](repeating: 0, count: 65_536)
                while case let count = recv(descriptor, &buffer, buffer.count, 0), count > 0 { bytes += buffer[0..<count] }
                return bytes
            }
        }
    }

    private func serving(
        idle: Duration = .seconds(120), _ body: @escaping @Sendable (ImageFixture, Int) async throws -> Void
    ) async throws {
        try await ImageFixture.with { cloud in
            let port = try FreePorts.take(1)[0]
            var limits = ConnectionLimits()
            limits.idleTimeout = idle
            limits.headTimeout = min(idle, limits.headTimeout)
            let server = HTTPServer(
                api: cloud.api, host: "127.0.0.1", port: port, metrics: Metrics(),
                log: Telemetry.logger(service: "test", level: "critical"), limits: limits,
                readiness: Readiness(time: SystemTime()) {})
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await server.run() }
                group.addTask { try await body(cloud, port) }
                // The body ends first; the server stops on request.
                try await group.next()
                group.cancelAll()
                do { try await group.waitForAll() } catch is CancellationError {}
            }
        }
    }

    private func head(_ method: String, _ path: String, length: String) -> [UInt8] {
        Array(
            ("\(method) \(path) HTTP/1.1\r\nHost: x\r\nX-Auth-Token: member\r\nConnection: close\r\n"
                + "Content-Type: application/octet-stream\r\n\(length)\r\n\r\n").utf8)
    }

    @Test(.timeLimit(.minutes(10))) func largeDataGoesInAndComesOut() async throws {
        try await serving { cloud, port in
            let id = try await cloud.create()
            let data = Array(repeating: UInt8(7), count: 2 << 20) + Array(repeating: UInt8(9), count: 700_001)
            let upload = try await Socket(port: port)
            #expect(try await upload.send(head("PUT", "/v2/images/\(id)/file", length: "Content-Length: \(data.count)") + data))
            #expect(try await String(decoding: upload.receive(), as: UTF8.self).hasPrefix("HTTP/1.1 204"))
            let download = try await Socket(port: port)
            #expect(try await download.send(head("GET", "/v2/images/\(id)/file", length: "X-Nothing: 1")))
            let answer = try await download.receive()
            #expect(String(decoding: answer.prefix(15), as: UTF8.self) == "HTTP/1.1 200 OK")
            #expect(Array(answer.suffix(data.count)) == data)
        }
    }

    @Test(.timeLimit(.minutes(10)), arguments: ["Content-Length: 9000000", "Transfer-Encoding: chunked"])
    func disconnectedUploadsLeaveNoFiles(_ length: String) async throws {
        try await serving { cloud, port in
            let id = try await cloud.create()
            do {
                let client = try await Socket(port: port)
                let piece = Array(repeating: UInt8(1), count: 3 << 20)
                let framing = length.hasPrefix("Transfer") ? Array((String(piece.count, radix: 16) + "\r\n").utf8) : []
                #expect(try await client.send(head("PUT", "/v2/images/\(id)/file", length: length) + framing + piece))
                while try await cloud.status(id) != "saving" { try await SystemTime().sleep(for: .milliseconds(5)) }
                // Keeps the connection open until here.
                withExtendedLifetime(client) {}
            }
            while try await cloud.status(id) == "saving" { try await SystemTime().sleep(for: .milliseconds(5)) }
            #expect(try await cloud.status(id) == "queued")
            for _ in 0..<2000 where !cloud.stored.isEmpty { try await SystemTime().sleep(for: .milliseconds(5)) }
            #expect(cloud.stored.isEmpty)
            #expect(try await cloud.upload(id, [1]).status == 204)
        }
    }

    @Test(.timeLimit(.minutes(10))) func idleConnectionsAreClosed() async throws {
        try await serving(idle: .milliseconds(300)) { _, port in
            let client = try await Socket(port: port)
            #expect(try await client.send(Array("GET /v2/images HTTP/1.1\r\nHost: ".utf8)))
            // Ends when the server closes.
            #expect(try await String(decoding: client.receive(), as: UTF8.self).hasPrefix("HTTP/1.1 408"))
        }
    }

    @Test(.timeLimit(.minutes(10))) func refusedDataIsAnsweredWhileItIsStillSent() async throws {
        try await serving { cloud, port in
            let id = try await cloud.create(["disk_format": "qcow2", "container_format": "bare"])
            let client = try await Socket(port: port)
            // More than fits into all buffers: the client is still sending when the response arrives.
            let data = Array(repeating: UInt8(0), count: 24 << 20)
            #expect(try await client.send(head("PUT", "/v2/images/\(id)/file", length: "Content-Length: \(data.count)") + data))
            #expect(try await String(decoding: client.receive(), as: UTF8.self).hasPrefix("HTTP/1.1 415"))
            #expect(try await cloud.status(id) == "queued")
        }
    }
}
