import ArgumentParser
import Contracts
import Foundation
import JSON
import Kernel
import Logging
import Messaging

/// A command's way to an agent and its answer's way back, over the bus or over librabbitmq alone.
struct RoundTrips: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "round-trips", abstract: "Asks and answers over RabbitMQ, one after the other; prints round trips per second.")

    @Option(help: "AMQP URL.")
    var broker: String

    @ArgumentParser.Flag(help: "librabbitmq alone: the same persistent messages, quorum queue, confirmations and acknowledgements.")
    var raw = false

    @Option(help: "Questions at once (not with --raw).")
    var concurrency = 1

    @Option(help: "Seconds.")
    var seconds = 3

    func run() async throws {
        let address = try BrokerAddress(url: broker)
        let rate = raw ? try await overLibrary(address) : try await overBus(address)
        print("{\"round_trips_per_second\": \(rate)}")
    }

    private static let queue = MessageQueue("wolke.bench")
    /// About what a command to an agent carries.
    private static let body: JSONValue = ["type": "ensure", "server": .string(String(repeating: "x", count: 1000))]

    private func overBus(_ address: BrokerAddress) async throws -> Double {
        let ambient = Ambient()
        func bus(_ name: String) -> RabbitBus {
            RabbitBus(BusConfiguration(addresses: [address], name: name), ambient: ambient, logger: Logger(label: name))
        }
        let (asking, answering) = (bus("wolke-bench asks"), bus("wolke-bench answers"))
        defer {
            asking.close()
            answering.close()
        }
        let serving = Task { try await answering.serve(queue: RoundTrips.queue) { _ in ["output": ""] } }
        defer { serving.cancel() }
        @Sendable func ask() async throws {
            let message = Message(id: ambient.newUUID(), type: "ensure", body: RoundTrips.body)
            _ = try await asking.request(message, to: RoundTrips.queue, timeout: .seconds(20))
        }
        for _ in 0..<20 { try await ask() }
        let begun = ambient.time.monotonicNanoseconds()
        let end = begun + UInt64(seconds) * 1_000_000_000
        let done = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<concurrency {
                group.addTask {
                    var done = 0
                    while ambient.time.monotonicNanoseconds() < end {
                        try await ask()
                        done += 1
                    }
                    return done
                }
            }
            return try await group.reduce(0, +)
        }
        return Double(done) * 1e9 / Double(ambient.time.monotonicNanoseconds() - begun)
    }

    private func overLibrary(_ address: BrokerAddress) async throws -> Double {
        let answering = try RawBroker(address)
        try answering.declareQuorum(RoundTrips.queue.name)
        try answering.consume(RoundTrips.queue.name, acknowledging: true)
        let answers = try RawBroker(address)
        try answers.confirm()
        let thread = Thread {
            do {
                while true {
                    let question = try answering.next()
                    try answers.publish(Array("{\"output\":\"\"}".utf8), to: question.replyTo, replyTo: nil, id: question.id)
                    try answering.acknowledge(question.tag)
                }
            } catch {
                // The broker closed the connection: the asking side says so.
            }
        }
        thread.start()
        let asking = try RawBroker(address)
        try asking.confirm()
        let replies = try RawBroker(address)
        let replyQueue = "wolke.bench.reply.\(Ambient().newUUID())"
        try replies.declareExclusive(replyQueue)
        try replies.consume(replyQueue, acknowledging: false)
        let body = Array(RoundTrips.body.description.utf8)
        let time = Ambient().time
        var done = 0
        var begun = time.monotonicNanoseconds()
        var end = UInt64.max
        while time.monotonicNanoseconds() < end {
            if done == 20, end == .max {
                (done, begun) = (0, time.monotonicNanoseconds())
                end = begun + UInt64(seconds) * 1_000_000_000
            }
            try asking.publish(body, to: RoundTrips.queue.name, replyTo: replyQueue, id: "question-\(done)")
            _ = try replies.next()
            done += 1
        }
        return Double(done) * 1e9 / Double(time.monotonicNanoseconds() - begun)
    }
}
