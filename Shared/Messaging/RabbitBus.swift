package import Contracts
package import JSON
package import Kernel
package import Logging
import Synchronization
package import Telemetry

/// The bus on RabbitMQ: at most one connection for publishing and one for consuming, each opened at first use.
package final class RabbitBus: MessageBus {
    private enum ReplyEvent: Sendable {
        case queue(String)
        case answer(Message)
    }

    private struct Requests {
        var replyQueue: String?
        var opened = false
        var waiting: [String: AsyncStream<ReplyEvent>.Continuation] = [:]
    }

    private let configuration: BusConfiguration
    private let ambient: Ambient
    private let logger: Logger
    private let metrics: Metrics?
    private let publisher: BrokerLoop<BrokerPublisher>
    private let consumer: BrokerLoop<BrokerConsumer>
    private let requests = Mutex(Requests())
    private let lastSubscription = Atomic<Int>(0)

    package init(
        _ configuration: BusConfiguration, ambient: Ambient = Ambient(), logger: Logger = Logger(label: "bus"),
        metrics: Metrics? = nil
    ) {
        self.configuration = configuration
        self.ambient = ambient
        self.logger = logger
        self.metrics = metrics
        publisher = BrokerLoop(configuration: configuration, ambient: ambient, logger: logger) {
            BrokerPublisher(ambient: ambient, logger: logger, metrics: metrics)
        }
        consumer = BrokerLoop(configuration: configuration, ambient: ambient, logger: logger) {
            BrokerConsumer(ambient: ambient, logger: logger, metrics: metrics)
        }
    }

    deinit { close() }

    /// Closes the connections; waiting calls fail.
    package func close() {
        publisher.stop()
        consumer.stop()
    }

    /// Whether all opened connections are up. Opens the publishing connection if there is none yet.
    package var isConnected: Bool {
        publisher.start()
        return publisher.isConnected && (!consumer.isStarted || consumer.isConnected)
    }

    package func newMessageID() -> UUID128 { ambient.newUUID() }

    // MARK: publishing

    package func publish(_ message: Message, to queue: MessageQueue) async throws {
        try await publish(message, to: queue.name, isAnswer: false)
    }

    package func answer(_ message: Message, to queue: String) async throws {
        try await publish(message, to: queue, isAnswer: true)
    }

    private func publish(_ message: Message, to queue: String, isAnswer: Bool) async throws {
        guard !queue.isEmpty, queue.utf8.count <= MessagingLimits.queueNameBytesMax else {
            throw ResourceError.badRequest("queue name \"\(queue.prefix(64))\" must have 1 to 255 bytes")
        }
        var message = message
        message.requestID = message.requestID ?? RequestScope.current
        let outgoing = try OutgoingMessage(message, persistent: !isAnswer)
        let deadline =
            ambient.time.monotonicNanoseconds() + UInt64(configuration.confirmTimeout.microseconds) * 1000
        try await withCheckedThrowingContinuation { continuation in
            publisher.send(
                PendingPublish(
                    outgoing, queue: queue, isAnswer: isAnswer, deadline: deadline, continuation: continuation))
        }
    }

    // MARK: consuming

    package func consume(
        queue: MessageQueue, options: ConsumeOptions, handler: @escaping @Sendable (Message) async throws -> Void
    ) async throws {
        let id = lastSubscription.add(1, ordering: .relaxed).newValue
        let (deliveries, continuation) = AsyncStream.makeStream(of: Delivery.self)
        consumer.send(
            .subscribe(id: id, queue: queue.name, prefetch: options.prefetch) { delivery in continuation.yield(delivery) })
        defer { consumer.send(.unsubscribe(id: id)) }
        // The broker sends at most `prefetch` unacknowledged deliveries, which limits the size of the group.
        await withDiscardingTaskGroup { group in
            for await delivery in deliveries {
                group.addTask { await self.handle(delivery, queue: queue, options: options, handler: handler) }
            }
            group.cancelAll()
        }
        try Task.checkCancellation()
    }

    private func handle(
        _ delivery: Delivery, queue: MessageQueue, options: ConsumeOptions,
        handler: @Sendable (Message) async throws -> Void
    ) async {
        var outcome: DeliveryOutcome
        let message: Message
        switch delivery.oversized ? .failure(PoisonMessage("body is too large")) : delivery.message.decoded() {
        case .success(let decoded):
            message = decoded
            outcome = await .of(decoded, options: options, handler: handler)
        case .failure(let poison):
            let text = String(decoding: delivery.message.body.prefix(65_536), as: UTF8.self)
            message = Message(
                id: newMessageID(), type: delivery.message.type, body: .string(text),
                requestID: delivery.message.requestID)
            outcome = .poison(reason: poison.reason)
        }
        if case .poison(let reason) = outcome {
            do { try await setAside(message, queue: queue, reason: reason) } catch {
                outcome = .again(after: options.retryDelayMax, error)
            }
        }
        switch outcome {
        case .done, .poison: consumer.send(.acknowledge(delivery.ticket))
        case .cancelled: consumer.send(.requeue(delivery.ticket))
        case .again(let delay, let error):
            metrics?.increment("wolke_bus_failed_deliveries_total", [("queue", queue.name)], help: "Handlers that threw.")
            logger.warning(
                "processing a message failed; it will be delivered again",
                metadata: ["queue": "\(queue)", "message_id": "\(message.id)", "error": "\(error)"])
            do { try await ambient.time.sleep(for: delay) } catch { /* cancelled: give it back now */  }
            consumer.send(.requeue(delivery.ticket))
        }
    }

    private func setAside(_ message: Message, queue: MessageQueue, reason: String) async throws {
        logger.error(
            "a message was moved to the poison queue",
            metadata: ["queue": "\(queue)", "message_id": "\(message.id)", "error": "\(reason)"])
        metrics?.increment("wolke_bus_poison_total", [("queue", queue.name)], help: "Messages moved to a poison queue.")
        try await publish(
            DeliveryOutcome.poisoned(message, queue: queue, reason: reason), to: queue.poison)
        try await reply(to: message, failure: ResourceError.internalError(reason))
    }

    // MARK: request and reply

    package func request(_ message: Message, to queue: MessageQueue, timeout: Duration) async throws -> JSONValue {
        let correlation = ambient.newUUID().description
        let events = try register(correlation)
        defer { _ = requests.withLock { $0.waiting.removeValue(forKey: correlation) } }
        var question = message
        question.correlationID = correlation
        question.expiration = timeout
        let answer = try await withThrowingTaskGroup(of: Message.self) { [question] group in
            group.addTask {
                try await self.ambient.time.sleep(for: timeout)
                throw ResourceError.unavailable("no answer from \(queue) within \(timeout)")
            }
            group.addTask { try await self.converse(question, to: queue, events: events) }
            defer { group.cancelAll() }
            guard let first = try await group.next() else { throw CancellationError() }
            return first
        }
        return try answer.result()
    }

    /// Sends the question whenever there is a new reply queue: answers in the old one are lost.
    private func converse(
        _ question: Message, to queue: MessageQueue, events: AsyncStream<ReplyEvent>
    ) async throws -> Message {
        for await event in events {
            switch event {
            case .answer(let message): return message
            case .queue(let name):
                var question = question
                question.replyTo = name
                try await publish(question, to: queue)
            }
        }
        throw CancellationError()
    }

    private func register(_ correlation: String) throws -> AsyncStream<ReplyEvent> {
        let (events, continuation) = AsyncStream.makeStream(of: ReplyEvent.self)
        let (mustOpen, replyQueue) = try requests.withLock { requests in
            guard requests.waiting.count < MessagingLimits.requestsMax else {
                throw ResourceError.unavailable("\(requests.waiting.count) answers are awaited already")
            }
            requests.waiting[correlation] = continuation
            defer { requests.opened = true }
            return (!requests.opened, requests.replyQueue)
        }
        // If `replyQueueChanged` has reported a newer queue in the meantime, the question is sent a second time.
        if let replyQueue { continuation.yield(.queue(replyQueue)) }
        if mustOpen {
            consumer.send(
                .openReplyQueue(
                    ready: { [weak self] name in self?.replyQueueChanged(name) },
                    sink: { [weak self] message in self?.answered(message) }))
        }
        return events
    }

    private func replyQueueChanged(_ name: String?) {
        let waiting = requests.withLock { requests in
            requests.replyQueue = name
            return Array(requests.waiting.values)
        }
        guard let name else { return }
        for continuation in waiting { continuation.yield(.queue(name)) }
    }

    private func answered(_ incoming: IncomingMessage) {
        guard let correlation = incoming.correlationID, case .success(let message) = incoming.decoded() else { return }
        _ = requests.withLock { $0.waiting[correlation] }?.yield(.answer(message))
    }
}
