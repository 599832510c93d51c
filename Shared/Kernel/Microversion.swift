/// A version of a service's API: `2.96`.
package struct Microversion: Hashable, Sendable, Comparable, CustomStringConvertible {
    package let major: Int
    package let minor: Int

    package init(_ major: Int, _ minor: Int) {
        self.major = major
        self.minor = minor
    }

    /// Parses `2.96`; nil for anything else, leading zeros included.
    package init?(_ text: some StringProtocol) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 2, let major = Int(parts[0]), let minor = Int(parts[1]),
            String(major) == parts[0], String(minor) == parts[1], major >= 0, minor >= 0
        else { return nil }
        self.init(major, minor)
    }

    package var description: String { "\(major).\(minor)" }

    package static func < (left: Microversion, right: Microversion) -> Bool {
        (left.major, left.minor) < (right.major, right.minor)
    }
}
