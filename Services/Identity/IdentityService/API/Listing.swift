import Database
import Foundation
import JSON
import Kernel
import WebAPI

/// Filters of lists on texts and flags, as Keystone's clients write them.
enum TextFilter {
    /// How a text is compared other than exactly: `name__icontains=part`.
    enum Comparison: String, CaseIterable, Sendable {
        case contains, startswith, endswith, icontains, istartswith, iendswith

        func condition(_ column: String, _ value: String) -> SQL {
            var escaped = ""
            for character in value {
                if character == "%" || character == "_" || character == "\\" { escaped.append("\\") }
                escaped.append(character)
            }
            switch self {
            case .contains: return "\(raw: column) LIKE \("%\(escaped)%")"
            case .startswith: return "\(raw: column) LIKE \("\(escaped)%")"
            case .endswith: return "\(raw: column) LIKE \("%\(escaped)")"
            case .icontains: return "\(raw: column) ILIKE \("%\(escaped)%")"
            case .istartswith: return "\(raw: column) ILIKE \("\(escaped)%")"
            case .iendswith: return "\(raw: column) ILIKE \("%\(escaped)")"
            }
        }
    }

    /// An empty value is for rows that have none.
    static func equals(_ column: String, _ value: String) -> SQL {
        value.isEmpty ? "coalesce(\(raw: column), '') = ''" : "\(raw: column) = \(value)"
    }

    /// The condition of a query parameter on one of some columns; nil if it is on none.
    static func condition(_ name: String, _ value: String, on columns: Set<String>) -> SQL? {
        if columns.contains(name) { return equals(name, value) }
        guard let separator = name.range(of: "__"), columns.contains(String(name[..<separator.lowerBound])) else { return nil }
        return Comparison(rawValue: String(name[separator.upperBound...]))?.condition(String(name[..<separator.lowerBound]), value)
    }

    /// `enabled` without a value is for true.
    static func flag(_ name: String, _ column: String, _ value: String) throws -> SQL {
        guard let flag = value.isEmpty ? true : BodySchema.boolean(value) else {
            throw ResourceError.badRequest(
                "Invalid input for query parameter \(name). Value: '\(value.prefix(64))'. It must be true or false.")
        }
        return "\(raw: column) = \(flag)"
    }

    /// Whether a parameter has the form of a comparison.
    static func isComparison(_ name: String) -> Bool { name.contains("__") }

    static func unknown(_ name: String) -> ResourceError {
        .badRequest(
            """
            Invalid query parameter '\(name.prefix(64))': texts are compared by contains, startswith and endswith, \
            or these with an i before.
            """
        )
    }
}

extension RequestContext {
    /// `links` of a list that does not come in pages.
    var wholeListLinks: JSONValue { ["self": .string(selfLink), "next": nil, "previous": nil] }
}
