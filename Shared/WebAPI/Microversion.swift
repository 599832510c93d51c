import Kernel

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

/// The versions from which and up to which something exists.
package struct VersionRange: Hashable, Sendable {
    package let from: Microversion?
    package let through: Microversion?

    package init(from: Microversion? = nil, through: Microversion? = nil) {
        self.from = from
        self.through = through
    }

    package static let all = VersionRange()

    package func contains(_ version: Microversion) -> Bool {
        (from.map { $0 <= version } ?? true) && (through.map { version <= $0 } ?? true)
    }
}

/// How a service negotiates versions; nil in `ServiceDescription` where it has none.
package struct VersionNegotiation: Sendable {
    package let minimum: Microversion
    package let maximum: Microversion
    /// The service's word in `OpenStack-API-Version: compute 2.96`.
    package let serviceType: String
    /// `X-OpenStack-Nova-API-Version`, where the service has such an older header.
    package let legacyHeader: String?

    package init(minimum: Microversion, maximum: Microversion, serviceType: String, legacyHeader: String? = nil) {
        self.minimum = minimum
        self.maximum = maximum
        self.serviceType = serviceType
        self.legacyHeader = legacyHeader
    }

    /// The version of a request: what its headers ask for, the minimum where they ask for nothing.
    ///
    /// - Throws: 400 for a malformed value, 406 outside the range.
    package func negotiate(_ headers: Headers) throws -> Microversion {
        guard let asked = requested(headers) else { return minimum }
        if asked == "latest" { return maximum }
        guard let version = Microversion(asked) else {
            throw ResourceError.badRequest(
                "API Version String '\(asked.prefix(64))' is of invalid format. Must be of format MajorNum.MinorNum.")
        }
        guard version >= minimum, version <= maximum else {
            throw ResourceError(
                .notAcceptable,
                "Version \(version) is not supported by the API. Minimum is \(minimum) and maximum is \(maximum).")
        }
        return version
    }

    private func requested(_ headers: Headers) -> String? {
        for value in headers.values("openstack-api-version") {
            for item in value.split(separator: ",") {
                let words = item.split(separator: " ")
                if words.count == 2, words[0].lowercased() == serviceType { return String(words[1]) }
            }
        }
        guard let legacyHeader else { return nil }
        return headers[legacyHeader]
    }
}
