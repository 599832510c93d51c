/// An invariant of the cloud's data, as a query for its violations. Each service declares the inspections of its own data in its
/// Core module; `osctl doctor` collects them.
package struct Inspection: Sendable {
    /// The invariant's number in docs/reliability.md.
    package let invariant: String
    /// The rule that should hold.
    package let rule: String
    /// Selects `subject` (the affected resource; the same in repeated runs) and `words` (a description of the violation). `{now}`
    /// stands for the current time.
    package let query: String

    package init(_ invariant: String, _ rule: String, _ query: String) {
        self.invariant = invariant
        self.rule = rule
        self.query = query
    }

    /// Selects the subjects of active workflows, which may violate a rule temporarily.
    package static let busy = "SELECT subject_id FROM workflows WHERE finished_at IS NULL"
}

/// A violation of a rule.
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
