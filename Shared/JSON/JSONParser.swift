import Kernel

/// The reason why a document is not valid JSON, and the position.
package struct JSONParseError: Error, Sendable, CustomStringConvertible {
    package let reason: String
    /// Offset of the offending byte.
    package let offset: Int

    package var description: String { "\(reason) at byte \(offset)" }
}

extension JSONValue {
    /// Parses a complete document.
    ///
    /// - Throws: `JSONParseError` for anything RFC 8259 does not allow, a repeated member name, or nesting
    ///   deeper than `depthMax`.
    package static func parse(
        _ bytes: some Collection<UInt8>, depthMax: Int = Limits.jsonDepthMax
    ) throws(JSONParseError) -> JSONValue {
        var parser = JSONParser(bytes: ContiguousArray(bytes), depthMax: depthMax)
        return try parser.document()
    }

    /// Like `parse(_:depthMax:)`, for text.
    package static func parse(_ text: String) throws(JSONParseError) -> JSONValue {
        try parse(text.utf8)
    }
}

private struct JSONParser {
    let bytes: ContiguousArray<UInt8>
    let depthMax: Int
    var index = 0

    init(bytes: ContiguousArray<UInt8>, depthMax: Int) {
        self.bytes = bytes
        self.depthMax = depthMax
    }

    func failure(_ reason: String) -> JSONParseError { JSONParseError(reason: reason, offset: index) }

    mutating func document() throws(JSONParseError) -> JSONValue {
        let value = try value(depth: 0)
        skipSpace()
        guard index == bytes.count else { throw failure("unexpected data after the document") }
        return value
    }

    mutating func skipSpace() {
        while index < bytes.count, bytes[index] == 32 || (9...13).contains(bytes[index]) { index += 1 }
    }

    mutating func value(depth: Int) throws(JSONParseError) -> JSONValue {
        guard depth <= depthMax else { throw failure("nesting deeper than \(depthMax) levels") }
        skipSpace()
        guard index < bytes.count else { throw failure("unexpected end of the document") }
        switch bytes[index] {
        case UInt8(ascii: "{"): return try object(depth: depth)
        case UInt8(ascii: "["): return try array(depth: depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
        default: throw failure("unexpected character")
        }
    }

    mutating func word(_ text: StaticString, _ value: JSONValue) throws(JSONParseError) -> JSONValue {
        let length = text.utf8CodeUnitCount
        guard index + length <= bytes.count else { throw failure("unexpected end of the document") }
        for offset in 0..<length where bytes[index + offset] != text.utf8Start[offset] {
            throw failure("unexpected character")
        }
        index += length
        return value
    }

    mutating func object(depth: Int) throws(JSONParseError) -> JSONValue {
        index += 1
        var object = JSONObject()
        skipSpace()
        if index < bytes.count, bytes[index] == UInt8(ascii: "}") {
            index += 1
            return .object(object)
        }
        while true {
            skipSpace()
            guard index < bytes.count, bytes[index] == UInt8(ascii: "\"") else { throw failure("expected a member name") }
            let name = try string()
            let end = index
            skipSpace()
            guard index < bytes.count, bytes[index] == UInt8(ascii: ":") else { throw failure("expected ':'") }
            index += 1
            guard object.add(name, try value(depth: depth + 1)) else {
                throw JSONParseError(reason: "repeated member \"\(name)\"", offset: end)
            }
            if try endOfList(UInt8(ascii: "}")) { return .object(object) }
        }
    }

    mutating func array(depth: Int) throws(JSONParseError) -> JSONValue {
        index += 1
        var elements: [JSONValue] = []
        skipSpace()
        if index < bytes.count, bytes[index] == UInt8(ascii: "]") {
            index += 1
            return .array(elements)
        }
        while true {
            elements.append(try value(depth: depth + 1))
            if try endOfList(UInt8(ascii: "]")) { return .array(elements) }
        }
    }

    mutating func endOfList(_ close: UInt8) throws(JSONParseError) -> Bool {
        skipSpace()
        guard index < bytes.count else { throw failure("unexpected end of the document") }
        let byte = bytes[index]
        guard byte == close || byte == UInt8(ascii: ",") else { throw failure("expected ',' or the end of the list") }
        index += 1
        return byte == close
    }

    mutating func number() throws(JSONParseError) -> JSONValue {
        let start = index
        var isInteger = true
        if bytes[index] == UInt8(ascii: "-") { index += 1 }
        let firstDigit = index
        while index < bytes.count, isDigit(bytes[index]) { index += 1 }
        guard index > firstDigit, bytes[firstDigit] != 48 || index == firstDigit + 1 else {
            throw failure("malformed number")
        }
        if index < bytes.count, bytes[index] == UInt8(ascii: ".") {
            isInteger = false
            index += 1
            try digits()
        }
        if index < bytes.count, bytes[index] | 32 == UInt8(ascii: "e") {
            isInteger = false
            index += 1
            if index < bytes.count, bytes[index] == UInt8(ascii: "+") || bytes[index] == UInt8(ascii: "-") { index += 1 }
            try digits()
        }
        let text = String(decoding: bytes[start..<index], as: UTF8.self)
        if isInteger, let value = Int64(text) { return .integer(value) }
        guard let value = Double(text), value.isFinite else { throw failure("number out of range") }
        return .double(value)
    }

    func isDigit(_ byte: UInt8) -> Bool { byte >= 48 && byte <= 57 }

    mutating func digits() throws(JSONParseError) {
        let start = index
        while index < bytes.count, isDigit(bytes[index]) { index += 1 }
        guard index > start else { throw failure("malformed number") }
    }

    mutating func string() throws(JSONParseError) -> String {
        index += 1
        let start = index
        while index < bytes.count, bytes[index] != UInt8(ascii: "\""), bytes[index] != UInt8(ascii: "\\") {
            guard bytes[index] >= 32 else { throw failure("control character in a string") }
            index += 1
        }
        guard index < bytes.count else { throw failure("unterminated string") }
        if bytes[index] == UInt8(ascii: "\"") {
            let slice = bytes[start..<index]
            index += 1
            return try text(slice)
        }
        return try escapedString(prefix: Array(bytes[start..<index]))
    }

    func text(_ bytes: some Collection<UInt8>) throws(JSONParseError) -> String {
        guard let text = String(validating: bytes, as: UTF8.self) else { throw failure("invalid UTF-8 in a string") }
        return text
    }

    mutating func escapedString(prefix: [UInt8]) throws(JSONParseError) -> String {
        var output = prefix
        while index < bytes.count {
            let byte = bytes[index]
            index += 1
            switch byte {
            case UInt8(ascii: "\""): return try text(output)
            case UInt8(ascii: "\\"): try escape(into: &output)
            case 0..<32: throw failure("control character in a string")
            default: output.append(byte)
            }
        }
        throw failure("unterminated string")
    }

    mutating func escape(into output: inout [UInt8]) throws(JSONParseError) {
        guard index < bytes.count else { throw failure("unterminated string") }
        let byte = bytes[index]
        index += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): output.append(byte)
        case UInt8(ascii: "b"): output.append(8)
        case UInt8(ascii: "f"): output.append(12)
        case UInt8(ascii: "n"): output.append(10)
        case UInt8(ascii: "r"): output.append(13)
        case UInt8(ascii: "t"): output.append(9)
        case UInt8(ascii: "u"):
            var scalar = UInt32(try codeUnit())
            if (0xd800..<0xdc00).contains(scalar) {
                guard index + 1 < bytes.count, bytes[index] == UInt8(ascii: "\\"), bytes[index + 1] == UInt8(ascii: "u")
                else { throw failure("lone surrogate") }
                index += 2
                let low = UInt32(try codeUnit())
                guard (0xdc00..<0xe000).contains(low) else { throw failure("lone surrogate") }
                scalar = 0x10000 + (scalar - 0xd800) << 10 + (low - 0xdc00)
            }
            guard let unicode = Unicode.Scalar(scalar) else { throw failure("lone surrogate") }
            output.append(contentsOf: Array(String(Character(unicode)).utf8))
        default: throw failure("unknown escape")
        }
    }

    mutating func codeUnit() throws(JSONParseError) -> UInt16 {
        guard index + 4 <= bytes.count else { throw failure("unterminated string") }
        var value: UInt16 = 0
        for _ in 0..<4 {
            guard let nibble = Hexadecimal.value(of: bytes[index]) else { throw failure("malformed \\u escape") }
            value = value << 4 | UInt16(nibble)
            index += 1
        }
        return value
    }
}
