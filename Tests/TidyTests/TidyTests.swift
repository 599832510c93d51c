import Contracts
import Foundation
import Kernel
import Testing

/// Rules of the source tree that the compiler does not check.
@Suite struct TidyTests {
    struct Source: Sendable {
        let path: String
        let lines: [String]
        var isTest: Bool { path.hasPrefix("Tests/") || path.hasPrefix("Shared/TestKit/") }
        var imports: [String] {
            lines.compactMap { line in
                let words = line.split(separator: " ").filter { $0 != "@testable" && $0 != "package" && $0 != "public" }
                return words.count >= 2 && words[0] == "import" ? String(words[words.count - 1]) : nil
            }
        }
        /// The lines without comments and string literals, so that rules only check code.
        var code: [String] { lines.map(TidyTests.code) }
    }

    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path

    static let tracked: [String] = {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/git")
        process.arguments = ["-C", root, "ls-files"]
        let pipe = Pipe()
        process.standardOutput = pipe
        do { try process.run() } catch { return [] }
        let data = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return String(decoding: data, as: UTF8.self).split(separator: "\n").map(String.init)
            .filter { FileManager.default.fileExists(atPath: root + "/" + $0) }
    }()

    static let sources: [Source] = tracked.filter { $0.hasSuffix(".swift") }.compactMap { path in
        guard let text = text(path) else { return nil }
        return Source(path: path, lines: text.components(separatedBy: "\n"))
    }

    static func text(_ path: String) -> String? {
        do { return try String(contentsOfFile: root + "/" + path, encoding: .utf8) } catch { return nil }
    }

    static func code(_ line: String) -> String {
        var result = ""
        var inString = false
        var previous: Character = " "
        for character in line {
            if character == "\"", previous != "\\" { inString.toggle() }
            if !inString {
                if character == "/", previous == "/" { return String(result.dropLast()) }
                result.append(character)
            }
            previous = character
        }
        return result
    }

    /// Whether `line` calls `call`, and not a longer name that ends with it (`newUUID()`).
    static func calls(_ line: String, _ call: String) -> Bool {
        line.ranges(of: call).contains { range in
            guard range.lowerBound > line.startIndex, call.first?.isLetter == true else { return true }
            return !line[line.index(before: range.lowerBound)].isLetter
        }
    }

    private func expectNone(_ findings: [String], _ rule: Comment) {
        #expect(findings.isEmpty, "\(rule): \(findings.prefix(20).joined(separator: "\n"))")
    }

    @Test func theTreeIsRead() {
        #expect(TidyTests.sources.count > 40)
    }

    // MARK: locks

    /// Resuming a task takes the lock of that task, which is held around its cancellation handlers. If such a handler takes a
    /// lock that is held while a task is resumed, both wait forever.
    @Test func nobodyIsResumedWithALockHeld() {
        func isResuming(_ code: String) -> Bool {
            [".yield(", ".resume()", ".resume(returning:", ".resume(throwing:", ".resume(with:"].contains { code.contains($0) }
        }
        var findings: [String] = []
        for source in TidyTests.sources where !source.isTest {
            // The depth of braces at which each lock is released.
            var held: [Int] = []
            var depth = 0
            for (number, line) in source.code.enumerated() {
                var rest = line[...]
                var isHeld = !held.isEmpty
                while let brace = rest.firstIndex(where: { $0 == "{" || $0 == "}" }) {
                    if isHeld, isResuming(String(rest[..<brace])) { findings.append("\(source.path):\(number + 1)") }
                    if rest[brace] == "{" {
                        if rest[..<brace].reversed().drop(while: { $0 == " " }).starts(with: "withLock".reversed()) { held.append(depth) }
                        depth += 1
                    } else {
                        depth -= 1
                        if held.last == depth { held.removeLast() }
                    }
                    isHeld = !held.isEmpty
                    rest = rest[rest.index(after: brace)...]
                }
                if isHeld, isResuming(String(rest)) { findings.append("\(source.path):\(number + 1)") }
            }
        }
        expectNone(findings, "a continuation is resumed within withLock")
    }

    // MARK: dependencies

    /// The folders of `Services`.
    static let services = Set(tracked.filter { $0.hasPrefix("Services/") }.map { String($0.split(separator: "/")[1]) }).sorted()

    @Test func dependenciesPointOneWay() {
        var findings: [String] = []
        let modules = Set(TidyTests.services.flatMap { [$0 + "Core", $0 + "Service"] })
        // Benchmarks may access internals, as tests do. The operator's tool uses declarations in the services' Core modules.
        for source in TidyTests.sources where !source.path.hasPrefix("Tests/") && !source.path.hasPrefix("bench/") {
            let parts = source.path.split(separator: "/").map(String.init)
            for name in source.imports where modules.contains(name) {
                // The doctor's inspections are in the Core modules.
                if parts[0] == "osctl", name.hasSuffix("Core") { continue }
                let own = parts[0] == "Services" && name.hasPrefix(parts[1]) && [parts[1] + "Core", parts[1] + "Service"].contains(name)
                let declared = parts[0] == "osctl" && name.hasSuffix("Core")
                if !own && !declared { findings.append("\(source.path) imports \(name)") }
                if own, parts[2] == parts[1] + "Core", name.hasSuffix("Service") {
                    findings.append("\(source.path): Core imports Service")
                }
            }
        }
        expectNone(findings, "Shared never imports Services, and a service never another's modules")
    }

    @Test func coresDoNoInput() {
        let allowed: Set<String> = [
            "Kernel", "JSON", "Contracts", "ServiceCatalog", "GuestKeys", "ImageFormat", "Synchronization", "Glibc",
        ]
        let findings = TidyTests.sources.filter { $0.path.hasPrefix("Services/") && $0.path.contains("Core/") }
            .flatMap { source in
                source.imports.filter { !allowed.contains($0) }.map { "\(source.path) imports \($0)" }
            }
        expectNone(findings, "a Core module imports pure modules only")
    }

    @Test func eachCLibraryHasOneOwner() {
        for library in ["CLibpq", "CRabbitMQ", "CLibvirt"] {
            // The benchmark compares with the bare library.
            let owners = Set(
                TidyTests.sources.filter { $0.imports.contains(library) && !$0.path.hasPrefix("bench/") }.map {
                    $0.path.split(separator: "/").prefix(2).joined(separator: "/")
                })
            #expect(owners.count <= 1, "\(library) is imported by \(owners)")
        }
    }

    // MARK: banned calls

    @Test func timeAndRandomnessAreInjected() {
        let banned = ["Date()", "UUID()", ".random(", ".randomElement(", "Task.sleep", "SystemRandomNumberGenerator", "clock_gettime"]
        var findings: [String] = []
        for source in TidyTests.sources where !source.path.hasPrefix("Shared/Kernel/") && !source.path.hasPrefix("Tests/") {
            for (index, line) in source.code.enumerated() {
                for call in banned where TidyTests.calls(line, call) { findings.append("\(source.path):\(index + 1) \(call)") }
            }
        }
        expectNone(findings, "only Kernel asks the machine for time and randomness")
    }

    @Test func errorsAreNotHidden() {
        let banned = ["try?", "try!", "fatalError(", "as!"]
        var findings: [String] = []
        for source in TidyTests.sources where !source.isTest {
            for (index, line) in source.code.enumerated() {
                for call in banned where TidyTests.calls(line, call) { findings.append("\(source.path):\(index + 1) \(call)") }
            }
        }
        expectNone(findings, "errors are handled or thrown")
    }

    @Test("S10: one rule, which an operator's policy file can change, decides who is an administrator")
    func s10OneRuleForAdministrators() {
        var findings: [String] = []
        for source in TidyTests.sources where source.path.hasPrefix("Services/") {
            for (index, line) in source.lines.enumerated() where line.contains("\"role:admin") || line.contains("(role:admin") {
                findings.append("\(source.path):\(index + 1)")
            }
        }
        expectNone(findings, "rules name rule:admin_required, not the role")
    }

    /// Routes decide, call the store and answer.
    @Test func routesHaveNoStatements() {
        let statements = ["connection.query(", "connection.execute(", "$0.query(", "$0.execute(", ".apply(connection", ".apply($0"]
        var findings: [String] = []
        for source in TidyTests.sources where source.path.contains("Service/API/") {
            findings += source.code.enumerated().filter { line in statements.contains { line.element.contains($0) } }
                .map { "\(source.path):\($0.offset + 1)" }
            // Fields have expressions, in which aggregates have an order. The end of a statement is written outside of them.
            findings += source.lines.enumerated().filter { $0.element.contains(/\bLIMIT \\?[(\d]|" ?ORDER BY/) }
                .map { "\(source.path):\($0.offset + 1)" }
            guard source.path.hasSuffix("+Routes.swift") else { continue }
            // The tables of Compute's kinds are beside the routes, and fields have expressions.
            for (index, line) in source.lines.enumerated() where line.contains("SELECT ") {
                if !source.lines[max(0, index - 3)...index].contains(where: { $0.contains("Field(") }) {
                    findings.append("\(source.path):\(index + 1)")
                }
            }
        }
        expectNone(findings, "statements and their ends, and conditions with a SELECT, are in Store/")
    }

    /// One builder makes the UPDATEs whose columns depend on something.
    @Test func assignmentsAreBuiltByChanges() {
        var findings: [String] = []
        for source in TidyTests.sources where source.path.hasPrefix("Services/") {
            for (index, line) in source.lines.enumerated()
            where line.contains(/\bSET \\\((?!raw: )/) || line.contains(/= \\\([^()]*\)\\\(/) {
                findings.append("\(source.path):\(index + 1)")
            }
        }
        expectNone(findings, "assignments that depend on something are built with Changes")
    }

    /// The last segment, the wrapping of the schema and the usual status are in one place.
    @Test func actionsAreBuiltByTheKit() {
        var findings: [String] = []
        for source in TidyTests.sources where source.path.contains("Service/API/") {
            for (index, line) in source.lines.enumerated() where line.contains(/\/action", key:/) {
                if index > 0, source.lines[index - 1].contains(".unavailable(") { continue }
                findings.append("\(source.path):\(index + 1)")
            }
        }
        expectNone(findings, "actions on a path …/action are declared with Route.action")
    }

    /// A route that only answers 501 is declared with `Route.unavailable`, which keeps it out of the OpenAPI document. The other
    /// files refuse one form of a request whose other forms work.
    @Test func onlyUnavailableRoutesAnswer501() {
        let parts: Set<String> = [
            // Only without the operator's keys.
            "Services/Identity/IdentityService/API/Credential+Routes.swift",
            // One path for all changes of a service.
            "Services/BlockStorage/BlockStorageService/API/Operator+Routes.swift",
        ]
        let answering = TidyTests.sources.filter { $0.path.hasPrefix("Services/") && $0.code.contains { $0.contains(".notImplemented") } }
        let findings = answering.map(\.path).filter { !parts.contains($0) }
        expectNone(findings, "what is not available in this cloud is declared with Route.unavailable")
        expectNone(parts.subtracting(answering.map(\.path)).sorted(), "unused exceptions")
    }

    @Test("S12: no shell is ever started") func s12NoShell() {
        var findings: [String] = []
        for source in TidyTests.sources where !source.path.hasPrefix("Tests/") {
            for (index, line) in source.lines.enumerated()
            where ["/bin/sh", "/bin/bash", "\"sh\"", "\"bash\""].contains(where: line.contains) || line.contains("popen(")
                || TidyTests.code(line).contains("system(")
            {
                findings.append("\(source.path):\(index + 1)")
            }
        }
        expectNone(findings, "no shell is ever started; arguments are arrays")
    }

    @Test("S25: no text is evaluated as code") func s25TextIsNotEvaluated() {
        let banned = [
            "NSExpression", "NSPredicate", "JSContext", "JavaScriptCore", "dlopen(", "dlsym(", "NSClassFromString", "NSKeyedUnarchiver",
            "NSUnarchiver",
        ]
        var findings: [String] = []
        for source in TidyTests.sources where !source.path.hasPrefix("Tests/") {
            for (index, line) in source.code.enumerated() {
                for word in banned where line.contains(word) { findings.append("\(source.path):\(index + 1) \(word)") }
            }
        }
        expectNone(findings, "text of tenants is data: nothing interprets it, loads code or revives objects from it")
    }

    /// Only one module opens disk images, in a sandbox and with explicit drivers.
    @Test("S1: only DiskTool runs QEMU's disk tools")
    func s1_diskToolsHaveOneOwner() {
        var findings: [String] = []
        for source in TidyTests.sources where !source.isTest && !source.path.hasPrefix("Shared/DiskTool/") {
            for (index, line) in source.lines.enumerated()
            where ["\"qemu-img", "\"qemu-nbd", "\"qemu-io", "/qemu-img", "/qemu-nbd", "/qemu-io"].contains(where: line.contains)
                // The list of required packages.
                && source.path != "osctl/Cloud/Cloud.swift"
            {
                findings.append("\(source.path):\(index + 1)")
            }
        }
        expectNone(findings, "only DiskTool runs QEMU's disk tools")
    }

    // MARK: contracts

    /// Names used by two sides must be declared once, because otherwise the spellings can differ.
    @Test func queuesAndChannelsAreNamedOnce() {
        let names =
            [MessageQueue.computeAgents, .placementHosts, .placementSchedule].map(\.name) + [
                NotificationChannel.wake.name, NotificationChannel.outbox.name, NotificationChannel.northbound.name,
                NotificationChannel.identityChanged.name, NotificationChannel.placementChanged.name, NotificationChannel.periodicTasks.name,
                NotificationChannel.periodicTasksDone.name,
            ]
        let banned = names.flatMap { ["\"\($0)\"", "'\($0)'"] } + ["\"agent.\\("]
        var findings: [String] = []
        for source in TidyTests.sources
        where !source.path.hasPrefix("Shared/Contracts/") && !source.path.hasPrefix("Shared/Schema/Migration0") {
            for (index, line) in source.lines.enumerated() {
                // Keys of the agent's settings have the same prefix as the agents' queues.
                for word in banned where line.contains(word) && !line.contains("agent.\\(key)") {
                    findings.append("\(source.path):\(index + 1) \(word)")
                }
            }
        }
        expectNone(findings, "names of queues and channels are declared in Contracts")
    }

    // MARK: size

    @Test func filesStayReadable() {
        let findings = TidyTests.sources.filter { $0.lines.count > 501 }.map { "\($0.path): \($0.lines.count) lines" }
        expectNone(findings, "a file has at most 500 lines")
    }

    @Test func functionsStayReadable() {
        var findings: [String] = []
        for source in TidyTests.sources {
            var start: (line: Int, indent: Int, text: String)?
            for (index, line) in source.lines.enumerated() {
                let indent = line.prefix { $0 == " " }.count
                let trimmed = line.trimmingCharacters(in: .whitespaces)
                if start == nil, trimmed.contains("func ") || trimmed.hasPrefix("init(") || trimmed.contains(" init("),
                    !trimmed.hasPrefix("//"), !trimmed.hasPrefix("*"), !trimmed.hasSuffix("}")
                {
                    start = (index, indent, trimmed)
                } else if let open = start, trimmed == "}", indent == open.indent {
                    if index - open.line > 71 { findings.append("\(source.path):\(open.line + 1) \(index - open.line) lines") }
                    start = nil
                } else if let open = start, indent < open.indent, !trimmed.isEmpty {
                    start = nil
                }
            }
        }
        expectNone(findings, "a function has at most 70 lines")
    }

    /// swift-format does not break string literals. Tests may have long lines for tables of data, and the SQL of landed migrations
    /// never changes.
    @Test func linesAreShort() {
        var findings: [String] = []
        for source in TidyTests.sources where !source.path.hasPrefix("Tests/") && !source.path.hasPrefix("Shared/Schema/Migration") {
            for (index, line) in source.lines.enumerated() where line.count > 140 { findings.append("\(source.path):\(index + 1)") }
        }
        expectNone(findings, "a line has at most 140 columns")
    }

    @Test func mainFilesAreThin() {
        let findings = TidyTests.sources.filter {
            $0.path.hasPrefix("Services/") && $0.path.hasSuffix("/main.swift") && $0.lines.count > 60
        }
        .map(\.path)
        expectNone(findings, "main.swift has under 60 lines")
    }

    // MARK: text

    @Test func theTreeIsCleanText() {
        var findings: [String] = []
        for path in TidyTests.tracked where !path.hasSuffix(".png") {
            guard let text = TidyTests.text(path) else {
                findings.append("\(path): no UTF-8")
                continue
            }
            if text.contains("\r") || text.contains("\t") && path.hasSuffix(".swift") { findings.append("\(path): tab or CR") }
            if text.contains("TO" + "DO") || text.contains("FIX" + "ME") { findings.append("\(path): unfinished") }
        }
        expectNone(findings, "text files are clean")
    }

    @Test func documentationLinksLeadSomewhere() {
        var findings: [String] = []
        for path in TidyTests.tracked where path.hasSuffix(".md") {
            guard let text = TidyTests.text(path) else { continue }
            for part in text.components(separatedBy: "](").dropFirst() {
                let target = part.prefix { $0 != ")" && $0 != "#" }
                if target.isEmpty || target.contains("://") { continue }
                let base = (TidyTests.root + "/" + path as NSString).deletingLastPathComponent
                if !FileManager.default.fileExists(atPath: base + "/" + target) { findings.append("\(path) → \(target)") }
            }
        }
        expectNone(findings, "links in documents lead to files")
    }

    @Test func buildProductsAreNotTracked() {
        let findings = TidyTests.tracked.filter { $0 == "Package.resolved" || $0.hasPrefix(".build") || $0.hasPrefix(".state") }
        expectNone(findings, "build products stay out")
    }
}
