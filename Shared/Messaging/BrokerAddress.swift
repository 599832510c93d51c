package import Kernel

/// The address of a broker with the credentials.
package struct BrokerAddress: Sendable, Hashable {
    package var host: String
    package var port: Int
    package var user: String
    package var password: Secret<String>
    package var virtualHost: String

    package init(
        host: String = "127.0.0.1", port: Int = 5672, user: String = "guest", password: String = "guest",
        virtualHost: String = "/"
    ) {
        self.host = host
        self.port = port
        self.user = user
        self.password = Secret(password)
        self.virtualHost = virtualHost
    }

    /// Parses `amqp://user:password@host:port/vhost`; each part after the scheme is optional.
    ///
    /// - Throws: `ResourceError` 400 naming the invalid part; `amqps` is refused, because TLS is not built in.
    package init(url: String) throws {
        guard let scheme = url.firstRange(of: "://") else {
            throw ResourceError.badRequest("broker address \"\(url)\": expected amqp://user:password@host:port/vhost")
        }
        guard url[..<scheme.lowerBound] == "amqp" else {
            throw ResourceError.badRequest("broker address: scheme \"\(url[..<scheme.lowerBound])\" is not amqp")
        }
        self.init()
        var rest = url[scheme.upperBound...]
        if let slash = rest.firstIndex(of: "/") {
            let vhost = rest[rest.index(after: slash)...]
            if !vhost.isEmpty { virtualHost = try BrokerAddress.decode(vhost) }
            rest = rest[..<slash]
        }
        if let at = rest.lastIndex(of: "@") {
            let credentials = rest[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            user = try BrokerAddress.decode(credentials[0])
            if credentials.count == 2 { password = Secret(try BrokerAddress.decode(credentials[1])) }
            rest = rest[rest.index(after: at)...]
        }
        if let colon = rest.lastIndex(of: ":"), !rest.hasSuffix("]") {
            guard let number = Int(rest[rest.index(after: colon)...]), (1...65_535).contains(number) else {
                throw ResourceError.badRequest("broker address: \"\(rest)\" has no port from 1 to 65535")
            }
            port = number
            rest = rest[..<colon]
        }
        if rest.hasPrefix("["), rest.hasSuffix("]") { rest = rest.dropFirst().dropLast() }
        if !rest.isEmpty { host = String(rest) }
    }

    /// Parses the addresses of a cluster's nodes, separated by commas.
    ///
    /// - Throws: as `init(url:)`, and 400 if there is no address.
    package static func list(_ text: String) throws -> [BrokerAddress] {
        let addresses = try text.split(separator: ",").map { part in
            try BrokerAddress(url: String(part.trimmingPrefix { $0 == " " }))
        }
        guard !addresses.isEmpty else { throw ResourceError.badRequest("no broker address is given") }
        return addresses
    }

    private static func decode(_ text: Substring) throws -> String {
        guard let bytes = PercentEncoding.decode(text, plusIsSpace: false) else {
            throw ResourceError.badRequest("broker address: \"%\" is not followed by two hexadecimal digits")
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    package static func == (left: BrokerAddress, right: BrokerAddress) -> Bool {
        (left.host, left.port, left.user, left.virtualHost) == (right.host, right.port, right.user, right.virtualHost)
            && left.password.exposed == right.password.exposed
    }

    package func hash(into hasher: inout Hasher) {
        hasher.combine(host)
        hasher.combine(port)
        hasher.combine(user)
        hasher.combine(virtualHost)
    }
}

/// Settings of a process's broker connections.
package struct BusConfiguration: Sendable {
    /// The nodes of the cluster, tried in turn.
    package var addresses: [BrokerAddress]
    /// Heartbeat interval of both sides.
    package var heartbeat: Duration
    /// How long `publish` waits for the broker's confirmation.
    package var confirmTimeout: Duration
    /// First and longest delay between connection attempts.
    package var reconnectDelay: Duration
    package var reconnectDelayMax: Duration
    /// The name shown in the broker's list of connections.
    package var name: String

    package init(
        addresses: [BrokerAddress], heartbeat: Duration = .seconds(10), confirmTimeout: Duration = .seconds(30),
        reconnectDelay: Duration = .milliseconds(100), reconnectDelayMax: Duration = .seconds(5), name: String = "wolke"
    ) {
        self.addresses = addresses
        self.heartbeat = heartbeat
        self.confirmTimeout = confirmTimeout
        self.reconnectDelay = reconnectDelay
        self.reconnectDelayMax = reconnectDelayMax
        self.name = name
    }
}
