package import JSON

// The messages that Compute sends to `MessageQueue.agent(host:)`.

/// The desired state of one server.
package struct EnsureServer: MessageBody, Hashable {
    package static let type = "ensure"

    package var server: Enclosed<ServerSpec>

    package init(server: Enclosed<ServerSpec>) { self.server = server }
}

/// All servers that belong on a host or must be removed from it.
package struct SyncServers: MessageBody, Hashable {
    package static let type = "sync"

    package var host: String
    package var servers: [Enclosed<ServerSpec>]

    package init(host: String, servers: [Enclosed<ServerSpec>]) {
        self.host = host
        self.servers = servers
    }
}

/// Requests the last lines of a server's console log.
package struct ConsoleLogQuestion: MessageQuestion, Hashable {
    package static let type = "console_log"

    package struct Answer: Codable, Sendable, Hashable {
        package var output: String

        package init(output: String) { self.output = output }
    }

    package var serverID: String
    /// Nil for the complete stored log.
    package var lines: Int?

    private enum CodingKeys: String, CodingKey {
        case lines
        case serverID = "server_id"
    }

    package init(serverID: String, lines: Int?) {
        self.serverID = serverID
        self.lines = lines
    }
}

/// Requests the agent to connect a server's console to a session of `wolke-console`. The agent connects to the console
/// service, so that no console listens on the host's network.
package struct ConsoleConnection: MessageQuestion, Hashable {
    package static let type = "connect_console"

    package typealias Answer = Done

    package var serverID: String
    package var kind: ConsoleKind
    /// `host:port` of the process of the console service that has the session; nil for the address in the agent's settings.
    package var address: String?
    /// Identifies the session; valid for one connection.
    package var secret: String

    private enum CodingKeys: String, CodingKey {
        case kind, address, secret
        case serverID = "server_id"
    }

    package init(serverID: String, kind: ConsoleKind, address: String?, secret: String) {
        self.serverID = serverID
        self.kind = kind
        self.address = address
        self.secret = secret
    }
}

/// The consoles of a server, under the protocol names of Compute's API.
package enum ConsoleKind: String, Codable, Sendable, Hashable, CaseIterable {
    /// The display, by RFB (RFC 6143).
    case vnc
    /// The first serial port.
    case serial
}

/// The protocol that an agent requests in `Upgrade` when it connects to a console session.
package enum ConsoleUpgrade {
    package static let name = "wolke-console"
}

/// Requests diagnostics of a running server; the answer has the form of Compute's API.
package struct DiagnosticsQuestion: MessageQuestion, Hashable {
    package typealias Answer = JSONValue

    package static let type = "diagnostics"

    package var serverID: String
    /// Whether the answer has the hypervisor's own names, as Compute's API had before 2.48. Agents before 0.2.0 ignore this.
    package var ofHypervisor: Bool?

    private enum CodingKeys: String, CodingKey {
        case serverID = "server_id"
        case ofHypervisor = "of_hypervisor"
    }

    package init(serverID: String, ofHypervisor: Bool? = nil) {
        self.serverID = serverID
        self.ofHypervisor = ofHypervisor
    }
}

/// Requests how long a host has been running, and its load. Agents before 0.2.0 do not know this request.
package struct HostUptimeQuestion: MessageQuestion, Hashable {
    package struct Answer: Codable, Sendable, Hashable {
        /// Seconds since the host was started.
        package var uptime: Int
        /// Runnable processes on average over the last 1, 5 and 15 minutes.
        package var loadAverages: [Double]

        private enum CodingKeys: String, CodingKey {
            case uptime
            case loadAverages = "load_averages"
        }

        package init(uptime: Int, loadAverages: [Double]) {
            self.uptime = uptime
            self.loadAverages = loadAverages
        }
    }

    package static let type = "host_uptime"

    package init() {}
}

/// Requests a host to download images before a server needs them.
package struct CacheImages: MessageBody, Hashable {
    package static let type = "cache_images"

    /// The project and user on whose behalf the images are downloaded.
    package var projectID: String
    package var userID: String
    package var images: [ServerSpec.Image]

    private enum CodingKeys: String, CodingKey {
        case images
        case projectID = "project_id"
        case userID = "user_id"
    }

    package init(projectID: String, userID: String, images: [ServerSpec.Image]) {
        self.projectID = projectID
        self.userID = userID
        self.images = images
    }
}
