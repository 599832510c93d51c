import Foundation
import JSON
import Kernel

/// Short requests to running parts, each on its own thread with a timeout on the socket.
enum Probe {
    /// Longest wait for a response.
    static let limitSeconds = 3

    /// Status and body of `GET path` at an IPv4 address of this machine or of a simulated host.
    static func http(host: String, port: Int, path: String) async throws -> (status: Int, body: String) {
        let text = try await exchange(
            .internet(host, port), "GET \(path) HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", until: nil)
        guard text.hasPrefix("HTTP/1."), let status = text.split(separator: " ").dropFirst().first.flatMap({ Int($0) }) else {
            throw CloudError("port \(port) does not speak HTTP")
        }
        let body = text.range(of: "\r\n\r\n").map { String(text[$0.upperBound...]) } ?? ""
        return (status, body)
    }

    /// RabbitMQ's version, from the first frame that it sends.
    static func amqp(port: Int) async throws -> String {
        let text = try await exchange(
            .internet("127.0.0.1", port), "AMQP\u{0}\u{0}\u{9}\u{1}", until: { $0.contains("version") && $0.count > 300 })
        // In the table of server properties: the name, "S", four bytes of length, the text.
        guard let name = text.range(of: "versionS") else { throw CloudError("port \(port) does not speak AMQP 0-9-1") }
        return String(text[name.upperBound...].dropFirst(4).prefix { $0.isNumber || $0 == "." })
    }

    /// Whether an OVSDB server answers an echo (RFC 7047 §4.1.11).
    static func ovsdb(socket: String) async throws {
        let text = try await exchange(.unix(socket), #"{"method":"echo","params":["wolke"],"id":"1"}"#, until: { $0.contains("}") })
        guard text.contains("wolke") else { throw CloudError("\(socket) does not speak OVSDB") }
    }

    enum Peer {
        case internet(String, Int)
        case unix(String)
    }

    /// Sends `request`; returns the response as Latin-1 text, up to the end of the connection or until `until` is true.
    private static func exchange(_ peer: Peer, _ request: String, until: (@Sendable (String) -> Bool)?) async throws -> String {
        try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread {
                continuation.resume(with: Result { try exchangeBlocking(peer, request, until) })
            }
        }
    }

    private static func exchangeBlocking(_ peer: Peer, _ request: String, _ until: ((String) -> Bool)?) throws -> String {
        let descriptor = try connect(peer)
        defer { close(descriptor) }
        let bytes = Array(request.utf8)
        guard send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else {
            throw CloudError("closed the connection")
        }
        var text = ""
        var buffer = [UInt8](repeating: 0, count: 16_384)
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count < 0 { throw CloudError("no answer within \(limitSeconds) s") }
            if count == 0 { break }
            for byte in buffer[..<count] { text.unicodeScalars.append(Unicode.Scalar(byte)) }
            if text.utf8.count > 1 << 20 || until?(text) == true { break }
        }
        guard !text.isEmpty else { throw CloudError("closed the connection without an answer") }
        return text
    }

    private static func connect(_ peer: Peer) throws -> Int32 {
        let result: Int32
        let descriptor: Int32
        let shown: String
        var limit = timeval(tv_sec: limitSeconds, tv_usec: 0)
        switch peer {
        case .internet(let host, let port):
            shown = "\(host):\(port)"
            descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = in_port_t(UInt16(truncatingIfNeeded: port)).bigEndian
            address.sin_addr.s_addr = inet_addr(host)
            setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
            result = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
        case .unix(let path):
            shown = path
            descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            let capacity = MemoryLayout.size(ofValue: address.sun_path)
            guard path.utf8.count < capacity else { throw CloudError("\(path) is too long for a socket") }
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
            result = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
        }
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        guard result == 0 else {
            let why = String(cString: strerror(errno))
            close(descriptor)
            throw CloudError("\(shown): \(why)")
        }
        return descriptor
    }
}
