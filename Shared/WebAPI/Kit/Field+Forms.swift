package import Database
import Kernel

/// Columns with filters and sort keys, as in Network's lists.
extension Field {
    /// A `uuid` column, filtered through its index.
    package static func uuid(_ name: String, _ expression: String? = nil, filterable: Bool = true) -> Field {
        let column = expression ?? "t.\(name)"
        return Field(name, .text, column, filter: filterable ? .uuid(column) : nil, sortable: true)
    }

    /// Text with an equality filter.
    package static func text(_ name: String, _ expression: String? = nil, visibleBy: String? = nil, isSettable: Bool = false) -> Field {
        Field(name, .text, expression, filter: .equals, sortable: true, visibleBy: visibleBy, isSettable: isSettable)
    }

    /// An address; a filter may use any notation.
    package static func address(_ name: String) -> Field {
        Field(name, .text, filter: .custom { text in IPAddress(text).map { "t.\(raw: name) = \($0)" } ?? "FALSE" }, sortable: true)
    }

    /// A network in CIDR form; a filter may use any notation.
    package static func network(_ name: String) -> Field {
        Field(
            name, .text, filter: .custom { text in IPNetwork(text).map { "t.\(raw: name) = \($0.description)" } ?? "FALSE" },
            sortable: true)
    }

    /// A hardware address; a filter may use any notation.
    package static func mac(_ name: String) -> Field {
        Field(
            name, .text, filter: .custom { text in MACAddress(text).map { "t.\(raw: name) = \($0.description)" } ?? "FALSE" },
            sortable: true)
    }

    package static func flag(_ name: String, _ expression: String? = nil, isSettable: Bool = false) -> Field {
        Field(name, .boolean, expression, filter: .boolean, sortable: true, isSettable: isSettable)
    }

    package static func number(
        _ name: String, _ expression: String? = nil, visibleBy: String? = nil, isSettable: Bool = false
    ) -> Field {
        Field(name, .number, expression, filter: .equals, sortable: true, visibleBy: visibleBy, isSettable: isSettable)
    }

    // MARK: fields without a value in responses

    /// A filter without a field in responses.
    package static func filter(_ name: String, _ filter: Filter, visibleBy: String? = nil) -> Field {
        Field(name, .text, "NULL", presence: .never, filter: filter, visibleBy: visibleBy)
    }

    /// The same with a condition for each value.
    package static func filter(_ name: String, _ condition: @escaping @Sendable (String) throws -> SQL) -> Field {
        filter(name, .custom(condition))
    }

    /// A sort key without a field in responses.
    package static func sortKey(_ name: String, _ expression: String? = nil, filter: Filter? = nil) -> Field {
        Field(name, .text, expression, presence: .never, filter: filter, sortable: true)
    }
}

extension Field.Filter {
    /// Equality with a `uuid` column; a value that is not a UUID matches nothing.
    package static func uuid(_ column: String) -> Field.Filter {
        .custom { uuid(column, $0) }
    }

    /// The condition of `uuid` for one value.
    package static func uuid(_ column: String, _ value: some StringProtocol) -> SQL {
        UUID128(value).map { "\(raw: column) = \($0)" } ?? "FALSE"
    }
}
