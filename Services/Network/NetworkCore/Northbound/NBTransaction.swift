package import Kernel

/// The row that an operation is about.
package enum NBTarget: Hashable, Sendable {
    case uuid(UUID128)
    /// Inserted by the same transaction.
    case named(String)
}

/// One operation on the northbound database; references in values are `uuid` or `named`.
package enum NBOperation: Hashable, Sendable {
    case insert(NBTable, name: String, row: NBColumns)
    case update(NBTable, NBTarget, NBColumns)
    /// Deletions come before insertions. Deleted map entries are given by key, as a set of strings.
    case mutate(NBTable, NBTarget, delete: NBColumns, insert: NBColumns)
    case delete(NBTable, UUID128)
}

/// Collects the differences of several subjects into one list of operations.
package struct NBTransaction: Sendable {
    package private(set) var operations: [NBOperation] = []
    /// Subjects that refer to a row that neither exists nor is inserted in this transaction; to be retried later.
    package private(set) var incomplete: Set<NBSubject> = []
    private var inserted: [NBKey: String] = [:]
    private let model: NBModel

    package init(model: NBModel) { self.model = model }

    /// Adds the operations that change the rows of `subject` from the state in the model to `desired`.
    package mutating func add(_ subject: NBSubject, _ desired: NBDesired) {
        let wanted = SmallMap(desired.rows.map { ($0.key, $0) })
        let found = model.uuids(of: subject).sorted()
        let copies = copies(found, wanted)
        guard copies.isEmpty else {
            // Remove duplicate rows first, so that no reference is resolved to a duplicate; other changes follow after
            // that.
            for uuid in copies { if let row = model.rows[uuid] { remove(uuid, row) } }
            incomplete.insert(subject)
            return
        }
        var present: SmallMap<NBKey, UUID128> = [:]
        for uuid in found {
            guard let row = model.rows[uuid] else { continue }
            // A row with the wrong parent is deleted and created again.
            if let key = row.key, let want = wanted[key], model.isInPlace(uuid, want) {
                present[key] = uuid
            } else {
                remove(uuid, row)
            }
        }
        for row in desired.rows {
            if let uuid = present[row.key] { change(uuid, to: row, subject) } else { insert(row, subject) }
        }
        for uuid in present.values.sorted() { clear(uuid) }
        join(desired.memberships, subject, present)
    }

    /// Removes references to rows of other owners from a row that this control plane owns.
    private mutating func clear(_ uuid: UUID128) {
        guard let row = model.rows[uuid] else { return }
        for column in row.table.ownedColumns {
            let foreign = (row.columns[column]?.atoms ?? []).filter { atom in
                guard case .uuid(let child) = atom, let found = model.rows[child] else { return false }
                return found.subject == nil
            }
            guard !foreign.isEmpty else { continue }
            operations.append(.mutate(row.table, .uuid(uuid), delete: [column: .set(foreign)], insert: [:]))
        }
    }

    /// Duplicate rows of one key, except the one to keep, which is the one with the right name if there is one.
    private func copies(_ uuids: [UUID128], _ wanted: SmallMap<NBKey, NBRow>) -> [UUID128] {
        guard uuids.count > 1 else { return [] }
        var rows: [NBKey: [UUID128]] = [:]
        for uuid in uuids {
            if let key = model.rows[uuid]?.key, wanted[key] != nil { rows[key, default: []].append(uuid) }
        }
        return rows.filter { $0.value.count > 1 }.flatMap { key, uuids in
            let name = wanted[key]?.columns["name"]
            let original = uuids.first { name != nil && model.rows[$0]?.columns["name"] == name } ?? model.uuid(of: key)
            return uuids.filter { $0 != original }
        }.sorted()
    }

    private mutating func remove(_ uuid: UUID128, _ row: NBModel.Row) {
        switch row.table {
        case .logicalSwitch, .logicalRouter, .portGroup, .dhcpOptions: operations.append(.delete(row.table, uuid))
        case .logicalSwitchPort, .logicalRouterPort, .staticRoute, .nat, .acl, .gatewayChassis:
            // OVSDB garbage-collects rows of these tables when the last reference to them is removed.
            for referrer in model.referrers(of: uuid).sorted(by: { $0.row < $1.row }) {
                guard let table = model.rows[referrer.row]?.table else { continue }
                operations.append(
                    .mutate(
                        table, .uuid(referrer.row), delete: [referrer.column: .set(SmallSet(.uuid(uuid)))], insert: [:]))
            }
        }
    }

    private mutating func insert(_ row: NBRow, _ subject: NBSubject) {
        if let parent = row.parent, target(parent) == nil {
            incomplete.insert(subject)
            return
        }
        let name = NBTransaction.name(row.key, operations.count)
        var columns = NBColumns(minimumCapacity: row.columns.count + 1)
        for (column, value) in row.columns {
            let resolved = resolve(value, subject)
            if resolved != row.key.table.unsaid(column), !resolved.isEmpty { columns.append(new: column, resolved) }
        }
        columns["external_ids"] = .map(NBTransaction.identity(row, subject))
        operations.append(.insert(row.key.table, name: name, row: columns))
        inserted[row.key] = name
        if let parent = row.parent, let target = target(parent) {
            operations.append(
                .mutate(parent.table, target, delete: [:], insert: [row.parentColumn: .set(SmallSet(.named(name)))]))
        }
    }

    private mutating func change(_ uuid: UUID128, to row: NBRow, _ subject: NBSubject) {
        guard let observed = model.rows[uuid] else { return }
        var update: NBColumns = [:]
        var delete: NBColumns = [:]
        var insert: NBColumns = [:]
        for (column, value) in row.columns {
            let found = observed.columns[column] ?? row.key.table.unsaid(column)
            guard value != found else { continue }
            let wanted = resolve(value, subject)
            switch wanted {
            case .map(let entries):
                let current = found.entries
                var deleted = SmallSet<String>()
                var fresh: NBEntries = [:]
                for (key, value) in entries where current[key] != value {
                    fresh[key] = value
                    // Delete the entry first, because inserting an existing key keeps its old value.
                    if current[key] != nil { deleted.insert(key) }
                }
                for key in current.keys where entries[key] == nil && (column != "external_ids" || NBKey.isLabel(key)) {
                    deleted.insert(key)
                }
                if !deleted.isEmpty { delete[column] = .strings(deleted) }
                if !fresh.isEmpty { insert[column] = .map(fresh) }
            case .set(let atoms):
                let current = found.atoms
                guard atoms != current else { continue }
                if row.key.table.manyValued.contains(column) {
                    let deleted = current.subtracting(atoms)
                    let fresh = atoms.subtracting(current)
                    if !deleted.isEmpty { delete[column] = .set(deleted) }
                    if !fresh.isEmpty { insert[column] = .set(fresh) }
                } else {
                    update[column] = wanted
                }
            }
        }
        if !update.isEmpty { operations.append(.update(row.key.table, .uuid(uuid), update)) }
        if !delete.isEmpty || !insert.isEmpty {
            operations.append(.mutate(row.key.table, .uuid(uuid), delete: delete, insert: insert))
        }
    }

    private mutating func join(
        _ memberships: SmallSet<NBMembership>, _ subject: NBSubject, _ present: SmallMap<NBKey, UUID128>
    ) {
        var memberships = memberships
        let known = memberships.filter { target($0.group) != nil }
        if known.count < memberships.count {
            incomplete.insert(subject)
            // Until its groups exist, the port is in the drop group: traffic is denied rather than allowed.
            let denied = memberships.lazy.map { NBMembership(group: Compiler.dropGroupKey, member: $0.member) }
            memberships = known.isEmpty ? SmallSet(denied) : known
        }
        for membership in memberships.sorted(by: { $0.group.id < $1.group.id }) {
            guard let group = target(membership.group), let member = atom(membership.member) else {
                incomplete.insert(subject)
                continue
            }
            if case .uuid(let groupID) = group, case .uuid(let memberID) = member,
                model.referrers(of: memberID).contains(NBModel.Referrer(row: groupID, column: "ports"))
            {
                continue
            }
            operations.append(
                .mutate(membership.group.table, group, delete: [:], insert: ["ports": .set(SmallSet(member))]))
        }
        for (key, uuid) in present.sorted(by: { $0.value < $1.value }) where key.table == .logicalSwitchPort {
            let foreign = model.referrers(of: uuid).map(\.row).filter { holder in
                guard let row = model.rows[holder], row.table == .portGroup, let group = row.key else { return false }
                return !memberships.contains(NBMembership(group: group, member: key))
            }
            for group in foreign.sorted() {
                operations.append(.mutate(.portGroup, .uuid(group), delete: ["ports": .set(SmallSet(.uuid(uuid)))], insert: [:]))
            }
        }
    }

    // MARK: references

    private func target(_ key: NBKey) -> NBTarget? {
        if let name = inserted[key] { return .named(name) }
        return model.uuid(of: key).map { .uuid($0) }
    }

    private func atom(_ key: NBKey) -> NBAtom? {
        switch target(key) {
        case .named(let name): .named(name)
        case .uuid(let uuid): .uuid(uuid)
        case nil: nil
        }
    }

    private mutating func resolve(_ value: NBValue, _ subject: NBSubject) -> NBValue {
        guard case .set(let atoms) = value, atoms.contains(where: { if case .row = $0 { true } else { false } }) else {
            return value
        }
        var resolved = SmallSet<NBAtom>()
        for element in atoms {
            guard case .row(let key) = element else {
                resolved.insert(element)
                continue
            }
            if let found = atom(key) { resolved.insert(found) } else { incomplete.insert(subject) }
        }
        return .set(resolved)
    }

    private static func identity(_ row: NBRow, _ subject: NBSubject) -> NBEntries {
        var entries = row.columns["external_ids"]?.entries ?? [:]
        if row.key.id != subject.id?.description { entries[NBKey.idEntry] = row.key.id }
        entries[NBKey.subjectEntry] = subject.description
        return entries
    }

    private static func name(_ key: NBKey, _ index: Int) -> String { "r\(index)_\(key.table.rawValue)" }
}
