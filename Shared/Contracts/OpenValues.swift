/// A word of a message that a later release may extend. An unknown value is preserved, so that the rest of the message can be decoded and
/// the reader can decide how to handle the value.
package protocol OpenValue: RawRepresentable<String>, Codable, Hashable, Sendable, CustomStringConvertible {
    /// The values that this release knows.
    static var known: [Self] { get }
    init(rawValue: String)
}

extension OpenValue {
    package var description: String { rawValue }
}

/// The power state of a server as its agent reports it. An unknown value is shown as an error of the server.
package struct ReportedPower: OpenValue {
    package let rawValue: String

    package init(rawValue: String) { self.rawValue = rawValue }

    /// The host has established the desired state.
    package init(_ desired: DesiredPower) { self.init(rawValue: desired.rawValue) }

    package static let running = ReportedPower(.running)
    package static let shutoff = ReportedPower(.shutoff)
    package static let paused = ReportedPower(.paused)
    package static let suspended = ReportedPower(.suspended)
    package static let expected = ReportedPower(.expected)
    package static let absent = ReportedPower(.absent)
    /// QEMU ended although the server should run.
    package static let crashed = ReportedPower(rawValue: "crashed")

    package static let known: [ReportedPower] = DesiredPower.allCases.map { ReportedPower($0) } + [.crashed]
}

extension ServerSpec.Operation {
    /// A one-time operation of the host. An agent refuses kinds that it does not know.
    package struct Kind: OpenValue {
        package let rawValue: String

        package init(rawValue: String) { self.rawValue = rawValue }

        package static let rebootSoft = Kind(rawValue: "reboot-soft")
        package static let rebootHard = Kind(rawValue: "reboot-hard")
        /// New disks from the image.
        package static let rebuild = Kind(rawValue: "rebuild")
        /// Boots the server's rescue system.
        package static let rescue = Kind(rawValue: "rescue")
        /// Boots the server's own system again.
        package static let unrescue = Kind(rawValue: "unrescue")
        /// Changes the sizes of the disks.
        package static let resize = Kind(rawValue: "resize")
        /// Restores the disks from before a resize.
        package static let resizeRevert = Kind(rawValue: "resize-revert")
        /// With the power `absent`: removes the server completely, unless its guest has arrived from another host and runs.
        package static let withdraw = Kind(rawValue: "withdraw")

        package static let known: [Kind] = [.rebootSoft, .rebootHard, .rebuild, .rescue, .unrescue, .resize, .resizeRevert, .withdraw]
    }
}
