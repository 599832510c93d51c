import Database
import Foundation
import JSON
import Kernel
import WebAPI

/// Filters of lists on texts and flags, as Keystone's clients write them.
enum TextFilter {
    /// Inexact comparisons of texts: `name__icontains=part`.
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

    /// An empty value selects rows without a value.
    static func equals(_ column: String, _ value: String) -> SQL {
        value.isEmpty ? "coalesce(\(raw: column), '') = ''" : "\(raw: column) = \(value)"
    }

    /// The condition of a query parameter on one of some columns; nil if it is on none.
    static func condition(_ name: String, _ value: String, on columns: Set<String>) -> SQL? {
        if columns.contains(name) { return equals(name, value) }
        guard let separator = name.range(of: "__"), columns.contains(String(name[..<separator.lowerBound])) else { return nil }
        return Comparison(rawValue: String(name[separator.upperBound...]))?.condition(String(name[..<separator.lowerBound]), value)
    }

    /// `enabled` without a value means true.
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

/// Filters of lists on times.
enum TimeFilter {
    /// `lt:2026-01-31T12:00:00Z`.
    private enum Comparison: String, CaseIterable {
        case lt, lte, gt, gte, eq, neq

        var sql: String {
            switch self {
            case .lt: "<"
            case .lte: "<="
            case .gt: ">"
            case .gte: ">="
            case .eq: "="
            case .neq: "<>"
            }
        }
    }

    /// Compares a column with a time; without an operator both must be equal. Rows without a time never match, as in Keystone.
    ///
    /// - Throws: 400 for an unknown operator or an invalid time.
    static func condition(_ name: String, _ column: String, _ value: String) throws -> SQL {
        let parts = value.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        // Times begin with a digit.
        let hasOperator = parts.count == 2 && parts[0].first?.isNumber != true
        guard let comparison = hasOperator ? Comparison(rawValue: parts[0]) : .eq else {
            throw refusal(name, value, "Its operator must be one of \(Comparison.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        guard let time = Timestamp(hasOperator ? parts[1] : value) else {
            throw refusal(name, value, "It must be a time in ISO 8601 with an optional operator, for example lt:2026-01-31T12:00:00Z")
        }
        return "\(raw: column) \(raw: comparison.sql) \(time)"
    }

    private static func refusal(_ name: String, _ value: String, _ rule: String) -> ResourceError {
        .badRequest("Invalid input for query parameter \(name). Value: '\(value.prefix(64))'. \(rule).")
    }
}

extension RequestContext {
    /// `links` of a list without pages.
    var wholeListLinks: JSONValue { ["self": .string(selfLink), "next": nil, "previous": nil] }
}
