package import Contracts
package import JSON
package import Kernel
import Telemetry

/// Options of a consumer.
package struct ConsumeOptions: Sendable {
    /// Deliveries processed concurrently; 1 preserves their order.
    package var prefetch: Int
    /// Number of deliveries of a message before it is moved to `<queue>.poison`.
    package var deliveriesMax: Int
    /// Delay before redelivery after the first failure; doubled after each further one.
    package var retryDelay: Duration
    /// Longest delay before redelivery.
    package var retryDelayMax: Duration

    package init(
        prefetch: Int = 16, deliveriesMax: Int = 20, retryDelay: Duration = .milliseconds(200),
        retryDelayMax: Duration = .seconds(30)
    ) {
        self.prefetch = min(max(1, prefetch), MessagingLimits.prefetchMax)
        self.deliveriesMax = max(1, deliveriesMax)
        self.retryDelay = retryDelay
        self.retryDelayMax = retryDelayMax
    }

    /// The delay after `failures` failed deliveries.
    func delay(afterFailures failures: Int) -> Duration {
        let factor = 1 << min(max(0, failures - 1), 20)
        return min(retryDelay * factor, retryDelayMax)
    }
}

/// A permanent failure: the message is moved to the poison queue at once.
package struct PoisonMessage: Error, Sendable, CustomStringConvertible {
    package let reason: String
    package init(_ reason: String) { self.reason = reason }
    package var description: String { reason }
}

/// Durable queues of JSON messages.
///
/// Delivery is at least once and, after failures, out of order: handlers must be idempotent or de-duplicate (`Inbox`).
package protocol MessageBus: Sendable {
    /// Sends a message to a durable queue, which is created if it does not exist.
    ///
    /// Returns when the broker has stored the message. While the broker is unavailable the call waits.
    ///
    /// - Throws: `ResourceError` 503 if the broker did not confirm in time (it may still have the message) or too many messages
    ///   wait, 413 if the body is too large.
    func publish(_ message: Message, to queue: MessageQueue) async throws

    /// Processes the messages of `queue` until the task is cancelled.
    ///
    /// A delivery is acknowledged when `handler` returns. If it throws, the message is delivered again after a delay. After
    /// `options.deliveriesMax` deliveries (at once for `PoisonMessage`) it is moved to `<queue>.poison`.
    func consume(
        queue: MessageQueue, options: ConsumeOptions, handler: @escaping @Sendable (Message) async throws -> Void
    ) async throws

    /// Sends a question and returns the body of its answer.
    ///
    /// The question may be delivered twice if the broker fails in the meantime.
    ///
    /// - Throws: the `ResourceError` of an error answer; 503 if no answer came in time.
    func request(_ message: Message, to queue: MessageQueue, timeout: Duration) async throws -> JSONValue

    /// Sends `answer` to the requester's temporary queue; does nothing if that no longer exists.
    func answer(_ message: Message, to queue: String) async throws

    /// Generates ids for answers.
    func newMessageID() -> UUID128

    /// Whether the broker is currently reachable.
    var isConnected: Bool { get }
}

extension MessageBus {
    /// Like `consume(queue:options:handler:)` with the default options.
    package func consume(
        queue: MessageQueue, handler: @escaping @Sendable (Message) async throws -> Void
    ) async throws {
        try await consume(queue: queue, options: ConsumeOptions(), handler: handler)
    }

    /// Replies to `message` with `body`; does nothing if no reply is expected.
    package func reply(to message: Message, _ body: JSONValue) async throws {
        guard let queue = message.replyTo, let reply = message.reply(id: newMessageID(), type: "reply", body: body)
        else { return }
        try await answer(reply, to: queue)
    }

    /// Replies with an error, which `request` throws on the requesting side.
    package func reply(to message: Message, failure error: any Error) async throws {
        guard let queue = message.replyTo,
            let reply = message.reply(id: newMessageID(), type: Message.errorType, body: Message.body(of: error))
        else { return }
        try await answer(reply, to: queue)
    }

    /// Answers the questions that arrive in `queue` until the task is cancelled.
    ///
    /// An error that `handler` throws is the answer to a question; for a message that awaits none it means delivery
    /// again, as in `consume`.
    package func serve(
        queue: MessageQueue, options: ConsumeOptions = ConsumeOptions(),
        handler: @escaping @Sendable (Message) async throws -> JSONValue
    ) async throws {
        try await consume(queue: queue, options: options) { message in
            let body: JSONValue
            do { body = try await handler(message) } catch {
                guard message.replyTo != nil, !(error is CancellationError) else { throw error }
                try await reply(to: message, failure: error)
                return
            }
            try await reply(to: message, body)
        }
    }
}

/// How processing a delivery ended.
package enum DeliveryOutcome: Sendable {
    case done
    case again(after: Duration, any Error)
    case poison(reason: String)
    case cancelled

    /// Runs `handler` on a delivery under its request id and decides how the delivery ends.
    package static func of(
        _ message: Message, options: ConsumeOptions, handler: @Sendable (Message) async throws -> Void
    ) async -> DeliveryOutcome {
        let deliveries = message.deliveryCount + 1
        guard deliveries <= options.deliveriesMax else {
            return .poison(reason: "delivered \(message.deliveryCount) times without success")
        }
        do {
            try await RequestScope.$current.withValue(message.requestID) { try await handler(message) }
            return .done
        } catch is CancellationError {
            return .cancelled
        } catch let poison as PoisonMessage {
            return .poison(reason: poison.reason)
        } catch {
            if deliveries >= options.deliveriesMax {
                return .poison(reason: "failed \(deliveries) times, at last with: \(error)")
            }
            return .again(after: options.delay(afterFailures: deliveries), error)
        }
    }

    /// The message as stored in `<queue>.poison`.
    package static func poisoned(_ message: Message, queue: MessageQueue, reason: String) -> Message {
        Message(
            id: message.id, type: "poison",
            body: [
                "queue": .string(queue.name), "reason": .string(reason), "type": .string(message.type),
                "body": message.body,
            ], requestID: message.requestID)
    }
}
