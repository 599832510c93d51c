package import JSON
package import Kernel

/// A clause of a `where` (RFC 7047 §5.1); all clauses of a list must match.
package struct OVSDBCondition: Hashable, Sendable {
    /// The comparison function.
    package enum Function: String, Sendable {
        case equal = "=="
        case notEqual = "!="
        case includes
        case excludes
        case less = "<"
        case greater = ">"
    }

    package let column: String
    package let function: Function
    package let value: OVSDBValue

    package init(_ column: String, _ function: Function, _ value: OVSDBValue) {
        self.column = column
        self.function = function
        self.value = value
    }

    /// The row with this UUID.
    package static func uuid(_ uuid: UUID128) -> OVSDBCondition { OVSDBCondition("_uuid", .equal, OVSDBValue(uuid)) }

    /// The row that this transaction inserts under `name`.
    package static func inserted(_ name: String) -> OVSDBCondition {
        OVSDBCondition("_uuid", .equal, .set([.namedUUID(name)]))
    }

    /// Rows whose column equals this value.
    package static func equal(_ column: String, _ value: OVSDBValue) -> OVSDBCondition {
        OVSDBCondition(column, .equal, value)
    }

    func write(to writer: inout JSONWriter) {
        writer.array {
            $0.value(column)
            $0.value(function.rawValue)
            value.write(to: &$0)
        }
    }
}

/// A change to part of a column.
package struct OVSDBMutation: Hashable, Sendable {
    package let column: String
    package let mutator: String
    package let value: OVSDBValue

    /// Adds elements, or entries with new keys.
    package static func insert(_ column: String, _ value: OVSDBValue) -> OVSDBMutation {
        OVSDBMutation(column: column, mutator: "insert", value: value)
    }

    /// Removes elements; for a map column, entries by key (a set) or by key and value (a map).
    package static func delete(_ column: String, _ value: OVSDBValue) -> OVSDBMutation {
        OVSDBMutation(column: column, mutator: "delete", value: value)
    }

    /// Adds `amount` to an integer column.
    package static func add(_ column: String, _ amount: Int) -> OVSDBMutation {
        OVSDBMutation(column: column, mutator: "+=", value: OVSDBValue(amount))
    }

    func write(to writer: inout JSONWriter) {
        writer.array {
            $0.value(column)
            $0.value(mutator)
            // A set of one must stay tagged here: the server would accept a bare string, but not a bare pair.
            value.write(to: &$0, isTagged: mutator != "+=")
        }
    }
}

/// An operation of a transaction (RFC 7047 §5.2).
package enum OVSDBOperation: Hashable, Sendable {
    case insert(table: String, row: OVSDBRow, name: String? = nil)
    case select(table: String, where: [OVSDBCondition] = [], columns: [String]? = nil)
    case update(table: String, where: [OVSDBCondition], row: OVSDBRow)
    case mutate(table: String, where: [OVSDBCondition], mutations: [OVSDBMutation])
    case delete(table: String, where: [OVSDBCondition])
    /// Waits until the rows match (`until: true`) or no longer match; with 0 ms it is a condition of the transaction.
    case wait(
        table: String, where: [OVSDBCondition], columns: [String], rows: [OVSDBRow], until: Bool = true,
        timeoutMilliseconds: Int = 0)
    case comment(String)
    /// Fails the transaction unless this session holds the lock.
    case assertLock(String)

    package func write(to writer: inout JSONWriter) {
        writer.object {
            switch self {
            case .insert(let table, let row, let name):
                $0.field("op", "insert")
                $0.field("table", table)
                OVSDBOperation.write("row", row, to: &$0)
                if let name { $0.field("uuid-name", name) }
            case .select(let table, let conditions, let columns):
                $0.field("op", "select")
                OVSDBOperation.write(table, conditions, to: &$0)
                if let columns { $0.field("columns", columns) }
            case .update(let table, let conditions, let row):
                $0.field("op", "update")
                OVSDBOperation.write(table, conditions, to: &$0)
                OVSDBOperation.write("row", row, to: &$0)
            case .mutate(let table, let conditions, let mutations):
                $0.field("op", "mutate")
                OVSDBOperation.write(table, conditions, to: &$0)
                $0.arrayField("mutations") { for mutation in mutations { mutation.write(to: &$0) } }
            case .delete(let table, let conditions):
                $0.field("op", "delete")
                OVSDBOperation.write(table, conditions, to: &$0)
            case .wait(let table, let conditions, let columns, let rows, let until, let timeout):
                $0.field("op", "wait")
                OVSDBOperation.write(table, conditions, to: &$0)
                $0.field("columns", columns)
                $0.arrayField("rows") { for row in rows { row.write(to: &$0) } }
                $0.field("until", until ? "==" : "!=")
                $0.field("timeout", timeout)
            case .comment(let text):
                $0.field("op", "comment")
                $0.field("comment", text)
            case .assertLock(let name):
                $0.field("op", "assert")
                $0.field("lock", name)
            }
        }
    }

    private static func write(_ table: String, _ conditions: [OVSDBCondition], to writer: inout JSONWriter) {
        writer.field("table", table)
        writer.arrayField("where") { for condition in conditions { condition.write(to: &$0) } }
    }

    private static func write(_ name: String, _ row: OVSDBRow, to writer: inout JSONWriter) {
        writer.name(name)
        row.write(to: &writer)
    }
}

/// The encoded operations of a transaction. The caller encodes them, because the client has a single thread for all its work.
package struct OVSDBTransaction: Sendable {
    package private(set) var count = 0
    private var writer = JSONWriter(capacity: 64 << 10)

    var bytes: [UInt8] { writer.bytes }

    /// - Parameter write: writes one operation, an object (RFC 7047 §5.2).
    package init<Operation>(
        _ operations: [Operation], write: (Operation, inout JSONWriter) throws -> Void
    ) rethrows {
        try append(operations, write: write)
    }

    /// - Parameter write: as for `init`.
    package mutating func append<Operation>(
        _ operations: [Operation], write: (Operation, inout JSONWriter) throws -> Void
    ) rethrows {
        for operation in operations { try write(operation, &writer) }
        count += operations.count
    }
}

/// The result of one operation of a committed transaction.
package struct OVSDBResult: Sendable, Hashable {
    /// Number of rows changed by an update, mutate or delete.
    package var count: Int?
    /// The row created by an insert.
    package var uuid: UUID128?
    /// The rows found by a select.
    package var rows: [OVSDBRow]?

    /// - Throws: `OVSDBError.transaction` for the first operation that failed.
    @discardableResult
    static func check(_ reply: JSONValue, operations: Int) throws(OVSDBError) -> [JSONValue] {
        guard let items = reply.arrayValue else {
            throw OVSDBError.protocolViolation("the reply to transact is \(reply.kindName)")
        }
        for (index, item) in items.enumerated() {
            guard let error = item["error"]?.stringValue else { continue }
            let details = item["details"]?.stringValue ?? ""
            throw OVSDBError.transaction(operation: index, error: error, details: details)
        }
        guard items.count >= operations else {
            throw OVSDBError.protocolViolation("\(items.count) results for \(operations) operations")
        }
        return items
    }

    /// - Throws: as `check` does.
    static func decode(_ reply: JSONValue, operations: Int) throws(OVSDBError) -> [OVSDBResult] {
        let items = try check(reply, operations: operations)
        var results: [OVSDBResult] = []
        for item in items.prefix(operations) {
            var result = OVSDBResult()
            result.count = item["count"]?.intValue
            if let uuid = item["uuid"] { result.uuid = try OVSDBAtom(json: uuid).uuidValue }
            if let rows = item["rows"]?.arrayValue {
                var decoded: [OVSDBRow] = []
                for row in rows { decoded.append(try OVSDBRow.decode(row)) }
                result.rows = decoded
            }
            results.append(result)
        }
        return results
    }
}
