package import Database
package import JSON
package import Kernel

/// A row as a struct. SELECT list, INSERT, reading and comparison are derived from one list of columns.
package protocol StoredRow: Sendable {
    /// The name of the database table; its alias in queries is `t`.
    static var relation: String { get }
    /// A value into which the columns are read.
    static var blank: Self { get }
    static var columns: [Column<Self>] { get }
}

/// A column of a table and the property with its value.
package struct Column<Record: Sendable>: Sendable {
    package enum Writing: Sendable {
        case always
        /// Written on insert; changed only by separate statements.
        case once
        /// Written only by separate statements.
        case never
    }

    package let name: String
    let writing: Writing
    let selection: String
    let value: @Sendable (Record) -> SQL
    let read: @Sendable (inout Record, Row) throws -> Void
    let isEqual: @Sendable (Record, Record) -> Bool

    package init<Value: ColumnValue>(
        _ name: String, _ property: any WritableKeyPath<Record, Value> & Sendable, _ writing: Writing = .always
    ) {
        self.name = name
        self.writing = writing
        selection = Value.selection(name)
        value = { $0[keyPath: property].sql }
        read = { $0[keyPath: property] = try Value.read($1, name) }
        isEqual = { $0[keyPath: property] == $1[keyPath: property] }
    }
}

extension StoredRow {
    /// The SELECT list.
    package static var selection: String { columns.map(\.selection).joined(separator: ", ") }

    /// Reads a row of a query with the list `selection`.
    ///
    /// - Throws: an internal error if a column is missing or malformed.
    package init(_ row: Row) throws {
        self = Self.blank
        for column in Self.columns { try column.read(&self, row) }
    }

    /// The columns of a new row, to which the statement may add others.
    ///
    /// - Parameter settings: further columns that the request sets directly.
    package func values(_ settings: [Setting] = []) -> Changes {
        var changes = Changes(settings)
        for column in Self.columns where column.writing != .never { changes.set(declared: column.name, column.value(self)) }
        return changes
    }

    /// The INSERT of the row.
    ///
    /// - Parameters:
    ///   - settings: further columns that the request sets directly.
    ///   - isUpdated: whether `updated_at` is set too.
    package func insertion(_ settings: [Setting] = [], at now: Timestamp, isUpdated: Bool = true) -> SQL {
        values(settings).insertion(Self.relation, at: now, isUpdated: isUpdated)
    }

    /// For `INSERT … ON CONFLICT … DO UPDATE SET`: all columns that can change, and `updated_at`.
    package static var replacement: String {
        (columns.filter { $0.writing == .always }.map(\.name) + ["updated_at"]).map { "\($0) = EXCLUDED.\($0)" }.joined(separator: ", ")
    }

    /// The UPDATE's assignments that change the row to `new`.
    package func changes(to new: Self, _ settings: [Setting] = []) -> Changes {
        var changes = Changes(settings)
        for column in Self.columns where column.writing == .always && !column.isEqual(self, new) {
            changes.set(declared: column.name, column.value(new))
        }
        return changes
    }
}

/// A type that a column can hold.
package protocol ColumnValue: Sendable, Equatable {
    /// The value in a statement.
    var sql: SQL { get }
    /// The column in a SELECT list.
    static func selection(_ column: String) -> String
    static func read(_ row: Row, _ name: String) throws -> Self
}

extension ColumnValue {
    package static func selection(_ column: String) -> String { "t.\(column)" }
}

extension String: ColumnValue {
    package var sql: SQL { "\(self)" }
    package static func read(_ row: Row, _ name: String) throws -> String { try row.string(name) }
}

extension Int: ColumnValue {
    package var sql: SQL { "\(self)" }
    package static func read(_ row: Row, _ name: String) throws -> Int { try row.int(name) }
}

extension Double: ColumnValue {
    package var sql: SQL { "\(self)" }
    package static func read(_ row: Row, _ name: String) throws -> Double { try row.double(name) }
}

extension Bool: ColumnValue {
    package var sql: SQL { "\(self)" }
    package static func read(_ row: Row, _ name: String) throws -> Bool { try row.bool(name) }
}

extension UUID128: ColumnValue {
    package var sql: SQL { "\(self)" }
    package static func read(_ row: Row, _ name: String) throws -> UUID128 { try row.uuid(name) }
}

extension ID: ColumnValue {
    package var sql: SQL { "\(self)" }
    package static func read(_ row: Row, _ name: String) throws -> ID { try row.id(name) }
}

extension Timestamp: ColumnValue {
    package var sql: SQL { "\(self)" }
    package static func read(_ row: Row, _ name: String) throws -> Timestamp { try row.timestamp(name) }
}

extension JSONObject: ColumnValue {
    package var sql: SQL { "\(self)::jsonb" }
    package static func read(_ row: Row, _ name: String) throws -> JSONObject { try row.object(name) }
}

extension Array: ColumnValue where Element == String {
    package var sql: SQL { "\(self)::text[]" }
    package static func selection(_ column: String) -> String { "array_to_json(t.\(column)) AS \(column)" }
    package static func read(_ row: Row, _ name: String) throws -> [String] { try row.strings(name) }
}

extension Optional: ColumnValue where Wrapped: ColumnValue {
    package var sql: SQL { self?.sql ?? "NULL" }
    package static func selection(_ column: String) -> String { Wrapped.selection(column) }
    package static func read(_ row: Row, _ name: String) throws -> Wrapped? {
        try row.optionalString(name) == nil ? nil : try Wrapped.read(row, name)
    }
}

extension ColumnValue where Self: RawRepresentable, RawValue == String {
    package var sql: SQL { "\(rawValue)" }
    package static func read(_ row: Row, _ name: String) throws -> Self {
        let text = try row.string(name)
        guard let value = Self(rawValue: text) else { throw ResourceError.internalError("column \(name) is '\(text)'") }
        return value
    }
}
