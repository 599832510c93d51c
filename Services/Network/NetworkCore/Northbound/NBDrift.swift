import Kernel

/// Describes drift in words, derived from the operations that correct it.
package enum NBDrift {
    /// - Parameters:
    ///   - operations: the operations of one subject.
    ///   - model: the state for which they were planned.
    package static func words(_ subject: NBSubject, _ operations: [NBOperation], _ model: NBModel) -> String {
        var parts: [String] = []
        for operation in operations {
            for part in words(operation, model) where !parts.contains(part) { parts.append(part) }
        }
        let shown = parts.prefix(6).joined(separator: "; ")
        let more = parts.count > 6 ? "; and \(parts.count - 6) more" : ""
        return "OVN did not agree with \(subject): \(shown)\(more)"
    }

    private static func words(_ operation: NBOperation, _ model: NBModel) -> [String] {
        switch operation {
        case .insert(let table, _, let row): ["\(noun(table)) \(name(row)) was missing"]
        case .update(let table, let target, let columns): update("\(noun(table)) \(name(target, model))", columns)
        case .mutate(let table, let target, let delete, let insert):
            mutation(table, target, delete, insert, model)
        case .delete(let table, let uuid): ["\(noun(table)) \(name(.uuid(uuid), model)) was there and should not be"]
        }
    }

    private static func update(_ holder: String, _ columns: NBColumns) -> [String] {
        var parts: [String] = []
        // Also show the expected name, so that operators can find the row.
        if let name = columns["name"].flatMap(text) { parts.append("\(holder) should be called \(name)") }
        let others = columns.keys.filter { $0 != "name" || parts.isEmpty }.sorted()
        if !others.isEmpty { parts.append("\(holder) had another \(others.joined(separator: ", "))") }
        return parts
    }

    private static func mutation(
        _ table: NBTable, _ target: NBTarget, _ delete: NBColumns, _ insert: NBColumns, _ model: NBModel
    ) -> [String] {
        var parts: [String] = []
        let holder = "\(noun(table)) \(name(target, model))"
        for (column, value) in delete.sorted(by: { $0.key < $1.key }) {
            guard table.referenceColumns.contains(column) else {
                parts.append("\(holder) had another \(column)")
                continue
            }
            for case .uuid(let uuid) in value.atoms {
                let child = model.rows[uuid].map { noun($0.table) } ?? "row"
                parts.append("\(holder) had \(child) \(name(.uuid(uuid), model)) and should not")
            }
        }
        for (column, value) in insert.sorted(by: { $0.key < $1.key }) {
            guard table.referenceColumns.contains(column) else {
                if delete[column] == nil { parts.append("\(holder) had another \(column)") }
                continue
            }
            for case .uuid(let uuid) in value.atoms {
                let child = model.rows[uuid].map { noun($0.table) } ?? "row"
                parts.append("\(holder) lacked \(child) \(name(.uuid(uuid), model))")
            }
        }
        return parts
    }

    private static func noun(_ table: NBTable) -> String {
        table.rawValue.split(separator: "_").map { $0.allSatisfy(\.isUppercase) ? String($0) : $0.lowercased() }
            .joined(separator: " ")
    }

    private static func name(_ target: NBTarget, _ model: NBModel) -> String {
        guard case .uuid(let uuid) = target, let row = model.rows[uuid] else { return "that was missing" }
        return row.columns["name"].flatMap(text) ?? row.key?.id ?? uuid.description
    }

    private static func name(_ row: NBColumns) -> String {
        let marks = row["external_ids"]?.entries ?? [:]
        return row["name"].flatMap(text) ?? marks[NBKey.idEntry] ?? marks[NBKey.subjectEntry] ?? ""
    }

    private static func text(_ value: NBValue) -> String? {
        guard case .string(let text)? = value.atoms.only, !text.isEmpty else { return nil }
        return text
    }
}
