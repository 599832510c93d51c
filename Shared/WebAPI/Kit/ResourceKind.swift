import Authorization
package import Database
package import JSON
package import Kernel

/// A kind of resource: its names, its rows, their visibility, and their representation.
///
/// Lists, show, look-ups, the responses to changes and the response schemas of the OpenAPI document are derived from this value.
package struct ResourceKind: Sendable {
    /// How responses wrap a resource.
    package enum Envelope: Sendable {
        /// `{"network": {…}}`, and `{"networks": [{…}]}`
        case named
        /// `{…}`, and `{"images": [{…}]}`
        case bare
        /// `{…}`, and `{"inventories": {"VCPU": {…}}}` with the rows by key
        case keyed
        /// `{"keypair": {…}}`, and `{"keypairs": [{"keypair": {…}}]}`
        case nested
    }

    /// The rows that a caller can see.
    package struct Visibility: Sendable {
        /// The SQL condition for visible rows, in look-ups and lists.
        package let rows: @Sendable (RequestContext) throws -> SQL

        package init(_ rows: @escaping @Sendable (RequestContext) throws -> SQL) { self.rows = rows }

        /// All rows are visible; only the decision about the action counts.
        package static let everything = Visibility { _ in "TRUE" }

        /// All rows for callers who may read resources of any project, otherwise the project's own and those shared with it.
        ///
        /// - Parameters:
        ///   - action: its rule decides who may read everything.
        ///   - shared: rows of other projects that a project can see.
        ///   - all: the condition for own and shared rows together; nil for their disjunction.
        package static func owned(
            readableBy action: String, shared: @escaping @Sendable (_ project: String) -> SQL = { _ in "FALSE" },
            all: (@Sendable (_ project: String) -> SQL)? = nil
        ) -> Visibility {
            Visibility { context in
                if context.allows(action) { return "TRUE" }
                guard let project = try context.caller.projectID else { return "FALSE" }
                return all?(project) ?? "(t.project_id = \(project) OR \(shared(project)))"
            }
        }
    }

    /// `security_group`, in bodies and actions.
    package let name: String
    /// `security_groups`, in bodies.
    package let plural: String
    /// `security-groups`, in paths.
    package let path: String
    package let table: Table
    /// The name of the database table.
    package let relation: String
    package let envelope: Envelope
    package let visibility: Visibility
    /// Additional policy attributes: name and SQL expression.
    package let targets: [(name: String, expression: String)]
    /// The syntax of list queries. The names of filters come from the fields.
    package let grammar: ListGrammar
    package let pages: PageLinks
    /// The approximate size of a row in a response, reserved for lists.
    package let bytesPerRow: Int
    package let notFound: @Sendable (String) -> ResourceError

    /// - Parameter notFound: the error for an unknown id; nil for a plain 404.
    package init(
        _ name: String, plural: String? = nil, path: String? = nil, table: Table, relation: String? = nil,
        envelope: Envelope = .named, visibility: Visibility, targets: [(name: String, expression: String)] = [],
        grammar: ListGrammar = ListGrammar(), pages: PageLinks = .none, bytesPerRow: Int = 768,
        notFound: (@Sendable (String) -> ResourceError)? = nil
    ) {
        self.name = name
        self.plural = plural ?? name + "s"
        self.path = path ?? self.plural
        self.table = table
        self.relation = relation ?? self.plural
        self.envelope = envelope
        self.visibility = visibility
        self.targets = targets
        self.grammar = grammar
        self.pages = pages
        self.bytesPerRow = bytesPerRow
        self.notFound = notFound ?? { .notFound("No \(name) \($0.prefix(255)) was found.") }
    }

    package var readAction: String { "get_\(name)" }

    /// A copy with additional fields.
    package func adding(_ fields: [Field]) -> ResourceKind { with(table.adding(fields)) }

    /// A short form that shows only the fields with these names. Lists still filter and sort by the others.
    package func showing(_ names: Set<String>) -> ResourceKind { with(table.hiding { !names.contains($0) }) }

    /// A short form that shows all but the fields with these names. Lists still filter and sort by them.
    package func hiding(_ names: Set<String>) -> ResourceKind { with(table.hiding { names.contains($0) }) }

    private func with(_ table: Table) -> ResourceKind {
        // Responses with fewer fields are shorter.
        let share = min(Double(table.shownCount) / Double(max(self.table.shownCount, 1)), 1)
        return ResourceKind(
            name, plural: plural, path: path, table: table, relation: relation, envelope: envelope,
            visibility: visibility, targets: targets, grammar: grammar, pages: pages,
            bytesPerRow: max(256, Int(Double(bytesPerRow) * share)), notFound: notFound)
    }

    /// The values of settable fields in a body, by column.
    ///
    /// A column whose member is null gets its default. The body schema decides which members a request may have.
    package func settings(_ body: JSONObject) -> [Setting] {
        table.fields.compactMap { field in
            guard let column = field.settable, let value = body[field.name] else { return nil }
            return Setting(column, value, isJSON: field.isJSON)
        }
    }
}

extension Field {
    var isJSON: Bool { if case .json = kind { true } else { false } }
}
