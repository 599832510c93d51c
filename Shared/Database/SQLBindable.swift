import Glibc
package import JSON
package import Kernel

/// A value that PostgreSQL reads from text.
package protocol SQLBindable {
    var sqlText: String? { get }

    /// The value as it is sent; its text, for most types.
    var sqlBind: SQLBind { get }

    /// Writes the value as an array's element; the same as with `sqlText`, for types that need no text of their own.
    func write(to literal: inout ArrayLiteral)

    /// PostgreSQL's array literal of these. A requirement, for each type to have its own loop: a generic one asks for again for every
    /// element how it is copied and written.
    static func arrayLiteral(_ elements: [Self]) -> String

    /// An array of these as it is sent; its literal, for most types.
    static func arrayBind(_ elements: [Self]) -> SQLBind
}

extension SQLBindable {
    package var sqlBind: SQLBind { .text(sqlText) }
    package static func arrayBind(_ elements: [Self]) -> SQLBind { .text(arrayLiteral(elements)) }

    package func write(to literal: inout ArrayLiteral) { literal.append(sqlText) }

    package static func arrayLiteral(_ elements: [Self]) -> String {
        var literal = ArrayLiteral(elements: elements.count)
        for element in elements { element.write(to: &literal) }
        return literal.finish()
    }
}

extension String: SQLBindable { package var sqlText: String? { self } }
extension Int: SQLBindable { package var sqlText: String? { String(self) } }
extension Int64: SQLBindable { package var sqlText: String? { String(self) } }
extension Double: SQLBindable { package var sqlText: String? { String(self) } }
extension Bool: SQLBindable { package var sqlText: String? { self ? "t" : "f" } }
extension UUID128: SQLBindable {
    package var sqlText: String? { description }
    package func write(to literal: inout ArrayLiteral) { literal.append(self) }
    package static func arrayBind(_ elements: [UUID128]) -> SQLBind { SQLBind(uuids: elements) }
}
extension ID: SQLBindable { package var sqlText: String? { text } }
extension Timestamp: SQLBindable { package var sqlText: String? { postgresql } }
extension JSONValue: SQLBindable { package var sqlText: String? { description } }
extension JSONObject: SQLBindable { package var sqlText: String? { JSONValue.object(self).description } }
extension IPAddress: SQLBindable { package var sqlText: String? { description } }
extension Duration: SQLBindable { package var sqlText: String? { "\(microseconds) microseconds" } }

extension Array: SQLBindable where Element: SQLBindable {
    /// PostgreSQL's array literal; cast it where the type is not evident: `\(names)::text[]`.
    package var sqlText: String? { Element.arrayLiteral(self) }
    package var sqlBind: SQLBind { Element.arrayBind(self) }
}

/// PostgreSQL's text of an array, as it is written: often hundreds of elements, so without a text for each.
package struct ArrayLiteral {
    private var bytes: [UInt8] = []

    fileprivate init(elements: Int) {
        bytes.reserveCapacity(2 + elements * (UUID128.textLength + 3))
        bytes.append(UInt8(ascii: "{"))
    }

    fileprivate consuming func finish() -> String {
        bytes.append(UInt8(ascii: "}"))
        return String(decoding: bytes, as: UTF8.self)
    }

    private mutating func separate() {
        if bytes.count > 1 { bytes.append(UInt8(ascii: ",")) }
    }

    /// An element that is a UUID.
    fileprivate mutating func append(_ uuid: UUID128) {
        separate()
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: UUID128.textLength + 2) { buffer in
            buffer[0] = UInt8(ascii: "\"")
            uuid.write(to: UnsafeMutableBufferPointer(rebasing: buffer[1...]))
            buffer[UUID128.textLength + 1] = UInt8(ascii: "\"")
            bytes.append(contentsOf: buffer)
        }
    }

    /// An element with this text; nil is NULL.
    fileprivate mutating func append(_ text: String?) {
        separate()
        guard var text else {
            bytes.append(contentsOf: "NULL".utf8)
            return
        }
        bytes.append(UInt8(ascii: "\""))
        text.withUTF8 { text in
            if ArrayLiteral.hasNothingToEscape(text) {
                bytes.append(contentsOf: text)
            } else {
                for byte in text {
                    if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { bytes.append(UInt8(ascii: "\\")) }
                    bytes.append(byte)
                }
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }

    private static func hasNothingToEscape(_ text: UnsafeBufferPointer<UInt8>) -> Bool {
        guard let start = text.baseAddress else { return true }
        return memchr(start, Int32(UInt8(ascii: "\"")), text.count) == nil && memchr(start, Int32(UInt8(ascii: "\\")), text.count) == nil
    }
}
