import Testing

/// Rules for names that no compiler checks.
@Suite struct NameTests {
    /// A type or type alias declared at module level in `Services/` or `Shared/`.
    struct Declaration: Sendable, Hashable {
        let name: String
        /// `Shared/Kernel`, `Services/Network/NetworkCore`.
        let module: String
    }

    /// Declarations start at the first column of a line, because the tree is formatted; nested types are indented and are
    /// named through their parent. A private declaration cannot be confused with one of another file.
    static func declarations(_ sources: [TidyTests.Source]) -> Set<Declaration> {
        var result: Set<Declaration> = []
        let kinds: Set<String> = ["struct", "class", "enum", "actor", "protocol", "typealias"]
        for source in sources where source.path.hasPrefix("Services/") || source.path.hasPrefix("Shared/") {
            let folders = source.path.split(separator: "/").dropLast()
            let module = folders.prefix(source.path.hasPrefix("Services/") ? 3 : 2).joined(separator: "/")
            for line in source.code where line.first?.isLetter == true {
                let words = line.split { !$0.isLetter && !$0.isNumber && $0 != "_" }.map(String.init)
                guard let kind = words.firstIndex(where: kinds.contains), kind + 1 < words.count else { continue }
                guard !words[..<kind].contains(where: { ["private", "fileprivate", "func", "let", "var", "extension"].contains($0) }) else {
                    continue
                }
                result.insert(Declaration(name: words[kind + 1], module: module))
            }
        }
        return result
    }

    @Test func noTwoModulesDeclareATypeOfOneName() {
        let declarations = NameTests.declarations(TidyTests.sources)
        #expect(declarations.count > 400)
        let twice = Dictionary(grouping: declarations, by: \.name).filter { $0.value.count > 1 }
        let findings = twice.map { "\($0.key): \($0.value.map(\.module).sorted().joined(separator: ", "))" }.sorted()
        #expect(findings.isEmpty, "a type name is declared in one module only: \(findings.joined(separator: "\n"))")
    }

    @Test func theRuleSeesTwins() {
        let sources = [
            TidyTests.Source(path: "Shared/A/One.swift", lines: ["package struct Port: Sendable {", "    struct Inner {}", "}"]),
            TidyTests.Source(path: "Services/B/BCore/Two.swift", lines: ["final class Port {", "    struct Inner {}", "}"]),
            TidyTests.Source(path: "Services/B/BService/Three.swift", lines: ["private struct Port {}", "extension Port {}"]),
        ]
        #expect(
            NameTests.declarations(sources) == [
                .init(name: "Port", module: "Shared/A"), .init(name: "Port", module: "Services/B/BCore"),
            ])
    }
}
