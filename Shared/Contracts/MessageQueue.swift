/// A durable queue of the broker. The names are a contract between releases: consumers of the one before still run while
/// this one is rolled out.
package struct MessageQueue: Sendable, Hashable, CustomStringConvertible {
    /// At most 255 bytes (AMQP's short string).
    package let name: String

    /// - Parameter name: of a queue that is stored or under test; the queues of the plane are declared below.
    package init(_ name: String) { self.name = name }

    package var description: String { name }

    /// Holds the messages of this queue that cannot be handled.
    package var poison: MessageQueue { MessageQueue(name + ".poison") }
}

extension MessageQueue {
    /// What agents say of their hosts and servers, and Network of the ports of servers; Compute consumes it.
    package static let computeAgents = MessageQueue("compute.agents")
    /// Hosts as Compute knows them; Placement consumes it.
    package static let placementHosts = MessageQueue("placement.hosts")
    /// Questions to the scheduler, each with an answer.
    package static let placementSchedule = MessageQueue("placement.schedule")

    /// What the agent of a host is told and asked.
    package static func agent(host: String) -> MessageQueue { MessageQueue("agent.\(host)") }
}
