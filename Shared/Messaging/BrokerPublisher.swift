import CRabbitMQ
import Kernel
import Logging
import Synchronization
import Telemetry

/// A call of `publish` that waits for the broker.
final class PendingPublish: Sendable {
    let outgoing: OutgoingMessage
    let queue: String
    /// The message goes to the reply queue of one requester: the queue is never declared, and the message is dropped if it no
    /// longer exists.
    let isAnswer: Bool
    /// The caller's deadline, in monotonic nanoseconds.
    let deadline: UInt64
    private let continuation: Mutex<CheckedContinuation<Void, any Error>?>

    init(
        _ outgoing: OutgoingMessage, queue: String, isAnswer: Bool, deadline: UInt64,
        continuation: CheckedContinuation<Void, any Error>
    ) {
        self.outgoing = outgoing
        self.queue = queue
        self.isAnswer = isAnswer
        self.deadline = deadline
        self.continuation = Mutex(continuation)
    }

    func finish(_ result: Result<Void, any Error>) {
        let continuation = continuation.withLock { stored in
            defer { stored = nil }
            return stored
        }
        continuation?.resume(with: result)
    }
}

/// The publishing side: sends messages and matches the broker's confirmations, with many in flight at once.
final class BrokerPublisher: BrokerRole {
    typealias Command = PendingPublish

    private enum Channel {
        static let publish: amqp_channel_t = 1
        /// Declarations use a separate channel, because a refused declaration closes the channel and would lose
        /// confirmations.
        static let declare: amqp_channel_t = 2
    }

    private let ambient: Ambient
    private let logger: Logger
    private let metrics: Metrics?
    private var waiting: [PendingPublish] = []
    private var unconfirmed: [UInt64: PendingPublish] = [:]
    private var returned: Set<UInt64> = []
    private var lastTag: UInt64 = 0
    private var lowestTag: UInt64 = 1
    private var declared: Set<String> = []
    private var nextExpiry: UInt64 = 0

    init(ambient: Ambient, logger: Logger, metrics: Metrics?) {
        self.ambient = ambient
        self.logger = logger
        self.metrics = metrics
    }

    func connected(_ session: BrokerSession) throws {
        lastTag = 0
        lowestTag = 1
        declared = []
        try session.openChannel(Channel.publish)
        try session.selectConfirms(Channel.publish)
        try session.openChannel(Channel.declare)
        try flush(session)
    }

    func disconnected() {
        // Unconfirmed messages are sent again, in order (at-least-once delivery).
        waiting = unconfirmed.sorted { $0.key < $1.key }.map(\.value) + waiting
        unconfirmed = [:]
        returned = []
        expire()
    }

    func perform(_ command: PendingPublish, session: BrokerSession?) throws {
        guard waiting.count < MessagingLimits.waitingMax else {
            command.finish(.failure(ResourceError.unavailable("\(waiting.count) messages wait for the broker")))
            return
        }
        waiting.append(command)
    }

    func tick(_ session: BrokerSession?) throws {
        expire()
        if let session { try flush(session) }
    }

    func handle(_ event: BrokerEvent, session: BrokerSession) throws {
        switch event {
        case .confirmed(let tag, let multiple, let accepted):
            if multiple {
                while lowestTag <= tag {
                    settle(lowestTag, accepted: accepted)
                    lowestTag += 1
                }
            } else {
                settle(tag, accepted: accepted)
            }
        case .returned(let message):
            // The confirmation of a returned message follows at once.
            if let tag = unconfirmed.filter({ $0.value.outgoing.message.id.description == message.id }).keys.min() {
                returned.insert(tag)
            }
        case .channelClosed(let channel, let reason):
            if channel == Channel.publish { throw BrokerError("publishing was refused: \(reason)") }
            try session.openChannel(Channel.declare)
        case .delivery, .consumerCancelled: break
        }
    }

    private func settle(_ tag: UInt64, accepted: Bool) {
        guard let pending = unconfirmed.removeValue(forKey: tag) else { return }
        let wasReturned = returned.remove(tag) != nil
        if wasReturned, pending.isAnswer {
            metrics?.increment("wolke_bus_answers_dropped_total", help: "Replies whose requester was gone.")
            pending.finish(.success(()))
        } else if wasReturned || !accepted {
            // The queue no longer exists (a broker with an empty data directory) or refused the message: retry once.
            declared.remove(pending.queue)
            waiting.insert(pending, at: 0)
        } else {
            metrics?.increment("wolke_bus_published_total", help: "Messages that the broker confirmed.")
            pending.finish(.success(()))
        }
    }

    private func flush(_ session: BrokerSession) throws {
        while !waiting.isEmpty, unconfirmed.count < MessagingLimits.unconfirmedMax {
            let batch = Array(waiting.prefix(MessagingLimits.unconfirmedMax - unconfirmed.count))
            waiting.removeFirst(batch.count)
            for (position, pending) in batch.enumerated() {
                do {
                    if !pending.isAnswer { try declare(pending.queue, session) }
                    try session.publish(pending.outgoing, routingKey: pending.queue, channel: Channel.publish)
                } catch {
                    waiting.insert(contentsOf: batch[position...], at: 0)
                    throw error
                }
                lastTag += 1
                unconfirmed[lastTag] = pending
            }
        }
    }

    private func declare(_ queue: String, _ session: BrokerSession) throws {
        guard !declared.contains(queue) else { return }
        do { try session.declareDurable(queue, channel: Channel.declare) } catch let error as BrokerError
            where error.channelOnly
        {
            // The queue exists with other properties: use it as it is.
            logger.warning("a queue differs from its declaration", metadata: ["queue": "\(queue)", "error": "\(error)"])
            try session.openChannel(Channel.declare)
        }
        if declared.count > 20_000 { declared = [] }
        declared.insert(queue)
    }

    private func expire() {
        let now = ambient.time.monotonicNanoseconds()
        guard now >= nextExpiry else { return }
        nextExpiry = now + 500_000_000
        guard waiting.contains(where: { $0.deadline <= now }) else {
            for pending in unconfirmed.values where pending.deadline <= now { BrokerPublisher.giveUp(pending) }
            return
        }
        for pending in waiting where pending.deadline <= now { BrokerPublisher.giveUp(pending) }
        waiting.removeAll { $0.deadline <= now }
    }

    private static func giveUp(_ pending: PendingPublish) {
        pending.finish(.failure(ResourceError.unavailable("the broker did not confirm a message for \(pending.queue)")))
    }
}
