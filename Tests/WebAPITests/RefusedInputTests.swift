import Authorization
import Database
import JSON
import Kernel
import ServiceCatalog
import Telemetry
import TestKit
import Testing
import WebAPI

/// Values that no route's check has found and that PostgreSQL refuses: an error of the client that names the value.
@Suite struct RefusedInputTests {
    private static func answer(
        _ method: String, _ target: String, _ body: JSONValue? = nil,
        _ handler: @escaping @Sendable (Connection, RequestContext) throws -> Void
    ) async throws -> (status: Int, text: String) {
        try await TestDatabase.with { test in
            let database = test.database
            let run: @Sendable (RequestContext) async throws -> Response = { context in
                try context.authorize(target: .none)
                return try await database.write { connection in
                    try handler(connection, context)
                    return .empty()
                }
            }
            let api = try API(
                service: ServiceDescription(
                    type: "test", title: "Test", faults: .compute, negotiation: nil, publicURL: "http://test.example"),
                resources: [
                    Resource(
                        "thing",
                        routes: [
                            Route(.get, "/things", action: "things:list", rule: "@", handler: run),
                            Route(.post, "/things", action: "things:create", rule: "@", body: .json(.any), handler: run),
                            Route(.get, "/things/{thing_id}", action: "things:show", rule: "@", handler: run),
                        ])
                ],
                authenticator: StaticAuthenticator.standard, ambient: Ambient(random: SeededRandom(seed: 1)),
                log: Telemetry.logger(service: "test", level: "critical"), metrics: Metrics())
            var headers = Headers()
            headers["x-auth-token"] = "member"
            let response = await api.respond(to: try IncomingRequest(method, target, headers: headers, body: body?.encoded ?? []))
            return (response.status, String(decoding: response.bytes ?? [], as: UTF8.self))
        }
    }

    @Test(
        "S18: a value that PostgreSQL refuses is a 400 that names the parameter",
        arguments: [
            ("uuid", "abc", "form"), ("int", "99999999999", "range"), ("timestamptz", "2026-13-45", "date and time"),
            ("inet", "1.2.3.4.5", "form"), ("jsonb", "{", "form"), ("boolean", "perhaps", "form"),
        ])
    func s18_parameters(type: String, value: String, rule: String) async throws {
        let answer = try await RefusedInputTests.answer("GET", "/things?other=x&wanted=\(value)") { connection, context in
            try connection.query("SELECT \(context.query["other"]), \(context.query["wanted"])::\(raw: type)")
        }
        #expect(answer.status == 400, "\(answer.text)")
        #expect(answer.text.contains("'wanted'") && !answer.text.contains("'other'") && answer.text.contains(rule), "\(answer.text)")
    }

    @Test("S18: also if PostgreSQL does not name the value")
    func s18_unnamedValues() async throws {
        let pattern = try await RefusedInputTests.answer("GET", "/things?name=a(") { connection, context in
            try connection.query("SELECT 'x' ~ \(context.query["name"])")
        }
        #expect(pattern.status == 400 && pattern.text.contains("'name'") && pattern.text.contains("regular expression"), "\(pattern.text)")
        let escape = try await RefusedInputTests.answer("GET", "/things/a%5C") { connection, context in
            try connection.query("SELECT 'ab' LIKE \(context.parameter("thing_id"))")
        }
        #expect(escape.status == 400 && escape.text.contains("'thing_id'") && escape.text.contains("escape"), "\(escape.text)")
        let sum = try await RefusedInputTests.answer("POST", "/things", ["thing": ["size": 9_000_000_000_000_000_000, "name": "n"]]) {
            connection, context in
            try connection.query("SELECT \(context.body["thing"]?["size"]?.intValue ?? 0)::bigint + \(Int.max)::bigint")
        }
        #expect(sum.status == 400 && sum.text.contains("'thing.size'") && sum.text.contains("range"), "\(sum.text)")
    }

    @Test("S18: members of a body are named, including nested ones")
    func s18_members() async throws {
        let nul = try await RefusedInputTests.answer("POST", "/things", ["thing": ["tags": ["a", "b\0"]]]) { connection, context in
            try connection.query("SELECT \(context.body["thing"] ?? .null)::jsonb")
        }
        #expect(nul.status == 400 && nul.text.contains("'thing.tags[1]'") && nul.text.contains("NUL"), "\(nul.text)")
        let text = try await RefusedInputTests.answer("POST", "/things", ["thing": ["password": "secret"]]) { connection, context in
            try connection.query("SELECT \(context.body["thing"]?["password"]?.stringValue)::uuid")
        }
        #expect(text.status == 400 && text.text.contains("'thing.password'") && !text.text.contains("secret"), "\(text.text)")
    }

    @Test func errorsOfStatementsAreInternal() async throws {
        let answer = try await RefusedInputTests.answer("GET", "/things?n=0") { connection, context in
            try connection.query("SELECT 1 / \(context.query["n"])::int")
        }
        #expect(answer.status == 500 && !answer.text.contains("division"), "\(answer.text)")
    }
}
