package import Database
package import JSON
package import Kernel

/// A column with the value from a request.
package struct Setting: Sendable {
    package let column: String
    /// Nil for the column's default.
    package let value: SQL?

    init(_ column: String, _ value: SQL) {
        self.column = column
        self.value = value
    }

    package init(_ column: String, _ value: JSONValue, isJSON: Bool) {
        self.column = column
        switch value {
        case .null: self.value = nil
        case _ where isJSON: self.value = "\(value)::jsonb"
        case .string(let text): self.value = "\(text)"
        default: self.value = "\(value.description)"
        }
    }
}

/// Columns with their new values. All UPDATEs whose columns depend on a request are built with this type.
///
/// Names of columns are literals or come from declarations; values are always bind parameters. A dictionary literal gives columns with
/// expressions: `["id": "\(id)", "status": "'pending'"]`.
package struct Changes: Sendable, ExpressibleByDictionaryLiteral {
    private var settings: [Setting]
    /// Assignments that depend on the row.
    private var assignments: [SQL] = []

    /// - Parameter settings: columns that the body sets directly.
    package init(_ settings: [Setting] = []) { self.settings = settings }

    package init(dictionaryLiteral columns: (StaticString, SQL)...) { settings = columns.map { Setting("\($0.0)", $0.1) } }

    package var isEmpty: Bool { settings.isEmpty && assignments.isEmpty }

    /// Adds the columns of `other`.
    package mutating func merge(_ other: Changes) {
        settings += other.settings
        assignments += other.assignments
    }

    /// Sets a column; nil is NULL.
    package mutating func set(_ column: StaticString, _ value: (some SQLBindable)?) { set(declared: "\(column)", "\(value)") }

    /// Sets a `jsonb` column.
    package mutating func set(json column: StaticString, _ value: JSONValue) { set(declared: "\(column)", "\(value)::jsonb") }

    /// Sets a column to an expression.
    package mutating func set(_ column: StaticString, sql value: SQL) { set(declared: "\(column)", value) }

    /// Adds an assignment that depends on the row, such as `failed_attempts = failed_attempts + 1`.
    package mutating func set(_ assignment: SQL) { assignments.append(assignment) }

    /// Sets a column of a declared list.
    mutating func set(declared column: String, _ value: SQL) { settings.append(Setting(column, value)) }

    /// Sets a text column from the member with its name, if there is one; null becomes `absent`.
    package mutating func text(_ body: JSONObject, _ name: StaticString, absent: String? = "") {
        if let value = body["\(name)"] { set(name, value.stringValue ?? absent) }
    }

    /// Sets a boolean column from the member with its name, if there is one.
    package mutating func flag(_ body: JSONObject, _ name: StaticString) {
        if let value = body["\(name)"]?.boolValue { set(name, value) }
    }

    /// The statement; nil if there is nothing to set.
    ///
    /// - Parameters:
    ///   - now: for `updated_at`; nil if the table has no such column.
    ///   - isCounted: whether the statement increments `generation`. Network's tables have triggers for that.
    ///   - touching: whether the row counts as changed even if there is nothing to set.
    package func statement(
        _ relation: String, where condition: SQL, at now: Timestamp?, isCounted: Bool = false, touching: Bool = false
    ) -> SQL? {
        guard !isEmpty || touching else { return nil }
        var all = settings.map { "\(raw: $0.column) = \($0.value ?? "DEFAULT")" as SQL } + assignments
        if let now { all.append("updated_at = \(now)") }
        if isCounted { all.append("generation = generation + 1") }
        return "UPDATE \(raw: relation) SET \(SQL.joined(all, separator: ", ")) WHERE \(condition)"
    }

    /// The INSERT of a row with these columns; the others get their defaults.
    ///
    /// - Parameter isUpdated: whether `updated_at` is set too. Some of OpenStack's services leave it null until the first change.
    package func insertion(_ relation: String, at now: Timestamp, isUpdated: Bool = true) -> SQL {
        let given = settings.filter { $0.value != nil }
        let times = isUpdated ? ["created_at", "updated_at"] : ["created_at"]
        let names = (given.map(\.column) + times).joined(separator: ", ")
        let values = given.compactMap(\.value) + times.map { _ in "\(now)" }
        return "INSERT INTO \(raw: relation) (\(raw: names)) VALUES (\(SQL.joined(values, separator: ", ")))"
    }

    /// Runs the statement.
    ///
    /// - Returns: the number of changed rows; nil if there was nothing to set.
    @discardableResult
    package func apply(
        _ connection: Connection, _ relation: String, where condition: SQL, at now: Timestamp?, isCounted: Bool = false,
        touching: Bool = false
    ) throws -> Int? {
        try statement(relation, where: condition, at: now, isCounted: isCounted, touching: touching).map { try connection.execute($0) }
    }

    /// Runs the statement for the row with this id.
    @discardableResult
    package func apply(
        _ connection: Connection, _ relation: String, _ id: some SQLBindable, at now: Timestamp?, isCounted: Bool = false,
        touching: Bool = false
    ) throws -> Int? {
        try apply(connection, relation, where: "id = \(id)", at: now, isCounted: isCounted, touching: touching)
    }
}
