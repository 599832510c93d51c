import Contracts
import Database
import JSON
import Kernel
import Logging
import Messaging
import Synchronization
import TestKit
import Testing

/// Collects a handler's messages and lets a test wait for them.
final class Seen: Sendable {
    private let items = Mutex<[Message]>([])

    var all: [Message] { items.withLock { $0 } }

    @discardableResult
    func add(_ message: Message) -> Int {
        items.withLock {
            $0.append(message)
            return $0.count
        }
    }

    func wait(for count: Int, seconds: Int = 30) async throws {
        for _ in 0..<seconds * 50 where all.count < count {
            try await SystemTime().sleep(for: .milliseconds(20))
        }
        #expect(all.count >= count)
    }
}

enum BusKind: String, CaseIterable, Sendable {
    case rabbit, inMemory

    func bus() async throws -> any MessageBus {
        switch self {
        case .inMemory: return InMemoryBus()
        case .rabbit:
            let broker = try await PrivateRabbitMQ.shared.value
            return RabbitBus(
                BusConfiguration(addresses: [broker.address], heartbeat: .seconds(2)),
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        }
    }
}

func message(_ type: String, _ body: JSONValue = [:]) -> Message {
    Message(id: SystemRandom().uuid(), type: type, body: body)
}

/// Runs `body` while `tasks` run, and cancels them after it.
func during<Value: Sendable>(
    _ task: @escaping @Sendable () async throws -> Void, _ body: () async throws -> Value
) async throws -> Value {
    let running = Task { try await task() }
    do {
        let value = try await body()
        running.cancel()
        _ = await running.result
        return value
    } catch {
        running.cancel()
        _ = await running.result
        throw error
    }
}

let fast = ConsumeOptions(prefetch: 8, deliveriesMax: 3, retryDelay: .milliseconds(10))

@Suite(.serialized) struct BusTests {
    private func newQueue() -> MessageQueue { MessageQueue("test.\(SystemRandom().uuid())") }

    @Test(arguments: BusKind.allCases) func messagesArriveUnchanged(_ kind: BusKind) async throws {
        let bus = try await kind.bus()
        let queue = newQueue()
        var sent = message("greeting", ["text": "grüß \"dich\"", "n": 7, "list": [1, nil, 2.5]])
        sent.requestID = "req-1"
        try await bus.publish(sent, to: queue)
        let seen = Seen()
        try await during({ try await bus.consume(queue: queue, options: fast) { seen.add($0) } }) {
            try await seen.wait(for: 1)
        }
        let got = try #require(seen.all.first)
        #expect(got.id == sent.id)
        #expect(got.type == "greeting")
        #expect(got.body == sent.body)
        #expect(got.requestID == "req-1")
    }

    @Test(arguments: BusKind.allCases) func failedDeliveryIsRepeatedThenSetAside(_ kind: BusKind) async throws {
        let bus = try await kind.bus()
        let queue = newQueue()
        let sent = message("bad", ["x": 1])
        let seen = Seen()
        let poison = Seen()
        try await bus.publish(sent, to: queue)
        try await during({
            try await bus.consume(queue: queue, options: fast) { message in
                seen.add(message)
                throw ResourceError.internalError("no")
            }
        }) {
            try await during({ try await bus.consume(queue: queue.poison) { poison.add($0) } }) {
                try await poison.wait(for: 1)
            }
        }
        #expect(seen.all.map(\.deliveryCount) == [0, 1, 2])
        #expect(poison.all.first?.id == sent.id)
        #expect(poison.all.first?.body["body"] == ["x": 1])
        #expect(poison.all.first?.body["queue"]?.stringValue == queue.name)
    }

    @Test(arguments: BusKind.allCases) func requestIsAnswered(_ kind: BusKind) async throws {
        let bus = try await kind.bus()
        let queue = newQueue()
        try await during({
            try await bus.serve(queue: queue) { message in
                if message.type == "fail" { throw ResourceError.conflict("taken", type: "InUse") }
                return ["twice": JSONValue((message.body["n"]?.intValue ?? 0) * 2)]
            }
        }) {
            let answer = try await bus.request(message("ask", ["n": 21]), to: queue, timeout: .seconds(20))
            #expect(answer["twice"] == 42)
            let error = await #expect(throws: ResourceError.self) {
                try await bus.request(message("fail"), to: queue, timeout: .seconds(20))
            }
            #expect(error?.code == .conflict)
            #expect(error?.type == "InUse")
            #expect(error?.message == "taken")
            let sums = try await withThrowingTaskGroup(of: Int.self) { group in
                for n in 0..<200 {
                    group.addTask {
                        try await bus.request(message("ask", ["n": JSONValue(n)]), to: queue, timeout: .seconds(20))[
                            "twice"]?.intValue ?? -1
                    }
                }
                return try await group.reduce(0, +)
            }
            #expect(sums == 199 * 200)
        }
    }

    @Test(arguments: BusKind.allCases) func requestWithoutServerTimesOut(_ kind: BusKind) async throws {
        let bus = try await kind.bus()
        let queue = newQueue()
        let error = await #expect(throws: ResourceError.self) {
            try await bus.request(message("ask"), to: queue, timeout: .milliseconds(700))
        }
        #expect(error?.code == .unavailable)
    }

    @Test func unacknowledgedMessagesReturnWhenTheConsumerIsCancelled() async throws {
        let bus = try await BusKind.rabbit.bus()
        let queue = newQueue()
        let started = Seen()
        try await bus.publish(message("slow"), to: queue)
        try await during({
            try await bus.consume(queue: queue, options: fast) { message in
                started.add(message)
                try await SystemTime().sleep(for: .seconds(60))
            }
        }) { try await started.wait(for: 1) }
        let seen = Seen()
        try await during({ try await bus.consume(queue: queue, options: fast) { seen.add($0) } }) {
            try await seen.wait(for: 1)
        }
        #expect(seen.all.first?.id == started.all.first?.id)
    }

    @Test func tooLargeBodyIsRefused() async throws {
        let bus = try await BusKind.rabbit.bus()
        let text = String(repeating: "x", count: MessagingLimits.bodyBytesMax)
        let error = await #expect(throws: ResourceError.self) {
            try await bus.publish(message("big", .string(text)), to: "test.big")
        }
        #expect(error?.code == .tooLarge)
    }

    @Test func largeBodyPasses() async throws {
        let bus = try await BusKind.rabbit.bus()
        let queue = newQueue()
        let text = String(repeating: "x", count: 3 << 20)
        let seen = Seen()
        try await during({ try await bus.consume(queue: queue) { seen.add($0) } }) {
            try await bus.publish(message("big", .string(text)), to: queue)
            try await seen.wait(for: 1)
        }
        #expect(seen.all.first?.body.stringValue?.utf8.count == 3 << 20)
    }

    @Test func manyPublishesAreConfirmedTogether() async throws {
        let bus = try await BusKind.rabbit.bus()
        let queue = newQueue()
        let start = SystemTime().monotonicNanoseconds()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for n in 0..<2000 {
                group.addTask { try await bus.publish(message("n", ["n": JSONValue(n)]), to: queue) }
            }
            try await group.waitForAll()
        }
        let elapsed = Double(SystemTime().monotonicNanoseconds() - start) / 1e9
        print("2000 confirmed publishes to a quorum queue: \(elapsed) s")
        let seen = Seen()
        try await during({ try await bus.consume(queue: queue, options: ConsumeOptions(prefetch: 200)) { seen.add($0) } }) {
            try await seen.wait(for: 2000)
        }
        #expect(Set(seen.all.compactMap { $0.body["n"]?.intValue }).count == 2000)
    }

    @Test func everythingComesBackAfterTheBrokerLostItsData() async throws {
        let broker = try await PrivateRabbitMQ.shared.value
        let bus = try await BusKind.rabbit.bus()
        let queue = newQueue()
        let echo = newQueue()
        let seen = Seen()
        try await during({ try await bus.consume(queue: queue, options: fast) { seen.add($0) } }) {
            try await during({ try await bus.serve(queue: echo) { $0.body } }) {
                try await bus.publish(message("before"), to: queue)
                try await seen.wait(for: 1)
                _ = try await bus.request(message("ask"), to: echo, timeout: .seconds(20))
                try await broker.kill()
                // Accepted while the broker is unavailable; confirmed when it is back, without any of its data.
                async let published: Void = bus.publish(message("meanwhile"), to: queue)
                async let answer = bus.request(message("ask", ["late": true]), to: echo, timeout: .seconds(60))
                try broker.wipe()
                try await broker.start()
                try await published
                #expect(try await answer["late"] == true)
                try await bus.publish(message("after"), to: queue)
                try await seen.wait(for: 3)
            }
        }
        #expect(Set(seen.all.map(\.type)) == ["before", "meanwhile", "after"])
        #expect(bus.isConnected)
    }

    @Test func publishGivesUpWhenTheBrokerStaysAway() async throws {
        let bus = RabbitBus(
            BusConfiguration(addresses: [BrokerAddress(port: 1)], confirmTimeout: .milliseconds(600)),
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        let error = await #expect(throws: ResourceError.self) { try await bus.publish(message("x"), to: "test.away") }
        #expect(error?.code == .unavailable)
        #expect(!bus.isConnected)
    }
}

@Suite struct OutboxTests {
    @Test func committedMessagesAreSentAndRolledBackOnesAreNot() async throws {
        try await TestDatabase.with { test in
            let bus = InMemoryBus()
            let relay = OutboxRelay(database: test.database, bus: bus)
            let kept = message("kept", ["a": 1])
            try await test.database.write { try Outbox.add($0, kept, to: "q", ambient: Ambient()) }
            await #expect(throws: ResourceError.self) {
                try await test.database.write { connection in
                    try Outbox.add(connection, message("lost"), to: "q", ambient: Ambient())
                    throw ResourceError.conflict("rolled back")
                }
            }
            #expect(try await relay.relay() == 1)
            #expect(try await relay.relay() == 0)
            #expect(bus.waiting(in: "q").map(\.id) == [kept.id])
            #expect(bus.waiting(in: "q").first?.body == ["a": 1])
        }
    }

    @Test func aRunningRelayIsWokenByTheCommit() async throws {
        try await TestDatabase.with { test in
            let bus = InMemoryBus()
            let relay = OutboxRelay(database: test.database, bus: bus)
            let seen = Seen()
            try await during({ try await relay.run() }) {
                try await during({ try await bus.consume(queue: "q") { seen.add($0) } }) {
                    for n in 0..<5 {
                        try await test.database.write {
                            try Outbox.add($0, message("n\(n)"), to: "q", ambient: Ambient())
                        }
                    }
                    try await seen.wait(for: 5)
                }
            }
            #expect(seen.all.count == 5)
        }
    }

    @Test func severalRelaysSendEachMessageOnce() async throws {
        try await TestDatabase.with(connectionsMax: 6) { test in
            let bus = InMemoryBus()
            try await test.database.write { connection in
                for n in 0..<500 { try Outbox.add(connection, message("n\(n)"), to: "q", ambient: Ambient()) }
            }
            try await withThrowingTaskGroup(of: Int.self) { group in
                for _ in 0..<6 {
                    group.addTask {
                        let relay = OutboxRelay(database: test.database, bus: bus)
                        var sent = 0
                        while true {
                            let count = try await relay.relay()
                            if count == 0 { return sent }
                            sent += count
                        }
                    }
                }
                let total = try await group.reduce(0, +)
                #expect(total == 500)
            }
            #expect(Set(bus.waiting(in: "q").map(\.id)).count == 500)
            #expect(bus.waiting(in: "q").count == 500)
        }
    }

    @Test func unsentMessagesStay() async throws {
        try await TestDatabase.with { test in
            let away = RabbitBus(
                BusConfiguration(addresses: [BrokerAddress(port: 1)], confirmTimeout: .milliseconds(100)),
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
            try await test.database.write { try Outbox.add($0, message("x"), to: "q", ambient: Ambient()) }
            await #expect(throws: ResourceError.self) {
                try await OutboxRelay(database: test.database, bus: away).relay()
            }
            let bus = InMemoryBus()
            #expect(try await OutboxRelay(database: test.database, bus: bus).relay() == 1)
        }
    }

    @Test func inboxKnowsRepetitions() async throws {
        try await TestDatabase.with { test in
            let id = SystemRandom().uuid()
            let now = Ambient().now
            let first = try await test.database.write { try Inbox.isFirst($0, consumer: "c", message: id, at: now) }
            let second = try await test.database.write { try Inbox.isFirst($0, consumer: "c", message: id, at: now) }
            let other = try await test.database.write { try Inbox.isFirst($0, consumer: "d", message: id, at: now) }
            #expect(first && !second && other)
            let later = now + Inbox.retention + .seconds(1)
            #expect(try await test.database.write { try Inbox.prune($0, at: later) } == 2)
        }
    }
}

@Suite struct BrokerAddressTests {
    @Test func partsAreRead() throws {
        let full = try BrokerAddress(url: "amqp://al%40ice:p%3Aw@broker.example:5673/cloud%2F1")
        #expect(full.host == "broker.example")
        #expect(full.port == 5673)
        #expect(full.user == "al@ice")
        #expect(full.password.exposed == "p:w")
        #expect(full.virtualHost == "cloud/1")
        let bare = try BrokerAddress(url: "amqp://")
        #expect((bare.host, bare.port) == ("127.0.0.1", 5672))
        #expect(try BrokerAddress(url: "amqp://[::1]:1").host == "::1")
        #expect(try BrokerAddress.list("amqp://a,amqp://b:1").map(\.host) == ["a", "b"])
    }

    @Test(arguments: ["", "amqps://x", "http://x", "amqp://x:0", "amqp://x:y", "amqp://%zz@x"])
    func nonsenseIsRefused(_ text: String) {
        #expect(throws: ResourceError.self) { try BrokerAddress(url: text) }
    }
}
