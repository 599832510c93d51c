import Authorization
import BlockStorageCore
import Database
import JSON
import Kernel
import WebAPI

/// The SQL of volumes, snapshots, attachments, types and services. Bodies run inside the transaction of the request or step.
enum BlockStorageStore {
    /// Changes columns of a volume or snapshot, and counts the change.
    ///
    /// - Parameter action: of the decision.
    static func change<Row: CountedRow>(
        _ connection: Connection, _ decision: Authorized<Row>, for action: String, at now: Timestamp, _ body: (inout Changes) throws -> Void
    ) throws {
        let row = try decision.value(for: action)
        var changes = Changes()
        try body(&changes)
        try changes.apply(connection, Row.table, row.id, at: now, isCounted: true, touching: true)
    }

    static func word<Word: RawRepresentable>(_ row: Row, _ name: String) throws -> Word where Word.RawValue == String {
        let text = try row.string(name)
        guard let word = Word(rawValue: text) else { throw ResourceError.internalError("column \(name) is '\(text)'") }
        return word
    }

    /// Names and ids are texts in bodies and UUIDs in tables.
    static func uuid(_ text: String?) -> SQL { "\(text)::uuid" }
}

/// A volume or snapshot: its row counts its changes.
protocol CountedRow: Sendable {
    associatedtype Key: SQLBindable

    static var table: String { get }
    var id: Key { get }
    var metadata: JSONObject { get }
}

extension Volume: CountedRow {
    static var table: String { "volumes" }
}

extension Snapshot: CountedRow {
    static var table: String { "volume_snapshots" }
}
