import Client
import Contracts
import Database
import Inspections
import JSON
import Kernel
import ServiceCatalog
import ServiceKit
import TestKit
import Testing
import WebAPI
import Workflow

/// The example service, as clients, operators and the engine use it.
@Suite struct ExampleTests {
    struct Cloud: Sendable {
        let module: ServiceModule
        let database: Database
        let time: ManualTime

        func call(_ method: String, _ target: String, _ body: JSONValue? = nil, as token: String = "member") async throws -> (
            status: Int, json: JSONValue
        ) {
            let request = try IncomingRequest(
                method, "/v1" + target, headers: ["x-auth-token": token], body: body?.encoded ?? [])
            let bytes = await module.api.respond(to: request)
            return (bytes.status, (bytes.bytes ?? []).isEmpty ? .null : try JSONValue.parse(bytes.bytes ?? []))
        }

        func create(_ name: String, sections: Int = 2, tags: [String] = []) async throws -> String {
            time.advance(by: .seconds(1))
            let answer = try await call(
                "POST", "/reports", ["report": ["name": .string(name), "sections": JSONValue(sections), "tags": JSONValue(tags)]])
            #expect(answer.status == 202, "\(answer.json)")
            return try #require(answer.json["report"]?["id"]?.stringValue)
        }

        func names(_ query: String, as token: String = "member") async throws -> [String] {
            let answer = try await call("GET", "/reports" + query, as: token)
            #expect(answer.status == 200, "\(answer.json)")
            return (answer.json["reports"]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue }
        }
    }

    private func with(_ body: (Cloud) async throws -> Void) async throws {
        try await TestDatabase.with { test in
            try await test.database.write { try $0.script(reportMigration) }
            let time = ManualTime()
            let surroundings = ServiceSurroundings.test(
                test.database, .example, ambient: Ambient(time: time, random: SeededRandom(seed: 3)))
            try await body(Cloud(module: try ExampleModule.make(surroundings), database: test.database, time: time))
        }
    }

    @Test func reportsAreListedFilteredPagedAndChanged() async throws {
        try await with { cloud in
            let first = try await cloud.create("first", tags: ["a", "b"])
            _ = try await cloud.create("second", sections: 5, tags: ["a"])
            try await cloud.module.engine().drain()
            #expect(try await cloud.names("") == ["first", "second"])
            #expect(try await cloud.names("?tags=a,b") == ["first"])
            #expect(try await cloud.names("?name=second") == ["second"])
            #expect(try await cloud.names("?sort_key=sections&sort_dir=desc") == ["second", "first"])
            let page = try await cloud.call("GET", "/reports?limit=1")
            #expect(page.json["reports_links"]?.arrayValue?.first?["href"]?.stringValue?.contains("marker=\(first)") == true)
            #expect(try await cloud.names("?limit=1&marker=\(first)") == ["second"])
            #expect(try await cloud.names("", as: "other") == [])
            #expect(try await cloud.call("GET", "/reports/\(first)", as: "other").status == 404)
            #expect(try await cloud.call("GET", "/reports?wrong=1").status == 400)
            #expect(try await cloud.call("PUT", "/reports/\(first)", ["report": ["name": "new"]], as: "reader").status == 403)
            let renamed = try await cloud.call("PUT", "/reports/\(first)", ["report": ["name": "new"]])
            #expect(renamed.json["report"]?["name"] == "new")
            let tagged = try await cloud.call("PUT", "/reports/\(first)/tags", ["tags": ["z", "z"]])
            #expect(tagged.json["report"]?["tags"] == ["z"])
            #expect(try await cloud.call("DELETE", "/reports/\(first)").status == 204)
            #expect(try await cloud.names("") == ["second"])
        }
    }

    @Test func theQuotaCounts() async throws {
        try await with { cloud in
            let first = try await cloud.create("a")
            for name in ["b", "c"] { _ = try await cloud.create(name) }
            let refused = try await cloud.call("POST", "/reports", ["report": ["name": "d", "sections": 1]])
            #expect(refused.status == 403 && "\(refused.json)".contains("3 of 3"))
            #expect(try await cloud.call("DELETE", "/reports/\(first)").status == 409, "it is being written")
            try await cloud.module.engine().drain()
            #expect(try await cloud.call("DELETE", "/reports/\(first)").status == 204)
            _ = try await cloud.create("d")
        }
    }

    @Test(arguments: ["report.create", "report.section"]) func workflowsUnderEveryDisturbance(_ kind: String) async throws {
        try await with { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == kind })
            for variant in WorkflowChecks(definition).variants {
                let id = try await cloud.create(variant.name)
                try await cloud.module.engine(replacing: [variant.definition]).drain()
                let report = try await cloud.call("GET", "/reports/\(id)").json["report"]
                let sections = try await cloud.database.read {
                    try $0.query("SELECT count(*) AS n FROM report_sections WHERE report_id = \(id)::uuid")[0].int("n")
                }
                let label = Comment(rawValue: "\(kind) \(variant.name)")
                #expect(report?["status"] == (variant.succeeds ? "ready" : "error"), label)
                #expect(sections == (variant.succeeds ? 2 : 0), label)
                #expect(try await cloud.call("DELETE", "/reports/\(id)").status == 204, label)
            }
        }
    }

    @Test func readyReportsAreAnnounced() async throws {
        try await with { cloud in
            let id = try await cloud.create("a")
            try await cloud.module.engine().drain()
            let loops = cloud.module.allLoops.filter { $0.name != "periodic tasks" }.map { loop in Task { try await loop.run() } }
            defer { for loop in loops { loop.cancel() } }
            for _ in 0..<500 {
                if try await !cloud.names("?announced=true").isEmpty { break }
                try await SystemTime().sleep(for: .milliseconds(10))
            }
            #expect(try await cloud.call("GET", "/reports/\(id)").json["report"]?["announced"] == true)
        }
    }

    @Test func aWrongCountIsFoundAndRepaired() async throws {
        try await with { cloud in
            _ = try await cloud.create("a")
            try await cloud.module.engine().drain()
            func findings() async throws -> [Finding] {
                try await cloud.database.read { connection in try cloud.module.inspections.flatMap { try $0.findings(connection) } }
            }
            #expect(try await findings() == [])
            try await cloud.database.write { try $0.execute("UPDATE reports SET written = 7") }
            #expect(try await findings().map(\.invariant) == ["I4"])
            try await Reports(surroundings: cloud.module.surroundings).repair()
            #expect(try await findings() == [])
            let entries = try await cloud.database.read { try Repairs.entries($0, since: Timestamp(microseconds: 0)) }
            #expect(entries.map(\.service) == ["example"])
        }
    }
}
