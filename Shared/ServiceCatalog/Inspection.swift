/// One rule that must hold over the data of the cloud, as a query for what breaks it. Each service has those about its own
/// data in its Core module; `osctl doctor` collects them.
package struct Inspection: Sendable {
    /// The invariant's number in docs/reliability.md.
    package let invariant: String
    /// What should be so.
    package let rule: String
    /// Selects `subject` (what it is about, stable between two looks) and `words` (what is wrong). `{now}` stands for
    /// the time.
    package let query: String

    package init(_ invariant: String, _ rule: String, _ query: String) {
        self.invariant = invariant
        self.rule = rule
        self.query = query
    }

    /// Selects the subjects that a workflow works on: what it touches may break a rule for a while.
    package static let busy = "SELECT subject_id FROM workflows WHERE finished_at IS NULL"
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
