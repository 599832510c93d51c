import Kernel

/// A path below a service's API version, such as `"/servers/\(id)"`; interpolated values are percent-encoded as one segment.
package struct RESTPath: Sendable, Hashable, ExpressibleByStringInterpolation, CustomStringConvertible {
    /// The encoded path, with its leading slash.
    package let description: String

    package init(stringLiteral value: String) { description = value }

    package init(stringInterpolation: StringInterpolation) { description = stringInterpolation.text }

    /// A path that is already encoded.
    package init(encoded: String) { description = encoded }

    /// Encodes interpolated values.
    package struct StringInterpolation: StringInterpolationProtocol {
        var text = ""

        package init(literalCapacity: Int, interpolationCount: Int) { text.reserveCapacity(literalCapacity + 36 * interpolationCount) }

        package mutating func appendLiteral(_ literal: String) { text += literal }

        package mutating func appendInterpolation(_ segment: some CustomStringConvertible) {
            text += PercentEncoding.encode(segment.description)
        }

        /// Another path, inserted unchanged.
        package mutating func appendInterpolation(path: RESTPath) { text += path.description }
    }

    /// Concatenates two paths.
    package static func + (left: RESTPath, right: RESTPath) -> RESTPath {
        RESTPath(encoded: left.description + right.description)
    }

    /// Whether the path starts with an API version (`/v2.0/ports`) and is therefore below the service's root.
    var hasVersion: Bool {
        guard let first = description.split(separator: "/").first else { return false }
        return URLText.isVersion(first)
    }
}

/// URL functions.
enum URLText {
    /// Decodes percent escapes and `+`; nil for a malformed escape or invalid UTF-8.
    private static func decode(_ text: some StringProtocol) -> String? {
        PercentEncoding.decode(text, plusIsSpace: true).flatMap { String(validating: $0, as: UTF8.self) }
    }

    static func query(_ items: [(String, String)]) -> String {
        guard !items.isEmpty else { return "" }
        return "?" + items.map { PercentEncoding.encode($0.0) + "=" + PercentEncoding.encode($0.1) }.joined(separator: "&")
    }

    /// The decoded query of a link.
    static func queryItems(of link: String) -> [(String, String)] {
        guard let mark = link.firstIndex(of: "?") else { return [] }
        let text = link[link.index(after: mark)...].prefix { $0 != "#" }
        return text.split(separator: "&").compactMap { pair in
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = decode(parts[0]) else { return nil }
            guard parts.count == 2 else { return (name, "") }
            return decode(parts[1]).map { (name, $0) }
        }
    }

    /// Whether the segment is a version such as `v2`, `v2.1`, `v3`.
    static func isVersion(_ segment: some StringProtocol) -> Bool {
        let bytes = Array(segment.utf8)
        guard bytes.count >= 2, bytes[0] == UInt8(ascii: "v") else { return false }
        return bytes.dropFirst().allSatisfy { (48...57).contains($0) || $0 == UInt8(ascii: ".") }
    }

    /// Splits a base URL into the service's root and the rest from the first version segment on; both without a trailing slash.
    static func splitVersion(_ url: String) -> (root: String, version: String) {
        let schemeEnd = url.firstRange(of: "://")?.upperBound ?? url.startIndex
        let parts = url[schemeEnd...].split(separator: "/", omittingEmptySubsequences: true)
        let scheme = String(url[..<schemeEnd])
        let cut = parts.dropFirst().firstIndex(where: isVersion) ?? parts.endIndex
        let rest = parts[cut...].map { "/" + $0 }.joined()
        return (scheme + parts[..<cut].joined(separator: "/"), rest)
    }
}
