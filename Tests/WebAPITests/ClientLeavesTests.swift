import Authorization
import Database
import JSON
import Kernel
import ServiceCatalog
import Telemetry
import TestKit
import Testing
import WebAPI

/// Requests whose client closes the connection before the response.
@Suite struct ClientLeavesTests {
    @Test("S18: a request whose client has disconnected frees its session within a second")
    func s18RequestsOfDisconnectedClientsAreStopped() async throws {
        try await TestDatabase.with { test in
            let metrics = Metrics()
            let database = Database(DatabaseConfiguration(connectionString: test.connectionString, connectionsMax: 3), metrics: metrics)
            defer { database.close() }
            func slow(_ method: WebAPI.Method, _ run: @escaping @Sendable (RequestContext) async throws -> Void) -> Route {
                Route(method, "/slow", action: "slow:\(method.rawValue)", rule: "@") { context in
                    try context.authorize(target: .none)
                    try await run(context)
                    return .empty()
                }
            }
            let api = try API(
                service: ServiceDescription(type: "slow", title: "Slow", faults: .network, publicURL: "http://slow.example"),
                resources: [
                    Resource(
                        "slow",
                        routes: [
                            slow(.get) { _ in try await database.read { _ = try $0.query("SELECT pg_sleep(20)") } },
                            slow(.delete) { context in
                                _ = try await context.write(database) { connection in
                                    _ = try connection.query("SELECT pg_sleep(20)")
                                    return Change(.empty(), "slow", nil)
                                }
                            },
                        ])
                ], authenticator: StaticAuthenticator.standard, ambient: Ambient(random: SeededRandom(seed: 1)),
                log: Telemetry.logger(service: "test", level: "critical"), metrics: metrics)
            for method in ["GET", "DELETE"] {
                let presence = ClientPresence(source: "192.0.2.1")
                var request = try IncomingRequest(method, "/slow", headers: ["x-auth-token": "member"])
                request.presence = presence
                let sent = request
                let answer = Task { await api.respond(to: sent) }
                func running() async throws -> Int {
                    try await test.database.read {
                        try $0.query(
                            "SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(20)%' AND datname = current_database() AND pid <> pg_backend_pid()"
                        )[0].int("n")
                    }
                }
                while try await running() == 0 { try await SystemTime().sleep(for: .milliseconds(5)) }
                let clock = ContinuousClock.now
                presence.leave()
                #expect(await answer.value.status == 503)
                #expect(ContinuousClock.now - clock < .seconds(1))
                #expect(try await running() == 0)
            }
            #expect(metrics.render().contains("wolke_database_stopped_total{reason=\"client\"} 2"))
        }
    }

    /// A client that sends nothing more may still read (RFC 9112, 9.6), as `nc -N` does; one that has gone looks the same.
    @Test("S18: a client that closes its connection, or its side of it, is answered soon or has left", .timeLimit(.minutes(10)))
    func s18ClosedConnectionCancelsRequest() async throws {
        try await TestDatabase.with { test in
            let metrics = Metrics()
            let database = Database(DatabaseConfiguration(connectionString: test.connectionString, connectionsMax: 3), metrics: metrics)
            defer { database.close() }
            let log = Telemetry.logger(service: "test", level: "critical")
            let api = try API(
                service: ServiceDescription(type: "slow", title: "Slow", faults: .network, publicURL: "http://slow.example"),
                resources: [
                    Resource(
                        "slow",
                        routes: [
                            Route(.get, "/slow", action: "slow", rule: "@") { context in
                                try context.authorize(target: .none)
                                try await database.read { _ = try $0.query("SELECT pg_sleep(21)") }
                                return .empty()
                            },
                            Route(.post, "/soon", action: "soon", rule: "@", body: .json(.any)) { context in
                                try context.authorize(target: .none)
                                try await database.read { _ = try $0.query("SELECT pg_sleep(0.2)") }
                                return .json(200, ["got": context.body])
                            },
                        ])
                ], authenticator: StaticAuthenticator.standard, ambient: Ambient(random: SeededRandom(seed: 1)), log: log, metrics: metrics)
            let port = try FreePorts.take(1)[0]
            var limits = ConnectionLimits()
            limits.halfClosedTimeout = .seconds(1)
            let server = HTTPServer(
                api: api, host: "127.0.0.1", port: port, metrics: metrics, log: log, limits: limits,
                readiness: Readiness(time: SystemTime()) {})
            @Sendable func running() async throws -> Int {
                try await test.database.read {
                    try $0.query(
                        "SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(21)%' AND datname = current_database() AND pid <> pg_backend_pid()"
                    )[0].int("n")
                }
            }
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await server.run() }
                let post = "POST /soon HTTP/1.1\r\nHost: x\r\nX-Auth-Token: member\r\n"
                for (request, status) in [
                    (post + "Content-Length: 2\r\n\r\n{}", 200), (post + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200),
                    (post + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", 400), (post + "Content-Length: 9\r\n\r\n{}", 400),
                ] {
                    let client = try await RawClient(port: port)
                    try await client.send(request)
                    client.finish()
                    let answer = try await client.receive()
                    #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(request): \(answer)")
                }
                for closesWhole in [false, true] {
                    var client: RawClient? = try await RawClient(port: port)
                    try await client?.send("GET /slow HTTP/1.1\r\nHost: x\r\nX-Auth-Token: member\r\n\r\n")
                    while try await running() == 0 { try await SystemTime().sleep(for: .milliseconds(5)) }
                    if closesWhole { client = nil } else { client?.finish() }
                    let clock = ContinuousClock.now
                    while try await running() > 0, ContinuousClock.now - clock < .seconds(5) {
                        try await SystemTime().sleep(for: .milliseconds(20))
                    }
                    #expect(ContinuousClock.now - clock < .seconds(3), "\(closesWhole)")
                }
                group.cancelAll()
                do { try await group.waitForAll() } catch is CancellationError {}
            }
        }
    }

    @Test func unreadPagingParametersAreRefused() async throws {
        let api = try API(
            service: ServiceDescription(type: "plain", title: "Plain", faults: .network, publicURL: "http://plain.example"),
            resources: [
                Resource(
                    "plain",
                    routes: [
                        Route(.get, "/whole", action: "whole", rule: "@") { context in
                            try context.authorize(target: .none)
                            return .json(200, ["things": [["id": "1"], ["id": "2"]]])
                        },
                        Route(.get, "/filtered", action: "filtered", rule: "@") { context in
                            try context.authorize(target: .none)
                            let names = context.query.items.filter { $0.name == "name" }.map { JSONValue.string($0.value) }
                            return .json(200, ["things": .array(names)])
                        },
                        Route(.get, "/paged", action: "paged", rule: "@") { context in
                            try context.authorize(target: .none)
                            let page = try context.listRequest(filters: []).page(of: [["id": "1"], ["id": "2"]])
                            return .json(200, ["things": .array(page.items)])
                        },
                    ])
            ], authenticator: StaticAuthenticator.standard, ambient: Ambient(random: SeededRandom(seed: 1)),
            log: Telemetry.logger(service: "test", level: "critical"), metrics: Metrics())
        for (target, status) in [
            ("/whole", 200), ("/whole?name=x", 200), ("/whole?limit=1", 400), ("/whole?marker=1", 400), ("/whole?page_reverse=True", 400),
            ("/filtered?name=x", 200), ("/filtered?name=x&limit=1", 400), ("/filtered?marker=1", 400),
            ("/paged?limit=1", 200), ("/paged?marker=2", 200), ("/paged?marker=3", 400),
        ] {
            let response = await api.respond(to: try IncomingRequest("GET", target, headers: ["x-auth-token": "member"]))
            #expect(response.status == status, "\(target)")
        }
        try await ListSweep(api, token: "member").walk("/paged", collection: "things")
    }
}
