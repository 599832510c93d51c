import Glibc
import NIOCore
import Kernel
import Telemetry
import Testing
import WebAPI

@testable import ComputeAgentService
@testable import Libvirt

@Suite struct SmallHTTPServerTests {
    /// Sends bytes, closes the sending side, and reads until the server closes.
    private func exchange(_ request: String, port: Int) async throws -> String {
        try await WorkerThreads(name: "client", count: 1).run {
            let descriptor = try SmallHTTPServerTests.connected(port)
            defer { close(descriptor) }
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

    @Test(.timeLimit(.minutes(10))) func everyRequestIsAnswered() async throws {
        let channel = try await SmallHTTPServer.serve(
            host: "127.0.0.1", port: 0, ConnectionLedger(limits: .small, listener: "test", metrics: Metrics())
        ) { request in
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

    @Test("S18: idle guests of one network do not block metadata for it or another network", .timeLimit(.minutes(10)))
    func s18IdleGuestsDoNotBlockMetadata() async throws {
        var limits = ConnectionLimits.small
        limits.connectionsMax = 16
        limits.connectionsPerSourceMax = 8
        limits.headTimeout = .seconds(600)
        let metrics = Metrics()
        let total = ConnectionTotal(connectionsMax: 24)
        func serve(_ name: String) async throws -> any Channel {
            try await SmallHTTPServer.serve(
                host: "127.0.0.1", port: 0, ConnectionLedger(limits: limits, listener: name, metrics: metrics, total: total)
            ) { _ in SmallResponse(status: 200, text: name) }
        }
        let (attacked, other) = (try await serve("attacked"), try await serve("other"))
        let (port, otherPort) = (try #require(attacked.localAddress?.port), try #require(other.localAddress?.port))
        try await WorkerThreads(name: "silent", count: 1).run {
            var open: [Int32] = []
            defer { for descriptor in open { close(descriptor) } }
            for _ in 0..<200 { open.append(try SmallHTTPServerTests.connected(port)) }
            for (port, name) in [(port, "attacked"), (otherPort, "other")] {
                for _ in 0..<20 {
                    let asking = try SmallHTTPServerTests.connected(port)
                    defer { close(asking) }
                    try Files.write(asking, Array("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".utf8), "socket")
                    var buffer = [UInt8](repeating: 0, count: 4096)
                    let count = read(asking, &buffer, buffer.count)
                    let answer = String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
                    #expect(answer.hasPrefix("HTTP/1.1 200") && answer.hasSuffix(name))
                }
            }
        }
        #expect(metrics.render().contains("wolke_http_connections_evicted_total{listener=\"attacked\"}"))
        try await attacked.close()
        try await other.close()
    }

    @Test("S18: the connections of all networks' guests are limited", .timeLimit(.minutes(10)))
    func s18AllNetworksTogetherAreBounded() async throws {
        var limits = ConnectionLimits.small
        limits.connectionsMax = 16
        // On a busy machine the test takes longer than a silent connection may.
        limits.headTimeout = .seconds(600)
        let total = ConnectionTotal(connectionsMax: 10)
        let metrics = Metrics()
        let ledgers = ["one", "two"].map { ConnectionLedger(limits: limits, listener: $0, metrics: metrics, total: total) }
        var channels: [any Channel] = []
        for ledger in ledgers {
            channels.append(
                try await SmallHTTPServer.serve(host: "127.0.0.1", port: 0, ledger) { _ in SmallResponse(status: 200, text: "x") })
        }
        let ports = try channels.map { try #require($0.localAddress?.port) }
        let most = try await WorkerThreads(name: "silent", count: 1).run {
            var open: [Int32] = []
            defer { for descriptor in open { close(descriptor) } }
            var most = 0
            for number in 0..<60 {
                open.append(try SmallHTTPServerTests.connected(ports[number % 2]))
                most = max(most, total.count)
            }
            // The servers accept when they get to it. All connections over the limit evict one, or are refused.
            while SmallHTTPServerTests.turnedAway(metrics) < 50 {
                usleep(2000)
                most = max(most, total.count)
            }
            return most
        }
        #expect((8...10).contains(most))
        for channel in channels { try await channel.close() }
    }

    /// Connections that were evicted or refused.
    private static func turnedAway(_ metrics: Metrics) -> Int {
        metrics.render().split(separator: "\n").filter {
            $0.hasPrefix("wolke_http_connections_evicted_total{") || $0.hasPrefix("wolke_http_connections_refused_total{")
        }.compactMap { $0.split(separator: " ").last.flatMap { Double($0) } }.reduce(0) { $0 + Int($1) }
    }

    private static func connected(_ port: Int) throws -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr = in_addr(s_addr: UInt32(0x7f00_0001).bigEndian)
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        guard result == 0 else {
            close(descriptor)
            throw FileError.last("connect", "\(port)")
        }
        return descriptor
    }
}
