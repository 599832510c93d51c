/// An IPv4 or IPv6 address.
package struct IPAddress: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// IPv4 or IPv6.
    package enum Version: Int, Sendable {
        case v4 = 4
        case v6 = 6

        /// Bits of an address.
        package var width: Int { self == .v4 ? 32 : 128 }
    }

    package let version: Version
    package let value: UInt128

    package init(version: Version, value: UInt128) {
        self.version = version
        self.value = value
    }

    /// Parses dotted-quad IPv4 (no leading zeros, RFC 6943 §3.1.1) or RFC 4291 IPv6 text without a zone.
    package init?(_ text: some StringProtocol) {
        if text.utf8.contains(UInt8(ascii: ":")) {
            guard let value = IPAddress.parseV6(text) else { return nil }
            self.init(version: .v6, value: value)
        } else {
            guard let value = IPAddress.parseV4(text) else { return nil }
            self.init(version: .v4, value: UInt128(value))
        }
    }

    private static func parseV4(_ text: some StringProtocol) -> UInt32? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var value: UInt32 = 0
        for part in parts {
            guard (1...3).contains(part.utf8.count), part.utf8.allSatisfy({ (48...57).contains($0) }),
                part.utf8.count == 1 || part.utf8.first != 48, let octet = UInt8(part)
            else { return nil }
            value = value << 8 | UInt32(octet)
        }
        return value
    }

    private static func parseV6(_ text: some StringProtocol) -> UInt128? {
        var head: [UInt16] = []
        var tail: [UInt16] = []
        let text = String(text)
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
                    guard index == halves.count - 1, position == groups.count - 1, let v4 = parseV4(group) else {
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
            let value = UInt32(truncatingIfNeeded: value)
            return "\(value >> 24).\(value >> 16 & 255).\(value >> 8 & 255).\(value & 255)"
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

    package static func < (left: IPAddress, right: IPAddress) -> Bool {
        (left.version.rawValue, left.value) < (right.version.rawValue, right.value)
    }

    /// The address `offset` further on, or nil past the end of the address space.
    package func advanced(by offset: UInt128) -> IPAddress? {
        let (sum, overflow) = value.addingReportingOverflow(offset)
        guard !overflow, version == .v6 || sum <= UInt128(UInt32.max) else { return nil }
        return IPAddress(version: version, value: sum)
    }
}

/// A network in CIDR form (RFC 4632); `network` has its host bits cleared.
package struct IPNetwork: Hashable, Sendable, CustomStringConvertible {
    package let network: IPAddress
    /// Bits that all addresses of the network share.
    package let prefixLength: Int

    package init(_ address: IPAddress, prefixLength: Int) {
        precondition((0...address.version.width).contains(prefixLength))
        self.prefixLength = prefixLength
        self.network = IPAddress(
            version: address.version,
            value: address.value & IPNetwork.mask(prefixLength, address.version))
    }

    /// Parses `address/length`; host bits may be set and are cleared. Nil without a valid length.
    package init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let address = IPAddress(parts[0]), parts[1].utf8.allSatisfy({ (48...57).contains($0) }),
            (1...3).contains(parts[1].utf8.count), let length = Int(parts[1]), length <= address.version.width
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

    package var description: String { "\(network)/\(prefixLength)" }

    /// `255.255.255.0` for a /24; IPv4 only.
    package var netmask: IPAddress { IPAddress(version: version, value: IPNetwork.mask(prefixLength, version)) }

    /// Whether the address lies in the network.
    package func contains(_ address: IPAddress) -> Bool {
        address.version == version && address.value & IPNetwork.mask(prefixLength, version) == network.value
    }

    /// Whether the two have an address in common.
    package func overlaps(_ other: IPNetwork) -> Bool {
        prefixLength <= other.prefixLength ? contains(other.network) : other.contains(network)
    }
}

/// A 48-bit hardware address in the form `fa:16:3e:00:00:01`.
package struct MACAddress: Hashable, Sendable, CustomStringConvertible {
    package let value: UInt64

    package init(value: UInt64) { self.value = value & 0xffff_ffff_ffff }

    package init?(_ text: some StringProtocol) {
        let parts = text.split(whereSeparator: { $0 == ":" || $0 == "-" })
        guard parts.count == 6 else { return nil }
        var value: UInt64 = 0
        for part in parts {
            guard part.utf8.count == 2, let bytes = Hexadecimal.decode(part) else { return nil }
            value = value << 8 | UInt64(bytes[0])
        }
        self.init(value: value)
    }

    package var description: String {
        (0..<6).map { Hexadecimal.encode([UInt8(truncatingIfNeeded: value >> UInt64(40 - $0 * 8))]) }
            .joined(separator: ":")
    }

    package var isMulticast: Bool { value >> 40 & 1 == 1 }
}
