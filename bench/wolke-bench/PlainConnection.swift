import ArgumentParser
import Glibc

/// One keep-alive HTTP/1.1 connection with blocking calls: a load generator that costs little of what it measures.
final class PlainConnection {
    /// An answer with its whole body.
    struct Answer {
        let status: Int
        let body: [UInt8]
    }

    private let descriptor: Int32
    /// The received bytes. The buffer is kept between answers, because growing a new one costs more than reading.
    private var bytes = [UInt8](repeating: 0, count: 1 << 20)
    private static let timeoutSeconds = 120

    /// - Throws: `ValidationError` when nobody listens there.
    init(host: String, port: String) throws {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, port, &hints, &found) == 0, let address = found else {
            throw ValidationError("\(host):\(port) is not an address")
        }
        defer { freeaddrinfo(found) }
        descriptor = socket(address.pointee.ai_family, address.pointee.ai_socktype, 0)
        guard connect(descriptor, address.pointee.ai_addr, address.pointee.ai_addrlen) == 0 else {
            let reason = String(cString: strerror(errno))
            Glibc.close(descriptor)
            throw ValidationError("\(host):\(port): \(reason)")
        }
        var yes: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
        var patience = timeval(tv_sec: PlainConnection.timeoutSeconds, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { Glibc.close(descriptor) }

    /// Sends a whole request and waits for its answer.
    ///
    /// - Throws: `ValidationError` when the connection ends before that, or the answer does not say its length.
    func exchange(_ request: [UInt8]) throws -> Answer {
        var sent = 0
        while sent < request.count {
            let count = request[sent...].withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            guard count > 0 else { throw ValidationError("a request could not be sent: \(String(cString: strerror(errno)))") }
            sent += count
        }
        var held = 0
        var body: Range<Int>?
        var status = 0
        while body.map({ held < $0.upperBound }) ?? true {
            if held == bytes.count { bytes += [UInt8](repeating: 0, count: held) }
            let count = bytes.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress.map { $0 + held }, $0.count - held, 0) }
            guard count > 0 else { throw ValidationError("no whole answer came") }
            held += count
            guard body == nil, let end = PlainConnection.find("\r\n\r\n", bytes[..<held]) else { continue }
            let head = String(decoding: bytes[..<end], as: UTF8.self).split(separator: "\r\n")
            let words = head.first?.split(separator: " ") ?? []
            let length = head.first { $0.lowercased().hasPrefix("content-length:") }.flatMap {
                Int($0.split(separator: ":")[1].drop { $0 == " " })
            }
            guard words.count > 1, let code = Int(words[1]), let length else {
                throw ValidationError("not an answer with a length: \(head.first ?? "")")
            }
            status = code
            body = end + 4..<end + 4 + length
        }
        return Answer(status: status, body: body.map { Array(bytes[$0]) } ?? [])
    }

    /// The index at which `text` begins in the bytes.
    static func find(_ text: StaticString, _ bytes: ArraySlice<UInt8>) -> Int? {
        bytes.withUnsafeBytes { (buffer: UnsafeRawBufferPointer) -> Int? in
            guard let start = buffer.baseAddress else { return nil }
            var at = 0
            while at + text.utf8CodeUnitCount <= buffer.count,
                let found = memchr(start + at, Int32(text.utf8Start.pointee), buffer.count - at - text.utf8CodeUnitCount + 1)
            {
                at = UnsafeRawPointer(found) - start
                if memcmp(found, text.utf8Start, text.utf8CodeUnitCount) == 0 { return bytes.startIndex + at }
                at += 1
            }
            return nil
        }
    }
}
