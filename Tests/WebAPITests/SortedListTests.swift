import Authorization
import Database
import JSON
import Kernel
import ServiceCatalog
import Telemetry
import TestKit
import Testing
import WebAPI

/// Lists sorted by values that may be null or equal, page by page.
@Suite struct SortedListTests {
    @Test func everyRowIsListedOnceDespiteNulls() async throws {
        let table = Table(
            "things t", keyType: .integer, defaultSort: [("created", true)],
            fields: [
                Field("id", sortable: true), Field("a", sortable: true), Field("n", .number, sortable: true),
                Field("created", .timestamp, sortable: true), Field("flag", .boolean, sortable: true),
            ])
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
            let api = try Self.api { context in
                let request = try context.listRequest(filters: [])
                return try await test.database.read { try table.list($0, context, collection: "things", request, scope: "true") }
            }
            let sweep = ListSweep(api, token: "member")
            let pages = try await sweep.walk("/things", collection: "things", sortKeys: table.fields.map(\.name))
            #expect(pages > 200)
            let two = try await sweep.walk("/things?sort_key=a&sort_key=n", collection: "things", sortKeys: ["created"])
            #expect(two > 10)
        }
    }

    /// A service whose only list `handler` answers.
    private static func api(_ handler: @escaping @Sendable (RequestContext) async throws -> Response) throws -> API {
        let list = Route(.get, "/things", action: "things:list", rule: "@") { context in
            try context.authorize(target: .none)
            return try await handler(context)
        }
        return try API(
            service: ServiceDescription(type: "thing", title: "Things", faults: .network, publicURL: "http://things.example"),
            resources: [Resource("thing", routes: [list])], authenticator: StaticAuthenticator.standard,
            ambient: Ambient(random: SeededRandom(seed: 1)), log: Telemetry.logger(service: "test", level: "critical"), metrics: Metrics())
    }

    /// A page reads about as many rows as it has, wherever in the list it is.
    @Test func nextPagesReadNoMoreThanTheirRows() async throws {
        let table = Table(
            "things t", defaultSort: [("created_at", true)],
            fields: [Field("id", sortable: true), Field("a", sortable: true), Field("created_at", .timestamp, sortable: true)])
        try await TestDatabase.with { test in
            try await test.database.autocommit {
                try $0.script(
                    """
                    CREATE TABLE things (id uuid PRIMARY KEY, a text, created_at timestamptz NOT NULL);
                    CREATE INDEX things_a ON things (a, id);
                    CREATE INDEX things_created ON things (created_at DESC, id DESC);
                    INSERT INTO things SELECT gen_random_uuid(), CASE WHEN i % 100 > 0 THEN 'x' || i END,
                        timestamptz '2026-01-01' + i / 4 * interval '1 s' FROM generate_series(1, 20000) i;
                    ANALYZE things;
                    """)
            }
            let api = try Self.api { context in
                let request = try context.listRequest(filters: [])
                return try await test.database.read { connection in
                    // What the session has read and not yet reported.
                    func read() throws -> (scans: Int, rows: Int) {
                        let row = try connection.query(
                            """
                            SELECT coalesce(sum(seq_scan), 0) AS scans, coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) AS rows
                            FROM pg_stat_xact_user_tables WHERE relname = 'things'
                            """)[0]
                        return (try row.int("scans"), try row.int("rows"))
                    }
                    let before = try read()
                    let count = try table.page(connection, context, request, fields: table.fields, scope: "true").count
                    let after = try read()
                    return .json(
                        200,
                        [
                            "count": JSONValue(count), "scans": JSONValue(after.scans - before.scans),
                            "rows": JSONValue(after.rows - before.rows),
                        ])
                }
            }
            func page(_ query: String) async throws -> (status: Int, JSONValue) {
                let response = await api.respond(
                    to: try IncomingRequest("GET", "/things?limit=10&" + query, headers: Headers([("x-auth-token", "member")])))
                return (response.status, try JSONValue.parse(response.bytes ?? []))
            }
            for sort in [
                "", "sort_key=id", "sort_key=id&sort_dir=desc", "sort_key=created_at&sort_dir=asc", "sort_key=created_at&sort_dir=desc",
                "sort_key=created_at&sort_dir=desc&sort_key=id&sort_dir=asc", "sort_key=a&sort_dir=desc",
            ] {
                let column = sort.contains("=a&") ? "a" : sort.hasPrefix("sort_key=id") ? "id" : "created_at"
                let middle = try await test.database.read {
                    try $0.query("SELECT id FROM things WHERE a IS NOT NULL ORDER BY \(raw: column) OFFSET 10000 LIMIT 1")[0].string("id")
                }
                let (status, answer) = try await page("marker=\(middle)&" + sort)
                #expect(status == 200 && answer["count"] == 10, "\(sort): \(answer)")
                #expect(answer["scans"] == 0, "\(sort): \(answer)")
                #expect((1...40).contains(answer["rows"]?.intValue ?? 0), "\(sort): \(answer)")
            }
            for marker in ["nope", "00000000-0000-0000-0000-000000000000", "0", "%27", "00000000-0000-0000-0000-00000000000g"] {
                let (status, answer) = try await page("marker=" + marker)
                #expect(status == 400 && answer.description.contains("marker ["), "\(marker): \(answer)")
            }
        }
    }

    /// `Table` relies on it.
    @Test func timesOfCreationAreNeverNull() async throws {
        try await TestDatabase.with { test in
            let (all, nullable) = try await test.database.read { connection in
                let rows = try connection.query(
                    """
                    SELECT c.table_name AS name, c.is_nullable = 'YES' AS nullable FROM information_schema.columns c
                    JOIN information_schema.tables b USING (table_schema, table_name)
                    WHERE c.table_schema = 'public' AND b.table_type = 'BASE TABLE' AND c.column_name = 'created_at'
                    """)
                return (rows.count, try rows.filter { try $0.bool("nullable") }.map { try $0.string("name") })
            }
            #expect(all > 20)
            #expect(nullable == [])
        }
    }

    /// A list in memory is sorted in the same order as in PostgreSQL.
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
