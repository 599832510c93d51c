import Kernel

/// Writes JSON directly to one growing byte buffer, without an intermediate tree.
///
/// The writer inserts commas: call `field` and `element` in order, inside `object` and `array`.
package struct JSONWriter: Sendable {
    package private(set) var bytes: [UInt8]
    private var needsComma = false

    package init(capacity: Int = 1024) {
        bytes = []
        bytes.reserveCapacity(capacity)
    }

    /// The text written so far.
    package var string: String { String(decoding: bytes, as: UTF8.self) }

    private mutating func separate() {
        if needsComma { bytes.append(UInt8(ascii: ",")) }
        needsComma = true
    }

    // MARK: structure

    /// An object; `body` writes its members.
    package mutating func object(_ body: (inout JSONWriter) throws -> Void) rethrows {
        separate()
        bytes.append(UInt8(ascii: "{"))
        needsComma = false
        try body(&self)
        bytes.append(UInt8(ascii: "}"))
        needsComma = true
    }

    /// An array; `body` writes its elements.
    package mutating func array(_ body: (inout JSONWriter) throws -> Void) rethrows {
        separate()
        bytes.append(UInt8(ascii: "["))
        needsComma = false
        try body(&self)
        bytes.append(UInt8(ascii: "]"))
        needsComma = true
    }

    /// Writes the name of the next member; write exactly one value after it.
    package mutating func name(_ name: String) {
        separate()
        appendQuoted(name)
        bytes.append(UInt8(ascii: ":"))
        needsComma = false
    }

    /// Writes a member whose value is an object.
    package mutating func objectField(_ name: String, _ body: (inout JSONWriter) throws -> Void) rethrows {
        self.name(name)
        try object(body)
    }

    /// Writes a member whose value is an array.
    package mutating func arrayField(_ name: String, _ body: (inout JSONWriter) throws -> Void) rethrows {
        self.name(name)
        try array(body)
    }

    // MARK: values

    /// `null`.
    package mutating func null() {
        separate()
        bytes.append(contentsOf: StaticBytes.null)
    }

    /// Writes a value, as an element or after `name`; nil becomes null. The overloads write other types.
    package mutating func value(_ value: Bool) {
        separate()
        bytes.append(contentsOf: value ? StaticBytes.true : StaticBytes.false)
    }

    package mutating func value(_ value: Int) {
        separate()
        appendInteger(Int64(value))
    }

    package mutating func value(_ value: Double) {
        separate()
        bytes.append(contentsOf: Array(value.description.utf8))
    }

    package mutating func value(_ value: String) {
        separate()
        appendQuoted(value)
    }

    package mutating func value(_ value: String?) {
        if let value { self.value(value) } else { null() }
    }

    /// Writes a string given as UTF-8 bytes.
    package mutating func string(utf8 text: UnsafeBufferPointer<UInt8>) {
        separate()
        appendQuoted(utf8: text)
    }

    /// Writes bytes that already are one JSON value, such as PostgreSQL's `json` output.
    package mutating func raw(_ json: some Sequence<UInt8>) {
        separate()
        bytes.append(contentsOf: json)
    }

    package mutating func value(_ value: JSONValue) {
        switch value {
        case .null: null()
        case .bool(let bool): self.value(bool)
        case .integer(let integer):
            separate()
            appendInteger(integer)
        case .double(let double): self.value(double)
        case .string(let string): self.value(string)
        case .array(let elements): array { for element in elements { $0.value(element) } }
        case .object(let object):
            self.object { for member in object.members { $0.field(member.name, member.value) } }
        }
    }

    // MARK: members

    /// Writes a member with its value; nil becomes null. The overloads write other types.
    package mutating func field(_ name: String, _ value: String) {
        self.name(name)
        self.value(value)
    }
    package mutating func field(_ name: String, _ value: String?) {
        self.name(name)
        self.value(value)
    }
    package mutating func field(_ name: String, _ value: Int) {
        self.name(name)
        self.value(value)
    }
    package mutating func field(_ name: String, _ value: Int?) {
        self.name(name)
        if let value { self.value(value) } else { null() }
    }
    package mutating func field(_ name: String, _ value: Bool) {
        self.name(name)
        self.value(value)
    }
    package mutating func field(_ name: String, _ value: JSONValue) {
        self.name(name)
        self.value(value)
    }
    package mutating func field(_ name: String, _ values: [String]) {
        arrayField(name) { for value in values { $0.value(value) } }
    }
    /// Writes a member whose value already is JSON.
    package mutating func rawField(_ name: String, _ json: some Sequence<UInt8>) {
        self.name(name)
        raw(json)
    }

    // MARK: bytes

    private mutating func appendInteger(_ value: Int64) {
        if value < 0 { bytes.append(UInt8(ascii: "-")) }
        var magnitude = value.magnitude
        let start = bytes.count
        repeat {
            bytes.append(48 + UInt8(magnitude % 10))
            magnitude /= 10
        } while magnitude > 0
        bytes[start...].reverse()
    }

    private mutating func appendQuoted(_ text: String) {
        var text = text
        text.withUTF8 { appendQuoted(utf8: $0) }
    }

    private mutating func appendQuoted(utf8: UnsafeBufferPointer<UInt8>) {
        bytes.append(UInt8(ascii: "\""))
        var start = 0
        for index in 0..<utf8.count {
            let byte = utf8[index]
            guard byte < 32 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") else { continue }
            bytes.append(contentsOf: utf8[start..<index])
            start = index + 1
            appendEscape(byte)
        }
        bytes.append(contentsOf: utf8[start..<utf8.count])
        bytes.append(UInt8(ascii: "\""))
    }

    private mutating func appendEscape(_ byte: UInt8) {
        bytes.append(UInt8(ascii: "\\"))
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): bytes.append(byte)
        case 10: bytes.append(UInt8(ascii: "n"))
        case 13: bytes.append(UInt8(ascii: "r"))
        case 9: bytes.append(UInt8(ascii: "t"))
        default:
            bytes.append(contentsOf: [UInt8(ascii: "u"), 48, 48])
            bytes.append(Hexadecimal.digit(byte >> 4))
            bytes.append(Hexadecimal.digit(byte & 15))
        }
    }
}

private enum StaticBytes {
    static let null = Array("null".utf8)
    static let `true` = Array("true".utf8)
    static let `false` = Array("false".utf8)
}

extension JSONValue: CustomStringConvertible {
    /// Compact JSON text.
    package var description: String { String(decoding: encoded, as: UTF8.self) }

    package var encoded: [UInt8] {
        var writer = JSONWriter()
        writer.value(self)
        return writer.bytes
    }
}
