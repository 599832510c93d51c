/// Where an OVSDB server listens: `unix:/path` or `tcp:host:port` (`tcp:[v6]:port`), as the OVS tools write it.
package enum OVSDBEndpoint: Hashable, Sendable, CustomStringConvertible {
    case unix(path: String)
    case tcp(host: String, port: Int)

    /// - Throws: `OVSDBError.invalid` naming the text.
    package init(_ text: String) throws(OVSDBError) {
        if text.hasPrefix("unix:"), text.utf8.count > 5 {
            self = .unix(path: String(text.dropFirst(5)))
            return
        }
        guard text.hasPrefix("tcp:"), let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (1...65_535).contains(port)
        else { throw OVSDBError.invalid("\"\(text)\" is neither unix:PATH nor tcp:HOST:PORT") }
        let start = text.index(text.startIndex, offsetBy: 4)
        guard start < colon else { throw OVSDBError.invalid("\"\(text)\" names no host") }
        var host = String(text[start..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        self = .tcp(host: host, port: port)
    }

    /// Several endpoints separated by commas: the members of a cluster.
    ///
    /// - Throws: `OVSDBError.invalid` naming the part that is wrong.
    package static func list(_ text: String) throws(OVSDBError) -> [OVSDBEndpoint] {
        var endpoints: [OVSDBEndpoint] = []
        for part in text.split(separator: ",") {
            endpoints.append(try OVSDBEndpoint(String(part.drop { $0 == " " })))
        }
        guard !endpoints.isEmpty else { throw OVSDBError.invalid("no OVSDB endpoint given") }
        return endpoints
    }

    package var description: String {
        switch self {
        case .unix(let path): "unix:\(path)"
        case .tcp(let host, let port): host.contains(":") ? "tcp:[\(host)]:\(port)" : "tcp:\(host):\(port)"
        }
    }
}
