import Kernel

/// The reason for which a download is refused, for the user who named the address.
package struct DownloadRefusal: Error, Sendable, CustomStringConvertible {
    package let reason: String
    package init(_ reason: String) { self.reason = reason }
    package var description: String { reason }
}

/// A web address, in the restricted form that a service accepts from users: `http` or `https`, a host, an optional port, a path. Anything
/// that two parsers could interpret differently is refused.
package struct PublicURL: Sendable, Hashable, CustomStringConvertible {
    package let isSecure: Bool
    /// In lower case, without brackets.
    package let host: String
    package let port: Int
    /// Including the query.
    package let target: String

    private static let lengthMax = 2048

    private init(isSecure: Bool, host: String, port: Int, target: String) {
        self.isSecure = isSecure
        self.host = host
        self.port = port
        self.target = target
    }

    /// - Throws: `DownloadRefusal` naming the rule.
    package init(_ text: String) throws(DownloadRefusal) {
        guard text.utf8.count <= PublicURL.lengthMax else { throw DownloadRefusal("the URI is longer than \(PublicURL.lengthMax) bytes") }
        guard text.utf8.allSatisfy({ (0x21...0x7e).contains($0) && $0 != UInt8(ascii: "\\") }) else {
            throw DownloadRefusal("the URI contains spaces, backslashes or characters that are not ASCII")
        }
        guard let colon = text.firstRange(of: "://") else { throw DownloadRefusal("the URI has no scheme") }
        switch text[..<colon.lowerBound].lowercased() {
        case "http": isSecure = false
        case "https": isSecure = true
        default: throw DownloadRefusal("the scheme must be http or https")
        }
        let rest = text[colon.upperBound...]
        let authority = rest.prefix { !"/?#".contains($0) }
        guard !authority.contains("@") else { throw DownloadRefusal("the URI must not contain a user name or password") }
        let (name, number) = try PublicURL.split(authority)
        host = try PublicURL.host(name)
        if let number {
            guard let value = Int(number), (1...65_535).contains(value), number.allSatisfy(\.isNumber) else {
                throw DownloadRefusal("the port is not a number from 1 to 65535")
            }
            port = value
        } else {
            port = isSecure ? 443 : 80
        }
        let path = rest.dropFirst(authority.count).prefix { $0 != "#" }
        target = path.hasPrefix("/") ? String(path) : "/" + path
    }

    private static func split(_ authority: Substring) throws(DownloadRefusal) -> (host: Substring, port: Substring?) {
        if authority.hasPrefix("[") {
            guard let end = authority.firstIndex(of: "]") else { throw DownloadRefusal("the host is malformed") }
            let rest = authority[authority.index(after: end)...]
            guard rest.isEmpty || rest.hasPrefix(":") else { throw DownloadRefusal("the host is malformed") }
            return (authority[...end], rest.isEmpty ? nil : rest.dropFirst())
        }
        let parts = authority.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count <= 2 else { throw DownloadRefusal("the host is malformed") }
        return (parts[0], parts.count == 2 ? parts[1] : nil)
    }

    private static func host(_ text: Substring) throws(DownloadRefusal) -> String {
        if text.hasPrefix("[") {
            let inner = String(text.dropFirst().dropLast())
            guard let address = IPAddress(inner), address.version == .v6 else { throw DownloadRefusal("the host is not an IPv6 address") }
            return address.description
        }
        let labels = text.split(separator: ".", omittingEmptySubsequences: false)
        let isName = labels.allSatisfy { label in
            (1...63).contains(label.count) && label.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-" || $0 == "_") }
        }
        guard (1...253).contains(text.count), isName else { throw DownloadRefusal("the host is not a host name or address") }
        return text.lowercased()
    }

    /// The address to which a redirect leads.
    ///
    /// - Throws: `DownloadRefusal` for an address that would be refused by itself, and for a redirect from `https` to `http`.
    package func redirected(to location: String) throws(DownloadRefusal) -> PublicURL {
        let new: PublicURL
        if location.contains("://") {
            new = try PublicURL(location)
        } else if location.hasPrefix("//") {
            new = try PublicURL((isSecure ? "https:" : "http:") + location)
        } else {
            let folder = target.prefix { $0 != "?" }.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(
                separator: "/")
            new = try PublicURL(origin + (location.hasPrefix("/") ? location : "\(folder)/\(location)"))
        }
        guard new.isSecure || !isSecure else { throw DownloadRefusal("the server redirects from https to http") }
        return new
    }

    private var origin: String { "\(isSecure ? "https" : "http")://\(host.contains(":") ? "[\(host)]" : host):\(port)" }

    package var description: String { origin + target }
}
