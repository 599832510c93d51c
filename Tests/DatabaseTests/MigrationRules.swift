import Foundation
import Schema

/// The statements allowed in each kind of migration: expanding ones must not break replicas of the previous release, and only
/// index migrations may contain statements that would otherwise block writes for long.
enum MigrationRules {
    /// The violations in a migration; empty if there are none.
    static func problems(_ migration: Migration) -> [String] {
        let statements = statements(migration.sql)
        switch migration.kind {
        case .contract: return []
        case .index:
            return statements.filter { !isConcurrentIndex($0) }
                .map { "an index migration holds only CREATE [UNIQUE] INDEX CONCURRENTLY IF NOT EXISTS name: \($0.prefix(80))" }
        case .expand:
            let created = Set(statements.compactMap(createdTable))
            return statements.flatMap { statement in problems(statement, created: created).map { "\($0): \(statement.prefix(100))" } }
        }
    }

    // MARK: statements

    private static func problems(_ statement: String, created: Set<String>) -> [String] {
        let words = statement.split { $0 == " " }.map(String.init)
        var found: [String] = []
        let isNewTable = table(words).map(created.contains) ?? false
        if words.first == "CREATE", words.contains("INDEX"), !isNewTable {
            found.append(
                words.contains("UNIQUE")
                    ? "a unique index narrows what older replicas may write (contract)"
                    : "an index on an existing table blocks writes (index)")
        }
        for word in ["DELETE", "TRUNCATE", "DO", "LOCK", "VACUUM", "CLUSTER", "REINDEX", "REVOKE"] where words.first == word {
            found.append("\(word) (contract)")
        }
        if words.first == "DROP" { found.append("DROP (contract)") }
        guard words.first == "ALTER" else { return found }
        if words.contains("RENAME") { found.append("RENAME (contract)") }
        guard words.dropFirst().first == "TABLE", !isNewTable else { return found }
        let actions = actions(words)
        for action in actions { found += problems(action: action, beside: actions) }
        return found
    }

    /// One action of ALTER TABLE.
    private static func problems(action: [String], beside actions: [[String]]) -> [String] {
        let text = action.joined(separator: " ")
        let isAddition = action.first == "ADD"
        let constraints = ["CONSTRAINT", "CHECK", "UNIQUE", "PRIMARY", "FOREIGN", "EXCLUDE"]
        if isAddition, let kind = action.dropFirst().first, constraints.contains(kind) {
            return text.hasSuffix("NOT VALID") ? [] : ["a constraint that is not NOT VALID (contract)"]
        }
        if isAddition { return columnProblems(text) }
        // A CHECK is widened by replacing it in one statement.
        if action.starts(with: ["DROP", "CONSTRAINT"]), let name = action.last,
            actions.contains(where: { $0.starts(with: ["ADD", "CONSTRAINT", name]) })
        {
            return []
        }
        if action.contains("DROP") { return ["DROP (contract)"] }
        if text.contains("SET NOT NULL") { return ["SET NOT NULL (contract)"] }
        if action.contains("TYPE") { return ["a column's TYPE (contract)"] }
        if action.first == "DISABLE" || text.hasPrefix("SET SCHEMA") { return ["\(text) (contract)"] }
        return []
    }

    private static func columnProblems(_ text: String) -> [String] {
        var found: [String] = []
        let words = Set(text.split { !$0.isLetter && $0 != "_" && !$0.isNumber }.map { $0.uppercased() })
        if text.contains("NOT NULL"), !words.contains("DEFAULT") {
            found.append("a new column that is NOT NULL without DEFAULT (contract)")
        }
        if text.contains("UNIQUE") || text.contains("PRIMARY KEY") {
            found.append("a unique column narrows what older replicas may write (contract)")
        }
        let rewriting: Set = ["SERIAL", "BIGSERIAL", "SMALLSERIAL", "GENERATED", "GEN_RANDOM_UUID", "RANDOM", "CLOCK_TIMESTAMP", "NEXTVAL"]
        if !words.isDisjoint(with: rewriting) {
            found.append("a new column whose values differ by row rewrites the table under its lock (contract)")
        }
        return found
    }

    /// Lists separated by commas outside of parentheses, without `ALTER TABLE [IF EXISTS] [ONLY] name`.
    private static func actions(_ words: [String]) -> [[String]] {
        let skipped = Set(["ALTER", "TABLE", "IF", "EXISTS", "ONLY"])
        let rest = words.drop { skipped.contains($0) }.dropFirst().joined(separator: " ")
        var (actions, depth, current) = ([String](), 0, "")
        for character in rest {
            if character == "(" { depth += 1 }
            if character == ")" { depth -= 1 }
            if character == ",", depth == 0 {
                actions.append(current)
                current = ""
            } else {
                current.append(character)
            }
        }
        return (actions + [current]).map { $0.split(separator: " ").map(String.init) }
    }

    private static func createdTable(_ statement: String) -> String? {
        let words = statement.split { $0 == " " || $0 == "(" }.map(String.init)
        guard words.starts(with: ["CREATE", "TABLE"]) else { return nil }
        return words.dropFirst(2).first { !["IF", "NOT", "EXISTS"].contains($0) }
    }

    /// The table of an ALTER TABLE or CREATE INDEX.
    private static func table(_ words: [String]) -> String? {
        if words.starts(with: ["ALTER", "TABLE"]) { return words.dropFirst(2).first { !["IF", "EXISTS", "ONLY"].contains($0) } }
        guard let on = words.firstIndex(of: "ON") else { return nil }
        return words.dropFirst(on + 1).first { $0 != "ONLY" }?.split(separator: "(").first.map(String.init)
    }

    private static func isConcurrentIndex(_ statement: String) -> Bool { Migration.indexName(statement) != nil }

    // MARK: text

    /// The statements with keywords in capitals and single spaces, without comments, string literals and function bodies.
    static func statements(_ sql: String) -> [String] {
        var (found, current) = ([String](), "")
        var rest = Substring(sql)
        func skip(past end: String) {
            if let range = rest.range(of: end) { rest = rest[range.upperBound...] } else { rest = "" }
        }
        while let character = rest.first {
            if rest.hasPrefix("--") {
                rest = rest.drop { $0 != "\n" }
            } else if rest.hasPrefix("/*") {
                skip(past: "*/")
            } else if character == "'" {
                rest = rest.dropFirst().drop { $0 != "'" }.dropFirst()
                current += "''"
            } else if character == "$", let tag = dollarTag(rest) {
                rest = rest.dropFirst(tag.count)
                skip(past: tag)
                current += " '' "
            } else {
                if character == ";" { found.append(current) } else { current.append(character) }
                if character == ";" { current = "" }
                rest = rest.dropFirst()
            }
        }
        found.append(current)
        return found.map(normal).filter { !$0.isEmpty }
    }

    private static func dollarTag(_ text: Substring) -> String? {
        let name = text.dropFirst().prefix { $0.isLetter || $0.isNumber || $0 == "_" }
        guard name.first?.isNumber != true, text.dropFirst(1 + name.count).first == "$" else { return nil }
        return "$\(name)$"
    }

    private static let keywords: Set = [
        "create", "unique", "index", "concurrently", "if", "not", "exists", "on", "only", "drop", "alter", "table", "rename", "add",
        "column",
        "constraint", "check", "primary", "key", "foreign", "references", "exclude", "set", "null", "default", "type", "valid", "disable",
        "delete", "truncate", "do", "lock", "vacuum", "cluster", "reindex", "revoke", "schema",
    ]

    private static func normal(_ statement: String) -> String {
        statement.split { $0.isWhitespace }.map { keywords.contains($0.lowercased()) ? $0.uppercased() : String($0) }.joined(separator: " ")
            .replacing("UNIQUE(", with: "UNIQUE (").replacing("CHECK(", with: "CHECK (").replacing("KEY(", with: "KEY (")
    }
}
