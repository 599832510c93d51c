import Kernel

/// A JSON document (RFC 8259). Object members keep their order; a repeated name is a parse error.
package enum JSONValue: Sendable, Hashable {
    case null
    case bool(Bool)
    case integer(Int64)
    case double(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    package var stringValue: String? { if case .string(let value) = self { value } else { nil } }
    package var boolValue: Bool? { if case .bool(let value) = self { value } else { nil } }
    package var arrayValue: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
    package var objectValue: JSONObject? { if case .object(let value) = self { value } else { nil } }
    package var isNull: Bool { self == .null }

    /// The value as an integer; also for a double without a fraction.
    package var intValue: Int? {
        switch self {
        case .integer(let value): Int(value)
        case .double(let value): Int(exactly: value)
        default: nil
        }
    }

    package var doubleValue: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .double(let value): value
        default: nil
        }
    }

    /// A member of an object; nil if the value is not an object or has no such member.
    package subscript(_ name: String) -> JSONValue? { objectValue?[name] }

    /// The type of the value, as named in error messages.
    package var kindName: String {
        switch self {
        case .null: "null"
        case .bool: "boolean"
        case .integer: "integer"
        case .double: "number"
        case .string: "string"
        case .array: "array"
        case .object: "object"
        }
    }
}

/// The members of a JSON object in document order.
package struct JSONObject: Sendable, Hashable, ExpressibleByDictionaryLiteral {
    package private(set) var members: [(name: String, value: JSONValue)] = []
    /// Indices by name, for objects with so many members that a linear search is slower.
    private var index: [String: Int] = [:]

    private static let indexedMin = 16

    package init() {}

    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        for (name, value) in elements { self[name] = value }
    }

    package init(_ elements: some Sequence<(String, JSONValue)>) {
        for (name, value) in elements { self[name] = value }
    }

    /// Names of the members, in order.
    package var names: [String] { members.map(\.name) }
    package var count: Int { members.count }
    package var isEmpty: Bool { members.isEmpty }

    /// The value of a member. Setting a new name appends it; setting nil removes the member.
    package subscript(_ name: String) -> JSONValue? {
        get { position(of: name).map { members[$0].value } }
        set {
            if let position = position(of: name) {
                if let newValue {
                    members[position].value = newValue
                } else {
                    members.remove(at: position)
                    index = [:]
                    indexAll()
                }
            } else if let newValue {
                append(name, newValue)
            }
        }
    }

    /// Appends a member unless its name is present; returns whether it was appended.
    mutating func add(_ name: String, _ value: JSONValue) -> Bool {
        guard position(of: name) == nil else { return false }
        append(name, value)
        return true
    }

    private func position(of name: String) -> Int? {
        index.isEmpty ? members.firstIndex { $0.name == name } : index[name]
    }

    private mutating func append(_ name: String, _ value: JSONValue) {
        members.append((name, value))
        if index.isEmpty { indexAll() } else { index[name] = members.count - 1 }
    }

    private mutating func indexAll() {
        guard members.count >= JSONObject.indexedMin else { return }
        for (place, member) in members.enumerated() { index[member.name] = place }
    }

    /// Equal when both have the same members, in any order.
    package static func == (left: JSONObject, right: JSONObject) -> Bool {
        left.count == right.count && left.members.allSatisfy { right[$0.name] == $0.value }
    }

    package func hash(into hasher: inout Hasher) {
        var total = 0
        for member in members {
            var single = Hasher()
            single.combine(member.name)
            single.combine(member.value)
            total ^= single.finalize()
        }
        hasher.combine(total)
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByNilLiteral, ExpressibleByFloatLiteral
{
    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int64) { self = .integer(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(floatLiteral value: Double) { self = .double(value) }
    package init(nilLiteral: ()) { self = .null }
    package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        var object = JSONObject()
        for (name, value) in elements { object[name] = value }
        self = .object(object)
    }

    package init(_ value: Int) { self = .integer(Int64(value)) }
    /// Null when the text is nil.
    package init(_ value: String?) { self = value.map { .string($0) } ?? .null }
    package init(_ values: [String]) { self = .array(values.map { .string($0) }) }
}
