import Authorization
import Database
import JSON
import Kernel
import Schema
import TestKit
import Testing

@testable import WebAPI

/// The kit's values without a database.
@Suite struct ResourceKitTests {
    private struct Note: StoredRow, Equatable {
        var id = UUID128(high: 0, low: 0)
        var name: String?
        var size = 0
        var tags: [String] = []
        var state = "new"

        static let relation = "notes"
        static let blank = Note()
        static let columns: [Column<Note>] = [
            Column("id", \.id, .once), Column("name", \.name), Column("size", \.size), Column("tags", \.tags),
            Column("state", \.state, .never),
        ]
    }

    private static let kind = ResourceKind(
        "note",
        table: Table(
            "notes t",
            fields: [
                Field("id"), .text("name", isSettable: true), .number("size", isSettable: true), .flag("open", isSettable: true),
                Field("rules", .json, isSettable: true), Field("secret", visibleBy: "see_secrets"), .filter("word") { "t.name = \($0)" },
                Field("since", versions: VersionRange(from: Microversion(2, 5))), Field("extra", .members),
                Field("links", .links([.absolute("self", "/notes")])),
            ]), visibility: .everything
    ) { .notFound("no note \($0)") }

    private let now = Timestamp(microseconds: 0)

    @Test func updatesSetOnlyDifferingColumns() {
        let before = Note(name: "a", size: 1, tags: ["x"])
        #expect(before.changes(to: before).isEmpty)
        var after = before
        after.name = nil
        after.tags = ["x", "y"]
        after.state = "old"
        let statement = before.changes(to: after).statement("notes", where: "id = \(before.id)", at: now, isCounted: true)
        #expect(
            statement?.text
                == "UPDATE notes SET name = NULL, tags = $1::text[], updated_at = $2, generation = generation + 1 WHERE id = $3")
    }

    @Test func emptyChangesMakeNoStatement() {
        #expect(Changes().statement("notes", where: "TRUE", at: now) == nil)
        #expect(Changes().statement("notes", where: "TRUE", at: now, touching: true)?.text == "UPDATE notes SET updated_at = $1 WHERE TRUE")
    }

    @Test func insertsHaveTheSameColumns() {
        let settings = Self.kind.settings(["open": true, "rules": .null, "unknown": 1])
        let statement = Note(size: 2).insertion(settings, at: now)
        #expect(
            statement.text
                == "INSERT INTO notes (open, id, name, size, tags, created_at, updated_at) VALUES ($1, $2, NULL, $3, $4::text[], $5, $6)")
        #expect(Note.selection == "t.id, t.name, t.size, array_to_json(t.tags) AS tags, t.state")
    }

    @Test func replacementsLeaveWhatIsWrittenOnce() {
        #expect(Note.replacement == "name = EXCLUDED.name, size = EXCLUDED.size, tags = EXCLUDED.tags, updated_at = EXCLUDED.updated_at")
    }

    @Test func rowsAreWrittenOutOrExtendAStruct() {
        let owner = "x"
        var row = Note(name: "a", size: 2).values()
        row.merge(["owner": "\(owner)", "rules": "\(JSONValue.null)::jsonb", "open": "true"])
        let statement = row.insertion("notes", at: now, isUpdated: false)
        #expect(
            statement.text == """
                INSERT INTO notes (id, name, size, tags, owner, rules, open, created_at) \
                VALUES ($1, $2, $3, $4::text[], $5, $6::jsonb, true, $7)
                """)
        let absent: String? = nil
        #expect((["name": "\(absent)"] as Changes).insertion("notes", at: now).binds.first == .text(nil))
    }

    @Test func actionsAreKeysOfOnePath() {
        let route = Route.action("/notes/{note_id}", key: "close", action: "notes:close", rule: "@", "Close a note") { _ in .empty(202) }
        #expect(route.method == .post && route.path == "/notes/{note_id}/action" && route.bodyKey == "close" && route.status == 202)
        guard case .json(.object(let members, _)) = route.body else {
            Issue.record("the body is \(route.body)")
            return
        }
        #expect(members.map(\.name) == ["close"])
    }

    @Test("S2: values of a body are bound, and only declared columns are set")
    func s2SettingsAreBound() {
        let body: JSONObject = [
            "name": "x'; DROP TABLE notes; --", "size": 3, "open": true, "rules": ["a": 1], "secret": "s", "t.id = t.id; --": 1,
        ]
        let statement = Changes(Self.kind.settings(body)).statement("notes", where: "TRUE", at: nil)
        #expect(statement?.text == "UPDATE notes SET name = $1, size = $2, open = $3, rules = $4::jsonb WHERE TRUE")
        #expect(statement?.binds == [.text("x'; DROP TABLE notes; --"), .text("3"), .text("true"), .text("{\"a\":1}")])
        #expect(
            Changes(Self.kind.settings(["name": .null])).statement("notes", where: "TRUE", at: nil)?.text
                == "UPDATE notes SET name = DEFAULT WHERE TRUE")
    }

    @Test func schemasFollowFromFields() {
        let schema = Self.kind.openAPI
        #expect(schema["required"] == ["id", "name", "size", "open", "rules", "links"])
        #expect(schema["properties"]?["word"] == nil)
        #expect(schema["properties"]?["since"]?["x-min-version"] == "2.5")
        #expect(schema["properties"]?["secret"]?["x-policy-action"] == "see_secrets")
        #expect(schema["additionalProperties"] == true)
        #expect(RouteAnswer.list(Self.kind).openAPI?["properties"]?["notes"]?["type"] == "array")
        #expect(RouteAnswer.one(Self.kind).openAPI?["required"] == ["note"])
    }

    @Test func shortFormsHideFieldsAndKeepTheirFilters() {
        let short = Self.kind.showing(["id", "name"])
        #expect(short.openAPI["required"] == ["id", "name"])
        #expect(short.openAPI["additionalProperties"] == false)
        let names = ["size", "word"]
        for name in names { #expect(short.table.filterField(name, Microversion(2, 5)) != nil) }
        #expect(Set(short.table.fields.filter(\.sortable).map(\.name)) == Set(Self.kind.table.fields.filter(\.sortable).map(\.name)))
        let brief = Self.kind.hiding(["size"])
        #expect(brief.openAPI["properties"]?["size"] == nil && brief.openAPI["properties"]?["name"] != nil)
        #expect(RouteAnswer.form(.wrapped("tags", .list(.text))).openAPI?["required"] == ["tags"])
    }

    @Test func filtersAreThoseOfTheVersion() {
        let filter = Field.Filter.equals.from(Microversion(2, 3), repeatableFrom: Microversion(2, 4))
        let table = Table("notes t", fields: [Field("name", filter: filter), Field("shown")])
        #expect(table.filterField("name", Microversion(2, 2)) == nil)
        #expect(table.filterField("name", Microversion(2, 3))?.filter?.repeatable.contains(Microversion(2, 3)) == false)
        #expect(table.filterField("name", Microversion(2, 4))?.filter?.repeatable.contains(Microversion(2, 4)) == true)
        #expect(table.filterField("shown", Microversion(2, 4)) == nil)
    }
}
