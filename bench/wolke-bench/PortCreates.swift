import ArgumentParser
import Foundation
import Kernel
import Synchronization

/// The load of the rows about ports: as lean as its peer, because both run on the cores that are measured.
struct PortCreates: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "port-creates",
        abstract: "Creates ports in bulk through the API, with the token in OS_TOKEN; prints ports per second until all are in OVN.")

    @Option(help: "OVN's northbound database.")
    var northbound: String

    @Option(help: "The API, with its version: http://127.0.0.1:9696/v2.0.")
    var url: String

    @Option(help: "The network that gets the ports.")
    var network: String

    @Option(help: "Ports altogether.")
    var count: Int

    @Option(help: "Ports in one request.")
    var bulk = 100

    @Option(help: "Connections at once.")
    var connections = 2

    private static let arrivalSeconds = 600

    func validate() throws {
        guard count > 0, bulk > 0, connections > 0 else { throw ValidationError("nothing to do") }
    }

    func run() async throws {
        guard let token = ProcessInfo.processInfo.environment["OS_TOKEN"] else { throw ValidationError("OS_TOKEN is not set") }
        guard let url = URLComponents(string: url), let host = url.host else { throw ValidationError("\(self.url) is not a URL") }
        let requests = stride(from: 0, to: count, by: bulk).map { start in
            request(min(bulk, count - start), "\(host):\(url.port ?? 80)", url.path, token)
        }
        let seconds = try await Northbound.withNewPorts(northbound) { names in
            try await create(requests, host, "\(url.port ?? 80)", names)
        }
        print("{\"ports_per_second\": \(Double(count) / seconds), \"seconds\": \(seconds)}")
    }

    /// Seconds until the last port was in OVN.
    private func create(
        _ requests: [[UInt8]], _ host: String, _ port: String, _ names: AsyncStream<[String]>
    ) async throws -> Double {
        let arrivals = PortArrivals()
        let watching = Task { for await added in names { await arrivals.note(added) } }
        defer { watching.cancel() }
        let turns = RequestCounter()
        let begun = Ambient().time.monotonicNanoseconds()
        let created = try await withThrowingTaskGroup(of: [UUID128].self) { group in
            for _ in 0..<connections {
                group.addTask { try await Self.onThread { try Self.send(requests, turns, host, port) } }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        guard created.count == count, Set(created).count == count else {
            throw ValidationError("\(Set(created).count) ports were created instead of \(count)")
        }
        let last = try await arrivals.last(of: created, within: .seconds(Self.arrivalSeconds))
        return Double(last - begun) / 1e9
    }

    private func request(_ ports: Int, _ host: String, _ path: String, _ token: String) -> [UInt8] {
        let port = "{\"network_id\": \"\(network)\"}"
        let body = "{\"ports\": [\(Array(repeating: port, count: ports).joined(separator: ", "))]}"
        let head = [
            "POST \(path)/ports HTTP/1.1", "Host: \(host)", "X-Auth-Token: \(token)", "Content-Type: application/json",
            "Content-Length: \(body.utf8.count)", "", "",
        ]
        return Array((head.joined(separator: "\r\n") + body).utf8)
    }

    /// Sends requests as long as there are any; returns the ports that they created.
    private static func send(_ requests: [[UInt8]], _ turns: RequestCounter, _ host: String, _ port: String) throws -> [UUID128] {
        let connection = try PlainConnection(host: host, port: port)
        var created: [UUID128] = []
        while case let index = turns.next(), index < requests.count {
            let answer = try connection.exchange(requests[index])
            guard answer.status == 201 else {
                throw ValidationError("answered with \(answer.status): \(String(decoding: answer.body.prefix(500), as: UTF8.self))")
            }
            created += ids(answer.body)
        }
        return created
    }

    /// The ids of the ports in an answer: of all that a port has, nothing else is called just "id".
    private static func ids(_ body: [UInt8]) -> [UUID128] {
        var result: [UUID128] = []
        var rest = body[...]
        while let start = PlainConnection.find("\"id\":\"", rest) {
            let id = rest[start...].dropFirst(6).prefix(UUID128.textLength)
            if let id = UUID128(String(decoding: id, as: UTF8.self)) { result.append(id) }
            rest = rest[id.endIndex...]
        }
        return result
    }

    /// Runs what blocks where it keeps no task from running.
    private static func onThread<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            Thread { continuation.resume(with: Result(catching: body)) }.start()
        }
    }
}

/// The number of the next request.
private final class RequestCounter: Sendable {
    private let taken = Atomic<Int>(0)
    func next() -> Int { taken.add(1, ordering: .relaxed).oldValue }
}

/// When ports arrived in OVN's northbound database.
private actor PortArrivals {
    private var times: [UUID128: UInt64] = [:]
    private let time = Ambient().time

    func note(_ names: [String]) {
        let now = time.monotonicNanoseconds()
        for id in names.compactMap({ UUID128($0) }) { times[id] = now }
    }

    /// When the last of these arrived.
    ///
    /// - Throws: `ValidationError` when some have not arrived in time.
    func last(of ports: [UUID128], within limit: Duration) async throws -> UInt64 {
        let end = time.monotonicNanoseconds() + UInt64(limit.microseconds) * 1000
        while true {
            let missing = ports.count { times[$0] == nil }
            if missing == 0 { return ports.compactMap { times[$0] }.max() ?? 0 }
            guard time.monotonicNanoseconds() < end else { throw ValidationError("\(missing) ports have not arrived in OVN") }
            try await time.sleep(for: .milliseconds(5))
        }
    }
}
