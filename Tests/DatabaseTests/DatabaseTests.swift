import Database
import JSON
import Kernel
import Schema
import Telemetry
import Synchronization
import TestKit
import Testing

@Suite struct DatabaseTests {
    @Test func valuesRoundTrip() async throws {
        try await TestDatabase.with { test in
            try await test.database.read { connection in
                let nasty = "a'b\"c\\d{},\n€"
                let row = try connection.query(
                    "SELECT \(nasty)::text AS t, \(42)::int AS i, \(true) ::bool AS b, \([nasty, "x"])::text[] AS a, \(Timestamp(seconds: 5))::timestamptz AS at, \(String?.none)::text AS n, to_json(\([nasty, "x"])::text[]) AS j"
                )[0]
                #expect(try row.string("t") == nasty)
                #expect(try row.int("i") == 42)
                #expect(try row.bool("b"))
                #expect(try row.timestamp("at") == Timestamp(seconds: 5))
                #expect(try row.optionalString("n") == nil)
                #expect(try row.strings("j") == [nasty, "x"])
                #expect(throws: ResourceError.self) { try row.string("n") }
            }
        }
    }

    @Test func arraysComeBackAsTheyWere() async throws {
        try await TestDatabase.with { test in
            let texts = [
                "", "NULL", "a,b", "{}", "{", "}", " ", " a ", "\"", "\\", "\\\"", "a\"b\\c", "\"\"", "\\\\", "\n\t", "€\"ü\\😀", "'; --",
                String(repeating: "x\"", count: 500),
            ]
            let uuids = [UUID128(high: 0, low: 0), UUID128(high: .max, low: .max), UUID128(high: 0x0123_4567_89ab_cdef, low: 1)]
            try await test.database.read { connection in
                let row = try connection.query(
                    """
                    SELECT to_json(\(texts)::text[]) AS texts, to_json(\(uuids)::uuid[]) AS uuids, to_json(\([1, -2, Int.max])::bigint[]) AS ints,
                      \([UUID128]()) = '{}' AS none, to_json(\(uuids)::text[]) AS words, \(uuids[1]) = ANY(\(uuids)) AS found,
                      \([UUID128]?.none)::uuid[] IS NULL AS unknown, to_json(\([true, false])::bool[]) AS bools, \([String]())::text[] = '{}' AS nothing, to_json(\([["a,b", "\""], ["{", "\\"]])::text[]) AS deep,
                      (\([Perhaps(nil), Perhaps("NULL")])::text[])[1] IS NULL AS null, (\([Perhaps(nil), Perhaps("NULL")])::text[])[2] AS word
                    """
                )[0]
                #expect(try row.strings("texts") == texts)
                #expect(try row.strings("uuids") == uuids.map(\.description))
                #expect(try row.strings("words") == uuids.map(\.description))
                for name in ["none", "found", "unknown"] { #expect(try row.bool(name), "\(name)") }
                #expect(try row.json("ints") == [1, -2, JSONValue(Int.max)])
                #expect(try row.json("bools") == [true, false])
                #expect(try row.bool("nothing"))
                #expect(try row.bool("null"))
                #expect(try row.string("word") == "NULL")
            }
        }
    }

    @Test func columnsAreFoundInAnyOrder() async throws {
        try await TestDatabase.with { test in
            try await test.database.read { connection in
                let rows = try connection.query(
                    "SELECT n AS id, n * 2 AS id_two, n * 3 AS three, n * 4 AS three, NULL::int AS nothing FROM generate_series(1, 4) n ORDER BY n"
                )
                for (index, row) in rows.enumerated() {
                    let n = index + 1
                    #expect(try row.int("id") == n)
                    #expect(try row.int("id") == n)
                    // Reads the columns of all rows in the same order, and of every second row in another order.
                    if index % 2 == 1 { #expect(try row.int("id_two") == n * 2) }
                    #expect(try row.int("three") == n * 4, "the last one of a name counts")
                    #expect(try row.optionalInt("nothing") == nil)
                    #expect(try row.int("id_two") == n * 2)
                    for missing in ["", "i", "id_", "id_two_", "Id", "id\0", "id\0x", "ïd"] {
                        #expect(throws: ResourceError.self, "\(missing)") { try row.int(missing) }
                    }
                }
            }
        }
    }

    @Test func theRequestIsKnownOnTheSessionsThread() async throws {
        try await TestDatabase.with { test in
            for request in ["req-1", "req-2", nil] {
                let seen = try await RequestScope.$current.withValue(request) {
                    try await test.database.write { _ in RequestScope.current }
                }
                #expect(seen == request)
            }
        }
    }

    @Test func failedTransactionIsRolledBack() async throws {
        try await TestDatabase.with { test in
            await #expect(throws: DatabaseError.self) {
                try await test.database.write { connection in
                    try connection.execute(
                        "INSERT INTO quota_limits (project_id, resource, quota_limit) VALUES ('p', 'r', 1)")
                    try connection.execute(
                        "INSERT INTO quota_limits (project_id, resource, quota_limit) VALUES ('p', 'r', 2)")
                }
            }
            let count = try await test.database.read { try $0.query("SELECT count(*) AS n FROM quota_limits")[0].int("n") }
            #expect(count == 0)
        }
    }

    @Test func brokenSessionIsReopened() async throws {
        try await TestDatabase.with(connectionsMax: 1) { test in
            await #expect(throws: (any Error).self) {
                try await test.database.autocommit { try $0.execute("SELECT pg_terminate_backend(pg_backend_pid())") }
            }
            let one = try await test.database.read { try $0.query("SELECT 1 AS one")[0].int("one") }
            #expect(one == 1)
        }
    }

    @Test func readsCannotWrite() async throws {
        try await TestDatabase.with(connectionsMax: 1) { test in
            let insert: SQL = "INSERT INTO quota_limits (project_id, resource, quota_limit) VALUES ('p', 'r', 1)"
            for _ in 0..<2 {
                let error = await #expect(throws: DatabaseError.self) { try await test.database.read { try $0.execute(insert) } }
                #expect(error?.sqlState == "25006")
                try await test.database.write { try $0.execute("DELETE FROM quota_limits") }
                #expect(try await test.database.autocommit { try $0.execute(insert) } == 1)
                let count = try await test.database.read { try $0.query("SELECT count(*) AS n FROM quota_limits")[0].int("n") }
                #expect(count == 1)
            }
        }
    }

    @Test func onlyReadsAreRepeatedAfterABrokenSession() async throws {
        try await TestDatabase.with(connectionsMax: 1) { test in
            let runs = Mutex(0)
            let breaks: @Sendable (Connection) throws -> Void = { connection in
                let run = runs.withLock {
                    $0 += 1; return $0
                }
                if run == 1 { try connection.query("SELECT pg_terminate_backend(pg_backend_pid())") }
            }
            _ = try await test.database.read { try $0.execute("SELECT 1") }
            await #expect(throws: (any Error).self) { try await test.database.autocommit(breaks) }
            #expect(runs.withLock { $0 } == 1)
            runs.withLock { $0 = 0 }
            _ = try await test.database.read { try $0.execute("SELECT 1") }
            try await test.database.read(breaks)
            #expect(runs.withLock { $0 } == 2)
        }
    }

    private struct Text: NotificationPayload {
        let payload: String
    }

    @Test func notificationsArriveAfterResync() async throws {
        let news = NotificationChannel<Text>("news")
        try await TestDatabase.with { test in
            let stream = test.database.notifications(news)
            var iterator = stream.makeAsyncIterator()
            #expect(await iterator.next() == .resync)
            try await test.database.write { try $0.notify(news, Text(payload: "hello")) }
            #expect(await iterator.next() == Notification(channel: "news", payload: "hello"))
        }
    }

    @Test func concurrentWritersLoseNoIncrement() async throws {
        try await TestDatabase.with(connectionsMax: 8) { test in
            try await test.database.write {
                try $0.execute("INSERT INTO quota_usages (project_id, resource, used) VALUES ('p', 'r', 0)")
            }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<64 {
                    group.addTask {
                        try await test.database.write { connection in
                            _ = try connection.execute("UPDATE quota_usages SET used = used + 1 WHERE project_id = 'p'")
                        }
                    }
                }
                try await group.waitForAll()
            }
            let used = try await test.database.read { try $0.query("SELECT used FROM quota_usages")[0].int("used") }
            #expect(used == 64)
        }
    }
}

@Suite struct ArrayLiteralTests {
    @Test func text() {
        #expect([String]().sqlText == "{}")
        #expect([UUID128]().sqlText == "{}")
        #expect([""].sqlText == #"{""}"#)
        #expect(["a,b", "{}", "NULL"].sqlText == #"{"a,b","{}","NULL"}"#)
        #expect([#"""#, #"\"#, #"a"b\c"#, #"\""#].sqlText == #"{"\"","\\","a\"b\\c","\\\""}"#)
        #expect([1, -20].sqlText == #"{"1","-20"}"#)
        #expect([true, false].sqlText == #"{"t","f"}"#)
        #expect([["a"], []].sqlText == #"{"{\"a\"}","{}"}"#)
        #expect([Perhaps(nil), Perhaps("a"), Perhaps(nil)].sqlText == #"{NULL,"a",NULL}"#)
        let uuid = UUID128(high: 0x0123_4567_89ab_cdef, low: 0xfedc_ba98_7654_3210)
        #expect([uuid, uuid].sqlText == "{\"\(uuid)\",\"\(uuid)\"}")
        #expect([IPAddress("10.0.0.1"), IPAddress("::1")].compactMap(\.self).sqlText == #"{"10.0.0.1","::1"}"#)
    }

    @Test func uuidsAreSentAsBytes() {
        let uuid = UUID128(high: 0x0123_4567_89ab_cdef, low: 0xfedc_ba98_7654_3210)
        let array: [UInt8] = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x0b, 0x86, 0, 0, 0, 1, 0, 0, 0, 1]
        let element: [UInt8] = [
            0, 0, 0, 16, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10,
        ]
        #expect([uuid].sqlBind == .uuids(array + element))
        #expect([UUID128]().sqlBind == .uuids([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b, 0x86]))
        #expect([[uuid]].sqlBind == .text([[uuid]].sqlText))
        let statement: SQL = "SELECT \(1), \([uuid]), \([UUID128]?.none), \(["a"])"
        #expect(statement.text == "SELECT $1, $2::uuid[], $3, $4")
        #expect(statement.binds == [.text("1"), .uuids(array + element), .text(nil), .text(#"{"a"}"#)])
    }
}

/// A value that may be NULL within an array.
private struct Perhaps: SQLBindable {
    let sqlText: String?

    init(_ text: String?) { sqlText = text }
}
