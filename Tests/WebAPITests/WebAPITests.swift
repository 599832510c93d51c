import Authorization
import Contracts
import Database
import JSON
import Kernel
import Logging
import ServiceCatalog
import Synchronization
import Telemetry
import TestKit
import Testing
import WebAPI

/// A small resource that uses all features of the web API.
private struct Notes: Sendable {
    let database: Database
    static let counted = QuotaDeclaration(
        "note", "notes", default: 3, "Notes", .counted("SELECT project_id AS owner, count(*) AS amount FROM notes GROUP BY project_id"))
    static let quota = Quota([counted]) { resource, asked, used, limit in
        .forbidden("Quota exceeded for \(resource): Requested \(asked), but already used \(used) of \(limit)")
    }
    static let table = Table(
        "notes t", defaultSort: [("title", false)],
        fields: [
            Field("id", filter: .equals), Field("title", filter: .regex, sortable: true),
            Field("created", .timestamp, "t.created_at"), Field("secret", visibleBy: "notes:see_secret"),
            Field("late", .boolean, "true", versions: VersionRange(from: Microversion(2, 5))),
        ])

    func api(ambient: Ambient = Ambient(random: SeededRandom(seed: 1))) throws -> API {
        try API(
            service: ServiceDescription(
                type: "note", title: "Notes", faults: .compute,
                negotiation: VersionNegotiation(
                    minimum: Microversion(2, 1), maximum: Microversion(2, 9), serviceType: "note"),
                publicURL: "http://notes.example", subjectActions: ["notes:create", "notes:stamp"]),
            resources: [
                Resource(
                    "note",
                    routes: [
                        Route(.get, "/notes", action: "notes:list", rule: "rule:project_reader_or_admin", handler: list),
                        Route(
                            .post, "/notes", action: "notes:create", rule: "rule:project_member_or_admin",
                            body: .json(
                                .wrapped(
                                    "note",
                                    .object([
                                        .init("title", .name, required: true),
                                        .init("colour", .enumeration(["red"]), versions: VersionRange(from: Microversion(2, 3))),
                                    ]))), status: 201, handler: create),
                        Route(
                            .get, "/notes/{id}", action: "notes:show", rule: "rule:project_reader_or_admin", handler: show),
                        Route(
                            .post, "/notes/{id}/close", action: "notes:close", rule: "rule:project_member_or_admin", status: 202,
                            handler: close),
                        .unavailable(
                            .post, "/notes/{id}/read", action: "notes:read", rule: "rule:project_member_or_admin",
                            "Notes cannot be read aloud."
                        ) { try $0.authorize(target: .project($0.caller.requireProject())) },
                        Route(.get, "/broken", action: "notes:broken", rule: "@") { _ in .empty() },
                        action("burn"), action("stamp"), Notes.waiting(database),
                        kept("all") { Change(answer: .json(200, ["note": ["title": "t"]]), "note", nil) },
                        kept("member") { Change(answer: .json(200, ["note": ["title": "t"]]), "note", nil, member: "note") },
                        kept("none") { Change(answer: .empty(200), "note", nil) },
                        kept("absent") { Change(answer: .json(200, ["note": ["title": "t"]]), "note", nil, member: "volume") },
                        kept("broken") { Change(answer: .json(200, bytes: Array("{".utf8)), "note", nil) },
                        Route(.delete, "/broken", action: "notes:forgotten", rule: "@") { context in
                            if context.query["decides"] != nil { try context.authorize(target: .none, action: "notes:broken") }
                            return try await context.write(database) { connection in
                                try connection.execute(
                                    "INSERT INTO notes (id, project_id, title) VALUES (\(context.ambient.newUUID()), 'p', 'forgotten')")
                                return Change(.empty(), "note", nil)
                            }
                        },
                    ])
            ],
            rules: ["notes:see_secret": "role:admin"], database: database, authenticator: StaticAuthenticator.standard, ambient: ambient,
            log: Telemetry.logger(service: "test", level: "critical"), metrics: Metrics())
    }

    /// A route that determines the audit record of its change.
    private func kept(_ name: String, _ change: @escaping @Sendable () -> Change) -> Route {
        Route(.post, "/kept/\(name)", action: "notes:kept_\(name)", rule: "@") { context in
            try context.authorize(target: .none)
            return try await context.write(database) { _ in change() }
        }
    }

    /// A route that waits for work, with a different result for each request. Of two requests with one key, the repetition ends first.
    private static func waiting(_ database: Database) -> Route {
        let waiting = Mutex(0)
        return Route(.post, "/waiting", action: "notes:wait", rule: "rule:project_member_or_admin") { context in
            let isFirst = Mutex(false)
            return try await context.write(
                database,
                begin: { _ in
                    try context.authorize(target: .project(context.caller.requireProject()))
                    isFirst.withLock { $0 = true }
                    return BegunWork("work", "note", nil)
                },
                finish: { _ in
                    let number = waiting.withLock { count in
                        count += 1
                        return count
                    }
                    // Waits until the other request with the same key waits too.
                    while waiting.withLock({ $0 < 2 }) { await Task.yield() }
                    while isFirst.withLock({ $0 }) {
                        let stored = try await database.read {
                            try $0.query("SELECT FROM idempotency_keys WHERE status >= 200").count
                        }
                        if stored > 0 { break }
                        await Task.yield()
                    }
                    return .json(200, ["seen": JSONValue(number)])
                })
        }
    }

    /// One of the routes that share a path. Answers with the project for which it acts.
    private func action(_ name: String) -> Route {
        Route(
            .post, "/notes/{id}/action", key: name, action: "notes:\(name)", rule: "rule:project_member_or_admin",
            body: .json(.wrapped(name, .object([.init("force", .boolean, required: true)])))
        ) { context in
            let project = try context.caller.requireProject()
            try context.authorize(target: .project(project))
            return .json(200, ["name": .string(name), "project": .string(project)])
        }
    }

    func list(_ context: RequestContext) async throws -> Response {
        let project = try context.caller.requireProject()
        try context.authorize(target: .project(project))
        let request = try context.listRequest(filters: ["title", "id"])
        return try await database.read {
            try Notes.table.list($0, context, collection: "notes", request, scope: "t.project_id = \(project)")
        }
    }

    func create(_ context: RequestContext) async throws -> Response {
        let project = try context.caller.requireProject()
        let decision = try context.authorize(project, target: .project(project))
        let title = context.body["note"]?["title"]?.stringValue ?? ""
        let id = context.ambient.newUUID()
        return try await context.write(database) { connection in
            try Notes.quota.reserve(connection, project: decision.value, [(Notes.counted, 1)])
            try connection.execute(
                "INSERT INTO notes (id, project_id, title, secret, created_at) VALUES (\(id), \(project), \(title), 's', \(context.ambient.now))"
            )
            let response = try Notes.table.response(connection, context, name: "note", status: 201, where: "t.id = \(id)")
            return Change(response ?? .empty(), "note", id.description, content: ["title": .string(title)])
        }
    }

    func show(_ context: RequestContext) async throws -> Response {
        let id = try context.uuidParameter("id", of: "Note")
        return try await database.read { connection in
            let missing = ResourceError.notFound("Note \(id) could not be found.")
            guard let row = try connection.query("SELECT project_id FROM notes WHERE id = \(id)").first else { throw missing }
            let target = PolicyTarget.project(try row.string("project_id"))
            _ = try context.authorizeVisible(id, target: target, visibleBy: "notes:show", notFound: missing)
            guard let response = try Notes.table.response(connection, context, name: "note", where: "t.id = \(id)") else {
                throw missing
            }
            return response
        }
    }

    /// Looks up the note before it decides: once the note is deleted, a repetition fails without a decision.
    func close(_ context: RequestContext) async throws -> Response {
        let id = try context.uuidParameter("id", of: "Note")
        let project = try await database.read { connection in
            guard let row = try connection.query("SELECT project_id FROM notes WHERE id = \(id)").first else {
                throw ResourceError.notFound("Note \(id) could not be found.")
            }
            return try row.string("project_id")
        }
        try context.authorize(target: .project(project))
        return try await context.write(database) { _ in Change(.empty(202), "note", id) }
    }

    static func with(_ body: (API, Database) async throws -> Void) async throws {
        try await TestDatabase.with { test in
            try await test.database.autocommit {
                try $0.script(
                    "CREATE TABLE notes (id uuid PRIMARY KEY, project_id text, title text, secret text, created_at timestamptz)")
            }
            try await body(try Notes(database: test.database).api(), test.database)
        }
    }
}

extension API {
    fileprivate func call(
        _ method: String, _ target: String, token: String? = "member", headers: [(String, String)] = [],
        body: JSONValue? = nil
    ) async throws -> (status: Int, json: JSONValue, headers: Headers) {
        var fields = Headers(headers)
        if let token { fields["x-auth-token"] = token }
        let response = await respond(to: try IncomingRequest(method, target, headers: fields, body: body?.encoded ?? []))
        let bytes = response.bytes ?? []
        return (response.status, bytes.isEmpty ? .null : try JSONValue.parse(bytes), response.headers)
    }
}

private func note(_ title: String) -> JSONValue { ["note": ["title": .string(title)]] }

@Suite struct RequestPathTests {
    @Test func createShowList() async throws {
        try await Notes.with { api, database in
            let created = try await api.call("POST", "/notes", body: note("one"))
            #expect(created.status == 201)
            let id = try #require(created.json["note"]?["id"]?.stringValue)
            #expect(created.json["note"]?["secret"] == nil)
            #expect(created.headers["x-openstack-request-id"]?.hasPrefix("req-") == true)
            let shown = try await api.call("GET", "/notes/\(id)")
            #expect(shown.json == created.json)
            #expect(try await api.call("GET", "/notes/\(id)", token: "other").status == 404)
            #expect(try await api.call("GET", "/notes/\(id)", token: "admin").json["note"]?["secret"] == "s")
            let audited = try await database.read { try $0.query("SELECT count(*) AS n FROM audit_records")[0].int("n") }
            #expect(audited == 1)
        }
    }

    @Test func pagesCoverEverythingOnce() async throws {
        try await Notes.with { api, _ in
            for title in ["c", "a", "b"] { _ = try await api.call("POST", "/notes", body: note(title)) }
            var seen: [String] = []
            var marker: String?
            repeat {
                let page = try await api.call("GET", "/notes?limit=1" + (marker.map { "&marker=\($0)" } ?? ""))
                let notes = page.json["notes"]?.arrayValue ?? []
                seen += notes.compactMap { $0["title"]?.stringValue }
                marker = notes.last?["id"]?.stringValue
                #expect((page.json["notes_links"] != nil) == (seen.count < 3))
            } while marker != nil && seen.count < 10 && seen.count % 4 != 3
            #expect(seen == ["a", "b", "c"])
            let filtered = try await api.call("GET", "/notes?title=%5Eb")
            #expect(filtered.json["notes"]?.arrayValue?.count == 1)
            #expect(try await api.call("GET", "/notes?marker=nope").status == 400)
            #expect(try await api.call("GET", "/notes?limit=-1").status == 400)
        }
    }

    @Test func badInputIsNamed() async throws {
        try await Notes.with { api, _ in
            for (body, word) in [
                (["note": ["title": ""]] as JSONValue, "too short"), (["note": [:]], "required"),
                (["note": ["title": 5]], "string"), (["note": ["title": "x", "other": 1]], "other"),
                (["note": ["title": .string(String(repeating: "x", count: 256))]], "too long"), ([], "object"),
                (["note": ["title": "x", "colour": "red"]], "colour"),
            ] {
                let answer = try await api.call("POST", "/notes", body: body)
                #expect(answer.status == 400)
                #expect(answer.json["badRequest"]?["message"]?.stringValue?.contains(word) == true, "\(answer.json)")
            }
            let newer = [("OpenStack-API-Version", "note 2.3")]
            #expect(try await api.call("POST", "/notes", headers: newer, body: ["note": ["title": "x", "colour": "red"]]).status == 201)
            let raw = await api.respond(
                to: try IncomingRequest("POST", "/notes", headers: ["x-auth-token": "member"], body: Array("{".utf8)))
            #expect(raw.status == 400)
        }
    }

    @Test func versionsAreNegotiated() async throws {
        try await Notes.with { api, _ in
            let id = try #require(try await api.call("POST", "/notes", body: note("x")).json["note"]?["id"]?.stringValue)
            let latest = try await api.call("GET", "/notes/\(id)", headers: [("OpenStack-API-Version", "note latest")])
            #expect(latest.json["note"]?["late"] == true)
            #expect(latest.headers["openstack-api-version"] == "note 2.9")
            #expect(try await api.call("GET", "/notes", headers: [("OpenStack-API-Version", "note 3.0")]).status == 406)
            #expect(try await api.call("GET", "/notes", headers: [("OpenStack-API-Version", "note two")]).status == 400)
        }
    }

    @Test func theAuditHasTheAnswerOrAMemberOfIt() async throws {
        try await Notes.with { api, database in
            for (path, content) in [
                ("/kept/all", "{\"note\": {\"title\": \"t\"}}"), ("/kept/member", "{\"title\": \"t\"}"), ("/kept/none", nil),
            ] {
                #expect(try await api.call("POST", path).status == 200)
                let kept = try await database.read {
                    try $0.query("SELECT content::text AS content FROM audit_records ORDER BY id DESC LIMIT 1")[0].optionalString("content")
                }
                #expect(kept == content, "\(path)")
            }
            #expect(try await api.call("POST", "/kept/broken").status >= 400)
            #expect(try await api.call("POST", "/kept/absent").status == 500)
            let changes = try await database.read { try $0.query("SELECT count(*) AS n FROM audit_records")[0].int("n") }
            #expect(changes == 3, "what cannot be recorded does not happen")
        }
    }

    @Test("S10: a change without a decision about its action is not committed")
    func s10AChangeWithoutItsDecisionIsNotCommitted() async throws {
        try await Notes.with { api, database in
            #expect(try await api.call("DELETE", "/broken").status == 500)
            #expect(try await api.call("DELETE", "/broken?decides=another").status == 500)
            let notes = try await database.read { try $0.query("SELECT count(*) AS n FROM notes")[0].int("n") }
            #expect(notes == 0)
        }
    }

    @Test func callersAreDecidedOn() async throws {
        try await Notes.with { api, _ in
            #expect(try await api.call("GET", "/notes", token: nil).status == 401)
            #expect(try await api.call("GET", "/notes", token: "forged").status == 401)
            #expect(try await api.call("GET", "/notes", token: nil, headers: [("X-Roles", "admin"), ("X-Project-Id", "p1")]).status == 401)
            #expect(try await api.call("POST", "/notes", token: "reader", body: note("x")).status == 403)
            #expect(try await api.call("GET", "/notes", token: "unscoped").status == 403)
            #expect(try await api.call("GET", "/nothing").status == 404)
            let wrong = try await api.call("DELETE", "/notes")
            #expect(wrong.status == 405)
            #expect(wrong.headers["allow"] == "GET, POST")
            #expect(try await api.call("GET", "/broken").status == 500)
        }
    }

    @Test("S19: a quota holds in a race") func s19QuotaIsExactUnderConcurrency() async throws {
        try await Notes.with { api, database in
            let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
                for index in 0..<12 { group.addTask { try await api.call("POST", "/notes", body: note("n\(index)")).status } }
                return try await group.reduce(into: [Int]()) { $0.append($1) }
            }
            #expect(statuses.filter { $0 == 201 }.count == 3)
            #expect(statuses.filter { $0 == 403 }.count == 9)
            let used = try await database.read { try $0.query("SELECT used FROM quota_usages")[0].int("used") }
            #expect(used == 3)
        }
    }

    @Test func idempotencyKeyGivesOneResource() async throws {
        try await Notes.with { api, database in
            let key = [("Idempotency-Key", "k1")]
            let ids = try await withThrowingTaskGroup(of: String?.self) { group in
                for _ in 0..<8 {
                    group.addTask {
                        try await api.call("POST", "/notes", headers: key, body: note("same")).json["note"]?["id"]?.stringValue
                    }
                }
                return try await group.reduce(into: Set<String?>()) { $0.insert($1) }
            }
            #expect(ids.count == 1)
            #expect(try await api.call("POST", "/notes", headers: key, body: note("other")).status == 422)
            let count = try await database.read { try $0.query("SELECT count(*) AS n FROM notes")[0].int("n") }
            #expect(count == 1)
        }
    }

    @Test func repetitionsThatWaitForTheSameWorkGetOneAnswer() async throws {
        try await Notes.with { api, _ in
            let seen = try await withThrowingTaskGroup(of: JSONValue.self) { group in
                for _ in 0..<2 {
                    group.addTask { try await api.call("POST", "/waiting", headers: [("Idempotency-Key", "k2")], body: nil).json }
                }
                return try await group.reduce(into: Set<JSONValue>()) { $0.insert($1) }
            }
            #expect(seen.count == 1, "\(seen)")
        }
    }

    @Test("S9: the first request's decisions stay with a response that a repetition stored") func s9DecisionsOfTheFirst() async throws {
        try await Notes.with { api, _ in
            let key = [("Idempotency-Key", "k3")]
            try await withThrowingTaskGroup(of: Int.self) { group in
                for _ in 0..<2 { group.addTask { try await api.call("POST", "/waiting", headers: key, body: nil).status } }
                for try await status in group { #expect(status == 200) }
            }
            #expect(try await api.call("POST", "/waiting", headers: key, body: nil).status == 200)
            let demoted = try await api.call("POST", "/waiting", token: "member" + StaticAuthenticator.demoted, headers: key, body: nil)
            #expect(demoted.status == 403)
        }
    }

    @Test func openAPIHasEveryRouteButThoseThatAnswer501() async throws {
        try await Notes.with { api, _ in
            let document = OpenAPI.document(api)
            for route in api.resources.flatMap(\.routes) {
                let isThere = document["paths"]?[route.path]?[route.method.rawValue.lowercased()] != nil
                #expect(isThere != route.isUnavailable, "\(route.path)")
            }
            #expect(document["paths"]?["/notes/{id}/read"] == nil)
            let answer = try await api.call("POST", "/notes/n/read")
            #expect(answer.status == 501 && answer.json.description.contains("cannot be read aloud"), "\(answer.json)")
            #expect(try await api.call("POST", "/notes/n/read", token: "reader").status == 403)
        }
    }

    @Test("S6: a subject is complete, once and well-formed, and only for the actions that services need")
    func s6SubjectHeaders() async throws {
        try await Notes.with { api, _ in
            let good = ActingSubject.accepted(project: "p1", user: "u1").headers
            func user(_ project: String, _ user: String) -> [(String, String)] {
                ActingSubject(project: project, user: user, grounds: .user).headers
            }
            var cases: [(headers: [(String, String)], expected: Int)] = [
                (good, 201), ([], 403), (good + [("X-Wolke-Subject-Roles", "admin")], 400), (user("p1", "u2"), 403),
                (user("p2", "u1"), 403), (user("p2", "u3"), 201),
            ]
            for index in good.indices {
                var missing = good
                missing.remove(at: index)
                cases += [(missing, 400), (good + [good[index]], 400)]
                for wrong in ["", "a b", "../x", String(repeating: "a", count: 65)] {
                    var headers = good
                    headers[index].1 = wrong
                    cases.append((headers, 400))
                }
            }
            for (headers, expected) in cases {
                let answer = try await api.call("POST", "/notes", token: "service", headers: headers, body: note("a"))
                #expect(answer.status == expected, "\(headers)")
            }
            let listed = try await api.call("GET", "/notes", token: "service", headers: good)
            #expect(listed.status == 403)
        }
    }

    /// The order in which the routes of a path are declared does not matter.
    @Test("S6: of actions that share a path, a service calls only those that services need") func s6ActionsOfOnePath() async throws {
        try await Notes.with { api, _ in
            let accepted = ActingSubject.accepted(project: "p1", user: "u1").headers
            let user = ActingSubject(project: "p1", user: "u1", grounds: .user).headers
            let (stamp, burn): (JSONValue, JSONValue) = (["stamp": ["force": true]], ["burn": ["force": true]])
            // The selected action decides, regardless of other members of the body and before its content is checked.
            let both: JSONValue = ["stamp": ["force": true], "burn": ["force": true]]
            var cases: [(body: JSONValue?, token: String, headers: [(String, String)], status: Int)] = [
                (stamp, "service", [], 403), (burn, "member", [], 200), (stamp, "", accepted, 401),
            ]
            for headers in [accepted, user] {
                cases += [
                    (stamp, "service", headers, 200), (burn, "service", headers, 403), (both, "service", headers, 403),
                    (["burn": [:]], "service", headers, 403), (["stamp": [:]], "service", headers, 400),
                    (["tear": [:]], "service", headers, 400), (nil, "service", headers, 400), (stamp, "member", headers, 403),
                ]
            }
            for (body, token, headers, status) in cases {
                let answer = try await api.call("POST", "/notes/n/action", token: token, headers: headers, body: body)
                let name = Comment(rawValue: "\(body ?? .null) of \(token) with \(headers)")
                #expect(answer.status == status, name)
                if status == 200 {
                    #expect(answer.json["project"] == "p1" && answer.json["name"] == (body == burn ? "burn" : "stamp"), name)
                }
            }
        }
    }

    @Test("S9: a stored response is only repeated for a caller who may currently do the same") func s9KeptAnswers() async throws {
        try await Notes.with { api, database in
            let key = [("Idempotency-Key", "a key of one's own")]
            let first = try await api.call("POST", "/notes", headers: key, body: note("a"))
            #expect(first.status == 201)
            func again(_ token: String) async throws -> Int {
                try await api.call("POST", "/notes", token: token, headers: key, body: note("a")).status
            }
            #expect(try await again("member") == 201)
            #expect(try await again("member" + StaticAuthenticator.demoted) == 403)
            // The request itself now fails for a reason other than a decision.
            let path = "/notes/\(first.json["note"]?["id"]?.stringValue ?? "")/close"
            let other = [("Idempotency-Key", "another key of one's own")]
            let closed = try await api.call("POST", path, headers: other, body: nil)
            #expect(closed.status == 202)
            try await database.write { _ = try $0.execute("DELETE FROM notes") }
            #expect(try await api.call("POST", path, headers: other, body: nil).status == 202)
            #expect(
                try await api.call("POST", path, token: "member" + StaticAuthenticator.demoted, headers: other, body: nil).status == 403)
            #expect(try await api.call("POST", path, token: "other", headers: other, body: nil).status == 404)
            // For responses stored before decisions were, the route's action on the caller's own project is decided.
            try await database.write { _ = try $0.execute("UPDATE idempotency_keys SET grants = NULL") }
            #expect(try await api.call("POST", path, headers: other, body: nil).status == 202)
            #expect(
                try await api.call("POST", path, token: "member" + StaticAuthenticator.demoted, headers: other, body: nil).status == 403)
        }
    }
}
