package import Database
package import JSON
import Kernel
package import NIOCore

/// Header fields; names are compared without regard to case and kept in lower case.
package struct Headers: Sendable, ExpressibleByDictionaryLiteral {
    package private(set) var fields: [(name: String, value: String)]

    package init(_ fields: [(String, String)] = []) {
        self.fields = fields.map { ($0.0.lowercased(), $0.1) }
    }

    package init(dictionaryLiteral elements: (String, String)...) { self.init(elements) }

    package subscript(_ name: String) -> String? {
        get {
            let name = name.lowercased()
            return fields.first { $0.name == name }?.value
        }
        set {
            let name = name.lowercased()
            fields.removeAll { $0.name == name }
            if let newValue { fields.append((name, newValue)) }
        }
    }

    package func values(_ name: String) -> [String] { fields.filter { $0.name == name }.map(\.value) }

    /// Removes the fields that only a trusted proxy may set: `Forwarded` (RFC 7239) and `X-Forwarded-*`.
    package mutating func removeForwarded() {
        fields.removeAll { $0.name == "forwarded" || $0.name.hasPrefix("x-forwarded-") }
    }

    package mutating func append(_ name: String, _ value: String) { fields.append((name.lowercased(), value)) }
}

/// Query parameters in the order in which they came; a name may repeat.
///
/// It records whether the paging parameters were read, so that a response which silently ignores them is detected.
package struct Query: Sendable {
    /// All parameters, for code that reads other than paging parameters (filters, links).
    package let items: [(name: String, value: String)]
    private let reader = Flag()
    private static let paging: Set<String> = ["limit", "marker", "offset", "page_reverse"]

    /// All parameters, for code that applies or refuses the paging parameters.
    package var pagingItems: [(name: String, value: String)] {
        reader.set()
        return items
    }

    /// The first paging parameter, if no code has read any paging parameters.
    var ignoredPaging: String? { reader.isSet ? nil : items.first { Query.paging.contains($0.name) }?.name }

    /// The complete query as in a URL; for links to the answer itself.
    package var encoded: String {
        items.map { "\(PercentEncoding.encode($0.name))=\(PercentEncoding.encode($0.value))" }.joined(separator: "&")
    }

    /// Names in `?fields=a,b&fields=c`; nil if all fields are requested.
    package var fields: Set<String>? {
        let texts = values("fields")
        return texts.isEmpty ? nil : Set(texts.flatMap { $0.split(separator: ",").map(String.init) })
    }

    package init(_ items: [(String, String)] = []) { self.items = items.map { (name: $0.0, value: $0.1) } }

    /// - Throws: 400 for a malformed percent escape.
    package init(parsing text: some StringProtocol) throws {
        items = try text.split(separator: "&").map { pair in
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            return (try Query.decode(parts[0]), parts.count == 2 ? try Query.decode(parts[1]) : "")
        }
    }

    package subscript(_ name: String) -> String? {
        if Query.paging.contains(name) { reader.set() }
        return items.first { $0.name == name }?.value
    }

    package func values(_ name: String) -> [String] { items.filter { $0.name == name }.map(\.value) }

    /// A decoded part of a request target.
    ///
    /// - Throws: 400 for a malformed percent escape, invalid UTF-8 and the character NUL.
    static func decode(_ text: some StringProtocol, plusIsSpace: Bool = true) throws -> String {
        guard let bytes = PercentEncoding.decode(text, plusIsSpace: plusIsSpace) else {
            throw ResourceError.badRequest("The request target has a malformed percent escape.")
        }
        guard let decoded = String(validating: bytes, as: UTF8.self), !decoded.utf8.contains(0) else {
            throw ResourceError.badRequest("The request target is not valid UTF-8.")
        }
        return decoded
    }
}

/// A request body that is read piece by piece.
package typealias BodyStream = any AsyncSequence<ByteBuffer, any Error> & Sendable

/// A request before routing.
package struct IncomingRequest: Sendable {
    package var method: String
    /// Path without the query, still percent-encoded.
    package var path: String
    package var query: Query
    package var headers: Headers
    package var body: BodyStream
    /// Whether the client is still connected; nil if unknown.
    package var presence: ClientPresence?
    /// The client's address for limits; behind a trusted proxy, the address that the proxy reports.
    package var source: String

    package init(
        method: String, path: String, query: Query, headers: Headers, body: BodyStream, presence: ClientPresence? = nil,
        source: String? = nil
    ) {
        self.presence = presence
        self.source = source ?? presence?.source ?? ""
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
    }

    /// For tests: a target with query, and the whole body.
    package init(_ method: String, _ target: String, headers: Headers = [:], body: [UInt8] = []) throws {
        let parts = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let stream = AsyncThrowingStream<ByteBuffer, any Error> { continuation in
            if !body.isEmpty { continuation.yield(ByteBuffer(bytes: body)) }
            continuation.finish()
        }
        self.init(
            method: method, path: String(parts[0]), query: try Query(parsing: parts.count == 2 ? parts[1] : ""),
            headers: headers, body: stream)
    }
}

/// The destination of a streamed response body.
package protocol ByteSink {
    mutating func write(_ bytes: ByteBuffer) async throws
}

/// An answer before it goes to the wire.
package struct Response: Sendable {
    package enum Body: Sendable {
        case none
        case bytes([UInt8])
        /// Written piece by piece; `length` in bytes where known.
        case stream(length: Int?, @Sendable (inout any ByteSink) async throws -> Void)
    }

    package var status: Int
    package var headers: Headers
    package var body: Body

    package init(status: Int, headers: Headers = [:], body: Body = .none) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    package static func json(_ status: Int = 200, headers: Headers = [:], _ value: JSONValue) -> Response {
        json(status, headers: headers, bytes: value.encoded)
    }

    package static func json(_ status: Int = 200, headers: Headers = [:], bytes: [UInt8]) -> Response {
        var headers = headers
        headers["content-type"] = "application/json"
        return Response(status: status, headers: headers, body: .bytes(bytes))
    }

    /// One JSON object, written by `body`.
    package static func object(
        _ status: Int = 200, headers: Headers = [:], capacity: Int = 1024,
        _ body: (inout JSONWriter) throws -> Void
    ) rethrows -> Response {
        var writer = JSONWriter(capacity: capacity)
        try writer.object(body)
        return json(status, headers: headers, bytes: writer.bytes)
    }

    package static func empty(_ status: Int = 204, headers: Headers = [:]) -> Response {
        Response(status: status, headers: headers)
    }

    /// The body's bytes; nil for a stream.
    package var bytes: [UInt8]? {
        switch body {
        case .none: []
        case .bytes(let bytes): bytes
        case .stream: nil
        }
    }
}
