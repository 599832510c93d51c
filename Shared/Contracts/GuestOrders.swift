// Compute's requests to the guest of a server, and messages from guests to Compute.

/// The answer to a request that has no result.
package struct Done: Codable, Sendable, Hashable {
    package init() {}
}

/// Sends a non-maskable interrupt to the guest, which its kernel can answer with a crash dump.
package struct CrashDumpQuestion: MessageQuestion, Hashable {
    package typealias Answer = Done

    package static let type = "crash_dump"

    package var serverID: String

    private enum CodingKeys: String, CodingKey { case serverID = "server_id" }

    package init(serverID: String) { self.serverID = serverID }
}

/// Requests the host's processors that are dedicated to a server.
package struct ProcessorsQuestion: MessageQuestion, Hashable {
    package struct Answer: Codable, Sendable, Hashable {
        /// By virtual processor; empty if the server has no dedicated ones.
        package var processors: [Int]

        package init(processors: [Int]) { self.processors = processors }
    }

    package static let type = "processors"

    package var serverID: String

    private enum CodingKeys: String, CodingKey { case serverID = "server_id" }

    package init(serverID: String) { self.serverID = serverID }
}

/// Sets the password of a user inside the guest, through its guest agent.
package struct SetPasswordQuestion: MessageQuestion, Hashable {
    package typealias Answer = Done

    package static let type = "set_password"

    package var serverID: String
    package var user: String
    package var password: String

    private enum CodingKeys: String, CodingKey {
        case user, password
        case serverID = "server_id"
    }

    package init(serverID: String, user: String, password: String) {
        self.serverID = serverID
        self.user = user
        self.password = password
    }
}

/// A password that the guest posted to the metadata service, usually encrypted with its owner's public key. Sent by agents.
package struct GuestPassword: MessageBody, Hashable {
    package static let type = "guest_password"
    /// The maximum length of a password in bytes, as in Nova.
    package static let bytesMax = 1020

    package var host: String
    package var serverID: String
    package var password: String

    private enum CodingKeys: String, CodingKey {
        case host, password
        case serverID = "server_id"
    }

    package init(host: String, serverID: String, password: String) {
        self.host = host
        self.serverID = serverID
        self.password = password
    }
}
