package import Kernel

/// The addresses that a service may connect to for a user: public Internet addresses, and networks that the operator allows.
///
/// The reserved networks are those of the IANA registries of special-purpose addresses (RFC 6890).
package struct PublicAddresses: Sendable {
    private let allowed: [IPNetwork]

    /// - Parameter allowed: networks that are allowed although they are not public.
    package init(allowing allowed: [IPNetwork] = []) { self.allowed = allowed }

    private static func networks(_ texts: [String]) -> [IPNetwork] { texts.compactMap { IPNetwork($0) } }

    static let reserved = networks([
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
        "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        // IPv6 addresses that contain an IPv4 address, and those for documentation and benchmarks.
        "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
    ])
    /// All global addresses of IPv6 are in this network.
    private static let global = networks(["2000::/3"])
    /// IPv4-mapped IPv6 addresses.
    private static let mapped = networks(["::ffff:0:0/96"])

    package func permits(_ address: IPAddress) -> Bool {
        if PublicAddresses.mapped.contains(where: { $0.contains(address) }) {
            return permits(IPAddress(version: .v4, value: address.value & 0xffff_ffff))
        }
        if allowed.contains(where: { $0.contains(address) }) { return true }
        if address.version == .v6, !PublicAddresses.global.contains(where: { $0.contains(address) }) { return false }
        return !PublicAddresses.reserved.contains { $0.contains(address) }
    }
}
