import BareMetalCore
import Foundation
import JSON
import Kernel
import Schema
import Testing

/// The table of a node's states.
@Suite struct ProvisionStateTests {
    @Test func everyStateCanBeReachedAndLeft() {
        var reached: Set<ProvisionState> = [.enroll]
        while true {
            let more = Set(ProvisionState.transitions.filter { reached.contains($0.from) }.map(\.to)).subtracting(reached)
            if more.isEmpty { break }
            reached.formUnion(more)
        }
        #expect(reached == Set(ProvisionState.allCases))
        for state in ProvisionState.allCases {
            #expect(!ProvisionState.transitions.filter { $0.from == state }.isEmpty, "\(state.rawValue) has no way out")
        }
    }

    @Test func workCanSucceedAndFail() {
        for state in ProvisionState.allCases where state.isWorking && state != .deleting {
            let events = Set(ProvisionState.transitions.filter { $0.from == state }.map(\.event))
            #expect(events.contains(.fail), "\(state.rawValue) cannot fail")
            #expect(!events.isDisjoint(with: [.done, .resume]), "\(state.rawValue) cannot go on")
        }
        for state in ProvisionState.allCases where state.isFailed {
            let verbs = ProvisionState.transitions.filter { $0.from == state && $0.event.isVerb }
            #expect(!verbs.isEmpty, "nobody can do anything about \(state.rawValue)")
        }
    }

    @Test func eventsLeadWhereTheStatesAim() {
        for transition in ProvisionState.transitions where transition.event == .done {
            #expect(
                transition.from.usualTarget == transition.to,
                "\(transition.from.rawValue) aims at \(transition.from.usualTarget?.rawValue ?? "-")")
        }
    }

    /// The migration has a copy of the condition, because migrations do not change.
    @Test func theSchemaHasTheSameStates() throws {
        func normal(_ text: String) -> String { text.split(whereSeparator: \.isWhitespace).joined(separator: " ") }
        let migration = try #require(Schema.migrations.first { $0.number == 62 })
        #expect(normal(migration.sql).contains("CONSTRAINT bare_metal_nodes_state CHECK ( " + normal(ProvisionState.check) + ")"))
    }

    @Test func thePageHasTheSameTransitions() throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let page = try String(contentsOf: root.appending(path: "docs/bare-metal.md"), encoding: .utf8)
        let lines = page.split(separator: "\n").filter { $0.hasPrefix("    ") && $0.contains(" --> ") && !$0.contains("[*]") }
        let expected = ProvisionState.transitions.map { "    \($0.from) --> \($0.to): \($0.event)" }
        #expect(lines.map(String.init) == expected)
    }

    @Test func targetsOfRequests() {
        let targets: [(String, ProvisionState.Event?)] = [
            ("active", .deploy), ("deploy", .deploy), ("deleted", .delete), ("undeploy", .delete), ("manage", .manage),
            ("rebuild", .rebuild),
            ("delete", nil), ("done", nil), ("fail", nil), ("Manage", nil), ("", nil),
        ]
        for (target, event) in targets { #expect(ProvisionState.Event(target: target) == event, "\(target)") }
    }
}

/// Patches (RFC 6902).
@Suite struct JSONPatchTests {
    private func applied(_ patch: JSONValue, to document: JSONObject, members: Set<String> = ["extra", "name", "list"]) throws -> JSONObject
    {
        try JSONPatch(patch).applied(to: document, members: members)
    }

    @Test func operations() throws {
        let document: JSONObject = ["name": "a", "extra": ["k": 1, "deep": ["x": true]], "list": [1, 2, 3]]
        let cases: [(JSONValue, String, JSONValue)] = [
            (["op": "replace", "path": "/name", "value": "b"], "name", "b"), (["op": "remove", "path": "/name"], "name", .null),
            (["op": "add", "path": "/extra/new", "value": [1]], "extra", ["k": 1, "deep": ["x": true], "new": [1]]),
            (["op": "add", "path": "/extra/k", "value": 2], "extra", ["k": 2, "deep": ["x": true]]),
            (["op": "remove", "path": "/extra/deep/x"], "extra", ["k": 1, "deep": [:]]),
            (["op": "add", "path": "/extra/a~1b~0", "value": 0], "extra", ["k": 1, "deep": ["x": true], "a/b~": 0]),
            (["op": "add", "path": "/list/1", "value": 9], "list", [1, 9, 2, 3]),
            (["op": "add", "path": "/list/-", "value": 9], "list", [1, 2, 3, 9]),
            (["op": "replace", "path": "/list/0", "value": 9], "list", [9, 2, 3]), (["op": "remove", "path": "/list/2"], "list", [1, 2]),
            (["op": "test", "path": "/extra/k", "value": 1], "name", "a"),
        ]
        for (operation, member, value) in cases { #expect(try applied([operation], to: document)[member] == value, "\(operation)") }
        #expect(try applied([["op": "add", "path": "/extra/k", "value": 1]], to: ["extra": .null])["extra"] == ["k": 1])
    }

    @Test func refusals() throws {
        let document: JSONObject = ["name": "a", "extra": ["k": 1], "list": [1], "secret": 1]
        let refused: [JSONValue] = [
            [], [:], "x", [["op": "replace"]], [["op": "move", "path": "/name", "from": "/extra"]],
            [["op": "replace", "path": "name", "value": 1]],
            [["op": "replace", "path": "/", "value": 1]], [["op": "replace", "path": "/name"]],
            [["op": "replace", "path": "/extra/none", "value": 1]],
            [["op": "remove", "path": "/extra/none"]], [["op": "replace", "path": "/secret", "value": 2]],
            [["op": "replace", "path": "/name/x", "value": 2]],
            [["op": "test", "path": "/name", "value": "b"]], [["op": "replace", "path": "/list/1", "value": 2]],
            [["op": "replace", "path": "/list/01", "value": 2]], [["op": "add", "path": "/list/3", "value": 2]],
            [["op": "replace", "path": "/extra/~2", "value": 2]], [["op": "replace", "path": "/name", "value": 1, "more": 1]],
            .array(Array(repeating: ["op": "replace", "path": "/name", "value": 1], count: BareMetalLimits.patchOperationsMax + 1)),
        ]
        for patch in refused {
            let error = #expect(throws: ResourceError.self, "\(patch.description.prefix(80))") { try applied(patch, to: document) }
            #expect(error?.code == .badRequest)
        }
    }
}
