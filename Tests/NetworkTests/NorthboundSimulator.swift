import Kernel

@testable import NetworkCore

/// A simulated northbound database for the planner's operations: named rows, references, and garbage collection of unreferenced
/// rows.
struct NorthboundSimulator {
    struct Row {
        var table: NBTable
        var columns: NBColumns
    }

    private(set) var rows: [UUID128: Row] = [:]
    var model = NBModel()
    private let random = SeededRandom(seed: 99)

    private static let roots: Set<NBTable> = [.logicalSwitch, .logicalRouter, .portGroup, .dhcpOptions]

    /// Applies one transaction and feeds the model from the difference, as a monitor would.
    mutating func apply(_ operations: [NBOperation]) {
        let before = rows
        var names: [String: UUID128] = [:]
        for case .insert(_, let name, _) in operations { names[name] = random.uuid() }
        func resolve(_ value: NBValue) -> NBValue {
            guard case .set(let atoms) = value else { return value }
            return .set(atoms.mapped { if case .named(let name) = $0 { .uuid(names[name]!) } else { $0 } })
        }
        func uuid(_ target: NBTarget) -> UUID128 {
            switch target {
            case .uuid(let uuid): uuid
            case .named(let name): names[name]!
            }
        }
        for operation in operations {
            switch operation {
            case .insert(let table, let name, let row):
                rows[names[name]!] = Row(table: table, columns: row.mapValues(resolve))
            case .update(_, let target, let columns):
                for (column, value) in columns { rows[uuid(target)]?.columns[column] = resolve(value) }
            case .mutate(_, let target, let delete, let insert):
                mutate(uuid(target), delete.mapValues(resolve), insert.mapValues(resolve))
            case .delete(_, let uuid): rows[uuid] = nil
            }
        }
        collect()
        publish(before)
    }

    private mutating func mutate(_ uuid: UUID128, _ delete: NBColumns, _ insert: NBColumns) {
        for (column, value) in delete {
            guard let current = rows[uuid]?.columns[column] else { continue }
            switch current {
            case .set(let atoms): rows[uuid]?.columns[column] = .set(atoms.subtracting(value.atoms))
            case .map(var entries):
                for case .string(let key) in value.atoms { entries[key] = nil }
                rows[uuid]?.columns[column] = .map(entries)
            }
        }
        for (column, value) in insert where rows[uuid] != nil {
            switch value {
            case .set(let atoms):
                let present = rows[uuid]?.columns[column]?.atoms ?? []
                rows[uuid]?.columns[column] = .set(present.union(atoms))
            case .map(let fresh):
                var entries = rows[uuid]?.columns[column]?.entries ?? [:]
                entries.merge(fresh) { old, _ in old }
                rows[uuid]?.columns[column] = .map(entries)
            }
        }
    }

    /// Removes unreferenced rows, and weak references to removed rows.
    private mutating func collect() {
        while true {
            var mentioned: Set<UUID128> = []
            for row in rows.values {
                for column in row.table.referenceColumns where !(row.table == .portGroup && column == "ports") {
                    for case .uuid(let uuid) in row.columns[column]?.atoms ?? [] { mentioned.insert(uuid) }
                }
            }
            let gone = rows.filter { !NorthboundSimulator.roots.contains($0.value.table) && !mentioned.contains($0.key) }
            if gone.isEmpty { break }
            for uuid in gone.keys { rows[uuid] = nil }
        }
        for (uuid, row) in rows {
            for (column, value) in row.columns {
                guard case .set(let atoms) = value else { continue }
                let kept = atoms.filter { if case .uuid(let other) = $0 { rows[other] != nil } else { true } }
                if kept.count != atoms.count { rows[uuid]?.columns[column] = .set(kept) }
            }
        }
    }

    private mutating func publish(_ before: [UUID128: Row]) {
        for uuid in before.keys where rows[uuid] == nil { model.delete(uuid) }
        for (uuid, row) in rows {
            guard let old = before[uuid] else {
                model.insert(row.table, uuid, row.columns)
                continue
            }
            var changes: SmallMap<String, NBColumnChange> = [:]
            for (column, value) in row.columns where old.columns[column] != value {
                switch value {
                case .map(let entries):
                    let known = old.columns[column]?.entries ?? [:]
                    changes[column] = .entries(
                        set: entries.filter { known[$0.key] != $0.value }, removed: SmallSet(known.keys.filter { entries[$0] == nil }))
                case .set(let atoms) where row.table.manyValued.contains(column):
                    let known = old.columns[column]?.atoms ?? []
                    changes[column] = .elements(added: atoms.subtracting(known), removed: known.subtracting(atoms))
                case .set: changes[column] = .value(value)
                }
            }
            if !changes.isEmpty { model.modify(uuid, changes) }
        }
    }

    func count(_ table: NBTable) -> Int { rows.values.count { $0.table == table } }

    func row(_ key: NBKey) -> Row? { model.uuid(of: key).flatMap { rows[$0] } }
}
