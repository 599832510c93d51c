import JSON
package import Kernel

/// How one column changed.
package enum OVSDBColumnChange: Sendable, Hashable {
    case value(OVSDBValue)
    case elements(added: SmallSet<OVSDBAtom>, removed: SmallSet<OVSDBAtom>)
    case entries(set: SmallMap<OVSDBAtom, OVSDBAtom>, removed: SmallSet<OVSDBAtom>)
}

/// How one row changed.
package struct OVSDBRowChange: Sendable, Hashable {
    /// The kind of change.
    package enum Kind: Sendable, Hashable {
        case inserted(OVSDBRow)
        case modified(SmallMap<String, OVSDBColumnChange>)
        /// A difference as sent by the server, from a client without a copy. For a set column it lists added and removed
        /// elements; for a map column, changed entries with their new value and deleted entries with their old one; for
        /// other columns, the new value.
        case differing(OVSDBRow)
        case deleted
    }

    package let table: String
    package let uuid: UUID128
    package let kind: Kind
}

/// A copy of the monitored tables, updated by `update2` notifications (ovsdb-server(7), "monitor_cond").
package struct OVSDBReplica: Sendable {
    package private(set) var tables: [String: [UUID128: OVSDBRow]] = [:]
    private let schema: OVSDBSchema
    /// If false, rows are only passed on.
    private let isKept: Bool

    init(schema: OVSDBSchema, isKept: Bool) {
        self.schema = schema
        self.isKept = isKept
    }

    /// Applies a `<table-updates2>` and returns the changes.
    ///
    /// - Throws: `OVSDBError.protocolViolation` if the update does not match the copy.
    mutating func apply(_ updates: JSONValue) throws(OVSDBError) -> [OVSDBRowChange] {
        guard let object = updates.objectValue else { throw OVSDBError.protocolViolation("no table updates") }
        var changes: [OVSDBRowChange] = []
        for table in object.members {
            guard let rows = table.value.objectValue else { throw OVSDBError.protocolViolation("no row updates") }
            for member in rows.members {
                guard let uuid = UUID128(member.name) else {
                    throw OVSDBError.protocolViolation("\"\(member.name)\" is not a row id")
                }
                changes.append(try apply(member.value, table: table.name, uuid: uuid))
            }
        }
        return changes
    }

    private mutating func apply(
        _ update: JSONValue, table: String, uuid: UUID128
    ) throws(OVSDBError) -> OVSDBRowChange {
        if let json = update["initial"] ?? update["insert"] {
            let row = try OVSDBRow.decode(json)
            if isKept { tables[table, default: [:]][uuid] = row }
            return OVSDBRowChange(table: table, uuid: uuid, kind: .inserted(row))
        }
        if let json = update["modify"] {
            let difference = try OVSDBRow.decode(json)
            guard isKept else { return OVSDBRowChange(table: table, uuid: uuid, kind: .differing(difference)) }
            guard tables[table]?[uuid] != nil else {
                throw OVSDBError.protocolViolation("a change to the unknown row \(uuid) of \(table)")
            }
            var columns = SmallMap<String, OVSDBColumnChange>(minimumCapacity: difference.count)
            for (name, value) in difference {
                let shape = schema.shape(table: table, column: name)
                columns[name] = OVSDBReplica.merge(
                    value, into: &tables[table, default: [:]][uuid, default: [:]][name, default: .empty], shape: shape)
            }
            return OVSDBRowChange(table: table, uuid: uuid, kind: .modified(columns))
        }
        guard update["delete"] != nil else { throw OVSDBError.protocolViolation("a row update without content") }
        tables[table]?[uuid] = nil
        return OVSDBRowChange(table: table, uuid: uuid, kind: .deleted)
    }

    /// Changes in place, so that adding an element does not copy a large set.
    private static func merge(
        _ difference: OVSDBValue, into value: inout OVSDBValue, shape: OVSDBSchema.Shape
    ) -> OVSDBColumnChange {
        switch shape {
        case .single:
            value = difference
            return .value(difference)
        case .set:
            var current = value.atoms
            value = .empty
            var added = SmallSet<OVSDBAtom>()
            var removed = SmallSet<OVSDBAtom>()
            for atom in difference.atoms {
                if current.remove(atom) {
                    removed.insert(atom)
                } else {
                    current.insert(atom)
                    added.insert(atom)
                }
            }
            value = .set(current)
            return .elements(added: added, removed: removed)
        case .map:
            var current: SmallMap<OVSDBAtom, OVSDBAtom> = [:]
            if case .map(let entries) = value { current = entries }
            value = .empty
            var set: SmallMap<OVSDBAtom, OVSDBAtom> = [:]
            var removed = SmallSet<OVSDBAtom>()
            if case .map(let entries) = difference {
                for (key, new) in entries {
                    if current[key] == new {
                        current[key] = nil
                        removed.insert(key)
                    } else {
                        current[key] = new
                        set[key] = new
                    }
                }
            }
            value = .map(current)
            return .entries(set: set, removed: removed)
        }
    }

    /// All rows as insertions, for a full resynchronization of a reader.
    var asInserted: [OVSDBRowChange] {
        tables.flatMap { table, rows in
            rows.map { OVSDBRowChange(table: table, uuid: $0.key, kind: .inserted($0.value)) }
        }
    }
}
