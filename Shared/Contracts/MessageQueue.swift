/// A durable queue of the broker. Queue names are a contract between releases: during an upgrade, consumers of the previous
/// release run together with those of this one.
package struct MessageQueue: Sendable, Hashable, CustomStringConvertible {
    /// At most 255 bytes (AMQP's short string).
    package let name: String

    /// - Parameter name: the name of a stored queue or of one in a test; the queues of the control plane are declared below.
    package init(_ name: String) { self.name = name }

    package var description: String { name }

    /// The queue for messages of this queue that cannot be processed.
    package var poison: MessageQueue { MessageQueue(name + ".poison") }
}

extension MessageQueue {
    /// Reports of agents about their hosts and servers, and of Network about servers' ports; consumed by Compute.
    package static let computeAgents = MessageQueue("compute.agents")
    /// Hosts as known to Compute; consumed by Placement.
    package static let placementHosts = MessageQueue("placement.hosts")
    /// Requests to the scheduler; each gets an answer.
    package static let placementSchedule = MessageQueue("placement.schedule")

    /// Desired states and requests for the agent of a host.
    package static func agent(host: String) -> MessageQueue { MessageQueue("agent.\(host)") }
}
