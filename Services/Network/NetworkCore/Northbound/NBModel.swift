package import Kernel

/// How one column of an observed row changed.
package enum NBColumnChange: Sendable {
    case value(NBValue)
    case elements(added: SmallSet<NBAtom>, removed: SmallSet<NBAtom>)
    case entries(set: NBEntries, removed: SmallSet<String>)
}

/// The rows of the northbound database that this control plane owns, indexed by subject for comparison.
package struct NBModel: Sendable {
    package struct Row: Sendable {
        package let table: NBTable
        package fileprivate(set) var columns: NBColumns
        package fileprivate(set) var key: NBKey?
        /// Also nil if the row's subject is of a kind that this build does not know.
        package fileprivate(set) var subject: NBSubject?
    }

    /// A reference to a row: the referring row and its column.
    package struct Referrer: Hashable, Sendable {
        package let row: UUID128
        package let column: String
    }

    package private(set) var rows: [UUID128: Row] = [:]
    private var byKey: [NBKey: SmallSet<UUID128>] = [:]
    private var bySubject: [NBSubject: SmallSet<UUID128>] = [:]
    /// There are few per row: a port is referenced by its switch and its groups.
    private var referrers: [UUID128: [Referrer]] = [:]

    package init() {}

    /// Subjects that have rows.
    package var subjects: [NBSubject] { Array(bySubject.keys) }

    /// The row for `key`; if there are several, the one with the most references.
    package func uuid(of key: NBKey) -> UUID128? {
        guard let uuids = byKey[key] else { return nil }
        return uuids.only ?? uuids.max { (use(of: $0), $1) < (use(of: $1), $0) }
    }

    private func use(of uuid: UUID128) -> Int {
        let held = rows[uuid].map { row in row.table.referenceColumns.reduce(0) { $0 + (row.columns[$1]?.atoms.count ?? 0) } }
        return (referrers[uuid]?.count ?? 0) + (held ?? 0)
    }

    package func uuids(of subject: NBSubject) -> SmallSet<UUID128> { bySubject[subject] ?? [] }

    package func referrers(of uuid: UUID128) -> [Referrer] { referrers[uuid] ?? [] }

    // MARK: comparison

    /// Whether the rows of `subject` match the desired state, so that no operations are needed. This is a fast check: false
    /// does not prove a difference for rows that hold references to other rows.
    package func shows(_ subject: NBSubject, _ desired: NBDesired) -> Bool {
        guard uuids(of: subject).count == desired.rows.count,
            desired.memberships.allSatisfy({ place in desired.rows.contains { $0.key == place.member } })
        else { return false }
        return desired.rows.allSatisfy { row in
            guard row.key.table.referenceColumns.isEmpty, let uuid = byKey[row.key]?.only, let found = rows[uuid],
                found.subject == subject, isInPlace(uuid, row)
            else { return false }
            return row.columns.allSatisfy { isAlike($0.key, $0.value, found) } && groups(uuid, row.key, are: desired.memberships)
        }
    }

    /// Whether the row is referenced by the right parent.
    func isInPlace(_ uuid: UUID128, _ wanted: NBRow) -> Bool {
        guard let parent = wanted.parent else { return true }
        guard let place = self.uuid(of: parent) else { return false }
        return referrers(of: uuid).contains(Referrer(row: place, column: wanted.parentColumn))
    }

    private func isAlike(_ column: String, _ wanted: NBValue, _ row: Row) -> Bool {
        let found = row.columns[column] ?? row.table.unsaid(column)
        if case .set(let atoms) = wanted {
            guard case .row(let key)? = atoms.only else { return wanted == found }
            return uuid(of: key).map { found == .set(SmallSet(.uuid($0))) } ?? false
        }
        let entries = found.entries
        guard column == "external_ids" else { return wanted.entries == entries }
        return wanted.entries.allSatisfy { entries[$0.key] == $0.value }
            && entries.count { NBKey.isLabel($0.key) } == wanted.entries.count
    }

    /// Whether the row is a member of exactly these port groups, among those that this control plane owns.
    private func groups(_ uuid: UUID128, _ key: NBKey, are wanted: SmallSet<NBMembership>) -> Bool {
        guard key.table == .logicalSwitchPort else { return wanted.allSatisfy { $0.member != key } }
        var left = wanted.count { $0.member == key }
        for holder in referrers(of: uuid) {
            guard let row = rows[holder.row], row.table == .portGroup, let group = row.key else { continue }
            guard wanted.contains(NBMembership(group: group, member: key)), byKey[group]?.only != nil else { return false }
            left -= 1
        }
        return left == 0
    }

    // MARK: updates

    package mutating func insert(_ table: NBTable, _ uuid: UUID128, _ columns: NBColumns) {
        if rows[uuid] != nil { delete(uuid) }
        rows[uuid] = Row(table: table, columns: columns, key: nil, subject: nil)
        for column in table.referenceColumns { mention(columns[column]?.atoms ?? [], by: uuid, column) }
        identify(uuid)
    }

    package mutating func modify(_ uuid: UUID128, _ changes: SmallMap<String, NBColumnChange>) {
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
                entries.merge(set, uniquingKeysWith: { $1 })
                for key in removed { entries[key] = nil }
                rows[uuid]?.columns[column] = .map(entries)
            }
        }
        if changes["external_ids"] != nil { identify(uuid) }
    }

    /// Applies a difference reported by a monitor. For a set column it lists added and removed elements; for a map column,
    /// changed entries with their new value and deleted entries with their old one; for other columns, the new value.
    package func change(of uuid: UUID128, _ column: String, difference: NBValue) -> NBColumnChange {
        guard let row = rows[uuid] else { return .value(difference) }
        switch difference {
        case .set(let atoms):
            guard row.table.manyValued.contains(column) else { return .value(difference) }
            let current = row.columns[column]?.atoms ?? []
            return .elements(added: atoms.subtracting(current), removed: atoms.filter { current.contains($0) })
        case .map(let entries):
            let current = row.columns[column]?.entries ?? [:]
            return .entries(
                set: entries.filter { current[$0.key] != $0.value },
                removed: SmallSet(entries.lazy.filter { current[$0.key] == $0.value }.map { $0.key }))
        }
    }

    package mutating func delete(_ uuid: UUID128) {
        guard let row = rows.removeValue(forKey: uuid) else { return }
        for column in row.table.referenceColumns { forget(row.columns[column]?.atoms ?? [], by: uuid, column) }
        unlist(uuid, row)
    }

    /// Changed in place, so that adding an element does not copy the set.
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
        let subject = entries[NBKey.subjectEntry].flatMap { NBSubject($0) }
        let key = (entries[NBKey.idEntry] ?? subject?.id?.description).map { NBKey(row.table, $0) }
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
        for case .uuid(let uuid) in atoms {
            let place = Referrer(row: row, column: column)
            if referrers[uuid]?.contains(place) != true { referrers[uuid, default: []].append(place) }
        }
    }

    private mutating func forget(_ atoms: SmallSet<NBAtom>, by row: UUID128, _ column: String) {
        for case .uuid(let uuid) in atoms {
            guard var places = referrers[uuid] else { continue }
            places.removeAll { $0.row == row && $0.column == column }
            referrers[uuid] = places.isEmpty ? nil : places
        }
    }
}
