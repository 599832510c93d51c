import Database
import Kernel
import Synchronization
import TestKit
import Testing
@testable import WebAPI

@Suite struct SearchPatternTests {
    /// Patterns that are refused, each for another reason.
    private static let refused = [
        #"^(.+)(.+)(.+)\1\2\3$"#, #"(a)\1"#, #"(?=a)a"#, #"(?!a)b"#, #"(?<=a)b"#, #"(?<!a)b"#, "(?i)abc", "***=a", "***:a",
        "*a", "+a", "?a", "a**", "a{2}{3}", "a{2}*", "a+{3}", "^*", "(a", "a)", "[a", "[", "a\\", "[z-a]", "[a-", "a{3,2}", "a{256}",
        "a{1,256}", "a{0,99999999999}",
        "a{1", "a{1,", "a{1,b}", "{1}a", "(((((((((a)))))))))", "((a{100}){100})", "(a{1,200}){1,200}", "((((a{10}){10}){10}){10})",
        "(.{1,250}){1,250}", "(a|b|c|d|e){250}", "[[.a.]]", "[[=a=]]", "[[:nope:]]", "[\\1]", "\\x41", "\\u0041", "\\cA", "\\0", "\\e",
        String(repeating: "a", count: 256), String(repeating: "(", count: 200),
    ]

    @Test("S18: catastrophic and invalid patterns are refused with a 400 that names the filter", arguments: refused)
    func s18EvilPatternsAreRefused(_ text: String) {
        do {
            _ = try SearchPattern(text, parameter: "name")
            Issue.record("accepted: \(text)")
        } catch let error as ResourceError {
            #expect(error.code == .badRequest)
            #expect(error.message.contains("'name'"))
        } catch { Issue.record("\(error)") }
    }

    /// The worst patterns that are accepted.
    private static let accepted = [
        "(a+)+$", "(a|aa)+$", "(a*)*b", "((a*)*)*b", "(.*.*.*.*)x", "^(.+)(.+)(.+)(.+)(.+)$", "(a|b)*a(a|b){150}", "(.*a){50}",
        "a{0,255}a{0,255}a{0,255}", "(a?){150}a{150}", "(x+x+)+y", "((((((((a*)*)*)*)*)*)*)*)", "(a{1,30}){1,30}", "(.{0,30}){30}",
        "(a|b|ab|ba|aab|aba){40}", "[[:alpha:]]{200}[^a-f]{200}", String(repeating: "(a|", count: 8) + String(repeating: "b)", count: 8),
        String(repeating: ".*", count: 127), String(repeating: "a?", count: 127), String(repeating: "a|", count: 127) + "a",
        String(repeating: "(.+)", count: 60), "(a+|b+|c+)*(a+|b+|c+)*(a+|b+|c+)*d", #"\m(\w+\W*)+\M\Z"#,
    ]

    /// Accepted patterns are compiled and matched against the worst texts within the time limit of one statement. The limit is a
    /// hundred times the measured time; a catastrophic pattern takes much longer.
    @Test("S18: accepted patterns are matched within the limit", arguments: accepted)
    func s18AcceptedPatternsAreFast(_ text: String) async throws {
        let condition = try SearchPattern(text, parameter: "name").condition("v.name")
        try await TestDatabase.with { test in
            var configuration = DatabaseConfiguration(connectionString: test.connectionString, connectionsMax: 1)
            configuration.plane = .init(statement: .seconds(3), lock: nil)
            let database = Database(configuration)
            defer { database.close() }
            try await database.read { connection in
                _ = try connection.query(
                    """
                    WITH v AS (
                        SELECT repeat(unit, 255 / length(unit)) || tail AS name
                        FROM unnest(ARRAY['a', 'ab', 'aab', 'x', 'abcdefghij']) unit, unnest(ARRAY['', 'b', '!', 'xyz']) tail,
                            generate_series(1, 10)
                    ) SELECT count(*) AS n FROM v WHERE \(condition)
                    """)
            }
        }
    }

    @Test func matchesAgreeWithPostgreSQL() async throws {
        let patterns = [
            "web", "^web", "web$", "^web$", "^", "$", "", "w.b", "web-[0-9]+", "(a|b)c", #"a\.b"#, "a.b", "^(?:web|db)-\\d{1,3}$", "[^a]",
            "[]a]", "[a-c-]",
            "{", "a{", "a{x", "}", "]", "ü", "^ü$", "[[:digit:]]", "a+?", "WEB", "%", "_", #"\\"#, "-", "a|b|", "(|a)", "[a\\-z]",
        ]
        let names = [
            "web", "web-1", "my web", "webs", "WEB", "a.b", "axb", "ac", "bc", "", "{", "a{x}", "ü", "xüx", "100%", "a_b", #"a\b"#, "]",
            "db-22", "-",
            "a-z",
        ]
        try await TestDatabase.with { test in
            for pattern in patterns {
                let condition = try SearchPattern(pattern, parameter: "name").condition("n")
                let rows = try await test.database.read { connection in
                    try connection.query(
                        """
                        SELECT n, (\(condition)) AS ours, n ~ \(pattern) AS theirs FROM unnest(\(names)::text[]) n
                        """
                    ).map { (try $0.string("n"), try $0.bool("ours"), try $0.bool("theirs")) }
                }
                for (name, ours, theirs) in rows { #expect(ours == theirs, "\(pattern) on \(name)") }
            }
        }
    }

    /// An accepted pattern never fails in PostgreSQL.
    @Test("S18: random patterns are refused with 400 or matched, and never cause a database error")
    func s18RandomPatterns() async throws {
        let random = SeededRandom(seed: 11)
        let pieces = [
            "a", "b", ".", "*", "+", "?", "{2}", "{1,3}", "{2,}", "(", ")", "(?:", "|", "[", "]", "[a-c]", "[^", "^", "$", "\\", "\\d",
            "\\.", "-",
            "{", "}", "\\Z", "[[:alpha:]]", "ü", ":", ",", "1",
        ]
        let patterns = (0..<4000).map { _ in (0...random.below(9)).map { _ in pieces[random.below(pieces.count)] }.joined() }
        try await TestDatabase.with { test in
            let matched = try await test.database.read { connection in
                var matched = 0
                for text in patterns {
                    let pattern: SearchPattern
                    do { pattern = try SearchPattern(text, parameter: "name") } catch { continue }
                    do {
                        _ = try connection.query("SELECT \(pattern.condition("n")) AS fits FROM unnest(ARRAY['abcabc', '', 'ü']) n")
                        matched += 1
                    } catch { Issue.record("\(text): \(error)") }
                }
                return matched
            }
            #expect(matched > 200)
        }
    }

    @Test("S18: a pattern of access rules with many ** is matched in time linear in the path")
    func s18AccessRulesDoNotExplode() {
        let path = "/v2.1/" + String(repeating: "a/", count: 2000)
        #expect(!AccessRules.matches("/v2.1" + String(repeating: "/**/a", count: 100) + "/b", path))
        for (pattern, path, fits) in [
            ("/v2.1/servers", "/v2.1/servers", true), ("/v2.1/*", "/v2.1/servers", true), ("/v2.1/*", "/v2.1/servers/x", false),
            ("/v2.1/**", "/v2.1", true), ("/**/x", "/a/b/x", true), ("/**/x", "/a/b/y", false), ("/{id}/x", "/a/x", true),
            ("/**", "/", true), ("", "/a", false), ("/a/**/b/**/c", "/a/1/b/2/3/c", true), ("/a/**/b", "/a/b/c", false),
        ] { #expect(AccessRules.matches(pattern, path) == fits, "\(pattern) \(path)") }
    }
}
