import Glibc
import Kernel
import TestKit

/// A TCP connection to 127.0.0.1 (from any address of that network) for sending what no HTTP client would send.
final class RawClient: Sendable {
    private let descriptor: Int32

    /// - Parameter source: the last byte of the client's own address.
    init(port: Int, source: UInt32 = 1) async throws {
        descriptor = try await offPool { try RawClient.connected(port, source) }
    }

    deinit { Glibc.close(descriptor) }

    private static func connected(_ port: Int, _ source: UInt32) throws -> Int32 {
        var own = sockaddr_in()
        own.sin_family = sa_family_t(AF_INET)
        own.sin_addr = in_addr(s_addr: (UInt32(0x7f00_0000) | source).bigEndian)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr = in_addr(s_addr: UInt32(0x7f00_0001).bigEndian)
        // The server may not be listening yet.
        for _ in 0..<400 {
            let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
            let isBound = withUnsafePointer(to: &own) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
            }
            let result =
                isBound != 0
                ? isBound
                : withUnsafePointer(to: &address) {
                    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                    }
                }
            if result == 0 {
                var limit = timeval(tv_sec: 30, tv_usec: 0)
                for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
                    setsockopt(descriptor, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
                }
                return descriptor
            }
            Glibc.close(descriptor)
            usleep(10_000)
        }
        throw ResourceError.internalError("no connection")
    }

    /// Sends bytes; false if the server has closed the connection. Throws if it reads nothing for 30 s.
    @discardableResult
    func send(_ text: String) async throws -> Bool {
        let bytes = Array(text.utf8)
        return try await offPool { [self] in
            var sent = 0
            while sent < bytes.count {
                let count = bytes[sent...].withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
                if count < 0, errno == EAGAIN { throw ResourceError.internalError("the server has taken nothing for 30 s") }
                guard count > 0 else { return false }
                sent += count
            }
            return true
        }
    }

    /// Closes the sending side.
    func finish() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// Reads until the server closes, or until `end` is true.
    func receive(until end: @escaping @Sendable (String) -> Bool = { _ in false }) async throws -> String {
        try await offPool { [self] in
            var bytes: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 65_536)
            while !end(String(decoding: bytes, as: UTF8.self)) {
                let count = recv(descriptor, &buffer, buffer.count, 0)
                guard count > 0 else { break }
                bytes += buffer[0..<count]
            }
            return String(decoding: bytes, as: UTF8.self)
        }
    }

    /// Sends a request and returns everything until the server closes.
    func exchange(_ request: String) async throws -> String {
        try await send(request)
        return try await receive()
    }
}
