/// An IPv4 or IPv6 address.
package struct IPAddress: Hashable, Sendable, Comparable, CustomStringConvertible, UTF8Readable {
    /// IPv4 or IPv6.
    package enum Version: Int, Sendable {
        case v4 = 4
        case v6 = 6

        /// Number of bits of an address.
        package var width: Int { self == .v4 ? 32 : 128 }
    }

    package let version: Version
    package let value: UInt128

    package init(version: Version, value: UInt128) {
        self.version = version
        self.value = value
    }

    /// Parses dotted-quad IPv4 (no leading zeros, RFC 6943 §3.1.1) or RFC 4291 IPv6 text without a zone.
    package init?(utf8 text: UnsafeBufferPointer<UInt8>) {
        // IPv4 text has no colon, so only text with a colon is parsed as IPv6.
        if let value = IPAddress.parseV4(text) {
            self.init(version: .v4, value: UInt128(value))
        } else {
            guard text.contains(UInt8(ascii: ":")), let value = IPAddress.parseV6(String(decoding: text, as: UTF8.self))
            else { return nil }
            self.init(version: .v6, value: value)
        }
    }

    private static func parseV4(_ text: UnsafeBufferPointer<UInt8>) -> UInt32? {
        guard (7...15).contains(text.count) else { return nil }
        var value: UInt32 = 0
        var octet: UInt32 = 0
        var digits = 0
        var dots = 0
        for byte in text {
            if byte == UInt8(ascii: ".") {
                guard digits > 0, dots < 3 else { return nil }
                value = value << 8 | octet
                octet = 0
                digits = 0
                dots += 1
            } else {
                guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9"), digits == 0 || octet > 0 else { return nil }
                octet = octet * 10 + UInt32(byte - UInt8(ascii: "0"))
                digits += 1
                guard octet <= 255 else { return nil }
            }
        }
        return dots == 3 && digits > 0 ? value << 8 | octet : nil
    }

    private static func parseV6(_ text: String) -> UInt128? {
        var head: [UInt16] = []
        var tail: [UInt16] = []
        let halves: [Substring]
        if let gap = text.firstRange(of: "::") {
            halves = [text[..<gap.lowerBound], text[gap.upperBound...]]
        } else {
            halves = [text[...]]
        }
        for (index, half) in halves.enumerated() where !half.isEmpty {
            let groups = half.split(separator: ":", omittingEmptySubsequences: false)
            for (position, group) in groups.enumerated() {
                var words: [UInt16]
                if group.contains(".") {
                    var quad = String(group)
                    guard index == halves.count - 1, position == groups.count - 1, let v4 = quad.withUTF8(parseV4) else {
                        return nil
                    }
                    words = [UInt16(v4 >> 16), UInt16(truncatingIfNeeded: v4)]
                } else {
                    guard (1...4).contains(group.utf8.count), let word = UInt16(group, radix: 16),
                        group.utf8.allSatisfy({ Hexadecimal.value(of: $0) != nil })
                    else { return nil }
                    words = [word]
                }
                if index == 0 { head += words } else { tail += words }
            }
        }
        let missing = 8 - head.count - tail.count
        guard halves.count == 2 ? missing >= 1 : missing == 0 else { return nil }
        let words = head + Array(repeating: 0, count: max(0, missing)) + tail
        return words.reduce(UInt128(0)) { $0 << 16 | UInt128($1) }
    }

    /// Canonical text (RFC 5952 for IPv6).
    package var description: String {
        if version == .v4 {
            return String(unsafeUninitializedCapacity: 15) { writeV4($0) }
        }
        let words = (0..<8).map { UInt16(truncatingIfNeeded: value >> UInt128(112 - $0 * 16)) }
        var best = 0..<0
        var start: Int?
        for index in 0...8 {
            if index < 8, words[index] == 0 {
                start = start ?? index
            } else if let first = start {
                if index - first > max(1, best.count) { best = first..<index }
                start = nil
            }
        }
        let hex = words.map { String($0, radix: 16) }
        if best.isEmpty { return hex.joined(separator: ":") }
        return hex[..<best.lowerBound].joined(separator: ":") + "::" + hex[best.upperBound...].joined(separator: ":")
    }

    /// Writes dotted-quad text, at most 15 bytes; returns the number of bytes.
    fileprivate func writeV4(_ buffer: UnsafeMutableBufferPointer<UInt8>) -> Int {
        let value = UInt32(truncatingIfNeeded: value)
        var index = 0
        for place: UInt32 in 0..<4 {
            if place > 0 {
                buffer[index] = UInt8(ascii: ".")
                index += 1
            }
            writeDecimal(UInt8(truncatingIfNeeded: value >> (24 - place * 8)), buffer, &index)
        }
        return index
    }

    package static func < (left: IPAddress, right: IPAddress) -> Bool {
        (left.version.rawValue, left.value) < (right.version.rawValue, right.value)
    }

    /// The address plus `offset`, or nil past the end of the address space.
    package func advanced(by offset: UInt128) -> IPAddress? {
        let (sum, overflow) = value.addingReportingOverflow(offset)
        guard !overflow, version == .v6 || sum <= UInt128(UInt32.max) else { return nil }
        return IPAddress(version: version, value: sum)
    }
}

/// A network in CIDR form (RFC 4632); `network` has its host bits cleared.
package struct IPNetwork: Hashable, Sendable, CustomStringConvertible, UTF8Readable {
    package let network: IPAddress
    /// Number of leading bits that all addresses of the network share.
    package let prefixLength: Int

    package init(_ address: IPAddress, prefixLength: Int) {
        precondition((0...address.version.width).contains(prefixLength))
        self.prefixLength = prefixLength
        self.network = IPAddress(
            version: address.version,
            value: address.value & IPNetwork.mask(prefixLength, address.version))
    }

    /// Parses `address/length`; host bits may be set and are cleared. Nil without a valid length.
    package init?(utf8 text: UnsafeBufferPointer<UInt8>) {
        guard let slash = text.firstIndex(of: UInt8(ascii: "/")), (1...3).contains(text.count - slash - 1) else { return nil }
        var length = 0
        for byte in text[(slash + 1)...] {
            guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
            length = length * 10 + Int(byte - UInt8(ascii: "0"))
        }
        guard let address = IPAddress(utf8: UnsafeBufferPointer(rebasing: text[..<slash])), length <= address.version.width
        else { return nil }
        self.init(address, prefixLength: length)
    }

    private static func mask(_ length: Int, _ version: IPAddress.Version) -> UInt128 {
        guard length > 0 else { return 0 }
        let all: UInt128 = version == .v4 ? UInt128(UInt32.max) : UInt128.max
        let host = version.width - length
        return host >= 128 ? 0 : (all >> UInt128(host)) << UInt128(host)
    }

    package var version: IPAddress.Version { network.version }
    package var first: IPAddress { network }
    package var last: IPAddress {
        let host = version.width - prefixLength
        let ones: UInt128 = host >= 128 ? UInt128.max : (UInt128(1) << UInt128(host)) - 1
        return IPAddress(version: version, value: network.value | ones)
    }

    package var description: String {
        guard version == .v4 else { return "\(network)/\(prefixLength)" }
        return String(unsafeUninitializedCapacity: 18) { buffer in
            var index = network.writeV4(buffer)
            buffer[index] = UInt8(ascii: "/")
            index += 1
            writeDecimal(UInt8(prefixLength), buffer, &index)
            return index
        }
    }

    /// `255.255.255.0` for a /24; IPv4 only.
    package var netmask: IPAddress { IPAddress(version: version, value: IPNetwork.mask(prefixLength, version)) }

    /// Whether the address lies in the network.
    package func contains(_ address: IPAddress) -> Bool {
        address.version == version && address.value & IPNetwork.mask(prefixLength, version) == network.value
    }

    /// Whether every address of `other` lies in the network.
    package func contains(_ other: IPNetwork) -> Bool { prefixLength <= other.prefixLength && contains(other.network) }

    /// Whether the two have an address in common.
    package func overlaps(_ other: IPNetwork) -> Bool {
        prefixLength <= other.prefixLength ? contains(other.network) : other.contains(network)
    }
}

/// A 48-bit hardware address in the form `fa:16:3e:00:00:01`.
package struct MACAddress: Hashable, Sendable, CustomStringConvertible, UTF8Readable {
    package let value: UInt64

    package init(value: UInt64) { self.value = value & 0xffff_ffff_ffff }

    /// Parses six pairs of hexadecimal digits, separated by colons or dashes.
    package init?(utf8 text: UnsafeBufferPointer<UInt8>) {
        var value: UInt64 = 0
        var digits = 0
        var isInPair = false
        for byte in text {
            if byte == UInt8(ascii: ":") || byte == UInt8(ascii: "-") {
                guard digits.isMultiple(of: 2) else { return nil }
                isInPair = false
            } else {
                // A pair has two digits; a separator must precede the next one.
                guard let nibble = Hexadecimal.value(of: byte), digits < 12, !isInPair || !digits.isMultiple(of: 2) else { return nil }
                value = value << 4 | UInt64(nibble)
                digits += 1
                isInPair = true
            }
        }
        guard digits == 12 else { return nil }
        self.init(value: value)
    }

    package var description: String {
        String(unsafeUninitializedCapacity: 17) { buffer in
            for place in 0..<6 {
                let byte = UInt8(truncatingIfNeeded: value >> UInt64(40 - place * 8))
                buffer[place * 3] = Hexadecimal.digit(byte >> 4)
                buffer[place * 3 + 1] = Hexadecimal.digit(byte & 0xf)
                if place < 5 { buffer[place * 3 + 2] = UInt8(ascii: ":") }
            }
            return 17
        }
    }

    package var isMulticast: Bool { value >> 40 & 1 == 1 }
}

/// Writes the decimal digits of a number at `index`, and advances `index` past them.
private func writeDecimal(_ number: UInt8, _ buffer: UnsafeMutableBufferPointer<UInt8>, _ index: inout Int) {
    func write(_ digit: UInt8) {
        buffer[index] = UInt8(ascii: "0") + digit
        index += 1
    }
    if number >= 100 { write(number / 100) }
    if number >= 10 { write(number / 10 % 10) }
    write(number % 10)
}
