import Foundation
package import JSON
import Synchronization

/// An HTTP/1.1 server on plain sockets for tests of clients. The test determines its responses and when it closes connections.
package final class StubServer: Sendable {
    /// A received request.
    package struct Request: Sendable {
        package let method: String
        /// The path without the query, still percent-encoded.
        package let path: String
        package let query: String
        /// Names are in lower case.
        package let headers: [String: String]
        package let body: [UInt8]

        /// The body as JSON; null if it is not JSON.
        package var json: JSONValue {
            do { return try JSONValue.parse(body) } catch { return .null }
        }

        /// `GET /v3/users?name=x`
        package var line: String { method + " " + path + (query.isEmpty ? "" : "?" + query) }
    }

    /// A response of the server.
    package struct Answer: Sendable {
        var status = 200
        var headers: [(String, String)] = []
        var body: [UInt8] = []
        /// The number of bytes of the body before the connection is closed; nil for all.
        var breaksAfter: Int?
        var isDropped = false

        /// A response with a JSON body.
        package static func json(_ status: Int, _ body: JSONValue, headers: [(String, String)] = []) -> Answer {
            Answer(status: status, headers: [("content-type", "application/json")] + headers, body: body.encoded)
        }

        /// A response with a body of another type.
        package static func bytes(
            _ status: Int, _ body: [UInt8], type: String = "application/octet-stream", headers: [(String, String)] = []
        ) -> Answer {
            Answer(status: status, headers: [("content-type", type)] + headers, body: body)
        }

        /// A response without a body.
        package static func empty(_ status: Int, headers: [(String, String)] = []) -> Answer { Answer(status: status, headers: headers) }

        /// Closes the connection without a response.
        package static let dropped = Answer(isDropped: true)

        /// Closes the connection in the middle of the body.
        package func broken(after count: Int) -> Answer {
            var answer = self
            answer.breaksAfter = count
            return answer
        }
    }

    /// Base URL without a trailing slash.
    package let url: String
    private let listener: Int32
    private let stopped = Atomic(false)
    private let handler: @Sendable (Request) -> Answer
    private let log = Mutex<[Request]>([])

    package init(_ handler: @escaping @Sendable (Request) -> Answer) throws {
        self.handler = handler
        signal(SIGPIPE, SIG_IGN)
        listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = listener
        let isListening = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                bind(descriptor, pointer, length) == 0 && listen(descriptor, 64) == 0 && getsockname(descriptor, pointer, &length) == 0
            }
        }
        guard isListening else { throw StubError() }
        url = "http://127.0.0.1:\(UInt16(bigEndian: address.sin_port))"
        Thread.detachNewThread { [self] in
            while true {
                let connection = accept(descriptor, nil, nil)
                if connection < 0, errno == EINTR || errno == ECONNABORTED { continue }
                guard connection >= 0 else {
                    // Only closed here, so that the descriptor cannot be reused while this loop uses it.
                    close(descriptor)
                    return
                }
                Thread.detachNewThread { self.serve(connection) }
            }
        }
    }

    struct StubError: Error {}

    /// All requests so far.
    package var requests: [Request] { log.withLock { $0 } }

    /// The request lines so far.
    package var lines: [String] { requests.map(\.line) }

    /// Stops accepting connections.
    package func stop() {
        guard !stopped.exchange(true, ordering: .relaxed) else { return }
        shutdown(listener, Int32(SHUT_RDWR))
    }

    private func serve(_ connection: Int32) {
        defer { close(connection) }
        var reader = SocketReader(descriptor: connection)
        while let request = reader.request() {
            log.withLock { $0.append(request) }
            let answer = handler(request)
            guard !answer.isDropped else { return }
            var head = "HTTP/1.1 \(answer.status) X\r\n"
            for (name, value) in answer.headers { head += "\(name): \(value)\r\n" }
            if !answer.headers.contains(where: { $0.0 == "content-length" }), answer.status != 204 {
                head += "content-length: \(answer.body.count)\r\n"
            }
            let bytes = Array((head + "\r\n").utf8) + answer.body.prefix(answer.breaksAfter ?? answer.body.count)
            guard send(connection, bytes), answer.breaksAfter == nil else { return }
        }
    }

    private func send(_ connection: Int32, _ bytes: [UInt8]) -> Bool {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(connection, $0.baseAddress, $0.count) }
            guard count > 0 else { return false }
            rest = rest.dropFirst(count)
        }
        return true
    }
}

/// Reads requests from a socket.
private struct SocketReader {
    let descriptor: Int32
    private var buffer: [UInt8] = []
    private var position = 0

    init(descriptor: Int32) { self.descriptor = descriptor }

    private mutating func byte() -> UInt8? {
        if position == buffer.count {
            var chunk = [UInt8](repeating: 0, count: 65_536)
            let count = read(descriptor, &chunk, chunk.count)
            guard count > 0 else { return nil }
            buffer = Array(chunk[..<count])
            position = 0
        }
        position += 1
        return buffer[position - 1]
    }

    private mutating func line() -> String? {
        var bytes: [UInt8] = []
        while let byte = byte() {
            if byte == 10 { return String(decoding: bytes.last == 13 ? bytes.dropLast() : bytes[...], as: UTF8.self) }
            bytes.append(byte)
        }
        return nil
    }

    private mutating func bytes(_ count: Int) -> [UInt8]? {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        while bytes.count < count {
            guard let byte = byte() else { return nil }
            bytes.append(byte)
        }
        return bytes
    }

    mutating func request() -> StubServer.Request? {
        guard let first = line() else { return nil }
        let parts = first.split(separator: " ")
        guard parts.count == 3 else { return nil }
        var headers: [String: String] = [:]
        while let line = line(), !line.isEmpty {
            guard let colon = line.firstIndex(of: ":") else { return nil }
            headers[line[..<colon].lowercased()] = line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces)
        }
        guard let body = body(headers) else { return nil }
        let target = parts[1].split(separator: "?", maxSplits: 1)
        return StubServer.Request(
            method: String(parts[0]), path: String(target[0]), query: target.count == 2 ? String(target[1]) : "", headers: headers,
            body: body)
    }

    private mutating func body(_ headers: [String: String]) -> [UInt8]? {
        if let length = headers["content-length"].flatMap({ Int($0) }) { return bytes(length) }
        guard headers["transfer-encoding"] == "chunked" else { return [] }
        var body: [UInt8] = []
        while let size = line().flatMap({ Int($0, radix: 16) }) {
            guard let chunk = bytes(size), line() != nil else { return nil }
            if size == 0 { return body }
            body += chunk
        }
        return nil
    }
}
