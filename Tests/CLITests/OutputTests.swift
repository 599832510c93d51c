import ArgumentParser
import JSON
import Kernel
import Testing
import Yams

@testable import osctl

@Suite struct OutputTests {
    let columns = [OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Flavor", "flavor.original_name")]
    let servers: [JSONValue] = [
        ["id": "1", "name": "web", "flavor": ["original_name": "m1.nano"], "extra": true],
        ["id": "22", "name": "日本", "flavor": ["original_name": "m1.tiny"], "extra": nil],
    ]

    func options(_ arguments: String...) throws -> OutputOptions { try OutputOptions.parse(arguments) }

    @Test func tablesLineUp() throws {
        #expect(
            try options().list(servers, columns: columns) == """
                ID  NAME  FLAVOR
                1   web   m1.nano
                22  日本  m1.tiny

                """)
    }

    @Test func valuesAreForScripts() throws {
        #expect(try options("-o", "value", "-c", "id").list(servers, columns: columns) == "1\n22\n")
        #expect(try options("-o", "value", "-c", "Name", "-c", "extra").list(servers, columns: columns) == "web\ttrue\n日本\t\n")
    }

    @Test func jsonHasAllOrSelectedFields() throws {
        #expect(try JSONValue.parse(try options("-o", "json").list(servers, columns: columns)) == .array(servers))
        let narrowed = try JSONValue.parse(
            try options("-o", "json", "-c", "name", "-c", "flavor.original_name").list(servers, columns: columns))
        #expect(narrowed == [["name": "web", "flavor.original_name": "m1.nano"], ["name": "日本", "flavor.original_name": "m1.tiny"]])
    }

    @Test func unknownColumnsNameTheKnown() throws {
        let error = #expect(throws: CommandFailure.self) { try options("-c", "nmae").list(servers, columns: columns) }
        #expect(error?.description == "There is no column nmae.\nColumns: ID, Name, Flavor; `-o json` shows every field.")
    }

    @Test func emptyListsAreHeadingsOrEmpty() throws {
        #expect(try options().list([], columns: columns) == "ID  NAME  FLAVOR\n")
        #expect(try options("-o", "json").list([], columns: columns) == "[]\n")
        #expect(try options("-o", "yaml").list([], columns: columns) == "[]\n")
        #expect(try options("-o", "value", "-c", "whatever").list([], columns: columns) == "")
    }

    @Test func usersTextDoesNotSteerTheTerminal() throws {
        let text = try options().list([["id": "1", "name": "a\u{1b}[31mred\u{9b}", "flavor": nil]], columns: columns)
        #expect(!text.unicodeScalars.contains { $0.value < 32 && $0 != "\n" || (127...159).contains($0.value) })
    }

    @Test func cellsOfSeveralLines() throws {
        let text = try options().object(["a": "1\n2", "b": ["x", "y"], "c": ["k": "v"]], fields: nil)
        #expect(text == "FIELD  VALUE\na      1\n       2\nb      x, y\nc      k=v\n")
    }

    @Test func badFormatsAreRefused() {
        #expect(throws: (any Error).self) { try options("-o", "xml") }
    }

    /// Another YAML parser reads back the original values.
    @Test(arguments: 0..<200) func yamlMeansTheSame(seed: Int) throws {
        let random = SeededRandom(seed: UInt64(seed))
        let value = JSONValue.object(["top": OutputTests.value(random, depth: 3)])
        let text = YAMLOutput.text(value)
        let node = try #require(try Yams.compose(yaml: text), "\(text)")
        #expect(OutputTests.json(node) == value, "\(text)")
    }

    private static let strings = [
        "", "a", "yes", "No", "null", "~", "1", "1.5", "1e3", "0x1f", "- a", "a: b", "a #b", "#a", "a\nb", " a", "a ", "\"q\"", "'q'", "é",
        "[x]",
        "{x}", "*a", "&a", "!t", "|", ">", "%a", "@a", "`a", "2026-11-21", "2026-11-21T07:00:00Z", "true", "10.0.0.0/24", "fe80::1",
        "1e5a7b00-0000-4000-8000-000000000000", "\t", "\u{1}", "日本", "=", "<<", "0o7", "12:30:45", ".5", "-.5", "+1", "_1",
    ]

    private static func value(_ random: SeededRandom, depth: Int) -> JSONValue {
        switch random.below(depth == 0 ? 5 : 7) {
        case 0: return .null
        case 1: return .bool(random.below(2) == 0)
        case 2: return .integer(Int64(random.below(1000)) - 500)
        case 3, 4: return .string(strings[random.below(strings.count)])
        case 5: return .array((0..<random.below(4)).map { _ in value(random, depth: depth - 1) })
        default:
            return .object(
                JSONObject((0..<random.below(4)).map { _ in (strings[random.below(strings.count)], value(random, depth: depth - 1)) }))
        }
    }

    private static func json(_ node: Node) -> JSONValue {
        switch node {
        case .scalar(let scalar):
            if node.tag.description.hasSuffix(":str") { return .string(scalar.string) }
            if let bool = node.bool { return .bool(bool) }
            if let int = node.int { return .integer(Int64(int)) }
            return node.null != nil ? .null : .string(scalar.string)
        case .sequence(let sequence): return .array(sequence.map { json($0) })
        case .mapping(let mapping): return .object(JSONObject(mapping.map { (json($0.key).stringValue ?? "?", json($0.value)) }))
        case .alias: return .null
        }
    }

    @Test func prettyJSONMeansTheSame() throws {
        let value: JSONValue = ["a": [], "b": [1, ["c": "\u{1}\"é"]], "d": [:], "e": 1.5]
        #expect(try JSONValue.parse(PrettyJSON.text(value)) == value)
    }

    @Test(arguments: [
        ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy"),
    ])
    func base64(plain: String, encoded: String) { #expect(Base64.encode(Array(plain.utf8)) == encoded) }

    @Test func bytesInReadableUnits() {
        #expect(
            [0, 1023, 1024, 1536, 5 << 20, 3 << 30].map(CellText.bytes) == ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 MiB", "3.0 GiB"])
    }

    @Test func aHostFailurePlanReads() throws {
        let side: (Int, Int) -> JSONValue = { hosts, free in
            ["hosts": JSONValue(hosts), "resources": ["VCPU": ["capacity": JSONValue(hosts * 8), "free": JSONValue(free)]]]
        }
        let refusal: JSONObject = [
            "result": "rejected", "message": "No valid host was found.",
            "filters": [["name": "ResourceFilter", "hosts_before": 2, "hosts_after": 0, "reasons": ["not enough VCPU": 2]]],
        ]
        var large: JSONObject = ["name": "db", "id": "1", "flavor": "big", "vm_state": "active"]
        for member in refusal.members { large[member.name] = member.value }
        let plan = HostFailurePlan(document: [
            "host": "h1",
            "servers": [
                .object(large), ["name": "web", "id": "2", "flavor": "nano", "vm_state": "stopped", "result": "scheduled", "host": "h3"],
            ],
            "capacity": ["before": side(3, 9), "after": side(2, 5)],
        ])
        #expect(!plan.isComplete && plan.hostsInService == 3)
        #expect(
            try plan.text(OutputOptions.parse([])) == """
                If h1 failed, 1 of its 2 servers would find another host, 1 would not.

                SERVER  ID  FLAVOR  STATE    WOULD GO TO
                db      1   big     active   nowhere
                web     2   nano    stopped  h3

                1 × nowhere (db): No valid host was found.

                FILTER          HOSTS LEFT  REFUSED
                (all hosts)     2
                ResourceFilter  0           2 × not enough VCPU

                FREE        HOSTS  VCPU
                now         3      9 of 24
                without h1  2      5 of 16

                """)
        #expect(try plan.text(OutputOptions.parse(["-o", "value"])).hasPrefix("db\t1\tbig\tactive\tnowhere\n"))
        let empty = HostFailurePlan(document: ["host": "h1", "servers": [], "capacity": ["before": side(3, 9), "after": side(2, 5)]])
        #expect(try empty.isComplete && empty.text(OutputOptions.parse([])).hasPrefix("h1 has no servers: nothing would be moved.\n"))
    }
}
