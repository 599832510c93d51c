import Glibc
import NIOCore
import Kernel
import Testing

@testable import ComputeAgentService
@testable import Libvirt

@Suite struct SmallHTTPServerTests {
    /// Sends bytes, closes that direction, and reads until the server closes.
    private func exchange(_ request: String, port: Int) async throws -> String {
        try await WorkerThreads(name: "client", count: 1).run {
            let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
            defer { close(descriptor) }
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = in_port_t(port).bigEndian
            address.sin_addr = in_addr(s_addr: UInt32(0x7f00_0001).bigEndian)
            let connected = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
            guard connected == 0 else { throw FileError.last("connect", "\(port)") }
            try Files.write(descriptor, Array(request.utf8), "socket")
            shutdown(descriptor, Int32(SHUT_WR))
            var answer: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 4096)
            while true {
                let count = read(descriptor, &buffer, buffer.count)
                if count <= 0 { break }
                answer += buffer[0..<count]
            }
            return String(decoding: answer, as: UTF8.self)
        }
    }

    @Test(.timeLimit(.minutes(10))) func whoHasAskedIsAnswered() async throws {
        let channel = try await SmallHTTPServer.serve(host: "127.0.0.1", port: 0) { request in
            await Task.yield()
            return SmallResponse(status: 200, text: "\(request.method) \(request.path) \(request.remoteAddress ?? "?")")
        }
        let port = try #require(channel.localAddress?.port)
        for _ in 0..<50 {
            let old = try await exchange("GET /a HTTP/1.0\r\n\r\n", port: port)
            #expect(old.hasPrefix("HTTP/1.0 200"))
            #expect(old.hasSuffix("\r\n\r\nGET /a 127.0.0.1"))
            let new = try await exchange("GET /b HTTP/1.1\r\nhost: x\r\n\r\n", port: port)
            #expect(new.hasSuffix("GET /b 127.0.0.1"))
        }
        #expect(try await exchange("HEAD /c HTTP/1.1\r\nhost: x\r\n\r\n", port: port).hasSuffix("\r\n\r\n"))
        #expect(try await exchange("nonsense\r\n\r\n", port: port).hasPrefix("HTTP/1.1 400"))
        #expect(try await exchange("", port: port).isEmpty)
        try await channel.close()
    }
}
