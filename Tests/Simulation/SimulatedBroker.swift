import Contracts
import JSON
import Kernel
import Messaging

/// Durable queues that outlive all processes; messages that a dead consumer had not acknowledged are delivered again.
final class SimulatedBroker: @unchecked Sendable {
    private struct Queue {
        var messages: [Message] = []
        var waiting: [(process: SimulatedProcess, wait: Wait<Message>)] = []
    }

    private struct Delivery {
        let process: SimulatedProcess
        let queue: MessageQueue
        let message: Message
    }

    unowned var world: World!
    private var queues: [MessageQueue: Queue] = [:]
    private var deliveries: [Int: Delivery] = [:]
    private var questions: [String: Wait<Message>] = [:]
    private var numbers = 0
    private var underway = 0

    /// Messages whose loss cannot be noticed before the host's next report; they are only delayed or duplicated.
    private static let kept: Set<MessageQueue> = [.placementHosts]

    /// Whether every message has been processed, except the hosts' heartbeats, which never end.
    var isQuiet: Bool {
        underway == 0 && deliveries.values.allSatisfy { $0.message.type == AgentHeartbeat.type }
            && queues.values.allSatisfy { $0.messages.allSatisfy { $0.type == AgentHeartbeat.type } }
    }

    /// Messages that were moved to a poison queue.
    var poisoned: [Message] {
        queues.sorted { $0.key.name < $1.key.name }.filter { $0.key.name.hasSuffix(".poison") }.flatMap { $0.value.messages }
    }

    /// Accepts a message for `queue`: it is delivered soon, late, twice or never.
    func accept(_ message: Message, _ queue: MessageQueue) {
        if !SimulatedBroker.kept.contains(queue), world.happens(world.faults.lostMessages, "message lost") {
            return world.trace("lost \(message.type) to \(queue)")
        }
        deliver(message, queue)
        if world.happens(world.faults.doubledMessages, "message doubled") { deliver(message, queue) }
    }

    private func deliver(_ message: Message, _ queue: MessageQueue) {
        let isLate = world.happens(world.faults.lateMessages, "message late")
        let delay = isLate ? world.between(.seconds(1), .seconds(40)) : world.between(.microseconds(200), .milliseconds(4))
        let counts = message.type != AgentHeartbeat.type
        if counts { underway += 1 }
        world.executor.after(delay) { [self] in
            if counts { underway -= 1 }
            arrive(message, queue)
        }
    }

    private func arrive(_ message: Message, _ queue: MessageQueue) {
        world.trace("message \(message.type) in \(queue) \(World.digest(message.body.encoded))")
        while let waiter = queues[queue]?.waiting.first {
            queues[queue]?.waiting.removeFirst()
            guard waiter.process.isAlive, !waiter.wait.isFinished else { continue }
            return waiter.wait.finish(.success(message))
        }
        queues[queue, default: Queue()].messages.append(message)
    }

    func next(_ queue: MessageQueue, _ process: SimulatedProcess) async throws -> (Int, Message) {
        let message: Message
        if let first = queues[queue]?.messages.first {
            queues[queue]?.messages.removeFirst()
            message = first
        } else {
            let wait = Wait<Message>()
            queues[queue, default: Queue()].waiting.append((process, wait))
            message = try await wait.value()
        }
        numbers += 1
        deliveries[numbers] = Delivery(process: process, queue: queue, message: message)
        guard process.isAlive else {
            giveBack(numbers)
            throw CancellationError()
        }
        return (numbers, message)
    }

    func acknowledge(_ delivery: Int) { deliveries[delivery] = nil }

    func giveBack(_ delivery: Int, after delay: Duration = .milliseconds(1)) {
        guard let given = deliveries.removeValue(forKey: delivery) else { return }
        var message = given.message
        message.deliveryCount += 1
        let counts = message.type != AgentHeartbeat.type
        if counts { underway += 1 }
        world.executor.after(delay) { [self, message] in
            if counts { underway -= 1 }
            arrive(message, given.queue)
        }
    }

    func forget(_ process: SimulatedProcess) {
        for number in deliveries.keys.sorted() where deliveries[number]?.process === process { giveBack(number) }
    }

    // MARK: requests

    func ask(_ name: String) -> Wait<Message> {
        let wait = Wait<Message>()
        questions[name] = wait
        return wait
    }

    func answer(_ message: Message, to name: String) {
        guard !world.happens(world.faults.lostMessages, "answer lost") else { return }
        world.executor.after(world.between(.microseconds(200), .milliseconds(4))) { [self] in
            world.trace("answer \(World.digest(message.body.encoded))")
            questions.removeValue(forKey: name)?.finish(.success(message))
        }
    }

    func stopAsking(_ name: String) { questions[name] = nil }
}

/// The broker from the view of one process.
struct SimulatedBus: MessageBus {
    let process: SimulatedProcess

    private var broker: SimulatedBroker { process.world.broker }
    private var world: World { process.world }

    var isConnected: Bool { process.isAlive }

    func newMessageID() -> UUID128 { world.random.uuid() }

    func publish(_ message: Message, to queue: MessageQueue) async throws {
        try await process.reach("publish")
        if world.happens(world.faults.refusedPublishes, "publish unconfirmed") {
            // The broker may still have the message.
            if world.random.below(2) == 0 { broker.accept(message, queue) }
            throw ResourceError.unavailable("the broker did not confirm")
        }
        broker.accept(message, queue)
        try await process.reach("published")
    }

    func consume(
        queue: MessageQueue, options: ConsumeOptions, handler: @escaping @Sendable (Message) async throws -> Void
    ) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<min(options.prefetch, 8) {
                group.addTask {
                    while true {
                        let (number, message) = try await broker.next(queue, process)
                        try await handle(number, message, queue, options, handler)
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    private func handle(
        _ number: Int, _ message: Message, _ queue: MessageQueue, _ options: ConsumeOptions,
        _ handler: @Sendable (Message) async throws -> Void
    ) async throws {
        let outcome = await DeliveryOutcome.of(message, options: options, handler: handler)
        guard process.isAlive else { throw CancellationError() }
        switch outcome {
        case .done:
            try await process.reach("acknowledge")
            broker.acknowledge(number)
        case .again(let delay, _): broker.giveBack(number, after: delay)
        case .cancelled: throw CancellationError()
        case .poison(let reason):
            broker.acknowledge(number)
            broker.accept(DeliveryOutcome.poisoned(message, queue: queue, reason: reason), queue.poison)
        }
    }

    func request(_ message: Message, to queue: MessageQueue, timeout: Duration) async throws -> JSONValue {
        let name = "reply.\(newMessageID())"
        var question = message
        question.replyTo = name
        question.correlationID = name
        let wait = broker.ask(name)
        defer { broker.stopAsking(name) }
        try await publish(question, to: queue)
        let answer = try await wait.value {
            world.executor.after(timeout) { wait.finish(.failure(ResourceError.unavailable("no answer from \(queue) within \(timeout)"))) }
        }
        try await process.reach("answered")
        return try answer.result()
    }

    func answer(_ message: Message, to queue: String) async throws {
        try await process.reach("answer")
        broker.answer(message, to: queue)
    }
}
