import Database

/// One rule that must hold over the whole cloud, as a query for what breaks it.
struct Inspection: Sendable {
    /// The invariant's number in docs/reliability.md.
    let invariant: String
    /// What should be so.
    let rule: String
    /// Selects `subject` (what it is about, stable between two looks) and `words` (what is wrong).
    let query: String

    init(_ invariant: String, _ rule: String, _ query: String) {
        self.invariant = invariant
        self.rule = rule
        self.query = query
    }

    func findings(_ connection: Connection) throws -> [Finding] {
        try connection.query("\(raw: query)").map { row in
            Finding(
                invariant: invariant, rule: rule, subject: try row.string("subject"), words: try row.string("words"))
        }
    }
}

/// Something that breaks a rule.
struct Finding: Sendable, Hashable {
    let invariant: String
    let rule: String
    let subject: String
    let words: String
}
