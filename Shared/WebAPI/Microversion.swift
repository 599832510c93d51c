package import Kernel
package import ServiceCatalog

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

extension VersionNegotiation {
    /// The version of a request: the one in its headers, or the minimum.
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
