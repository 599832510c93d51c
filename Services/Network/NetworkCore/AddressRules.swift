package import Kernel

/// Restrictions on the use of special-purpose address ranges.
///
/// Source of the ranges: IANA's IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890), RFC 4291 and RFC 5771.
package enum AddressRules {
    /// The purpose for which a request uses an address or network.
    package enum Use: Sendable, CaseIterable {
        /// The CIDR of a subnet. Refused if it overlaps the range.
        case subnet
        /// An allowed address pair. Like the uses below, refused if all its addresses lie in ranges, so that `0.0.0.0/0`
        /// remains possible.
        case addressPair
        /// The next hop of a route.
        case nexthop
        /// The destination of a route.
        case destination
        case nameServer
    }

    /// A range with a meaning of its own.
    package struct Range: Sendable {
        package let network: IPNetwork
        /// The text for error messages, with its article: `a multicast address`.
        package let name: String
        package let refused: Set<Use>

        fileprivate init(_ network: String, _ name: String, refused: Set<Use>) {
            guard let parsed = IPNetwork(network) else { preconditionFailure("'\(network)' is not a network") }
            self.network = parsed
            self.name = name
            self.refused = refused
        }
    }

    private static let all = Set(Use.allCases)

    // Ranges that guests can use like others are not listed: the rest of 169.254.0.0/16, in which address pairs of redundant gateways
    // usually are, and 64:ff9b::/96, because this cloud translates no addresses between IPv6 and IPv4.

    /// The first matching entry is named in the error.
    package static let ranges: [Range] = [
        Range("255.255.255.255/32", "the limited broadcast address", refused: all),
        // A guest with this address would impersonate the metadata service.
        Range("169.254.169.254/32", "the address of the metadata service", refused: [.subnet, .addressPair]),
        Range("224.0.0.0/4", "a multicast address", refused: all.subtracting([.destination])),
        Range("240.0.0.0/4", "a reserved address", refused: all),
        Range("127.0.0.0/8", "a loopback address", refused: all.subtracting([.nameServer])),
        // As a name server, 0.0.0.0 and :: mean that guests get none.
        Range("0.0.0.0/8", "an address of this network", refused: all.subtracting([.nameServer, .destination])),
        Range("ff00::/8", "a multicast address", refused: all.subtracting([.destination])),
        Range("::ffff:0:0/96", "an IPv4-mapped address", refused: all),
        Range("::1/128", "the loopback address", refused: all.subtracting([.nameServer])),
        Range("::/128", "the unspecified address", refused: all.subtracting([.nameServer, .destination])),
        Range("fe80::/10", "a link-local address", refused: [.subnet, .destination]),
    ]

    /// The range that forbids this use of `network`; nil if the use is allowed.
    package static func range(against network: IPNetwork, as use: Use) -> Range? {
        // Its /0 is the default route.
        if use == .destination, network.prefixLength == 0 { return nil }
        let candidates = ranges.filter { $0.refused.contains(use) && $0.network.overlaps(network) }
        if use == .subnet { return candidates.first }
        let metadataRange = candidates.first { use == .addressPair && $0.network.contains(metadata) }
        // A pair for a part of the link-local range is meant for addresses like this one.
        if let metadataRange, linkLocal.contains(network) { return metadataRange }
        return cover(of: network, by: candidates)
    }

    /// One of the ranges, if they contain all addresses of `network` together.
    private static func cover(of network: IPNetwork, by candidates: [Range]) -> Range? {
        let overlapping = candidates.filter { $0.network.overlaps(network) }
        if let whole = overlapping.first(where: { $0.network.contains(network) }) { return whole }
        guard !overlapping.isEmpty, network.prefixLength < network.version.width else { return nil }
        let length = network.prefixLength + 1
        let upper = IPAddress(version: network.version, value: network.first.value | UInt128(1) << UInt128(network.version.width - length))
        guard cover(of: IPNetwork(upper, prefixLength: length), by: overlapping) != nil else { return nil }
        return cover(of: IPNetwork(network.first, prefixLength: length), by: overlapping)
    }

    /// - Parameter text: the value as the client wrote it.
    /// - Throws: 400 naming the field, the value and the range.
    package static func check(_ network: IPNetwork, as use: Use, field: String, text: String? = nil) throws {
        guard let range = range(against: network, as: use) else { return }
        let isOne = network.prefixLength == network.version.width
        let text = text ?? (isOne ? "\(network.network)" : "\(network)")
        let verb = use == .subnet && !range.network.contains(network.network) ? "contains" : "is"
        throw ResourceError.badRequest(
            "Invalid input for \(field). Reason: '\(text)' \(verb) \(range.name) (\(range.network)).", type: "InvalidInput")
    }

    /// - Throws: 400 naming the field, the value and the range.
    package static func check(_ address: IPAddress, as use: Use, field: String) throws {
        try check(IPNetwork(address, prefixLength: address.version.width), as: use, field: field)
    }

    /// The address of the metadata service for guests.
    package static let metadata = IPAddress(version: .v4, value: 0xa9fe_a9fe)
    private static let linkLocal = IPNetwork(IPAddress(version: .v4, value: 0xa9fe_0000), prefixLength: 16)
}
