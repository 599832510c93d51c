import Database
import Kernel

/// One rule that must hold over the whole cloud, as a query for what breaks it.
package struct Inspection: Sendable {
    /// The invariant's number in docs/reliability.md.
    package let invariant: String
    /// What should be so.
    package let rule: String
    /// Selects `subject` (what it is about, stable between two looks) and `words` (what is wrong). `{now}` stands for
    /// the time.
    private let query: String

    init(_ invariant: String, _ rule: String, _ query: String) {
        self.invariant = invariant
        self.rule = rule
        self.query = query
    }

    /// What breaks the rule now.
    ///
    /// - Parameter limit: at most so many.
    package func findings(_ connection: Connection, _ ambient: Ambient = Ambient(), limit: Int = 10_000) throws -> [Finding] {
        let parts = query.split(separator: "{now}", omittingEmptySubsequences: false).map { "\(raw: String($0))" as SQL }
        let statement = parts.dropFirst().reduce(parts[0]) { $0 + ambient.databaseNow + $1 }
        return try connection.query("\(statement) LIMIT \(limit)").map { row in
            Finding(
                invariant: invariant, rule: rule, subject: try row.string("subject"), words: try row.string("words"))
        }
    }
}

/// Something that breaks a rule.
package struct Finding: Sendable, Hashable {
    package let invariant: String
    package let rule: String
    package let subject: String
    package let words: String

    package init(invariant: String, rule: String, subject: String, words: String) {
        self.invariant = invariant
        self.rule = rule
        self.subject = subject
        self.words = words
    }
}
