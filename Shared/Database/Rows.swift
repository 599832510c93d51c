import CLibpq
package import JSON
package import Kernel

/// The rows of one result. Lives on the connection's thread.
package final class Rows: RandomAccessCollection {
    fileprivate let result: OpaquePointer
    /// For each column, the column that was looked up after it last time, -1 if unknown; the last element is for the first look-up of a
    /// row. Rows are usually read in the same column order, so that most look-ups cost one comparison.
    private var followers: [Int32]
    private var latest: Int

    init(result: OpaquePointer) {
        self.result = result
        latest = Int(PQnfields(result))
        followers = Array(repeating: -1, count: latest + 1)
    }

    deinit { PQclear(result) }

    package var startIndex: Int { 0 }
    package var endIndex: Int { Int(PQntuples(result)) }
    package subscript(position: Int) -> Row { Row(rows: self, index: Int32(position)) }

    /// Columns of every row.
    package var columnCount: Int { Int(PQnfields(result)) }

    /// Rows that an INSERT, UPDATE or DELETE touched.
    package var affected: Int { Int(String(cString: PQcmdTuples(result))) ?? 0 }

    /// The column of this name, the last one if there are several.
    func column(_ name: String) throws -> Int32 {
        var column = followers[latest]
        if column < 0 || !isName(name, of: column) {
            column = PQnfields(result) - 1
            while column >= 0, !isName(name, of: column) { column -= 1 }
            guard column >= 0 else { throw ResourceError.internalError("no column \(name) in the result") }
            followers[latest] = column
        }
        latest = Int(column)
        return column
    }

    private func isName(_ name: String, of column: Int32) -> Bool {
        guard let other = PQfname(result, column) else { return false }
        var length = 0
        for byte in name.utf8 {
            // The C string's terminating NUL differs from every byte of `name`, so the comparison never reads past it.
            let unit = UInt8(bitPattern: other[length])
            guard unit == byte, unit != 0 else { return false }
            length += 1
        }
        return other[length] == 0
    }

    /// The text of a cell, without copying; nil for NULL. Valid while the rows live.
    package func utf8(row: Int, column: Int) -> UnsafeBufferPointer<UInt8>? {
        let row = Int32(row)
        let column = Int32(column)
        guard PQgetisnull(result, row, column) == 0 else { return nil }
        let length = Int(PQgetlength(result, row, column))
        return PQgetvalue(result, row, column).withMemoryRebound(to: UInt8.self, capacity: length) {
            UnsafeBufferPointer(start: $0, count: length)
        }
    }
}

/// One row. Accessors throw an internal error where the column is missing, NULL against the type, or unreadable.
package struct Row {
    fileprivate let rows: Rows
    fileprivate let index: Int32

    /// The cell as text; nil for NULL.
    package func optionalString(_ name: String) throws -> String? {
        rows.utf8(row: Int(index), column: Int(try rows.column(name))).map { String(decoding: $0, as: UTF8.self) }
    }

    private func required<Value>(_ name: String, _ value: Value?) throws -> Value {
        guard let value else { throw ResourceError.internalError("column \(name) is NULL or malformed") }
        return value
    }

    private func parsed<Value>(_ name: String, _ parse: (String) -> Value?) throws -> Value? {
        guard let text = try optionalString(name) else { return nil }
        return try required(name, parse(text))
    }

    /// The cell as text.
    package func string(_ name: String) throws -> String { try required(name, optionalString(name)) }
    /// The cell as a whole number; nil for NULL.
    package func optionalInt(_ name: String) throws -> Int? { try parsed(name) { Int($0) } }
    /// The cell as a whole number.
    package func int(_ name: String) throws -> Int { try required(name, optionalInt(name)) }
    /// The cell as a floating-point number; nil for NULL.
    package func optionalDouble(_ name: String) throws -> Double? { try parsed(name) { Double($0) } }
    /// The cell as a floating-point number.
    package func double(_ name: String) throws -> Double { try required(name, optionalDouble(name)) }
    /// The cell as a boolean; nil for NULL.
    package func optionalBool(_ name: String) throws -> Bool? { try parsed(name) { $0 == "t" } }
    /// The cell as a boolean.
    package func bool(_ name: String) throws -> Bool { try required(name, optionalBool(name)) }
    /// The cell as a time; nil for NULL.
    package func optionalTimestamp(_ name: String) throws -> Timestamp? { try parsed(name) { Timestamp($0) } }
    /// The cell as a time (`timestamptz`).
    package func timestamp(_ name: String) throws -> Timestamp { try required(name, optionalTimestamp(name)) }
    /// The cell as a UUID; nil for NULL.
    package func optionalUUID(_ name: String) throws -> UUID128? {
        guard let text = rows.utf8(row: Int(index), column: Int(try rows.column(name))) else { return nil }
        return try required(name, UUID128(utf8: text))
    }
    /// The cell as a UUID.
    package func uuid(_ name: String) throws -> UUID128 { try required(name, optionalUUID(name)) }
    /// The cell as UUIDs (`uuid[]`, none of them NULL).
    package func uuids(_ name: String) throws -> [UUID128] {
        let text = try required(name, rows.utf8(row: Int(index), column: Int(try rows.column(name))))
        guard text.first == UInt8(ascii: "{"), text.last == UInt8(ascii: "}") else { return try required(name, nil) }
        return try text[1..<text.count - 1].split(separator: UInt8(ascii: ",")).map {
            try required(name, UUID128(utf8: UnsafeBufferPointer(rebasing: $0)))
        }
    }
    /// The cell as a typed id; nil for NULL.
    package func optionalID<Subject>(_ name: String, _ type: Subject.Type = Subject.self) throws -> ID<Subject>? {
        try optionalString(name).map { ID($0) }
    }
    /// The cell as a typed id.
    package func id<Subject>(_ name: String, _ type: Subject.Type = Subject.self) throws -> ID<Subject> {
        ID(try string(name))
    }
    /// The cell as JSON, at most 128 levels deep; nil for NULL.
    package func optionalJSON(_ name: String) throws -> JSONValue? {
        guard let text = try optionalString(name) else { return nil }
        do { return try JSONValue.parse(text.utf8, depthMax: 128) } catch {
            throw ResourceError.internalError("column \(name) is not JSON: \(error)")
        }
    }
    /// The cell as JSON.
    package func json(_ name: String) throws -> JSONValue { try required(name, optionalJSON(name)) }
    /// The value that the cell's JSON describes; nil for NULL and for JSON's null.
    package func optionalValue<Value: Decodable>(_ name: String, as type: Value.Type = Value.self) throws -> Value? {
        guard let document = try optionalJSON(name), !document.isNull else { return nil }
        do { return try document.decode() } catch let error as DecodingError {
            throw ResourceError.internalError("column \(name): \(error.summary)")
        }
    }
    /// The value that the cell's JSON describes.
    package func value<Value: Decodable>(_ name: String, as type: Value.Type = Value.self) throws -> Value {
        try required(name, optionalValue(name))
    }
    /// The cell as a JSON object.
    package func object(_ name: String) throws -> JSONObject { try required(name, optionalJSON(name)?.objectValue) }

    /// A JSON array of strings (`json_agg` of text), or `[]` for NULL.
    package func strings(_ name: String) throws -> [String] {
        try optionalJSON(name)?.arrayValue?.compactMap(\.stringValue) ?? []
    }
}
