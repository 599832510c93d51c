import Foundation
import Testing

/// Audit records contain the written values. The body of a request is not enough: it may contain ignored members and other spellings of a
/// value, and it lacks defaults.
@Suite struct AuditContentTests {
    private static let fromBody = Pattern(#"\blet (\w+) = [^\n]*\bcontext\.body\b(?:\[[^\]]*\])?(?:\?\.objectValue)?(?: \?\? \[:\])?$"#)

    /// The lines that record a member of the body, or the whole body.
    static func findings(_ source: TidyTests.Source) -> [String] {
        var bodies: Set<String> = []
        return source.lines.enumerated().compactMap { number, line in
            // Names are local to a function.
            if line.hasPrefix("    private func ") || line.hasPrefix("    func ") { bodies = [] }
            let text = IndexedText(line)
            for match in fromBody.matches(text) { bodies.insert(text.part(match[2], match[3])) }
            guard let start = line.range(of: "content: ") else { return nil }
            let words = line[start.upperBound...].split { !$0.isLetter && !$0.isNumber && $0 != "." }.map(String.init)
            let isFound = words.contains { $0.hasPrefix("context.body") || bodies.contains($0) }
            return isFound ? "\(source.path):\(number + 1): \(line.trimmingCharacters(in: .whitespaces))" : nil
        }
    }

    @Test func recordsHaveNoRequestBodies() {
        let sources = TidyTests.sources.filter { $0.path.hasPrefix("Services/") && $0.path.contains("Service/API/") }
        #expect(sources.count > 100)
        let findings = sources.flatMap(AuditContentTests.findings)
        #expect(findings.isEmpty, "an audit record of what was asked for:\n\(findings.joined(separator: "\n"))")
    }

    @Test(arguments: [
        ("let body = context.body[\"server\"] ?? [:]", "content: body)", true),
        ("let set = context.body[\"quota_set\"]?.objectValue ?? [:]", "content: .object(set))", true),
        ("let body = context.body[\"rebuild\"] ?? [:]", "content: [\"image\": body[\"imageRef\"] ?? .null])", true),
        ("", "content: context.body)", true),
        ("let set = context.body[\"quota_set\"]?.objectValue ?? [:]", "content: .object(written))", false),
        ("let host = context.body[\"host\"]?.stringValue", "content: [\"host\": JSONValue(host)])", false),
    ])
    func theRuleSeesBodies(declaration: String, use: String, isFound: Bool) {
        let lines = [
            "    private func change() {", "        \(declaration)", "        return Change(response, \"thing\", id, \(use)", "    }",
        ]
        let source = TidyTests.Source(path: "Things.swift", lines: lines)
        #expect(AuditContentTests.findings(source).isEmpty == !isFound)
    }
}
