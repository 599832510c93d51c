import Foundation

/// Finds workflows without a test of `WorkflowChecks`. Such tests are functions whose names end in `UnderEveryDisturbance` and that
/// name the kinds of workflows, in their body or in their `arguments`.
package enum DisturbanceTests {
    /// - Parameters:
    ///   - kinds: the kinds of all workflows of a service.
    ///   - file: a source file in the directory of the service's tests.
    /// - Returns: the kinds that no such function names.
    /// - Throws: an error if the sources cannot be read.
    package static func missing(_ kinds: [String], file: String = #filePath) throws -> [String] {
        let directory = URL(fileURLWithPath: file).deletingLastPathComponent()
        let sources = try FileManager.default.contentsOfDirectory(at: directory, includingPropertiesForKeys: nil)
            .filter { $0.pathExtension == "swift" }
        let tests = try sources.flatMap { functions(try String(contentsOf: $0, encoding: .utf8)) }
        return kinds.filter { kind in !tests.contains { $0.contains("\"\(kind)\"") } }
    }

    /// The disturbance tests of a source, each from its `@Test` to its end.
    private static func functions(_ source: String) -> [String] {
        source.components(separatedBy: "\n    @Test").dropFirst().compactMap { text in
            guard let name = text.range(of: "func "), let open = text[name.upperBound...].firstIndex(of: "(") else { return nil }
            guard text[name.upperBound..<open].lowercased().hasSuffix("undereverydisturbance") else { return nil }
            let line = text[name.upperBound...].prefix { $0 != "\n" }
            let end = line.hasSuffix("}") ? line.endIndex : text.range(of: "\n    }\n")?.upperBound ?? text.endIndex
            return String(text[..<end])
        }
    }
}
