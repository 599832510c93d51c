import JSON
package import Kernel

/// A statement with its bind values, built by interpolation: `"SELECT name FROM servers WHERE id = \(id)"`.
///
/// Interpolated values never become statement text. `\(raw:)` splices trusted text (a column list that the code
/// declares), and an interpolated `SQL` splices a fragment with its own binds.
package struct SQL: ExpressibleByStringInterpolation, Sendable {
    fileprivate enum Part: Sendable {
        case text(String)
        case bind(SQLBind)
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
        package mutating func appendInterpolation(_ value: some SQLBindable) { parts.append(.bind(value.sqlBind)) }
        /// A bind value; nil is NULL.
        package mutating func appendInterpolation(_ value: (some SQLBindable)?) { parts.append(.bind(value?.sqlBind ?? .text(nil))) }
        /// A fragment with its own binds.
        package mutating func appendInterpolation(_ fragment: SQL) { parts.append(contentsOf: fragment.parts) }
        /// `= ANY` of these, or `=` for a single one. For an array PostgreSQL's generic plan assumes ten elements; if a custom plan for
        /// fewer elements is cheaper, it plans the statement again each time instead of using the cached plan.
        package mutating func appendInterpolation(anyOf ids: [UUID128]) {
            if ids.count == 1 { appendInterpolation("= \(ids[0])" as SQL) } else { appendInterpolation("= ANY(\(ids)::uuid[])" as SQL) }
        }
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
            case .bind(let value):
                number += 1
                text += "$\(number)"
                // Binary values are valid for one type only, so the cast is explicit.
                if case .uuids = value { text += "::uuid[]" }
            }
        }
        return text
    }

    /// The values of the placeholders, in their order.
    package var binds: [SQLBind] {
        parts.compactMap { part in if case .bind(let value) = part { value } else { nil } }
    }
}

/// A bind value as it is sent.
package enum SQLBind: Sendable, Hashable {
    /// Text whose type follows from the context; nil is NULL.
    case text(String?)
    /// PostgreSQL's binary form of a `uuid[]`: a third of its text, and copied where text is parsed.
    case uuids([UInt8])

    package init(uuids: [UUID128]) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(20 + 20 * uuids.count)
        func append(_ number: some FixedWidthInteger) { withUnsafeBytes(of: number.bigEndian) { bytes.append(contentsOf: $0) } }
        append(Int32(uuids.isEmpty ? 0 : 1))  // dimensions
        append(Int32(0))  // no NULL among them
        append(Int32(2950))  // the type of an element, uuid
        if !uuids.isEmpty {
            append(Int32(uuids.count))
            append(Int32(1))  // the index of the first
        }
        for uuid in uuids {
            append(Int32(16))
            append(uuid.high)
            append(uuid.low)
        }
        self = .uuids(bytes)
    }
}
