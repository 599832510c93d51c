package import Kernel

/// Limits of a listener's connections. Opening a connection costs the peer almost nothing; these limits bound the cost for this process.
package struct ConnectionLimits: Sendable {
    /// Open connections of the listener.
    package var connectionsMax = 4096
    /// Open connections from one address; an IPv6 /64 counts as one address. Trusted proxies are exempt.
    package var connectionsPerSourceMax = 1024
    /// Refused connections that may be open while they read their refusal.
    package var refusalsMax = 256
    /// Time limit from the start of the connection, or the first byte of a later request, to the end of the request's head.
    package var headTimeout = Duration.seconds(10)
    /// Time limit after an answer until the next request begins. Longer than clients keep idle connections (60 s in the services' own
    /// client).
    package var idleTimeout = Duration.seconds(120)
    /// Minimum rate of a request's body in bytes per second, over `bodyWindow`, while this process waits for it.
    package var bodyRateMin = 1024
    /// The time over which `bodyRateMin` is measured.
    package var bodyWindow = Duration.seconds(15)
    /// How long a client may stop reading a response.
    package var writeTimeout = Duration.seconds(60)
    /// How long a request continues after its client has closed the sending side: the client may still wait for the answer, or may be gone.
    package var halfClosedTimeout = Duration.seconds(2)
    /// Maximum length of a request's head (request line and header fields), in bytes.
    package var headBytesMax = 64 * 1024
    /// Peers whose `X-Forwarded-*` fields are believed and to which `connectionsPerSourceMax` does not apply. Limits per source that apply
    /// after a request's head use the client's address that the proxies report.
    package var trustedProxies: [IPNetwork] = []

    package init() {}

    /// Interval at which the deadlines of connections are checked.
    var tick: Duration {
        let shortest = min(headTimeout, idleTimeout, bodyWindow, writeTimeout)
        return max(.milliseconds(20), min(.seconds(2), shortest / 4))
    }

    /// Whether the peer is one of the trusted proxies.
    package func trusts(_ peer: IPAddress?) -> Bool {
        guard let peer else { return false }
        return trustedProxies.contains { $0.version == peer.version && $0.contains(peer) }
    }

    /// The source of a request: the peer, or the client behind a trusted proxy.
    ///
    /// Each proxy appends the address of its peer, so the list is read from the end for as long as the entries were written
    /// by trusted proxies. Earlier entries may be forged by the client.
    ///
    /// - Parameter fields: the values of `X-Forwarded-For` in the order received.
    package func client(of peer: IPAddress?, forwardedFor fields: [String]) -> IPAddress? {
        var nearest = peer
        for field in fields.reversed() {
            for text in field.split(separator: ",").reversed() {
                guard trusts(nearest), let address = PeerAddress.parse(hop: text) else { return nearest }
                nearest = address
            }
        }
        return nearest
    }
}

/// The addresses of peers, as used for limits.
package enum PeerAddress {
    /// The address in a socket address's text; an IPv4 address in IPv6 form becomes IPv4.
    package static func parse(_ text: String?) -> IPAddress? {
        guard let bare = text?.prefix(while: { $0 != "%" }), let address = IPAddress(String(bare)) else { return nil }
        guard address.version == .v6, address.value >> 32 == 0xffff else { return address }
        return IPAddress(version: .v4, value: address.value & 0xffff_ffff)
    }

    /// An element of `X-Forwarded-For`: an address, in some proxies with a port (`192.0.2.1:5000`, `[2001:db8::1]:5000`).
    static func parse(hop text: some StringProtocol) -> IPAddress? {
        var bare = text.drop { $0 == " " || $0 == "\t" }
        while let last = bare.last, last == " " || last == "\t" { bare.removeLast() }
        if bare.first == "[", let end = bare.firstIndex(of: "]") {
            bare = bare[bare.index(after: bare.startIndex)..<end]
        } else if bare.contains("."), let colon = bare.lastIndex(of: ":"), bare.firstIndex(of: ":") == colon {
            bare = bare[..<colon]
        }
        return parse(String(bare))
    }

    /// The unit of a source: an IPv4 address, or an IPv6 /64.
    package static func source(_ address: IPAddress?) -> String {
        guard let address else { return "unknown" }
        return address.version == .v4 ? address.description : IPNetwork(address, prefixLength: 64).description
    }
}
