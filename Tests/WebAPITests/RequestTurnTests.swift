import Authorization
import Database
import JSON
import Kernel
import ServiceCatalog
import Synchronization
import Telemetry
import TestKit
import Testing
import WebAPI

/// Requests take turns in the pipeline.
@Suite struct RequestTurnTests {
    /// A service whose handlers wait for a signal of the test.
    private final class Slow: Sendable {
        let api: API
        private let begun = Mutex(0)
        private let go: AsyncStream<Void>.Continuation

        init() throws {
            let (stream, go) = AsyncStream.makeStream(of: Void.self)
            self.go = go
            let began = Mutex<(@Sendable () -> Void)?>(nil)
            let note: @Sendable () -> Void = { began.withLock { $0 }?() }
            func slow(_ method: WebAPI.Method, _ body: RouteBody = .none) -> Route {
                Route(method, "/slow", action: "slow:\(method.rawValue)", rule: "@", body: body) { context in
                    try context.authorize(target: .none)
                    note()
                    if context.headers["x-waits"] != nil { for await _ in stream { break } }
                    return .empty()
                }
            }
            var api = try API(
                service: ServiceDescription(type: "slow", title: "Slow", faults: .network, publicURL: "http://slow.example"),
                resources: [Resource("slow", routes: [slow(.get), slow(.post, .json(.any))])],
                authenticator: StaticAuthenticator.standard, ambient: Ambient(random: SeededRandom(seed: 1)),
                log: Telemetry.logger(service: "test", level: "critical"), metrics: Metrics())
            var limits = RequestScheduler.Limits(processors: 1)
            (limits.seatsAlone, limits.seatsShared, limits.seats, limits.heldMax) = (1, 1, 8, .seconds(600))
            api.scheduler = RequestScheduler(limits, time: SystemTime())
            self.api = api
            began.withLock { $0 = { [weak self] in self?.begun.withLock { $0 += 1 } } }
        }

        var count: Int { begun.withLock { $0 } }

        func send(_ method: String, _ token: String, waits: Bool, body: JSONValue? = nil) async throws -> Int {
            let headers: Headers = waits ? ["x-auth-token": token, "x-waits": "1"] : ["x-auth-token": token]
            return await api.respond(to: try IncomingRequest(method, "/slow", headers: headers, body: body?.encoded ?? [])).status
        }

        func end() { go.yield() }
    }

    @Test("S18: a project's request waits for its turn, and another project's request does not wait")
    func s18RequestsWaitForTheirProjectsTurn() async throws {
        let slow = try Slow()
        let first = Task { try await slow.send("GET", "member", waits: true) }
        while slow.count == 0 { await Task.yield() }
        let second = Task { try await slow.send("POST", "member", waits: false, body: ["text": "0123456789"]) }
        while slow.api.scheduler.counts.waiting == 0 { await Task.yield() }
        #expect(slow.api.bodies.held > 10, "a body counts while its request waits")
        #expect(try await slow.send("GET", "other", waits: false) == 204)
        #expect(slow.count == 2)
        slow.end()
        #expect(try await first.value == 204)
        #expect(try await second.value == 204)
        #expect(slow.api.bodies.held == 0)
        #expect(slow.api.scheduler.counts == (0, 0))
    }

    @Test("S18: a request with an unknown token waits for its address's turn")
    func s18UnknownTokensTakeTurns() async throws {
        let slow = try Slow()
        let scheduler = slow.api.scheduler
        let (stream, go) = AsyncStream.makeStream(of: Void.self)
        let busy = Task { try await scheduler.run(of: "from ", presence: nil) { for await _ in stream { break } } }
        while scheduler.counts.held == 0 { await Task.yield() }
        let guess = Task { try await slow.send("GET", "nonsense", waits: false) }
        while scheduler.counts.waiting == 0 { await Task.yield() }
        go.yield()
        try await busy.value
        #expect(try await guess.value == 401)
    }
}
