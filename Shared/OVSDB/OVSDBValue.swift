package import JSON
package import Kernel

/// One atom of an OVSDB column (RFC 7047 §5.1).
package enum OVSDBAtom: Hashable, Sendable {
    case string(String)
    case integer(Int64)
    case real(Double)
    case boolean(Bool)
    case uuid(UUID128)
    /// A row that the same transaction inserts under this name.
    case namedUUID(String)

    package func write(to writer: inout JSONWriter) {
        switch self {
        case .string(let value): writer.value(value)
        case .integer(let value): writer.value(Int(value))
        case .real(let value): writer.value(value)
        case .boolean(let value): writer.value(value)
        case .uuid(let value): OVSDBAtom.write("uuid", value.description, to: &writer)
        case .namedUUID(let value): OVSDBAtom.write("named-uuid", value, to: &writer)
        }
    }

    private static func write(_ tag: String, _ text: String, to writer: inout JSONWriter) {
        writer.array {
            $0.value(tag)
            $0.value(text)
        }
    }

    /// - Throws: `OVSDBError.protocolViolation` if this is not an atom.
    package init(json: JSONValue) throws(OVSDBError) {
        switch json {
        case .string(let value): self = .string(value)
        case .integer(let value): self = .integer(value)
        case .double(let value): self = .real(value)
        case .bool(let value): self = .boolean(value)
        case .array(let pair):
            guard pair.count == 2, let tag = pair[0].stringValue, let text = pair[1].stringValue else {
                throw OVSDBError.protocolViolation("not an atom: \(json)")
            }
            if tag == "uuid", let uuid = UUID128(text) {
                self = .uuid(uuid)
            } else if tag == "named-uuid" {
                self = .namedUUID(text)
            } else {
                throw OVSDBError.protocolViolation("not an atom: \(json)")
            }
        case .null, .object: throw OVSDBError.protocolViolation("not an atom: \(json)")
        }
    }

    package var stringValue: String? { if case .string(let value) = self { value } else { nil } }
    package var integerValue: Int64? { if case .integer(let value) = self { value } else { nil } }
    package var booleanValue: Bool? { if case .boolean(let value) = self { value } else { nil } }
    package var uuidValue: UUID128? { if case .uuid(let value) = self { value } else { nil } }
}

/// The value of a column. A scalar is a set of one, and an empty optional is the empty set, because the protocol does not
/// distinguish them either.
package enum OVSDBValue: Hashable, Sendable {
    case set(SmallSet<OVSDBAtom>)
    case map(SmallMap<OVSDBAtom, OVSDBAtom>)

    package static let empty = OVSDBValue.set([])

    package init(_ value: String) { self = .set(SmallSet(.string(value))) }
    package init(_ value: Int) { self = .set(SmallSet(.integer(Int64(value)))) }
    package init(_ value: Bool) { self = .set(SmallSet(.boolean(value))) }
    package init(_ value: UUID128) { self = .set(SmallSet(.uuid(value))) }
    package init(strings: some Sequence<String>) { self = .set(SmallSet(strings.lazy.map { .string($0) })) }
    package init(uuids: some Sequence<UUID128>) { self = .set(SmallSet(uuids.lazy.map { .uuid($0) })) }
    package init(_ entries: SmallMap<String, String>) {
        var atoms = SmallMap<OVSDBAtom, OVSDBAtom>(minimumCapacity: entries.count)
        for (key, value) in entries { atoms.append(new: .string(key), .string(value)) }
        self = .map(atoms)
    }

    /// - Parameter isTagged: whether a set of one is written as a set, as mutations require.
    package func write(to writer: inout JSONWriter, isTagged: Bool = false) {
        switch self {
        case .set(let atoms):
            if let only = atoms.only, !isTagged {
                only.write(to: &writer)
                return
            }
            writer.array {
                $0.value("set")
                $0.array { for atom in atoms { atom.write(to: &$0) } }
            }
        case .map(let entries):
            writer.array {
                $0.value("map")
                $0.array { list in
                    for (key, value) in entries {
                        list.array {
                            key.write(to: &$0)
                            value.write(to: &$0)
                        }
                    }
                }
            }
        }
    }

    /// - Throws: `OVSDBError.protocolViolation` if this is not a column value.
    package init(json: JSONValue) throws(OVSDBError) {
        guard case .array(let pair) = json, pair.count == 2, let tag = pair[0].stringValue,
            let elements = pair[1].arrayValue
        else {
            self = .set(SmallSet(try OVSDBAtom(json: json)))
            return
        }
        if tag == "set" {
            var atoms = SmallSet<OVSDBAtom>()
            for element in elements { atoms.insert(try OVSDBAtom(json: element)) }
            self = .set(atoms)
        } else if tag == "map" {
            var entries = SmallMap<OVSDBAtom, OVSDBAtom>(minimumCapacity: elements.count)
            for element in elements {
                guard case .array(let entry) = element, entry.count == 2 else {
                    throw OVSDBError.protocolViolation("not a map entry: \(element)")
                }
                entries[try OVSDBAtom(json: entry[0])] = try OVSDBAtom(json: entry[1])
            }
            self = .map(entries)
        } else {
            throw OVSDBError.protocolViolation("not a value: \(json)")
        }
    }

    /// The elements; none for a map.
    package var atoms: SmallSet<OVSDBAtom> { if case .set(let atoms) = self { atoms } else { [] } }
    /// The single element as text; nil if there is none or it has another type.
    package var string: String? { atoms.only?.stringValue }
    package var integer: Int64? { atoms.only?.integerValue }
    package var boolean: Bool? { atoms.only?.booleanValue }
    package var uuid: UUID128? { atoms.only?.uuidValue }
    package var strings: [String] { atoms.compactMap(\.stringValue) }
    package var uuids: [UUID128] { atoms.compactMap(\.uuidValue) }

    /// The text entries of a map; empty for a set.
    package var entries: SmallMap<String, String> {
        guard case .map(let entries) = self else { return [:] }
        var result = SmallMap<String, String>(minimumCapacity: entries.count)
        for (key, value) in entries {
            if let key = key.stringValue, let value = value.stringValue { result.append(new: key, value) }
        }
        return result
    }

    /// One entry of a map from text to text.
    package subscript(_ key: String) -> String? {
        guard case .map(let entries) = self else { return nil }
        return entries[.string(key)]?.stringValue
    }
}

/// Columns by name.
package typealias OVSDBRow = SmallMap<String, OVSDBValue>

extension OVSDBRow {
    package func write(to writer: inout JSONWriter) {
        writer.object {
            for (column, value) in self {
                $0.name(column)
                value.write(to: &$0)
            }
        }
    }

    /// - Throws: `OVSDBError.protocolViolation` if this is not a row.
    package static func decode(_ json: JSONValue) throws(OVSDBError) -> OVSDBRow {
        guard let object = json.objectValue else { throw OVSDBError.protocolViolation("not a row: \(json.kindName)") }
        var row = OVSDBRow(minimumCapacity: object.count)
        // The parser refuses an object with a repeated member.
        for member in object.members { row.append(new: member.name, try OVSDBValue(json: member.value)) }
        return row
    }
}
