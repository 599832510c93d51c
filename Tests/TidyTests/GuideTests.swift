import Foundation
import Testing

/// The pages quote the example service, so that their code is tested.
@Suite struct GuideTests {
    /// The fragments that a source marks: `// guide: NAME`, its lines, `// guide: end`.
    private static func fragments(_ text: String) -> [String: String] {
        var found: [String: String] = [:]
        var name: String?
        var lines: [String] = []
        for line in text.components(separatedBy: "\n") {
            let trimmed = line.trimmingCharacters(in: .whitespaces)
            if trimmed == "// guide: end" {
                if let name { found[name] = dedented(lines) }
                name = nil
            } else if trimmed.hasPrefix("// guide: ") {
                name = String(trimmed.dropFirst("// guide: ".count))
                lines = []
            } else if name != nil {
                lines.append(line)
            }
        }
        return found
    }

    private static func dedented(_ lines: [String]) -> String {
        let indent = lines.filter { !$0.isEmpty }.map { $0.prefix { $0 == " " }.count }.min() ?? 0
        return lines.map { String($0.dropFirst(indent)) }.joined(separator: "\n")
    }

    @Test func thePagesQuoteTheExampleAsItIs() throws {
        var quoted: Set<String> = []
        for page in ["docs/add-a-service.md", "docs/add-a-resource.md"] {
            let text = try #require(TidyTests.text(page))
            for part in text.components(separatedBy: "<!-- Tests/Example/").dropFirst() {
                let head = part.components(separatedBy: " -->")[0].components(separatedBy: ": ")
                let fence = part.components(separatedBy: "```swift\n").dropFirst().first?.components(separatedBy: "\n```").first
                let source = try #require(TidyTests.text("Tests/Example/" + head[0]), "\(page) names \(head[0])")
                let fragment = GuideTests.fragments(source)[head[1]]
                #expect(fragment == fence, "\(page): the fragment \(head[1]) of \(head[0]) is another one")
                quoted.insert(head[0] + ": " + head[1])
            }
        }
        for path in TidyTests.tracked where path.hasPrefix("Tests/Example/") {
            let file = String(path.dropFirst("Tests/Example/".count))
            for name in GuideTests.fragments(TidyTests.text(path) ?? "").keys {
                #expect(quoted.contains(file + ": " + name), "no page quotes the fragment \(name) of \(file)")
            }
        }
    }

    /// The size of a service; blank lines, comments and imports do not count.
    @Test func theExampleStaysSmall() {
        let lines = TidyTests.sources.filter { $0.path.hasPrefix("Tests/Example/") && !$0.path.hasSuffix("Tests.swift") }.flatMap(\.lines)
            .map { $0.trimmingCharacters(in: .whitespaces) }
            .filter { !$0.isEmpty && !$0.hasPrefix("//") && !$0.hasPrefix("import ") && !$0.hasPrefix("@testable import ") }
        #expect(lines.count > 100 && lines.count <= 250, "\(lines.count) lines")
    }
}
