import Foundation
import Testing

/// S10: a request writes only after a decision about the action of the write.
///
/// A handler is a function that takes a `RequestContext`, or a declaration of routes. The test follows the calls of each handler
/// within the service, by name and labels, to the statements that write. Every path must call `Authorized.value(for:)` before: in
/// the handler, or in the function of the store that takes the `Authorized`. Functions called only by workflows, loops and
/// consumers need no decision.
@Suite struct WriteDecisionTests {
    /// Handlers that write without such a decision, with the reason.
    private static let exceptions = [
        "TokenIssue.swift issue": "sign-on identifies the caller; attempts are counted and one-time codes used up before that",
        "User+Routes.swift changePassword": "needs no token; the current password is required instead",
        "Agent+Routes.swift lookUp": "agents have no accounts; answered only while the node waits for its agent",
        "Agent+Routes.swift beat": "agents have no accounts; the token from the look-up is required instead",
    ]

    private static let services = Dictionary(grouping: TidyTests.sources.filter { $0.path.hasPrefix("Services/") }) {
        String($0.path.split(separator: "/")[1])
    }

    @Test("S10: a request writes only after a decision about its action")
    func s10WritesFollowADecision() {
        var findings: [String] = []
        var excepted: Set<String> = []
        var guarded = 0
        for sources in WriteDecisionTests.services.values {
            let graph = CallGraph(sources.map { (path: $0.path, lines: $0.lines) })
            guarded += graph.guarded
            for finding in graph.undecided() {
                if WriteDecisionTests.exceptions[finding.handler] != nil {
                    excepted.insert(finding.handler)
                } else {
                    findings.append(finding.text)
                }
            }
        }
        #expect(findings.isEmpty, "writes without `value(for:)` before them:\n\(findings.sorted().joined(separator: "\n"))")
        #expect(guarded > 150, "the scan sees the decisions")
        #expect(excepted == Set(WriteDecisionTests.exceptions.keys), "unused exceptions")
    }

    /// Functions of stores that handlers call and that write without taking a decision, with the reason.
    private static let unprotected = [
        "SecurityGroupStore.swift defaultGroup": "the first use of a project's groups creates it, also a list",
        "ImageStore.swift abandonUpload": "a failed request removes its own upload, by an id that only this request knows",
        "ImageImportStore.swift abandonStaging": "a failed request removes its own staging, by an id that only this request knows",
        "UserStore.swift replacePassword": "needs no token; the current password is required instead",
        "SignOn.swift prove": "sign-on identifies the caller, so the policy cannot decide about the caller before",
        "SignOn.swift provePassword": "part of signing on: wrong passwords are counted, right ones end the count",
        "SignOn.swift noteFailure": "part of signing on: counts a wrong password, and locks the user",
        "SpentCodes.swift spendCode": "part of signing on: a one-time code is used up, and a wrong one is counted",
    ]

    /// Ensures that a new caller cannot pass a decision about something else, or none.
    @Test("S10: what handlers call to write takes the decision itself")
    func s10StoresTakeTheDecision() {
        var findings: [String] = []
        var excepted: Set<String> = []
        for sources in WriteDecisionTests.services.values {
            let graph = CallGraph(sources.map { (path: $0.path, lines: $0.lines) })
            for finding in graph.unprotected() {
                if WriteDecisionTests.unprotected[finding.function] != nil {
                    excepted.insert(finding.function)
                } else {
                    findings.append(finding.text)
                }
            }
        }
        #expect(findings.isEmpty, "writes without an `Authorized`:\n\(findings.sorted().joined(separator: "\n"))")
        #expect(excepted == Set(WriteDecisionTests.unprotected.keys), "unused exceptions")
    }

    /// The scan of stores with and without a decision.
    @Test(arguments: [
        ("_ id: String", "", true), ("_ thing: Authorized<String>", "", false),
        ("_ draft: Draft", "let id = try draft.owner.value(for: \"create\")", false),
        ("_ draft: Draft", "let id = draft.owner.value", true),
    ])
    func theScanFindsStores(parameter: String, before: String, isFound: Bool) {
        let store = """
            enum ThingStore {
                static func remove(_ connection: Connection, \(parameter)) throws {
                    \(before)
                    try erase(connection)
                }

                static func ofAWorkflow(_ connection: Connection) throws {
                    try erase(connection)
                }

                private static func erase(_ connection: Connection) throws {
                    try connection.execute("DELETE FROM things WHERE id = 1")
                }
            }
            """
        let routes = """
            struct Routes {
                private func handle(_ context: RequestContext) async throws -> Response {
                    return try await context.write(database) { connection in
                        try ThingStore.remove(connection, thing)
                    }
                }
            }
            """
        let folder = "Services/Things/ThingService"
        let sources = [("\(folder)/Store/ThingStore.swift", store), ("\(folder)/API/Things.swift", routes)]
        let graph = CallGraph(sources.map { (path: $0.0, lines: $0.1.components(separatedBy: "\n")) })
        #expect(graph.unprotected().map(\.function) == (isFound ? ["ThingStore.swift remove"] : []))
    }

    /// The scan of handlers with and without a decision.
    @Test(arguments: [
        ("", "try Store.remove(connection, id: id)", true),
        ("", "try connection.execute(\"UPDATE things SET name = 'x'\")", true),
        ("", "try connection.execute(\"UPDATE \\(part.table) SET name = 'x'\")", true),
        ("", "try Workflows.start(connection, definition, subject: id)", true),
        ("try context.authorize(target: .none)", "try Store.remove(connection, id: id)", true),
        ("try context.authorize(target: .none).value(for: \"delete\")", "try Store.remove(connection, id: id)", false),
        ("", "try Store.delete(connection, thing)", false),
        ("", "try Store.careless(connection, thing)", true),
        ("", "try Store.list(connection)", false),
        ("let thing = try thing(context, for: \"delete\")", "try Store.remove(connection, id: thing)", false),
        ("", "try maker.make(connection)", true), ("", "try carefulMaker.make(connection)", false),
        ("try require(states: [], for: \"delete\")", "try Store.remove(connection, id: thing)", true),
    ])
    func theScanFindsWrites(before: String, write: String, isFound: Bool) {
        let source = """
            enum Store {
                static func delete(_ connection: Connection, _ thing: Authorized<String>) throws {
                    let id = try thing.value(for: "delete")
                    try remove(connection, id: id)
                }

                static func careless(_ connection: Connection, _ thing: Authorized<String>) throws {
                    try remove(connection, id: thing.value)
                }

                private static func remove(_ connection: Connection, id: String) throws {
                    try connection.execute("DELETE FROM things WHERE id = 1")
                }

                static func list(_ connection: Connection) throws {
                    try connection.query("SELECT id FROM things FOR UPDATE")
                }
            }

            struct Routes {
                func thing(_ context: RequestContext, for action: String) throws -> String {
                    try context.authorize("x", target: .none).value(for: action)
                }

                private var maker: Maker {
                    Maker(make: { connection in try connection.execute("INSERT INTO things (id) VALUES (1)") })
                }

                private var carefulMaker: Maker {
                    Maker(make: { connection, thing in
                        let id = try thing.value(for: "create")
                        try connection.execute("INSERT INTO things (id) VALUES (1)")
                    })
                }

                func require(states: [String], for action: String) throws {}

                private func handle(_ context: RequestContext) async throws -> Response {
                    \(before)
                    return try await context.write(database) { connection in
                        \(write)
                    }
                }
            }
            """
        let found = CallGraph([(path: "Sample.swift", lines: source.components(separatedBy: "\n"))]).undecided()
        #expect(found.map(\.handler) == (isFound ? ["Sample.swift handle"] : []))
    }
}

/// The functions of a service that write, and whether a decision precedes the write, according to the source text.
private struct CallGraph {
    private final class Function {
        let path: String
        let line: Int
        let name: String
        let isHandler: Bool
        let takesDecision: Bool
        /// Nil for a computed property.
        let parameters: [(label: String, hasDefault: Bool)]?
        let body: IndexedText
        /// The position of the first decision.
        var decision = Int.max
        /// The statements that write and the called functions, in order.
        var events: [(place: Int, callee: Function?)] = []
        /// The writes without a decision, with the path of functions.
        var way: String?

        init(path: String, line: Int, name: String, head: IndexedText, parameters: [(label: String, hasDefault: Bool)]?, body: IndexedText)
        {
            self.path = path
            self.line = line
            self.name = name
            self.parameters = parameters
            self.body = body
            takesDecision = head.has("Authorized<")
            let isRoutes = parameters == nil && (head.has("Resource") || head.has("[Route]") || body.has("Route("))
            isHandler = head.has("RequestContext") || isRoutes
        }

        /// Whether a call with these labels can refer to this function.
        func accepts(_ labels: [String], hasTrailingClosure: Bool) -> Bool {
            guard let parameters else { return false }
            var index = 0
            for parameter in parameters {
                if index < labels.count, labels[index] == parameter.label {
                    index += 1
                } else if !parameter.hasDefault, !(hasTrailingClosure && index == labels.count) {
                    return false
                }
            }
            return index == labels.count
        }
    }

    private static let head = Pattern(
        #"^\s*(?:@\w+ )*(?:(?:package|private|fileprivate|static|mutating) )*(?:func (\w+)|(init)|(?:var|let) (\w+)\b.*\{$)"#)
    private static let write = Pattern(
        #"INSERT INTO |DELETE FROM |UPDATE (?:[a-z_]+|\\\([^)]*\)) (?:[a-z] )?SET|\.apply\(\s*connection|\.insertion\("#
            + #"|Workflows\.(?:start|startOrIntend)\(|Outbox\.add\(|\bquota\.(?:set|reset|setDefault)\("#
    )
    private static let decision = Pattern(#"\.values?\(\s*for: "#)
    private static let call = Pattern(#"(?<!\w)(\w+)\("#)
    private static let label = Pattern(#"^\s*(\w+)\s*:"#)

    private let functions: [Function]
    /// Functions and handlers that make a decision themselves.
    var guarded: Int { functions.count { $0.decision < Int.max } }

    init(_ sources: [(path: String, lines: [String])]) {
        functions = sources.flatMap { CallGraph.functions(of: $0.path, $0.lines) }
        let byName = Dictionary(grouping: functions, by: \.name)
        for function in functions {
            let body = function.body
            function.decision = CallGraph.decision.matches(body).first?[0] ?? Int.max
            function.events = CallGraph.write.matches(body).map { ($0[0], nil) }
            for match in CallGraph.call.matches(body) {
                guard let candidates = byName[body.part(match[2], match[3])] else { continue }
                let (arguments, end) = body.arguments(at: match[1] - 1)
                let labels = arguments.map { part in CallGraph.label.matches(part).first.map { part.part($0[2], $0[3]) } ?? "" }
                let trailing = body.part(end + 1, min(end + 3, body.count)).trimmingCharacters(in: .whitespaces).hasPrefix("{")
                for callee in candidates where callee !== function && callee.accepts(labels, hasTrailingClosure: trailing) {
                    function.events.append((match[0], callee))
                }
            }
        }
        // Code that names a property may run the property's closures.
        for property in functions where property.parameters == nil && !property.isHandler && !property.events.isEmpty {
            let name = Pattern("(?<!\\w)\(property.name)(?!\\w)")
            for function in functions where function !== property && function.path == property.path {
                function.events += name.matches(function.body).map { ($0[0], property) }
            }
        }
        for function in functions { function.events.sort { $0.place < $1.place } }
        // A helper that gets the action makes the decision for the code after it.
        let deciding = functions.filter { helper in
            helper.parameters?.contains { $0.label == "for" && !$0.hasDefault } == true && helper.decision < Int.max
        }
        for function in functions {
            let places = function.events.filter { event in deciding.contains { $0 === event.callee } }.map(\.place)
            function.decision = min(function.decision, places.min() ?? Int.max)
        }
    }

    /// Handlers that reach a write without a decision.
    func undecided() -> [(handler: String, text: String)] {
        var hasChanged = true
        while hasChanged {
            hasChanged = false
            for function in functions where function.way == nil {
                for event in function.events where event.place < function.decision {
                    guard let way = event.callee.map(\.way) ?? "writes" else { continue }
                    function.way = event.callee.map { "\($0.name) (\($0.path):\($0.line)) → \(way)" } ?? way
                    hasChanged = true
                    break
                }
            }
        }
        return functions.compactMap { function in
            guard function.isHandler, let way = function.way else { return nil }
            let file = function.path.split(separator: "/").last ?? ""
            return ("\(file) \(function.name)", "\(function.path):\(function.line) \(function.name) → \(way)")
        }
    }

    /// The folders of handlers. Identity's `SignOn` has parts of both: it answers requests, and records attempts and used codes.
    private static func isAPI(_ path: String) -> Bool { path.contains("Service/API/") || path.contains("Service/SignOn/") }
    private static func isStore(_ path: String) -> Bool { path.contains("Service/Store/") || path.contains("Service/SignOn/") }

    /// Functions of stores that write, that handlers call, and that neither take an `Authorized` nor get one in a value.
    func unprotected() -> [(function: String, text: String)] {
        var writers: Set<ObjectIdentifier> = []
        var count = -1
        while count < writers.count {
            count = writers.count
            for function in functions where !writers.contains(ObjectIdentifier(function)) {
                let writes = function.events.contains { $0.callee.map { writers.contains(ObjectIdentifier($0)) } ?? true }
                if writes { writers.insert(ObjectIdentifier(function)) }
            }
        }
        var found: [String: String] = [:]
        for caller in functions where CallGraph.isAPI(caller.path) {
            for callee in caller.events.compactMap(\.callee) {
                guard CallGraph.isStore(callee.path), writers.contains(ObjectIdentifier(callee)), !callee.takesDecision,
                    callee.decision == Int.max
                else { continue }
                let file = callee.path.split(separator: "/").last ?? ""
                found["\(file) \(callee.name)"] = "\(callee.path):\(callee.line) \(callee.name) ← \(caller.path) \(caller.name)"
            }
        }
        return found.map { (function: $0.key, text: $0.value) }
    }

    /// The functions and computed properties of a file; nested ones belong to their parents.
    private static func functions(of path: String, _ lines: [String]) -> [Function] {
        var result: [Function] = []
        var open: (line: Int, indent: Int, name: String, isFunction: Bool)?
        for (index, line) in lines.enumerated() {
            let indent = line.prefix { $0 == " " }.count
            if open == nil, let match = head.matches(IndexedText(line)).first {
                let text = IndexedText(line)
                let names = [(match[2], match[3]), (match[4], match[5]), (match[6], match[7])]
                guard let name = names.first(where: { $0.0 != NSNotFound }) else { continue }
                open = (index, indent, text.part(name.0, name.1), match[6] == NSNotFound)
            }
            guard let function = open else { continue }
            let trimmed = line.trimmingCharacters(in: .whitespaces)
            // The end of a protocol, whose requirements have no bodies.
            if indent < function.indent, trimmed == "}" {
                open = nil
                continue
            }
            let isOneLine = index == function.line && trimmed.hasSuffix("}") && line.count { $0 == "{" } == line.count { $0 == "}" }
            guard isOneLine || index > function.line && indent == function.indent && ["}", "})", "])"].contains(trimmed) else { continue }
            let text = IndexedText(
                lines[function.line...index].filter { !$0.trimmingCharacters(in: .whitespaces).hasPrefix("//") }.joined(separator: "\n"))
            if function.isFunction, let start = text.first("(") {
                let (parts, end) = text.arguments(at: start)
                let parameters = parts.map { part -> (label: String, hasDefault: Bool) in
                    let label = part.string.split(whereSeparator: \.isWhitespace).first.map { $0.trimmingCharacters(in: [":"]) } ?? ""
                    return (label == "_" ? "" : label, part.has("="))
                }
                result.append(
                    Function(
                        path: path, line: function.line + 1, name: function.name, head: IndexedText(text.part(0, end)),
                        parameters: parameters,
                        body: IndexedText(text.part(end, text.count))))
            } else {
                result.append(
                    Function(
                        path: path, line: function.line + 1, name: function.name, head: IndexedText(lines[function.line]), parameters: nil,
                        body: text))
            }
            open = nil
        }
        return result
    }
}
