import Database
import JSON
import Kernel

/// One kind of resource: what it is called, which rows there are, who sees which of them, and how they are shown.
///
/// Lists, show, look-ups, the answers to changes and the response schemas of the OpenAPI document follow from this value.
package struct ResourceKind: Sendable {
    /// How answers enclose a resource.
    package enum Envelope: Sendable {
        /// `{"network": {…}}`, and `{"networks": [{…}]}`
        case named
        /// `{…}`, and `{"images": [{…}]}`
        case bare
        /// `{…}`, and `{"inventories": {"VCPU": {…}}}` with the rows by their keys
        case keyed
    }

    /// Which rows a caller sees.
    package struct Visibility: Sendable {
        /// The SQL condition of them, in look-ups and lists.
        package let rows: @Sendable (RequestContext) throws -> SQL

        package init(_ rows: @escaping @Sendable (RequestContext) throws -> SQL) { self.rows = rows }

        /// All rows: the decision about the action is the only one.
        package static let everything = Visibility { _ in "TRUE" }

        /// Everything for those who may read what belongs to anybody, otherwise the project's own and what is shared with it.
        ///
        /// - Parameters:
        ///   - action: whose rule decides who may read everything.
        ///   - shared: rows that a project sees beside its own.
        ///   - all: the condition for both together; their disjunction where it is nil.
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

    /// `security_group`, as in bodies and actions.
    package let name: String
    /// `security_groups`, as in bodies.
    package let plural: String
    /// `security-groups`, as in paths.
    package let path: String
    package let table: Table
    /// The table's own name in the database.
    package let relation: String
    package let envelope: Envelope
    package let visibility: Visibility
    /// Further attributes for policy: name and SQL expression.
    package let targets: [(name: String, expression: String)]
    /// How clients write the query of a list. Names of filters come from the fields.
    package let grammar: ListGrammar
    package let pages: PageLinks
    package let notFound: @Sendable (String) -> ResourceError

    /// - Parameter notFound: the error for an id that no row has; a plain 404 where it is nil.
    package init(
        _ name: String, plural: String? = nil, path: String? = nil, table: Table, relation: String? = nil,
        envelope: Envelope = .named, visibility: Visibility, targets: [(name: String, expression: String)] = [],
        grammar: ListGrammar = ListGrammar(), pages: PageLinks = .none,
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
        self.notFound = notFound ?? { .notFound("No \(name) \($0.prefix(255)) was found.") }
    }

    package var readAction: String { "get_\(name)" }

    /// The same with more fields.
    package func adding(_ fields: [Field]) -> ResourceKind { with(table.adding(fields)) }

    /// A short form that shows only the fields with these names. Lists still filter and sort by the others.
    package func showing(_ names: Set<String>) -> ResourceKind { with(table.hiding { !names.contains($0) }) }

    /// A short form that shows all but the fields with these names. Lists still filter and sort by them.
    package func hiding(_ names: Set<String>) -> ResourceKind { with(table.hiding { names.contains($0) }) }

    private func with(_ table: Table) -> ResourceKind {
        ResourceKind(
            name, plural: plural, path: path, table: table, relation: relation, envelope: envelope,
            visibility: visibility, targets: targets, grammar: grammar, pages: pages, notFound: notFound)
    }

    /// What a body sets that needs no look: the values of settable fields by column.
    ///
    /// A column whose member is null gets its default. Which members a request may have, its body schema says.
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
