import Testing

/// Rules for names that no compiler checks.
@Suite struct NameTests {
    /// A type or type alias declared at the top of a file.
    struct Declaration: Sendable, Hashable {
        let name: String
        let path: String
    }

    /// Declarations start at the first column of a line, because the tree is formatted, some of them with an attribute such as
    /// `@Suite`. Nested types are indented and are named through their parent.
    static func declarations(_ sources: [TidyTests.Source]) -> Set<Declaration> {
        var result: Set<Declaration> = []
        let kinds: Set<String> = ["struct", "class", "enum", "actor", "protocol", "typealias"]
        for source in sources {
            for line in source.code where line.first?.isLetter == true || line.first == "@" {
                let words = line.split { !$0.isLetter && !$0.isNumber && $0 != "_" }.map(String.init)
                guard let kind = words.firstIndex(where: kinds.contains), kind + 1 < words.count else { continue }
                guard !words[..<kind].contains(where: { ["func", "let", "var", "extension", "import"].contains($0) }) else { continue }
                result.insert(Declaration(name: words[kind + 1], path: source.path))
            }
        }
        return result
    }

    /// Readers search for a name in the whole tree, so this holds for private types, for `osctl` and `bench`, and for tests as well.
    @Test func noTwoFilesDeclareATypeOfOneName() {
        let declarations = NameTests.declarations(TidyTests.sources)
        #expect(declarations.count > 1000)
        let places = Set(declarations.compactMap { $0.path.split(separator: "/").first })
        #expect(places.isSuperset(of: ["Services", "Shared", "osctl", "bench", "Tests"]))
        let twice = Dictionary(grouping: declarations, by: \.name).filter { $0.value.count > 1 }
        let findings = twice.map { "\($0.key): \($0.value.map(\.path).sorted().joined(separator: ", "))" }.sorted()
        #expect(findings.isEmpty, "a type name is declared once: \(findings.joined(separator: "\n"))")
    }

    @Test func theRuleFindsRepeatedNames() {
        let sources = [
            TidyTests.Source(path: "Shared/A/One.swift", lines: ["package struct Port: Sendable {", "    struct Inner {}", "}"]),
            TidyTests.Source(path: "osctl/Two.swift", lines: ["final class Port {", "    struct Inner {}", "}"]),
            TidyTests.Source(path: "bench/Three.swift", lines: ["private struct Port {}", "extension Port {}"]),
            TidyTests.Source(
                path: "Tests/Four.swift", lines: ["@Suite(.enabled(if: isRoot(), \"needs root\")) struct Port {", "@Suite enum Five {}"]),
        ]
        #expect(
            NameTests.declarations(sources) == [
                .init(name: "Port", path: "Shared/A/One.swift"), .init(name: "Port", path: "osctl/Two.swift"),
                .init(name: "Port", path: "bench/Three.swift"), .init(name: "Port", path: "Tests/Four.swift"),
                .init(name: "Five", path: "Tests/Four.swift"),
            ])
    }
}
