import Kernel
import NetworkCore
import OVSDB

/// Converts between the compiler's values and OVSDB's wire format.
enum NorthboundConversion {
    // MARK: to the wire

    static func atom(_ atom: NBAtom) throws -> OVSDBAtom {
        switch atom {
        case .string(let text): .string(text)
        case .integer(let number): .integer(Int64(number))
        case .boolean(let flag): .boolean(flag)
        case .uuid(let uuid): .uuid(uuid)
        case .named(let name): .namedUUID(name)
        case .row(let key): throw ResourceError.internalError("\(key) was not resolved")
        }
    }

    private static func value(_ value: NBValue) throws -> OVSDBValue {
        switch value {
        case .set(let atoms): .set(try atoms.mapped { try atom($0) })
        case .map(let entries): OVSDBValue(entries)
        }
    }

    private static func condition(_ target: NBTarget) -> OVSDBCondition {
        switch target {
        case .uuid(let uuid): .uuid(uuid)
        case .named(let name): .inserted(name)
        }
    }

    /// - Throws: 500 for a reference that was not resolved.
    static func operation(_ operation: NBOperation) throws -> OVSDBOperation {
        switch operation {
        case .insert(let table, let name, let row):
            return .insert(table: table.rawValue, row: try row.mapValues(value), name: name)
        case .update(let table, let target, let columns):
            return .update(table: table.rawValue, where: [condition(target)], row: try columns.mapValues(value))
        case .mutate(let table, let target, let delete, let insert):
            let deletions = try delete.sorted { $0.key < $1.key }.map { OVSDBMutation.delete($0.key, try value($0.value)) }
            let insertions = try insert.sorted { $0.key < $1.key }.map { OVSDBMutation.insert($0.key, try value($0.value)) }
            return .mutate(table: table.rawValue, where: [condition(target)], mutations: deletions + insertions)
        case .delete(let table, let uuid): return .delete(table: table.rawValue, where: [.uuid(uuid)])
        }
    }

    // MARK: from the wire

    static func atom(_ atom: OVSDBAtom) -> NBAtom {
        switch atom {
        case .string(let text): .string(text)
        case .integer(let number): .integer(Int(number))
        case .real(let number): .string("\(number)")
        case .boolean(let flag): .boolean(flag)
        case .uuid(let uuid): .uuid(uuid)
        case .namedUUID(let name): .named(name)
        }
    }

    static func value(_ value: OVSDBValue) -> NBValue {
        switch value {
        case .set(let atoms): .set(atoms.mapped { atom($0) })
        case .map: .map(value.entries)
        }
    }

    /// The monitored tables and columns of the northbound database.
    static let monitors =
        NBTable.allCases.map { OVSDBMonitor($0.rawValue, columns: $0.columns) } + [
            OVSDBMonitor("NB_Global", columns: ["nb_cfg"])
        ]
}

extension NBModel {
    /// Applies the changes reported by a monitor. Returns the ports whose `up` may have changed, and the subjects whose rows, or
    /// the parents of whose rows, have changed.
    mutating func apply(_ news: [OVSDBRowChange]) -> (ports: Set<UUID128>, subjects: Set<NBSubject>) {
        var changedPorts: Set<UUID128> = []
        var subjects: Set<NBSubject> = []
        var placed: [(holder: UUID128, row: UUID128)] = []
        for change in news {
            guard let table = NBTable(rawValue: change.table) else { continue }
            switch change.kind {
            case .inserted(let row):
                insert(table, change.uuid, row.mapValues { NorthboundConversion.value($0) })
                if table == .logicalSwitchPort { changedPorts.insert(change.uuid) }
                if let subject = rows[change.uuid]?.subject { subjects.insert(subject) }
            case .differing(let columns):
                if table == .logicalSwitchPort, columns["up"] != nil || columns["enabled"] != nil { changedPorts.insert(change.uuid) }
                let before = rows[change.uuid]?.subject
                var changes = SmallMap<String, NBColumnChange>(minimumCapacity: columns.count)
                for (column, difference) in columns {
                    let meaning = self.change(of: change.uuid, column, difference: NorthboundConversion.value(difference))
                    changes.append(new: column, meaning)
                    guard table.referenceColumns.contains(column) else {
                        if column != "up", let before { subjects.insert(before) }
                        continue
                    }
                    guard case .elements(let added, let removed) = meaning else { continue }
                    for case .uuid(let row) in added { placed.append((change.uuid, row)) }
                    // The row was removed from its parent; reconciling the row's own subject restores it.
                    for case .uuid(let row) in removed { if let subject = rows[row]?.subject { subjects.insert(subject) } }
                }
                modify(change.uuid, changes)
            case .modified: break  // From a client that keeps a copy; this one keeps none.
            case .deleted:
                if let subject = rows[change.uuid]?.subject { subjects.insert(subject) }
                // Members of a deleted group belong to other subjects.
                for column in table.referenceColumns {
                    for case .uuid(let uuid) in rows[change.uuid]?.columns[column]?.atoms ?? [] {
                        if let subject = rows[uuid]?.subject { subjects.insert(subject) }
                    }
                }
                delete(change.uuid)
            }
        }
        // Checked after all rows are known: a foreign row inside a row of this control plane makes that row's subject
        // differ.
        for (holder, row) in placed {
            if let subject = rows[row]?.subject ?? rows[holder]?.subject { subjects.insert(subject) }
        }
        return (changedPorts, subjects)
    }

    /// Whether the switch port of row `uuid` is up and enabled, and the port of the API that it stands for. OVN reports a
    /// disabled port as up as long as it is bound on a hypervisor.
    func port(_ uuid: UUID128) -> (id: UUID128, isUp: Bool)? {
        guard let row = rows[uuid], let key = row.key, key.table == .logicalSwitchPort, let id = UUID128(key.id) else {
            return nil
        }
        return (id, row.columns["up"] == .boolean(true) && row.columns["enabled"] != .boolean(false))
    }
}
