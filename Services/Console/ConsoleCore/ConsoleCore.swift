/// Rules of the console service without I/O.
package enum ConsoleRules {
    /// Whether a page of this origin may open a console.
    ///
    /// Browsers send `Origin` with every WebSocket and let a page of any site connect. Other clients send none.
    ///
    /// - Parameters:
    ///   - origin: the request's `Origin`; nil without one.
    ///   - host: the request's `Host`.
    ///   - allowed: origins besides the service's own address.
    package static func allows(origin: String?, host: String?, allowed: Set<String>) -> Bool {
        guard let origin = origin?.lowercased() else { return true }
        if allowed.contains(origin) { return true }
        guard let host = host?.lowercased(), !host.isEmpty else { return false }
        return origin == "http://" + host || origin == "https://" + host
    }

    /// The token in a request's target: `/?token=…`, `/websockify?token=…`; nil for other paths, and for text that cannot be a
    /// token.
    package static func token(in target: String) -> String? {
        let parts = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, ["/", "/websockify"].contains(parts[0]) else { return nil }
        for pair in parts[1].split(separator: "&") where pair.hasPrefix("token=") {
            let token = pair.dropFirst("token=".count)
            guard (20...128).contains(token.utf8.count), token.utf8.allSatisfy({ isTokenByte($0) }) else { return nil }
            return String(token)
        }
        return nil
    }

    private static func isTokenByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    /// How many sessions may be open.
    package struct Limits: Sendable {
        /// Connections of all kinds.
        package var connectionsMax = 2048
        /// Connections from one address.
        package var connectionsPerSourceMax = 128
        /// Sessions of one server's console.
        package var sessionsPerServerMax = 8
        /// From the start of the connection to the end of the request or, for a page, of the response.
        package var requestTimeout = Duration.seconds(30)
        /// How long the agent of the host may take to connect.
        package var agentTimeout = Duration.seconds(15)
        /// A session whose client sends nothing for this long, not even a response to a ping, is closed.
        package var silenceMax = Duration.seconds(90)

        package init() {}
    }
}
