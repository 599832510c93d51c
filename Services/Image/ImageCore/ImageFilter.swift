package import Kernel

/// The value of a filter that takes operators: `in:a,b`, `gt:2026-01-01T00:00:00Z`, or a plain value.
package enum ImageFilter: Sendable, Hashable {
    case equals(String)
    case oneOf([String])
    case compared(Comparison, String)

    /// The supported operators before the colon.
    package enum Comparison: String, Sendable, CaseIterable {
        case gt, gte, lt, lte, eq, neq

        package var sql: String {
            switch self {
            case .gt: ">"
            case .gte: ">="
            case .lt: "<"
            case .lte: "<="
            case .eq: "="
            case .neq: "<>"
            }
        }
    }

    /// Maximum number of values in `in:`.
    package static let alternativesMax = 1000

    /// Parses a value that may be a list: `in:a,"b,c"`.
    ///
    /// - Throws: 400 for an unknown operator, an unclosed quote or too many values.
    package static func list(_ text: String, name: String) throws -> ImageFilter {
        guard text.hasPrefix("in:") else { return .equals(text) }
        let items = try split(text.dropFirst(3), name: name)
        guard items.count <= alternativesMax else {
            throw ResourceError.badRequest("Filter '\(name)' lists more than \(alternativesMax) values.")
        }
        return .oneOf(items)
    }

    /// Parses a time with an optional operator.
    ///
    /// - Throws: 400 for an unknown operator or an invalid time.
    package static func time(_ text: String, name: String) throws -> ImageFilter {
        var comparison = Comparison.eq
        var value = text[...]
        if let colon = text.firstIndex(of: ":"), let word = Comparison(rawValue: String(text[..<colon])) {
            comparison = word
            value = text[text.index(after: colon)...]
        }
        guard let time = Timestamp(value) else {
            throw ResourceError.badRequest("Invalid time value '\(text.prefix(64))' for filter '\(name)'.")
        }
        return .compared(comparison, time.postgresql)
    }

    /// - Throws: 400 for a value other than true and false.
    package static func boolean(_ value: String, name: String) throws -> Bool {
        switch value.lowercased() {
        case "true": return true
        case "false": return false
        default: throw invalid(name, value, "true or false")
        }
    }

    /// - Throws: 400 for a value that is not a whole number of at least 0.
    package static func number(_ value: String, name: String) throws -> Int {
        guard let number = Int(value), number >= 0 else { throw invalid(name, value, "a whole number from 0 on") }
        return number
    }

    package static func invalid(_ name: String, _ value: String, _ rule: String) -> ResourceError {
        .badRequest("Invalid value '\(value.prefix(64))' for '\(name)'. It must be \(rule).")
    }

    /// Values are separated by commas, may be quoted with double quotes, and a backslash escapes the next character.
    private static func split(_ text: Substring, name: String) throws -> [String] {
        var items: [String] = []
        var item = ""
        var quoted = false
        var escaped = false
        for character in text {
            if escaped {
                item.append(character)
                escaped = false
            } else if character == "\\", quoted {
                escaped = true
            } else if character == "\"" {
                quoted.toggle()
            } else if character == ",", !quoted {
                items.append(item)
                item = ""
            } else {
                item.append(character)
            }
        }
        guard !quoted, !escaped else {
            throw ResourceError.badRequest("Invalid filter value \(text.prefix(64)) for '\(name)': the quote is not closed.")
        }
        items.append(item)
        return items.filter { !$0.isEmpty }
    }
}
