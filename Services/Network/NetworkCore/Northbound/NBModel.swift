import Kernel

/// How one column of an observed row changed.
package enum NBColumnChange: Sendable {
    case value(NBValue)
    case elements(added: SmallSet<NBAtom>, removed: SmallSet<NBAtom>)
    case entries(set: [String: String], removed: Set<String>)
}

/// What is in the northbound database, as far as it is this plane's, indexed for comparison by subject.
package struct NBModel: Sendable {
    package struct Row: Sendable {
        package let table: NBTable
        package fileprivate(set) var columns: [String: NBValue]
        package fileprivate(set) var key: NBKey?
        package fileprivate(set) var subject: String?
    }

    /// A place where a row is mentioned.
    package struct Referrer: Hashable, Sendable {
        package let row: UUID128
        package let column: String
    }

    package private(set) var rows: [UUID128: Row] = [:]
    private var byKey: [NBKey: Set<UUID128>] = [:]
    private var bySubject: [String: Set<UUID128>] = [:]
    private var referrers: [UUID128: Set<Referrer>] = [:]

    package init() {}

    /// Subjects that have rows.
    package var subjects: [String] { Array(bySubject.keys) }

    /// The row for `key`; of several the one that is most in use.
    package func uuid(of key: NBKey) -> UUID128? {
        guard let uuids = byKey[key], uuids.count > 1 else { return byKey[key]?.first }
        return uuids.max { (use(of: $0), $1) < (use(of: $1), $0) }
    }

    private func use(of uuid: UUID128) -> Int {
        let held = rows[uuid].map { row in row.table.referenceColumns.reduce(0) { $0 + (row.columns[$1]?.atoms.count ?? 0) } }
        return (referrers[uuid]?.count ?? 0) + (held ?? 0)
    }

    package func uuids(of subject: String) -> Set<UUID128> { bySubject[subject] ?? [] }

    package func referrers(of uuid: UUID128) -> Set<Referrer> { referrers[uuid] ?? [] }

    // MARK: news

    package mutating func insert(_ table: NBTable, _ uuid: UUID128, _ columns: [String: NBValue]) {
        if rows[uuid] != nil { delete(uuid) }
        rows[uuid] = Row(table: table, columns: columns, key: nil, subject: nil)
        for column in table.referenceColumns { mention(columns[column]?.atoms ?? [], by: uuid, column) }
        identify(uuid)
    }

    package mutating func modify(_ uuid: UUID128, _ changes: [String: NBColumnChange]) {
        guard let table = rows[uuid]?.table else { return }
        for (column, change) in changes {
            let isReference = table.referenceColumns.contains(column)
            switch change {
            case .value(let value):
                if isReference {
                    forget(rows[uuid]?.columns[column]?.atoms ?? [], by: uuid, column)
                    mention(value.atoms, by: uuid, column)
                }
                rows[uuid]?.columns[column] = value
            case .elements(let added, let removed):
                if isReference {
                    forget(removed, by: uuid, column)
                    mention(added, by: uuid, column)
                }
                NBModel.merge(added, removed, into: &rows[uuid]!.columns[column, default: .none])
            case .entries(let set, let removed):
                var entries = rows[uuid]?.columns[column]?.entries ?? [:]
                entries.merge(set) { $1 }
                for key in removed { entries[key] = nil }
                rows[uuid]?.columns[column] = .map(entries)
            }
        }
        if changes["external_ids"] != nil { identify(uuid) }
    }

    package mutating func delete(_ uuid: UUID128) {
        guard let row = rows.removeValue(forKey: uuid) else { return }
        for column in row.table.referenceColumns { forget(row.columns[column]?.atoms ?? [], by: uuid, column) }
        unlist(uuid, row)
    }

    /// In place, so that one element more costs one element.
    private static func merge(_ added: SmallSet<NBAtom>, _ removed: SmallSet<NBAtom>, into value: inout NBValue) {
        var atoms = value.atoms
        value = .none
        for atom in removed { atoms.remove(atom) }
        for atom in added { atoms.insert(atom) }
        value = .set(atoms)
    }

    // MARK: indexes

    private mutating func identify(_ uuid: UUID128) {
        guard let row = rows[uuid] else { return }
        unlist(uuid, row)
        let entries = row.columns["external_ids"]?.entries ?? [:]
        let key = entries[NBKey.idEntry].map { NBKey(row.table, $0) }
        let subject = entries[NBKey.subjectEntry]
        rows[uuid]?.key = key
        rows[uuid]?.subject = subject
        if let key { byKey[key, default: []].insert(uuid) }
        if let subject { bySubject[subject, default: []].insert(uuid) }
    }

    private mutating func unlist(_ uuid: UUID128, _ row: Row) {
        if let key = row.key {
            byKey[key]?.remove(uuid)
            if byKey[key]?.isEmpty == true { byKey[key] = nil }
        }
        if let subject = row.subject {
            bySubject[subject]?.remove(uuid)
            if bySubject[subject]?.isEmpty == true { bySubject[subject] = nil }
        }
    }

    private mutating func mention(_ atoms: SmallSet<NBAtom>, by row: UUID128, _ column: String) {
        for case .uuid(let uuid) in atoms { referrers[uuid, default: []].insert(Referrer(row: row, column: column)) }
    }

    private mutating func forget(_ atoms: SmallSet<NBAtom>, by row: UUID128, _ column: String) {
        for case .uuid(let uuid) in atoms {
            referrers[uuid]?.remove(Referrer(row: row, column: column))
            if referrers[uuid]?.isEmpty == true { referrers[uuid] = nil }
        }
    }
}
