/// A value parsed directly from UTF-8 bytes: when reading many rows, going through `String` costs ten times as much.
package protocol UTF8Readable {
    /// Nil if the text is not a valid value.
    init?(utf8 text: UnsafeBufferPointer<UInt8>)
}

extension UTF8Readable {
    package init?(_ text: String) {
        var text = text
        guard let found = text.withUTF8({ Self(utf8: $0) }) else { return nil }
        self = found
    }

    package init?(_ text: some StringProtocol) { self.init(String(text)) }
}

/// A 128-bit identifier in the text form of RFC 9562 (`8-4-4-4-12` lower-case hexadecimal digits).
///
/// Also reads the 32-digit form without dashes, which Identity uses for users and projects.
///
/// Public so that `Dictionary` look-ups in other modules are specialized and inlined.
@frozen
public struct UUID128: Hashable, Sendable, Comparable, CustomStringConvertible, UTF8Readable {
    public let high: UInt64
    public let low: UInt64

    @inlinable
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Parses 32 hexadecimal digits, with or without the four dashes; nil for anything else.
    package init?(utf8 text: UnsafeBufferPointer<UInt8>) {
        var high: UInt64 = 0
        var low: UInt64 = 0
        var digits = 0
        guard text.count == 32 || text.count == 36 else { return nil }
        for (position, byte) in text.enumerated() {
            if byte == UInt8(ascii: "-") {
                guard position == 8 || position == 13 || position == 18 || position == 23 else { return nil }
                continue
            }
            guard digits < 32, let nibble = Hexadecimal.value(of: byte) else { return nil }
            if digits < 16 { high = high << 4 | UInt64(nibble) } else { low = low << 4 | UInt64(nibble) }
            digits += 1
        }
        guard digits == 32 else { return nil }
        self.init(high: high, low: low)
    }

    public var description: String {
        String(unsafeUninitializedCapacity: UUID128.textLength) { buffer in
            write(to: buffer)
            return UUID128.textLength
        }
    }

    /// Length of the text with dashes, in bytes.
    package static let textLength = 36

    /// Writes the text with dashes to the buffer's first `textLength` bytes.
    package func write(to buffer: UnsafeMutableBufferPointer<UInt8>) {
        var index = 0
        for digit in 0..<32 {
            if digit == 8 || digit == 12 || digit == 16 || digit == 20 {
                buffer[index] = UInt8(ascii: "-")
                index += 1
            }
            let word = digit < 16 ? high : low
            let shift = UInt64(60 - (digit % 16) * 4)
            buffer[index] = Hexadecimal.digit(UInt8(truncatingIfNeeded: (word >> shift) & 0xf))
            index += 1
        }
    }

    /// The 32-digit form, as Identity and request contexts write ids.
    package var compact: String { description.filter { $0 != "-" } }

    @inlinable
    public static func < (left: UUID128, right: UUID128) -> Bool {
        left.high == right.high ? left.low < right.low : left.high < right.high
    }

    @inlinable
    public static func == (left: UUID128, right: UUID128) -> Bool { left.high == right.high && left.low == right.low }

    @inlinable
    public func hash(into hasher: inout Hasher) {
        hasher.combine(high)
        hasher.combine(low)
    }

    /// Hashes with two multiplications keyed by a per-process secret. Ten times faster than SipHash, and clients still
    /// cannot choose colliding ids.
    @inlinable
    public func _rawHashValue(seed: Int) -> Int {
        let first = (high ^ idHashSecret.high ^ UInt64(truncatingIfNeeded: seed)).multipliedFullWidth(by: low ^ idHashSecret.low)
        let second = (first.high ^ first.low ^ low).multipliedFullWidth(by: idHashSecret.high | 1)
        return Int(truncatingIfNeeded: second.high ^ second.low)
    }
}

/// Derived from the process's random hashing seed.
@usableFromInline
let idHashSecret: UUID128 = {
    func word(_ number: UInt64) -> UInt64 {
        var hasher = Hasher()
        hasher.combine(number)
        return UInt64(truncatingIfNeeded: hasher.finalize())
    }
    return UUID128(high: word(1), low: word(2))
}()

/// Hexadecimal digits, lower case.
package enum Hexadecimal {
    /// The ASCII digit of a number below 16.
    package static func digit(_ nibble: UInt8) -> UInt8 {
        nibble < 10 ? UInt8(ascii: "0") + nibble : UInt8(ascii: "a") + nibble - 10
    }

    /// The number of an ASCII digit, upper or lower case; nil for another character.
    package static func value(of byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }

    /// Two digits for each byte.
    package static func encode(_ bytes: some Sequence<UInt8>) -> String {
        var text = ""
        for byte in bytes {
            text.unicodeScalars.append(Unicode.Scalar(digit(byte >> 4)))
            text.unicodeScalars.append(Unicode.Scalar(digit(byte & 0xf)))
        }
        return text
    }

    /// Nil when the text has an odd length or another character than a hexadecimal digit.
    package static func decode(_ text: some StringProtocol) -> [UInt8]? {
        var bytes: [UInt8] = []
        var pending: UInt8?
        for byte in text.utf8 {
            guard let nibble = value(of: byte) else { return nil }
            if let first = pending {
                bytes.append(first << 4 | nibble)
                pending = nil
            } else {
                pending = nibble
            }
        }
        return pending == nil ? bytes : nil
    }
}

/// A typed identifier, such as `ID<Server>`, that cannot be confused with one of another type.
///
/// Identity's ids (users, projects, domains, roles) are text of up to 64 characters, including `default`; all other ids are
/// UUIDs. An id is therefore stored as the text that the API shows.
package struct ID<Subject>: Hashable, Sendable, CustomStringConvertible {
    package let text: String

    package init(_ text: String) { self.text = text }

    package init(_ uuid: UUID128) { self.text = uuid.description }

    package var description: String { text }
}
