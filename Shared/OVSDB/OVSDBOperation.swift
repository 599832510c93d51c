import JSON
import Kernel

/// A clause of a `where` (RFC 7047 §5.1); all clauses of a list must hold.
package struct OVSDBCondition: Hashable, Sendable {
    /// How the column is compared.
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

    /// Rows whose column has just this value.
    package static func equal(_ column: String, _ value: OVSDBValue) -> OVSDBCondition {
        OVSDBCondition(column, .equal, value)
    }

    var json: JSONValue { [.string(column), .string(function.rawValue), value.json] }
}

/// A change to part of a column.
package struct OVSDBMutation: Hashable, Sendable {
    package let column: String
    package let mutator: String
    package let value: OVSDBValue

    /// Adds elements, or entries whose keys are not there yet.
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

    var json: JSONValue {
        // "set" of one must stay tagged here: a bare string would be right for the server too, a bare pair would not.
        if case .set(let atoms) = value, mutator != "+=" {
            return [.string(column), .string(mutator), ["set", .array(atoms.map(\.json))]]
        }
        return [.string(column), .string(mutator), value.json]
    }
}

/// An operation of a transaction (RFC 7047 §5.2).
package enum OVSDBOperation: Hashable, Sendable {
    case insert(table: String, row: OVSDBRow, name: String? = nil)
    case select(table: String, where: [OVSDBCondition] = [], columns: [String]? = nil)
    case update(table: String, where: [OVSDBCondition], row: OVSDBRow)
    case mutate(table: String, where: [OVSDBCondition], mutations: [OVSDBMutation])
    case delete(table: String, where: [OVSDBCondition])
    /// Holds the transaction until the rows are (`until: true`) or are not as given; 0 ms makes it a condition.
    case wait(
        table: String, where: [OVSDBCondition], columns: [String], rows: [OVSDBRow], until: Bool = true,
        timeoutMilliseconds: Int = 0)
    case comment(String)
    /// Fails the transaction unless this session holds the lock.
    case assertLock(String)

    package var json: JSONValue {
        switch self {
        case .insert(let table, let row, let name):
            var object: JSONObject = ["op": "insert", "table": .string(table), "row": row.rowJSON]
            if let name { object["uuid-name"] = .string(name) }
            return .object(object)
        case .select(let table, let conditions, let columns):
            var object: JSONObject = [
                "op": "select", "table": .string(table), "where": .array(conditions.map(\.json)),
            ]
            if let columns { object["columns"] = JSONValue(columns) }
            return .object(object)
        case .update(let table, let conditions, let row):
            return [
                "op": "update", "table": .string(table), "where": .array(conditions.map(\.json)), "row": row.rowJSON,
            ]
        case .mutate(let table, let conditions, let mutations):
            return [
                "op": "mutate", "table": .string(table), "where": .array(conditions.map(\.json)),
                "mutations": .array(mutations.map(\.json)),
            ]
        case .delete(let table, let conditions):
            return ["op": "delete", "table": .string(table), "where": .array(conditions.map(\.json))]
        case .wait(let table, let conditions, let columns, let rows, let until, let timeout):
            return [
                "op": "wait", "table": .string(table), "where": .array(conditions.map(\.json)),
                "columns": JSONValue(columns), "rows": .array(rows.map(\.rowJSON)), "until": until ? "==" : "!=",
                "timeout": JSONValue(timeout),
            ]
        case .comment(let text): return ["op": "comment", "comment": .string(text)]
        case .assertLock(let name): return ["op": "assert", "lock": .string(name)]
        }
    }
}

/// What one operation of a committed transaction gave.
package struct OVSDBResult: Sendable, Hashable {
    /// Rows touched by an update, mutate or delete.
    package var count: Int?
    /// The row made by an insert.
    package var uuid: UUID128?
    /// What a select found.
    package var rows: [OVSDBRow]?

    /// - Throws: `OVSDBError.transaction` for the first operation that failed.
    static func decode(_ reply: JSONValue, operations: Int) throws(OVSDBError) -> [OVSDBResult] {
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
