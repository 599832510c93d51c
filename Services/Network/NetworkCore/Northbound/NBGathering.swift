import Kernel

private struct Place: Hashable {
    let table: NBTable
    let target: NBTarget
}

extension [NBOperation] {
    /// Merges mutations so that each row is mutated once instead of once per element: ovsdb-server copies the whole row,
    /// with thousands of ports, for each mutation.
    package var gathered: [NBOperation] {
        var result: [NBOperation] = []
        var order: [Place] = []
        var deleted: [Place: SmallMap<String, SmallSet<NBAtom>>] = [:]
        var fresh: [Place: SmallMap<String, SmallSet<NBAtom>>] = [:]
        for operation in self {
            guard case .mutate(let table, let target, let delete, let insert) = operation,
                delete.keys.allSatisfy(table.referenceColumns.contains), insert.keys.allSatisfy(table.referenceColumns.contains)
            else {
                result.append(operation)
                continue
            }
            let place = Place(table: table, target: target)
            if deleted[place] == nil, fresh[place] == nil { order.append(place) }
            for (column, value) in delete { deleted[place, default: [:]][column, default: []].formUnion(value.atoms) }
            for (column, value) in insert { fresh[place, default: [:]][column, default: []].formUnion(value.atoms) }
        }
        // Merged mutations come last, after all rows that they refer to are inserted.
        for place in order {
            result.append(
                .mutate(
                    place.table, place.target, delete: (deleted[place] ?? [:]).mapValues { .set($0) },
                    insert: (fresh[place] ?? [:]).mapValues { .set($0) }))
        }
        return result
    }
}
