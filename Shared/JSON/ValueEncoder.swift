/// Builds a document from an encoded value.
final class ValueEncoder: Encoder {
    let codingPath: [any CodingKey]
    private var node = Node.empty

    var userInfo: [CodingUserInfoKey: Any] { [:] }

    init(path: [any CodingKey]) { codingPath = path }

    /// The encoded value; containers are shared with the encoders that still write to them.
    enum Node {
        case empty
        case value(JSONValue)
        case object(Members)
        case array(Elements)

        var document: JSONValue {
            switch self {
            case .empty: .object([:])
            case .value(let value): value
            case .object(let members): members.document
            case .array(let elements): elements.document
            }
        }
    }

    final class Members {
        var object = JSONObject()
        /// Containers that are filled after they have been added.
        var nested: [(name: String, encoder: ValueEncoder)] = []

        var document: JSONValue {
            var whole = object
            for item in nested { whole[item.name] = item.encoder.document }
            return .object(whole)
        }
    }

    final class Elements {
        var values: [JSONValue] = []
        var nested: [(index: Int, encoder: ValueEncoder)] = []

        var document: JSONValue {
            var whole = values
            for item in nested { whole[item.index] = item.encoder.document }
            return .array(whole)
        }
    }

    var document: JSONValue { node.document }

    func put(_ value: JSONValue) { node = .value(value) }

    static func document<Value: Encodable>(of value: Value, path: [any CodingKey]) throws -> JSONValue {
        if let known = value as? JSONValue { return known }
        let encoder = ValueEncoder(path: path)
        try value.encode(to: encoder)
        let document = encoder.document
        if value is any NamedMembers, case .object(let object) = document {
            return .object(JSONObject(object.members.sorted { $0.name < $1.name }.map { ($0.name, $0.value) }))
        }
        return document
    }

    func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
        let members: Members
        if case .object(let known) = node {
            members = known
        } else {
            members = Members()
            node = .object(members)
        }
        return KeyedEncodingContainer(KeyedValues<Key>(members: members, codingPath: codingPath))
    }

    func unkeyedContainer() -> any UnkeyedEncodingContainer {
        let elements: Elements
        if case .array(let known) = node {
            elements = known
        } else {
            elements = Elements()
            node = .array(elements)
        }
        return UnkeyedValues(elements: elements, codingPath: codingPath)
    }

    func singleValueContainer() -> any SingleValueEncodingContainer { SingleValue(encoder: self) }

    fileprivate static func number(_ value: some BinaryInteger, _ path: [any CodingKey]) throws -> JSONValue {
        guard let number = Int64(exactly: value) else {
            throw EncodingError.invalidValue(value, .init(codingPath: path, debugDescription: "\(value) does not fit into 64 bits"))
        }
        return .integer(number)
    }

    fileprivate static func number(_ value: Double, _ path: [any CodingKey]) throws -> JSONValue {
        guard value.isFinite else {
            throw EncodingError.invalidValue(value, .init(codingPath: path, debugDescription: "\(value) has no JSON form"))
        }
        return .double(value)
    }
}

/// Dictionaries with text keys are unordered, so their members are sorted.
private protocol NamedMembers {}
extension Dictionary: NamedMembers where Key == String {}

private struct KeyedValues<Key: CodingKey>: KeyedEncodingContainerProtocol {
    let members: ValueEncoder.Members
    let codingPath: [any CodingKey]

    private func set(_ value: JSONValue, _ key: Key) { members.object[key.stringValue] = value }

    func encodeNil(forKey key: Key) throws { set(.null, key) }
    func encode(_ value: Bool, forKey key: Key) throws { set(.bool(value), key) }
    func encode(_ value: String, forKey key: Key) throws { set(.string(value), key) }
    func encode(_ value: Double, forKey key: Key) throws { set(try ValueEncoder.number(value, codingPath + [key]), key) }
    func encode(_ value: Float, forKey key: Key) throws { try encode(Double(value), forKey: key) }
    func encode(_ value: Int, forKey key: Key) throws { set(.integer(Int64(value)), key) }
    func encode(_ value: Int8, forKey key: Key) throws { set(.integer(Int64(value)), key) }
    func encode(_ value: Int16, forKey key: Key) throws { set(.integer(Int64(value)), key) }
    func encode(_ value: Int32, forKey key: Key) throws { set(.integer(Int64(value)), key) }
    func encode(_ value: Int64, forKey key: Key) throws { set(.integer(value), key) }
    func encode(_ value: UInt, forKey key: Key) throws { set(try ValueEncoder.number(value, codingPath + [key]), key) }
    func encode(_ value: UInt8, forKey key: Key) throws { set(.integer(Int64(value)), key) }
    func encode(_ value: UInt16, forKey key: Key) throws { set(.integer(Int64(value)), key) }
    func encode(_ value: UInt32, forKey key: Key) throws { set(.integer(Int64(value)), key) }
    func encode(_ value: UInt64, forKey key: Key) throws { set(try ValueEncoder.number(value, codingPath + [key]), key) }

    func encode<Value: Encodable>(_ value: Value, forKey key: Key) throws {
        set(try ValueEncoder.document(of: value, path: codingPath + [key]), key)
    }

    private func nested(_ key: any CodingKey) -> ValueEncoder {
        let encoder = ValueEncoder(path: codingPath + [key])
        members.object[key.stringValue] = .null
        members.nested.append((key.stringValue, encoder))
        return encoder
    }

    func nestedContainer<Nested: CodingKey>(keyedBy type: Nested.Type, forKey key: Key) -> KeyedEncodingContainer<Nested> {
        nested(key).container(keyedBy: type)
    }
    func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer { nested(key).unkeyedContainer() }
    func superEncoder() -> any Encoder { nested(JSONKey("super")) }
    func superEncoder(forKey key: Key) -> any Encoder { nested(key) }
}

private struct UnkeyedValues: UnkeyedEncodingContainer {
    let elements: ValueEncoder.Elements
    let codingPath: [any CodingKey]

    var count: Int { elements.values.count }
    private var here: [any CodingKey] { codingPath + [JSONKey(intValue: count)] }

    func encodeNil() throws { elements.values.append(.null) }
    func encode(_ value: Bool) throws { elements.values.append(.bool(value)) }
    func encode(_ value: String) throws { elements.values.append(.string(value)) }
    func encode(_ value: Int) throws { elements.values.append(.integer(Int64(value))) }
    func encode<Value: Encodable>(_ value: Value) throws {
        elements.values.append(try ValueEncoder.document(of: value, path: here))
    }

    private func nested() -> ValueEncoder {
        let encoder = ValueEncoder(path: here)
        elements.nested.append((count, encoder))
        elements.values.append(.null)
        return encoder
    }

    func nestedContainer<Nested: CodingKey>(keyedBy type: Nested.Type) -> KeyedEncodingContainer<Nested> {
        nested().container(keyedBy: type)
    }
    func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer { nested().unkeyedContainer() }
    func superEncoder() -> any Encoder { nested() }
}

private struct SingleValue: SingleValueEncodingContainer {
    let encoder: ValueEncoder

    var codingPath: [any CodingKey] { encoder.codingPath }

    func encodeNil() throws { encoder.put(.null) }
    func encode(_ value: Bool) throws { encoder.put(.bool(value)) }
    func encode(_ value: String) throws { encoder.put(.string(value)) }
    func encode(_ value: Double) throws { encoder.put(try ValueEncoder.number(value, codingPath)) }
    func encode(_ value: Float) throws { try encode(Double(value)) }
    func encode(_ value: Int) throws { encoder.put(.integer(Int64(value))) }
    func encode(_ value: Int8) throws { encoder.put(.integer(Int64(value))) }
    func encode(_ value: Int16) throws { encoder.put(.integer(Int64(value))) }
    func encode(_ value: Int32) throws { encoder.put(.integer(Int64(value))) }
    func encode(_ value: Int64) throws { encoder.put(.integer(value)) }
    func encode(_ value: UInt) throws { encoder.put(try ValueEncoder.number(value, codingPath)) }
    func encode(_ value: UInt8) throws { encoder.put(.integer(Int64(value))) }
    func encode(_ value: UInt16) throws { encoder.put(.integer(Int64(value))) }
    func encode(_ value: UInt32) throws { encoder.put(.integer(Int64(value))) }
    func encode(_ value: UInt64) throws { encoder.put(try ValueEncoder.number(value, codingPath)) }
    func encode<Value: Encodable>(_ value: Value) throws {
        encoder.put(try ValueEncoder.document(of: value, path: codingPath))
    }
}
