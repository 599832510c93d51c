import JSON
import Kernel

/// A statement with its bind values, built by interpolation: `"SELECT name FROM servers WHERE id = \(id)"`.
///
/// Interpolated values never become statement text. `\(raw:)` splices trusted text (a column list that the code
/// declares), and an interpolated `SQL` splices a fragment with its own binds.
package struct SQL: ExpressibleByStringInterpolation, Sendable {
    fileprivate enum Part: Sendable {
        case text(String)
        case bind(String?)
    }

    fileprivate var parts: [Part] = []

    package init(stringLiteral value: String) { parts = [.text(value)] }
    package init(stringInterpolation: StringInterpolation) { parts = stringInterpolation.parts }
    package init() {}

    /// Makes every interpolated value a bind value.
    package struct StringInterpolation: StringInterpolationProtocol {
        fileprivate var parts: [Part] = []

        package init(literalCapacity: Int, interpolationCount: Int) {
            parts.reserveCapacity(interpolationCount * 2 + 1)
        }

        package mutating func appendLiteral(_ literal: String) {
            if !literal.isEmpty { parts.append(.text(literal)) }
        }

        /// A bind value.
        package mutating func appendInterpolation(_ value: some SQLBindable) { parts.append(.bind(value.sqlText)) }
        /// A bind value; nil is NULL.
        package mutating func appendInterpolation(_ value: (some SQLBindable)?) { parts.append(.bind(value?.sqlText)) }
        /// A fragment with its own binds.
        package mutating func appendInterpolation(_ fragment: SQL) { parts.append(contentsOf: fragment.parts) }
        /// Trusted text, as it is: never what a client sent.
        package mutating func appendInterpolation(raw text: String) { parts.append(.text(text)) }
    }

    /// Fragments one after the other, with `separator` between them.
    package static func joined(_ fragments: [SQL], separator: String) -> SQL {
        var result = SQL()
        for (index, fragment) in fragments.enumerated() {
            if index > 0 { result.parts.append(.text(separator)) }
            result.parts.append(contentsOf: fragment.parts)
        }
        return result
    }

    /// Both, one after the other, with nothing between.
    package static func + (left: SQL, right: SQL) -> SQL {
        var result = left
        result.parts.append(contentsOf: right.parts)
        return result
    }

    /// The statement text with `$n` placeholders.
    package var text: String {
        var text = ""
        var number = 0
        for part in parts {
            switch part {
            case .text(let literal): text += literal
            case .bind:
                number += 1
                text += "$\(number)"
            }
        }
        return text
    }

    package var binds: [String?] {
        parts.compactMap { part -> String?? in if case .bind(let value) = part { .some(value) } else { nil } }
    }
}
