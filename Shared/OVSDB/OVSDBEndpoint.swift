/// The address of an OVSDB server: `unix:/path`, `tcp:host:port` (`tcp:[v6]:port`) or `ssl:host:port`, as in the OVS tools.
package enum OVSDBEndpoint: Hashable, Sendable, CustomStringConvertible {
    case unix(path: String)
    case tcp(host: String, port: Int)
    /// TLS, with `OVSDBConfiguration.credentials`.
    case tls(host: String, port: Int)

    /// - Throws: `OVSDBError.invalid` naming the text.
    package init(_ text: String) throws(OVSDBError) {
        if text.hasPrefix("unix:"), text.utf8.count > 5 {
            self = .unix(path: String(text.dropFirst(5)))
            return
        }
        let isTLS = text.hasPrefix("ssl:")
        guard isTLS || text.hasPrefix("tcp:"), let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (1...65_535).contains(port)
        else { throw OVSDBError.invalid("\"\(text)\" is not a valid address; expected unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT") }
        let start = text.index(text.startIndex, offsetBy: 4)
        guard start < colon else { throw OVSDBError.invalid("\"\(text)\" has no host") }
        var host = String(text[start..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        self = isTLS ? .tls(host: host, port: port) : .tcp(host: host, port: port)
    }

    /// Several endpoints separated by commas: the members of a cluster.
    ///
    /// - Throws: `OVSDBError.invalid` naming the invalid part.
    package static func list(_ text: String) throws(OVSDBError) -> [OVSDBEndpoint] {
        var endpoints: [OVSDBEndpoint] = []
        for part in text.split(separator: ",") {
            endpoints.append(try OVSDBEndpoint(String(part.drop { $0 == " " })))
        }
        guard !endpoints.isEmpty else { throw OVSDBError.invalid("no OVSDB endpoint given") }
        return endpoints
    }

    package var isTLS: Bool { if case .tls = self { true } else { false } }

    package var description: String {
        func address(_ host: String, _ port: Int) -> String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
        return switch self {
        case .unix(let path): "unix:\(path)"
        case .tcp(let host, let port): "tcp:\(address(host, port))"
        case .tls(let host, let port): "ssl:\(address(host, port))"
        }
    }
}
