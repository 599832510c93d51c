import Foundation
import Kernel
import Testing

/// The list of releases, the changelog and the version of this build must agree.
@Suite struct ReleaseTests {
    private struct Release {
        let version: String
        let commit: String
        let date: String
    }

    private static func lines(_ path: String) throws -> [String] {
        try String(contentsOfFile: TidyTests.root + "/" + path, encoding: .utf8).components(separatedBy: "\n")
    }

    private static func releases() throws -> [Release] {
        try lines("deploy/releases").filter { !$0.isEmpty && !$0.hasPrefix("#") }.map { line in
            let words = line.split(separator: " ").map(String.init)
            try #require(words.count == 3, "version, commit and date: \(line)")
            return Release(version: words[0], commit: words[1], date: words[2])
        }
    }

    /// The three numbers of a version; nil for anything else.
    private static func numbers(_ version: String) -> [Int]? {
        let numbers = version.split(separator: ".", omittingEmptySubsequences: false).map { Int($0) }
        return numbers.count == 3 ? numbers.compactMap(\.self).count == 3 ? numbers.compactMap(\.self) : nil : nil
    }

    @Test func releasesAreRecordedInOrder() throws {
        let releases = try Self.releases()
        #expect(releases.first?.version == "0.1.0")
        for release in releases {
            #expect(release.commit.count == 40 && release.commit.allSatisfy(\.isHexDigit), "\(release)")
            #expect(Self.numbers(release.version) != nil, "\(release)")
        }
        let versions = releases.compactMap { Self.numbers($0.version) }
        #expect(zip(versions, versions.dropFirst()).allSatisfy { $0.lexicographicallyPrecedes($1) })
    }

    @Test func thisBuildIsNewerThanTheLastRelease() throws {
        let current = WolkeVersion.current
        let number = try #require(Self.numbers(current.hasSuffix("-dev") ? String(current.dropLast(4)) : current))
        let last = try #require(try Self.releases().last.flatMap { Self.numbers($0.version) })
        #expect(last.lexicographicallyPrecedes(number), "\(current) must come after the last line of deploy/releases")
    }

    @Test func theChangelogHasEveryRelease() throws {
        let headings = try Self.lines("CHANGELOG.md").filter { $0.hasPrefix("## ") }
        var expected = try Self.releases().reversed().map { "## [\($0.version)] - \($0.date)" }
        let current = WolkeVersion.current
        if !current.hasSuffix("-dev") { expected.insert("## [\(current)]", at: 0) }
        expected.insert("## [Unreleased]", at: 0)
        #expect(headings.count == expected.count && zip(headings, expected).allSatisfy { $0.hasPrefix($1) }, "\(headings)")
    }

    @Test func theVersionIsWrittenInOnePlace() {
        let findings = TidyTests.sources.filter { !$0.isTest && !$0.path.hasSuffix("/WolkeVersion.swift") }
            .filter { source in source.lines.contains { $0.contains("\"\(WolkeVersion.current)") } }.map(\.path)
        #expect(findings == [])
    }
}
