import JSON

/// The parts of a database schema that the client needs to interpret differences: the shape of each column.
package struct OVSDBSchema: Sendable {
    /// The number of values that a column may have.
    package enum Shape: Sendable {
        /// At most one value: a difference is the new value.
        case single
        /// Many values: a difference lists the elements that came or went.
        case set
        case map
    }

    package let version: String
    private let tables: [String: [String: Shape]]

    /// - Throws: `OVSDBError.protocolViolation` if this is not a schema.
    init(json: JSONValue) throws(OVSDBError) {
        guard let tables = json["tables"]?.objectValue else { throw OVSDBError.protocolViolation("no schema") }
        version = json["version"]?.stringValue ?? ""
        var shapes: [String: [String: Shape]] = [:]
        for table in tables.members {
            var columns: [String: Shape] = [:]
            for column in table.value["columns"]?.objectValue?.members ?? [] {
                columns[column.name] = OVSDBSchema.shape(column.value["type"])
            }
            shapes[table.name] = columns
        }
        self.tables = shapes
    }

    private static func shape(_ type: JSONValue?) -> Shape {
        guard let type, type.objectValue != nil else { return .single }
        if type["value"] != nil { return .map }
        guard let most = type["max"] else { return .single }
        if let count = most.intValue { return count > 1 ? .set : .single }
        return .set
    }

    /// Whether the database has the column.
    package func has(table: String, column: String) -> Bool { tables[table]?[column] != nil }

    /// The shape of a column; `single` for an unknown column.
    package func shape(table: String, column: String) -> Shape { tables[table]?[column] ?? .single }

    /// Whether the database has the table.
    package func hasTable(_ table: String) -> Bool { tables[table] != nil }
}
