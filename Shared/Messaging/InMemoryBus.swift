package import Contracts
package import JSON
package import Kernel
import Synchronization

/// A bus within one process with the same delivery guarantees, for tests and simulation.
///
/// Timeouts are in real time; redelivery is immediate.
package final class InMemoryBus: MessageBus {
    private struct Queue {
        var messages: [Message] = []
        var consumers: [AsyncStream<Void>.Continuation] = []
    }

    private struct State {
        var queues: [MessageQueue: Queue] = [:]
        var answers: [String: CheckedContinuation<Message, any Error>] = [:]
        var answered: [String: Result<Message, any Error>] = [:]
    }

    private let random: any RandomSource
    private let state = Mutex(State())

    package init(random: any RandomSource = SystemRandom()) { self.random = random }

    package var isConnected: Bool { true }

    package func newMessageID() -> UUID128 { random.uuid() }

    /// The waiting messages of `queue`, oldest first.
    package func waiting(in queue: MessageQueue) -> [Message] { state.withLock { $0.queues[queue]?.messages ?? [] } }

    /// Removes and returns the waiting messages of `queue`.
    package func take(from queue: MessageQueue) -> [Message] {
        state.withLock { state in
            defer { state.queues[queue]?.messages = [] }
            return state.queues[queue]?.messages ?? []
        }
    }

    package func publish(_ message: Message, to queue: MessageQueue) async throws {
        _ = try OutgoingMessage(message, persistent: true)
        enqueue(message, queue)
    }

    private func enqueue(_ message: Message, _ queue: MessageQueue) {
        let consumers = state.withLock { state in
            state.queues[queue, default: Queue()].messages.append(message)
            return state.queues[queue]?.consumers ?? []
        }
        for consumer in consumers { consumer.yield() }
    }

    private func next(_ queue: MessageQueue) -> Message? {
        state.withLock { state in
            guard state.queues[queue]?.messages.isEmpty == false else { return nil }
            return state.queues[queue]?.messages.removeFirst()
        }
    }

    package func consume(
        queue: MessageQueue, options: ConsumeOptions, handler: @escaping @Sendable (Message) async throws -> Void
    ) async throws {
        let (signals, continuation) = AsyncStream.makeStream(of: Void.self)
        state.withLock { $0.queues[queue, default: Queue()].consumers.append(continuation) }
        continuation.yield()
        await withTaskGroup(of: Void.self) { group in
            var running = 0
            for await _ in signals {
                while let message = next(queue) {
                    if running >= options.prefetch {
                        await group.next()
                        running -= 1
                    }
                    running += 1
                    group.addTask { await self.handle(message, queue, options, handler) }
                }
            }
            group.cancelAll()
        }
        try Task.checkCancellation()
    }

    private func handle(
        _ message: Message, _ queue: MessageQueue, _ options: ConsumeOptions,
        _ handler: @Sendable (Message) async throws -> Void
    ) async {
        var repeated = message
        repeated.deliveryCount += 1
        switch await DeliveryOutcome.of(message, options: options, handler: handler) {
        case .done: break
        case .again, .cancelled: enqueue(repeated, queue)
        case .poison(let reason):
            enqueue(DeliveryOutcome.poisoned(message, queue: queue, reason: reason), queue.poison)
        }
    }

    package func answer(_ message: Message, to queue: String) async throws { settle(queue, .success(message)) }

    private func settle(_ queue: String, _ result: Result<Message, any Error>) {
        let continuation = state.withLock { state -> CheckedContinuation<Message, any Error>? in
            if let continuation = state.answers.removeValue(forKey: queue) { return continuation }
            if state.answered[queue] == nil { state.answered[queue] = result }
            return nil
        }
        continuation?.resume(with: result)
    }

    package func request(_ message: Message, to queue: MessageQueue, timeout: Duration) async throws -> JSONValue {
        let name = "reply.\(newMessageID())"
        var question = message
        question.replyTo = name
        question.correlationID = name
        enqueue(question, queue)
        let timer = Task {
            try await SystemTime().sleep(for: timeout)
            settle(name, .failure(ResourceError.unavailable("no answer from \(queue) within \(timeout)")))
        }
        defer { timer.cancel() }
        let answer = try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let early = state.withLock { state -> Result<Message, any Error>? in
                    if let result = state.answered.removeValue(forKey: name) { return result }
                    state.answers[name] = continuation
                    return nil
                }
                if let early { continuation.resume(with: early) }
            }
        } onCancel: {
            settle(name, .failure(CancellationError()))
        }
        return try answer.result()
    }
}
