package import Database
import JSON
package import Kernel

/// A field of a resource for clients: its value, its visibility, its filter and sort key.
package struct Field: Sendable {
    package enum Kind: Sendable {
        case text
        /// Numbers, written as PostgreSQL prints them.
        case number
        /// Floating-point numbers; whole ones have a decimal point: `16.0`.
        case decimal
        case boolean
        /// `json`/`jsonb` expressions; NULL becomes null.
        case json
        /// `timestamptz`, as `2026-01-31T12:34:56Z`.
        case timestamp
        /// `timestamptz`, as `2026-01-31T12:34:56.000000`.
        case timestampMicroseconds
        /// A `jsonb` object whose members are shown like fields, such as Image's properties. A member with the name of a field is
        /// hidden.
        case members
        /// `[{"rel": "self", "href": "…"}]`, a link to the row; the expression is not used.
        case links([Link])
        /// `{"self": "…"}`, a link to the row; the expression is not used.
        case linkMap([Link])
        /// `{"id": "…", "links": […]}`: another resource with the expression's id. NULL becomes the text `absent`.
        case reference([Link], absent: String? = nil)
        /// The same for an expression that is a JSON object with an `id`, whose other members follow the links.
        case extendedReference([Link], absent: String? = nil)
    }

    /// Whether responses contain the field.
    package enum Presence: Sendable {
        case always
        /// Omitted if the value is NULL.
        case whenSet
        /// Only for filters or sorting.
        case never
    }

    package let name: String
    package let kind: Kind
    /// SQL expression over the table's aliases.
    package let expression: String
    package private(set) var presence: Presence
    package private(set) var filter: Filter?
    /// SQL expression for sorting; nil if the field is not a sort key.
    package let sortExpression: String?
    package let versions: VersionRange
    /// The policy action required to see the field, and to filter or sort by it; nil for everyone who can see the row.
    package let visibleBy: String?
    /// The schema of a `json` expression in responses; nil for any value.
    package let shape: BodySchema?
    /// The column that requests set directly to the member's value; nil if a handler processes the value or nobody can set it.
    package let settable: String?

    package var sortable: Bool { sortExpression != nil }

    /// - Parameters:
    ///   - expression: `t.name` by default.
    ///   - sortable: whether the field is a sort key.
    ///   - sortedBy: another expression for sorting.
    ///   - isSettable: whether requests set the column of this name (`ResourceKind.settings`).
    package init(
        _ name: String, _ kind: Kind = .text, _ expression: String? = nil, presence: Presence = .always, filter: Filter? = nil,
        sortable: Bool = false, sortedBy: String? = nil, versions: VersionRange = .all, visibleBy: String? = nil,
        isSettable: Bool = false, shape: BodySchema? = nil
    ) {
        self.name = name
        self.kind = kind
        self.expression = expression ?? "t.\(name)"
        self.presence = presence
        self.filter = filter
        sortExpression = sortedBy ?? (sortable ? self.expression : nil)
        self.versions = versions
        self.visibleBy = visibleBy
        settable = isSettable ? name : nil
        self.shape = shape
    }

    /// A copy that is not shown.
    var hidden: Field {
        var field = self
        field.presence = .never
        return field
    }

    /// A copy by which lists are not filtered.
    var unfiltered: Field {
        var field = self
        field.filter = nil
        return field
    }

    /// Whether the caller of `context` may see the field's values.
    func isKnown(to context: RequestContext) -> Bool {
        versions.contains(context.version) && (visibleBy.map { context.allows($0) } ?? true)
    }
}

extension Field {
    /// The meaning of a list's query parameter.
    package struct Filter: Sendable {
        /// All values of one parameter in one request.
        package struct Request {
            package let name: String
            package let values: [String]
            package let context: RequestContext
            package let connection: Connection
        }

        enum Condition: Sendable {
            case equals
            case boolean
            case regex
            case each(@Sendable (String) throws -> SQL)
            case all(@Sendable (Request) throws -> SQL)
        }

        let condition: Condition
        /// Whether a value is compared with the text of the field's expression.
        package var comparesText: Bool { if case .equals = condition { true } else { false } }
        /// Whether the values are true and false.
        var comparesFlag: Bool { if case .boolean = condition { true } else { false } }
        /// Versions with the filter; nil for the versions with the field.
        private(set) var versions: VersionRange?
        /// The policy action that allows the filter in all versions; nil if it only depends on the version.
        private(set) var privilege: String?
        /// Versions that allow the parameter to be repeated.
        private(set) var repeatable = VersionRange.all

        private init(_ condition: Condition) { self.condition = condition }

        package static let equals = Filter(.equals)
        /// `true`/`false` and the other spellings (`BodySchema.boolean`).
        package static let boolean = Filter(.boolean)
        /// A regular expression, as for Compute's `name`; see `SearchPattern` for the accepted syntax.
        package static let regex = Filter(.regex)

        /// The SQL condition for a value.
        package static func custom(_ condition: @escaping @Sendable (String) throws -> SQL) -> Filter { Filter(.each(condition)) }

        /// The SQL condition for all values together. The closure runs inside the list's transaction.
        package static func all(_ condition: @escaping @Sendable (Request) throws -> SQL) -> Filter { Filter(.all(condition)) }

        /// The same filter from a version on, and repeatable from a later version on.
        package func from(_ version: Microversion, repeatableFrom later: Microversion? = nil) -> Filter {
            var filter = self
            filter.versions = VersionRange(from: version)
            if let later { filter.repeatable = VersionRange(from: later) }
            return filter
        }

        /// The same, and in all versions for callers whom policy allows `action`. From others the parameter has no effect
        /// in versions that do not have it.
        package func orAllowed(by action: String) -> Filter {
            var filter = self
            filter.privilege = action
            return filter
        }

        /// The same, only for callers whom policy allows `action`.
        package func onlyAllowed(by action: String) -> Filter {
            from(Microversion(Int.max, 0)).orAllowed(by: action)
        }

        /// The same filter, at most once per request.
        package var once: Filter {
            var filter = self
            filter.repeatable = VersionRange(from: Microversion(Int.max, 0))
            return filter
        }
    }
}

/// A link: `before`, the id, `after`.
package struct Link: Sendable {
    package let rel: String
    package let versions: VersionRange
    package let before: @Sendable (RequestContext) -> String
    package let after: String
    /// Whether the id may contain characters that must be escaped in a URL. UUIDs have none.
    package let escapesID: Bool

    /// - Parameter before: the text before the id; called once per response.
    package init(
        _ rel: String, after: String = "", versions: VersionRange = .all, escapesID: Bool = false,
        _ before: @escaping @Sendable (RequestContext) -> String
    ) {
        self.escapesID = escapesID
        self.rel = rel
        self.versions = versions
        self.before = before
        self.after = after
    }

    /// A link below the service's public URL.
    package static func absolute(_ rel: String, _ path: String) -> Link {
        Link(rel) { "\($0.publicURL)\(path)/" }
    }
    /// A link as a path, without scheme and host.
    package static func path(_ rel: String, _ path: String, after: String = "", versions: VersionRange = .all) -> Link {
        Link(rel, after: after, versions: versions) { _ in path + "/" }
    }
}
