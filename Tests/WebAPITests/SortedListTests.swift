import Authorization
import Database
import JSON
import Kernel
import Telemetry
import TestKit
import Testing
import WebAPI

/// Lists sorted by what may be null or equal, page by page.
@Suite struct SortedListTests {
    @Test func everyRowComesOnceWhateverIsNull() async throws {
        let table = Table(
            "things t", defaultSort: [("created", true)],
            fields: [
                Field("id", sortable: true), Field("a", sortable: true), Field("n", .number, sortable: true),
                Field("created", .timestamp, sortable: true), Field("flag", .boolean, sortable: true),
            ])
        let api = { (database: Database) in
            try API(
                service: ServiceDescription(type: "thing", title: "Things", faults: .network, publicURL: "http://things.example"),
                resources: [
                    Resource(
                        "thing",
                        routes: [
                            Route(.get, "/things", action: "things:list", rule: "@") { context in
                                try context.authorize(target: .none)
                                let request = try context.listRequest(filters: [])
                                return try await database.read { try table.list($0, context, collection: "things", request, scope: "true") }
                            }
                        ])
                ], authenticator: StaticAuthenticator.standard, ambient: Ambient(random: SeededRandom(seed: 1)),
                log: Telemetry.logger(service: "test", level: "critical"), metrics: Metrics())
        }
        try await TestDatabase.with { test in
            try await test.database.autocommit {
                try $0.script(
                    """
                    CREATE TABLE things (id int PRIMARY KEY, a text, n int, created timestamptz, flag boolean);
                    INSERT INTO things SELECT i, CASE WHEN i % 3 > 0 THEN 'x' || i % 2 END, CASE WHEN i % 4 > 1 THEN i % 4 END,
                        CASE WHEN i % 2 = 0 THEN timestamptz '2026-01-01' + i % 6 * interval '1 s' END, CASE WHEN i < 9 THEN i % 2 = 0 END
                    FROM generate_series(1, 13) i
                    """)
            }
            let sweep = ListSweep(try api(test.database), token: "member")
            let pages = try await sweep.walk("/things", collection: "things", sortKeys: table.fields.map(\.name))
            #expect(pages > 200)
            let two = try await sweep.walk("/things?sort_key=a&sort_key=n", collection: "things", sortKeys: ["created"])
            #expect(two > 10)
        }
    }

    /// A list that is at hand whole is sorted as PostgreSQL sorts.
    @Test func numbersAreSortedBySize() throws {
        let items: [JSONValue] = [
            ["id": 10, "load": 2.5, "on": true, "name": "b"], ["id": 9, "load": 10, "on": false, "name": .null],
            ["id": 2, "load": -3, "on": true, "name": "a"], ["id": 100, "load": 2, "on": false, "name": "b"],
        ]
        func ids(_ sort: [(name: String, descending: Bool)]) throws -> [Int?] {
            var request = ListRequest()
            request.sort = sort
            return try request.page(of: items).items.map { $0["id"]?.intValue }
        }
        #expect(try ids([("id", false)]) == [2, 9, 10, 100])
        #expect(try ids([("id", true)]) == [100, 10, 9, 2])
        #expect(try ids([("load", false)]) == [2, 100, 10, 9])
        #expect(try ids([("on", false), ("id", false)]) == [9, 100, 2, 10])
        #expect(try ids([("name", false), ("id", true)]) == [2, 100, 10, 9])
        #expect(try ids([("name", true), ("id", false)]) == [9, 10, 100, 2])
        let refused = #expect(throws: ResourceError.self) { try ids([("size", false)]) }
        #expect(refused?.message == "Invalid input for query parameter sort_key. Value: 'size'. It must be one of id, load, name, on.")
    }
}
