import CRabbitMQ
import Kernel
import Logging
import Telemetry

/// A delivery for the task that processes it.
struct Delivery: Sendable {
    let message: IncomingMessage
    let oversized: Bool
    let ticket: DeliveryTicket
}

/// Identifies a delivery within a session, so that an acknowledgement is not sent into a later session.
struct DeliveryTicket: Sendable, Hashable {
    let subscription: Int
    let session: Int
    let tag: UInt64
}

/// A command to the consuming side.
enum ConsumerCommand: Sendable {
    case subscribe(id: Int, queue: String, prefetch: Int, sink: @Sendable (Delivery) -> Void)
    case unsubscribe(id: Int)
    /// Declare a queue for answers; `ready` is called with its name each time a new one has been declared.
    case openReplyQueue(ready: @Sendable (String?) -> Void, sink: @Sendable (IncomingMessage) -> Void)
    case acknowledge(DeliveryTicket)
    case requeue(DeliveryTicket)
}

/// The consuming side: one channel per subscription, set up again after each loss of the connection.
final class BrokerConsumer: BrokerRole {
    typealias Command = ConsumerCommand

    private struct Subscription {
        let queue: String
        let prefetch: Int
        let sink: @Sendable (Delivery) -> Void
        var channel: amqp_channel_t?
        /// Monotonic nanoseconds of the next attempt after the queue was deleted.
        var retryAt: UInt64 = 0
    }

    private struct ReplyQueue {
        let ready: @Sendable (String?) -> Void
        let sink: @Sendable (IncomingMessage) -> Void
        var channel: amqp_channel_t?
        var retryAt: UInt64 = 0
    }

    private let ambient: Ambient
    private let logger: Logger
    private let metrics: Metrics?
    private var subscriptions: [Int: Subscription] = [:]
    private var replyQueue: ReplyQueue?
    private var owners: [amqp_channel_t: Int] = [:]
    private var session = 0
    private var lastChannel: amqp_channel_t = 0

    private static let channelMax: amqp_channel_t = 2000
    private static let retryNanoseconds: UInt64 = 500_000_000

    init(ambient: Ambient, logger: Logger, metrics: Metrics?) {
        self.ambient = ambient
        self.logger = logger
        self.metrics = metrics
    }

    func connected(_ session: BrokerSession) throws {
        self.session += 1
        lastChannel = 0
        owners = [:]
        try openMissing(session)
    }

    func disconnected() {
        for id in subscriptions.keys {
            subscriptions[id]?.channel = nil
            subscriptions[id]?.retryAt = 0
        }
        owners = [:]
        if replyQueue?.channel != nil {
            replyQueue?.channel = nil
            replyQueue?.retryAt = 0
            replyQueue?.ready(nil)
        }
    }

    func tick(_ session: BrokerSession?) throws {
        if let session { try openMissing(session) }
    }

    func perform(_ command: ConsumerCommand, session: BrokerSession?) throws {
        switch command {
        case .subscribe(let id, let queue, let prefetch, let sink):
            subscriptions[id] = Subscription(queue: queue, prefetch: prefetch, sink: sink)
        case .openReplyQueue(let ready, let sink):
            replyQueue = ReplyQueue(ready: ready, sink: sink)
        case .unsubscribe(let id):
            guard let channel = subscriptions.removeValue(forKey: id)?.channel else { return }
            owners[channel] = nil
            // Closing the channel requeues unacknowledged deliveries.
            if let session { try session.closeChannel(channel) }
        case .acknowledge(let ticket):
            if let session, let channel = channel(of: ticket) { try session.acknowledge(ticket.tag, channel: channel) }
        case .requeue(let ticket):
            if let session, let channel = channel(of: ticket) { try session.requeue(ticket.tag, channel: channel) }
        }
    }

    private func channel(of ticket: DeliveryTicket) -> amqp_channel_t? {
        guard ticket.session == session, let channel = subscriptions[ticket.subscription]?.channel else { return nil }
        return channel
    }

    func handle(_ event: BrokerEvent, session: BrokerSession) throws {
        switch event {
        case .delivery(let channel, let tag, let message, let oversized):
            metrics?.increment("wolke_bus_delivered_total", help: "Messages that the broker delivered.")
            if channel == replyQueue?.channel {
                if !oversized { replyQueue?.sink(message) }
            } else if let id = owners[channel], let subscription = subscriptions[id] {
                let ticket = DeliveryTicket(subscription: id, session: self.session, tag: tag)
                subscription.sink(Delivery(message: message, oversized: oversized, ticket: ticket))
            }
        case .consumerCancelled(let channel):
            try session.closeChannel(channel)
            lose(channel, reason: "the queue was deleted")
        case .channelClosed(let channel, let reason):
            lose(channel, reason: reason)
        case .returned, .confirmed: break
        }
    }

    /// Handles the loss of a channel: its deliveries are void, and its subscription starts again after a delay.
    private func lose(_ channel: amqp_channel_t, reason: String) {
        logger.warning("a consumer was stopped by the broker", metadata: ["error": "\(reason)"])
        let retryAt = ambient.time.monotonicNanoseconds() + BrokerConsumer.retryNanoseconds
        if channel == replyQueue?.channel {
            replyQueue?.channel = nil
            replyQueue?.retryAt = retryAt
            replyQueue?.ready(nil)
        } else if let id = owners.removeValue(forKey: channel) {
            subscriptions[id]?.channel = nil
            subscriptions[id]?.retryAt = retryAt
        }
    }

    // MARK: set-up

    private func openMissing(_ session: BrokerSession) throws {
        let now = ambient.time.monotonicNanoseconds()
        for (id, subscription) in subscriptions where subscription.channel == nil && subscription.retryAt <= now {
            let opened = try open(session) { channel in
                try self.declareDurable(subscription.queue, session, channel)
                try session.startConsuming(
                    subscription.queue, channel: channel, prefetch: subscription.prefetch, noAck: false)
                self.owners[channel] = id
            }
            subscriptions[id]?.channel = opened
            if opened == nil { subscriptions[id]?.retryAt = now + BrokerConsumer.retryNanoseconds }
        }
        if let reply = replyQueue, reply.channel == nil, reply.retryAt <= now {
            // The name is new each time, because the broker may still hold the old queue for the lost connection.
            let name = "reply.\(ambient.newUUID())"
            let opened = try open(session) { channel in
                try session.declareExclusive(name, channel: channel)
                try session.startConsuming(
                    name, channel: channel, prefetch: MessagingLimits.prefetchMax, noAck: true)
            }
            replyQueue?.channel = opened
            if opened == nil {
                replyQueue?.retryAt = now + BrokerConsumer.retryNanoseconds
            } else {
                reply.ready(name)
            }
        }
    }

    /// Opens a channel and runs `setUp`; nil if the broker refused.
    private func open(_ session: BrokerSession, _ setUp: (amqp_channel_t) throws -> Void) throws -> amqp_channel_t? {
        let channel = try freeChannel()
        try session.openChannel(channel)
        do {
            try setUp(channel)
            return channel
        } catch let error as BrokerError where error.channelOnly {
            logger.warning("a queue cannot be consumed", metadata: ["error": "\(error)"])
            return nil
        }
    }

    private func declareDurable(_ queue: String, _ session: BrokerSession, _ channel: amqp_channel_t) throws {
        do { try session.declareDurable(queue, channel: channel) } catch let error as BrokerError
            where error.channelOnly
        {
            // The queue exists with other properties: use it as it is.
            logger.warning("a queue differs from its declaration", metadata: ["queue": "\(queue)", "error": "\(error)"])
            try session.openChannel(channel)
        }
    }

    /// Channel numbers are assigned in turn, so that a late frame of a closed channel is not taken for one of its
    /// successor.
    private func freeChannel() throws -> amqp_channel_t {
        for _ in 0..<BrokerConsumer.channelMax {
            lastChannel = lastChannel % BrokerConsumer.channelMax + 1
            if owners[lastChannel] == nil, replyQueue?.channel != lastChannel { return lastChannel }
        }
        throw BrokerError("no channel is free")
    }
}
