import Authorization
import Database
import Foundation
import JSON
import Kernel
import NIOCore
import ServiceCatalog
import Synchronization
import Telemetry
import TestKit
import Testing

@testable import WebAPI

/// A server whose routes need no database, with its log.
private struct Served: Sendable {
    let port: Int
    let operatorPort: Int
    let metrics: Metrics
    let api: API
    let uploads: Uploads

    static func with(
        _ limits: ConnectionLimits = limits { _ in }, bodies: BodyBudget = BodyBudget(),
        _ body: @escaping @Sendable (Served) async throws -> Void
    ) async throws {
        let metrics = Metrics()
        let uploads = Uploads()
        var api = try api(metrics, uploads)
        api.bodies = bodies
        let ports = try FreePorts.take(2)
        let log = Telemetry.logger(service: "test", level: "critical")
        let readiness = Readiness(time: SystemTime()) { throw ResourceError.unavailable("the broker at 10.1.2.3 is away") }
        let served = Served(port: ports[0], operatorPort: ports[1], metrics: metrics, api: api, uploads: uploads)
        let server = HTTPServer(
            api: api, host: "127.0.0.1", port: served.port, metrics: metrics, log: log, limits: limits, readiness: readiness)
        let operators = OperatorServer(
            api: api, host: "127.0.0.1", port: served.operatorPort, metrics: metrics, log: log, readiness: readiness)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await server.run() }
            group.addTask { try await operators.run() }
            group.addTask { try await body(served) }
            try await group.next()
            group.cancelAll()
            do { try await group.waitForAll() } catch is CancellationError {}
        }
    }

    private static func api(_ metrics: Metrics, _ uploads: Uploads) throws -> API {
        let any = RouteBody.json(.any)
        return try API(
            service: ServiceDescription(type: "network", title: "Test", faults: .network, publicURL: "http://public.example"),
            resources: [
                Resource(
                    "thing",
                    routes: [
                        Route(.get, "/source", action: nil) { _ in .json(200, ["source": .string(DatabaseScope.current.source)]) },
                        Route(.get, "/href", action: nil) { .json(200, ["href": .string($0.publicURL)]) },
                        Route(.post, "/sign-on", action: nil, body: any) { .json(200, ["got": $0.body]) },
                        Route(.put, "/file", action: nil, body: .stream) { context in
                            uploads.add()
                            var text: [UInt8] = []
                            for try await piece in context.stream { text += Array(piece.readableBytesView) }
                            return .json(200, ["got": .string(String(decoding: text, as: UTF8.self))])
                        },
                        Route(.post, "/things", action: "things:create", rule: "@", body: any) { context in
                            try context.authorize(target: .none)
                            return .json(200, ["got": context.body])
                        },
                    ])
            ],
            authenticator: StaticAuthenticator.standard, ambient: Ambient(),
            log: Telemetry.logger(service: "test", level: "critical"), metrics: metrics)
    }

    func client() async throws -> RawClient { try await RawClient(port: port) }

    /// Connections with a request that the service has begun to answer and whose body is not complete.
    func busy(_ count: Int, source: UInt32 = 1) async throws -> [RawClient] {
        var clients: [RawClient] = []
        for number in 1...count {
            let client = try await RawClient(port: port, source: source)
            try await client.send("PUT /file HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nContent-Length: 10\r\n\r\n{")
            clients.append(client)
            while uploads.count < number { try await SystemTime().sleep(for: .milliseconds(2)) }
        }
        return clients
    }

    /// The response to one request on a new connection.
    func ask(_ request: String) async throws -> String { try await client().exchange(request) }
}

/// The number of started uploads.
private final class Uploads: Sendable {
    private let begun = Mutex(0)
    var count: Int { begun.withLock { $0 } }
    func add() { begun.withLock { $0 += 1 } }
}

private func status(_ answer: String) -> Int { Int(answer.split(separator: " ").dropFirst().first ?? "") ?? 0 }

private func has(_ answer: String, _ text: String) -> Bool { answer.contains(text) }

/// The number of responses.
private func count(_ answer: String) -> Int { answer.ranges(of: "HTTP/1.").count }

/// Limits with long deadlines, which a busy machine does not reach, except for those that `change` sets.
private func limits(_ change: (inout ConnectionLimits) -> Void) -> ConnectionLimits {
    var limits = ConnectionLimits()
    limits.headTimeout = .seconds(600)
    limits.idleTimeout = .seconds(600)
    limits.bodyWindow = .seconds(600)
    limits.writeTimeout = .seconds(600)
    change(&limits)
    return limits
}

private let get = "GET /href HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

private final class Kept: Sendable {
    let clients = Mutex<[RawClient]>([])
}

@Suite(.timeLimit(.minutes(10))) struct ConnectionTests {
    @Test("S18: idle connections are closed in favour of a request") func s18SilentConnectionsGiveWay() async throws {
        try await Served.with(limits { $0.connectionsMax = 20 }) { served in
            var silent: [RawClient] = []
            for _ in 0..<60 { silent.append(try await served.client()) }
            for _ in 0..<10 { #expect(try await status(served.ask(get)) == 200) }
            // The first ones were closed with the reason.
            #expect(try await status(silent[0].receive()) == 408)
            #expect(served.metrics.render().contains("wolke_http_connections_evicted_total{listener=\"api\"}"))
            withExtendedLifetime(silent) {}
        }
    }

    @Test("S18: a connection over the limit is answered 503 while all others work") func s18OverTheLimitIsAnswered() async throws {
        try await Served.with(limits { $0.connectionsMax = 4 }) { served in
            let busy = try await served.busy(4)
            let answer = try await served.ask(get)
            #expect(status(answer) == 503)
            #expect(answer.lowercased().contains("retry-after: 1"))
            #expect(answer.contains("\"type\":\"HTTPServiceUnavailable\""))
            // Connections with a request in progress are not affected.
            try await busy[0].send("\"a\":1234}")
            #expect(try await status(busy[0].receive { $0.contains("1234") }) == 200)
            withExtendedLifetime(busy) {}
        }
    }

    @Test("S18: the connections of one address are limited, and others can still connect") func s18SourcesHaveShares() async throws {
        try await Served.with(
            limits {
                $0.connectionsMax = 40; $0.connectionsPerSourceMax = 4
            }
        ) { served in
            let busy = try await served.busy(4, source: 2)
            #expect(try await status(RawClient(port: served.port, source: 2).exchange(get)) == 503)
            #expect(try await status(RawClient(port: served.port, source: 3).exchange(get)) == 200)
            withExtendedLifetime(busy) {}
        }
        // A trusted proxy has connections of many clients.
        try await Served.with(
            limits {
                $0.connectionsPerSourceMax = 1
                $0.trustedProxies = [IPNetwork(IPAddress(version: .v4, value: 0x7f00_0002), prefixLength: 32)]
            }
        ) { served in
            let first = try await RawClient(port: served.port, source: 2)
            try await first.send("GET /hr")
            try await SystemTime().sleep(for: .milliseconds(100))
            #expect(try await status(RawClient(port: served.port, source: 2).exchange(get)) == 200)
            // Its connection was not closed either.
            try await first.send("ef HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            #expect(try await status(first.receive()) == 200)
        }
    }

    @Test("S18: what is accepted at a time leaves the process its descriptors") func s18AcceptingHasALimit() async throws {
        try await Served.with(
            limits {
                $0.connectionsMax = 4; $0.connectionsPerSourceMax = 4; $0.refusalsMax = 2
            }
        ) { served in
            var clients: [RawClient] = []
            var most = 0
            for number in 0..<400 {
                clients.append(try await served.client())
                if number % 20 == 19 { most = max(most, try ConnectionTests.accepted(served.port)) }
            }
            // One iteration of the event loop may accept sixteen connections before it checks the limit.
            #expect((4...4 + 2 + 16).contains(most))
            clients = []
            #expect(try await status(served.ask(get)) == 200)
        }
    }

    /// A connection that was accepted while the listener stopped must not crash the process.
    @Test("S18: a server that is stopped while connections arrive stops cleanly") func s18StoppingWhileConnectionsArrive() async throws {
        let kept = Kept()
        for round in 0..<12 {
            try await Served.with(
                limits {
                    $0.connectionsMax = 4; $0.refusalsMax = 2
                }
            ) { served in
                let held = try await withThrowingTaskGroup(of: RawClient.self) { group in
                    for _ in 0..<(20 + round * 5) { group.addTask { try await served.client() } }
                    return try await group.reduce(into: [RawClient]()) { $0.append($1) }
                }
                kept.clients.withLock { $0 += held }
            }
            kept.clients.withLock { $0 = [] }
        }
    }

    /// Connections to the port that the process has accepted: those in the kernel's queue have no inode yet.
    private static func accepted(_ port: Int) throws -> Int {
        // The size is only known after reading the whole file.
        let bytes = try FileHandle(forReadingFrom: URL(fileURLWithPath: "/proc/net/tcp")).readToEnd() ?? Data()
        let table = String(decoding: bytes, as: UTF8.self)
        let number = String(port, radix: 16, uppercase: true)
        let local = ":" + String(repeating: "0", count: max(0, 4 - number.count)) + number
        return table.split(separator: "\n").dropFirst().count { line in
            let fields = line.split(separator: " ")
            return fields.count > 9 && fields[1].hasSuffix(local) && fields[3] != "0A" && fields[9] != "0"
        }
    }

    @Test("S18: heads have a deadline") func s18HeadsHaveADeadline() async throws {
        try await Served.with(limits { $0.headTimeout = .milliseconds(400) }) { served in
            let silent = try await served.client()
            #expect(try await status(silent.receive()) == 408)
            let slow = try await served.client()
            try await slow.send("GET /href HTTP/1.1\r\nHost: x\r\n")
            #expect(try await status(slow.receive()) == 408)
            // Also the head of a later request. The first one's may come too late on a busy machine.
            var (second, first) = (try await served.client(), 0)
            for _ in 0..<50 where first != 200 {
                second = try await served.client()
                try await second.send("GET /href HTTP/1.1\r\nHost: x\r\n\r\n")
                first = try await status(second.receive { $0.contains("}") })
            }
            #expect(first == 200)
            try await second.send("GET /hr")
            #expect(try await status(second.receive()) == 408)
        }
    }

    @Test("S18: bodies have a minimum rate") func s18BodiesHaveALeastRate() async throws {
        try await Served.with(limits { $0.bodyWindow = .milliseconds(400) }) { served in
            let slow = try await served.client()
            try await slow.send("POST /sign-on HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
            let answer = try await slow.receive()
            #expect(status(answer) == 408)
            #expect(answer.contains("\"type\":\"HTTPRequestTimeout\""))
        }
    }

    @Test("S18: a client that does not read the response loses the connection") func s18AnswersMustBeTaken() async throws {
        try await Served.with(limits { $0.writeTimeout = .milliseconds(400) }) { served in
            let deaf = try await RawClient(port: served.port)
            let piece = "{\"a\":\"" + String(repeating: "x", count: 60_000) + "\"}"
            let request = "POST /sign-on HTTP/1.1\r\nHost: x\r\nContent-Length: \(piece.utf8.count)\r\n\r\n" + piece
            var isOpen = true
            // The kernel's buffers hold the first responses.
            for _ in 0..<400 where isOpen { isOpen = try await deaf.send(request) }
            #expect(!isOpen)
        }
    }

    @Test("S18: bodies without a token are small, and the memory for all bodies is limited") func s18BodiesAreBounded() async throws {
        try await Served.with(bodies: BodyBudget(bytesMax: 300_000)) { served in
            func post(_ path: String, _ count: Int, token: Bool) -> String {
                let body = "{\"a\":\"" + String(repeating: "x", count: count) + "\"}"
                return "POST \(path) HTTP/1.1\r\nHost: x\r\n\(token ? "X-Auth-Token: member\r\n" : "")Connection: close\r\n"
                    + "Content-Length: \(body.utf8.count)\r\n\r\n" + body
            }
            #expect(try await status(served.ask(post("/sign-on", 60_000, token: false))) == 200)
            let large = try await served.ask(post("/sign-on", 70_000, token: false))
            #expect(status(large) == 413)
            #expect(large.contains("\"type\":\"HTTPRequestEntityTooLarge\""))
            #expect(try await status(served.ask(post("/things", 250_000, token: true))) == 200)
            // Memory held by an incomplete body is not available to others, and is released at its end.
            do {
                let held = try await served.client()
                let whole = post("/things", 250_000, token: true)
                try await held.send(String(whole.dropLast(2)))
                while served.api.bodies.held < 250_000 { try await SystemTime().sleep(for: .milliseconds(2)) }
                let refused = try await served.ask(post("/things", 100_000, token: true))
                #expect(status(refused) == 503)
                #expect(refused.lowercased().contains("retry-after: 1"))
                withExtendedLifetime(held) {}
            }
            for _ in 0..<2000 where served.api.bodies.held > 0 { try await SystemTime().sleep(for: .milliseconds(10)) }
            #expect(served.api.bodies.held == 0)
        }
    }

    @Test("S18: neither one project's nor one address's bodies can fill the memory for bodies") func s18BodiesHaveOwners() {
        let budget = BodyBudget(bytesMax: 16 << 20)
        let project = budget.share(of: "p1")
        #expect(project.take(4 << 20) && !project.take(1))
        #expect(!budget.share(of: "p1").take(1), "another request of the project")
        #expect(budget.share(of: "p2").take(1))
        let anonymous = budget.share(ofAnonymous: "192.0.2.1")
        #expect(anonymous.take(2 << 20) && !anonymous.take(1))
        #expect(budget.share(ofAnonymous: "192.0.2.2").take(1))
        let others = ["p2", "p3"].map { budget.share(of: $0) }
        for other in others { #expect(other.take(4 << 20)) }
        let last = budget.share(of: "p4")
        #expect(last.take(2 << 20) && !last.take(1), "all together")
        withExtendedLifetime((project, anonymous, others, last)) {}
    }

    @Test("S6: forwarded headers are only trusted from trusted proxies") func s6ForwardedFieldsNeedATrustedProxy() async throws {
        let request =
            "GET /href HTTP/1.1\r\nHost: x\r\nX-Forwarded-Host: cloud.example:8443\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n"
        try await Served.with { served in
            let href = try await served.ask(request)
            #expect(href.contains("http://public.example"))
        }
        try await Served.with(limits { $0.trustedProxies = [IPNetwork(IPAddress(version: .v4, value: 0x7f00_0000), prefixLength: 8)] }) {
            served in
            let href = try await served.ask(request)
            #expect(href.contains("https://cloud.example:8443"))
            let bad = try await served.ask(request.replacing("cloud.example:8443", with: "evil\"/x"))
            #expect(bad.contains("http://public.example"))
        }
    }

    @Test("S6: per-source limits count the client named by a trusted proxy, and ignore other sources")
    func s6ClientsBehindATrustedProxy() async throws {
        let request =
            "GET /source HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.5, 198.51.100.7\r\nX-Forwarded-For: 192.0.2.9\r\nConnection: close\r\n\r\n"
        try await Served.with { served in
            let answer = try await served.ask(request)
            #expect(answer.contains("\"127.0.0.1\""), "\(answer)")
        }
        let proxies = [IPNetwork(IPAddress(version: .v4, value: 0x7f00_0000), prefixLength: 8), try #require(IPNetwork("192.0.2.9/32"))]
        try await Served.with(limits { $0.trustedProxies = proxies }) { served in
            // Two proxies in a row: entries before theirs are not trusted.
            let answer = try await served.ask(request)
            #expect(answer.contains("\"198.51.100.7\""), "\(answer)")
        }
        let limits = limits { $0.trustedProxies = proxies }
        let peer = IPAddress("127.0.0.1")
        for (fields, source) in [
            ([], "127.0.0.1"), (["203.0.113.5"], "203.0.113.5"), (["1.1.1.1,203.0.113.5:4711"], "203.0.113.5"),
            (["2001:db8:1:2:3::4"], "2001:db8:1:2::/64"), (["[2001:db8:1:2::4]:80 "], "2001:db8:1:2::/64"),
            (["::ffff:203.0.113.5"], "203.0.113.5"), (["203.0.113.5, unknown"], "127.0.0.1"), (["203.0.113.5,"], "203.0.113.5"),
            (["192.0.2.9"], "192.0.2.9"), (["x", "203.0.113.5", "192.0.2.9"], "203.0.113.5"),
        ] {
            #expect(PeerAddress.source(limits.client(of: peer, forwardedFor: fields)) == source, "\(fields)")
        }
        #expect(limits.client(of: IPAddress("10.0.0.1"), forwardedFor: ["203.0.113.5"]) == IPAddress("10.0.0.1"))
    }

    @Test("S18: the operators' port has its own listener") func s18OperatorsHaveAListenerOfTheirOwn() async throws {
        try await Served.with { served in
            func path(_ path: String) -> String { get.replacing("/href", with: path) }
            #expect(try await status(served.ask(path("/metrics"))) == 404)
            #expect(try await status(served.ask(path("/openapi.json"))) == 404)
            #expect(try await status(served.ask(path("/healthz"))) == 200)
            let public503 = try await served.ask(path("/readyz"))
            #expect(status(public503) == 503)
            #expect(!public503.contains("10.1.2.3"))
            func operators(_ request: String) async throws -> String { try await RawClient(port: served.operatorPort).exchange(request) }
            #expect(try await has(operators(path("/readyz")), "the broker at 10.1.2.3 is away"))
            #expect(try await has(operators(path("/metrics")), "wolke_http_request_seconds"))
            #expect(try await has(operators(path("/openapi.json")), "\"/things\""))
            #expect(try await status(operators(path("/href"))) == 404)
        }
    }
}

@Suite(.timeLimit(.minutes(10))) struct MalformedRequestTests {
    private static let post = "POST /sign-on HTTP/1.1\r\nHost: x\r\n"
    private static let things = "POST /things HTTP/1.1\r\nHost: x\r\nX-Auth-Token: member\r\n"

    @Test(
        "S18: what is not a request is 4xx or a closed connection, and the server goes on",
        arguments: [
            (400, post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
            (400, things + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX"),
            (400, things + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}"),
            (400, things + "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
            (400, things + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
            (400, things + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            (400, things + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
            (400, "POST /things HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            (400, things + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
            (400, things + "Content-Length: -1\r\n\r\n"),
            (400, things + "Content-Length: 2, 2\r\n\r\n{}"),
            (400, things + "Content-Length: 99999999999999999999999\r\n\r\n"),
            (413, things + "Content-Length: 1048577\r\n\r\n"),
            (413, post + "Content-Length: 65537\r\n\r\n"),
            (400, "nonsense\r\n\r\n"),
            (400, "GET /href HTTP/1.1\r\n\r\n"),
            (400, "GET /href HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            (400, "GET /href HTTP/3.0\r\nHost: a\r\n\r\n"),
            (400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            (400, "GET /href HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n"),
            (400, "GET /href HTTP/1.1\r\nHost: x\r\nbad name: y\r\n\r\n"),
            (400, "GET /href HTTP/1.1\r\nHost: x\r\nA: b\u{0}c\r\n\r\n"),
            (400, "GET /%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
            (400, "GET /href?a=%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
            (400, "GET /%ff%fe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
            (417, things + "Expect: 200-maybe\r\nContent-Length: 2\r\n\r\n{}"),
            (431, "GET /href HTTP/1.1\r\nHost: x\r\nA: " + String(repeating: "a", count: 100_000) + "\r\n\r\n"),
            (431, "GET /href HTTP/1.1\r\nHost: x\r\n" + String(repeating: "a: b\r\n", count: 500) + "\r\n"),
            (431, "GET /" + String(repeating: "a", count: 200_000) + " HTTP/1.1\r\nHost: x\r\n\r\n"),
            (400, "GET /" + String(repeating: "a", count: 20_000) + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
            (400, "BREW /things HTTP/1.1\r\nHost: x\r\n\r\n"),
            (405, "PROPFIND /things HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
            (405, "DELETE /things HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
            (200, "GET /href HTTP/1.0\r\n\r\n"),
            (200, "GET /href HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"),
            (200, "GET /href HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        ])
    func s18NoRequestIsAServerError(_ wanted: Int, _ request: String) async throws {
        try await Served.with { served in
            let answer = try await served.ask(request)
            #expect(status(answer) == wanted, "\(request.prefix(200)) → \(answer.prefix(300))")
            // A single response, in the service's own format.
            #expect(answer.ranges(of: "HTTP/1.1 ").count == 1)
            if wanted >= 400 { #expect(answer.lowercased().contains("x-openstack-request-id: req-")) }
            if wanted >= 400 { #expect(answer.contains("\"NeutronError\"") && !answer.contains("HTTPInternalServerError")) }
            #expect(try await status(served.ask(get)) == 200)
        }
    }

    @Test(
        "S18: a body that ends early is 400",
        arguments: [
            things + "Content-Length: 100\r\n\r\n{\"a\":", things + "Transfer-Encoding: chunked\r\n\r\n10\r\n{\"a\"",
            things + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        ])
    func s18ABodyThatEndsEarlyIs400(_ request: String) async throws {
        try await Served.with { served in
            let client = try await served.client()
            try await client.send(request)
            client.finish()
            let answer = try await client.receive()
            #expect(status(answer) == 400)
            #expect(answer.contains("ended before"))
        }
    }

    @Test func aClientThatAsksIsToldToContinue() async throws {
        try await Served.with { served in
            let head = "Content-Length: 8\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
            let client = try await served.client()
            try await client.send(MalformedRequestTests.things + head)
            #expect(try await status(client.receive { $0.contains("\r\n\r\n") }) == 100)
            try await client.send("{\"a\":42}")
            let answer = try await client.receive()
            #expect(status(answer) == 200)
            #expect(answer.contains("42"))
            // Refused without reading the body.
            let unauthenticated = try await served.ask(
                "POST /things HTTP/1.1\r\nHost: x\r\n" + head.replacing("Connection: close\r\n", with: ""))
            #expect(status(unauthenticated) == 401)
            #expect(unauthenticated.lowercased().contains("connection: close"))
        }
    }

    @Test func requestsMayBePipelined() async throws {
        try await Served.with { served in
            let one = "GET /href HTTP/1.1\r\nHost: x\r\n\r\n"
            let answer = try await served.ask(one + one + MalformedRequestTests.things + "Content-Length: 8\r\n\r\n{\"a\":42}" + get)
            #expect(answer.ranges(of: "HTTP/1.1 200").count == 4)
            #expect(answer.contains("42"))
            // Data after the last request is ignored.
            #expect(try await count(served.ask(get + one)) == 1)
        }
    }
}
