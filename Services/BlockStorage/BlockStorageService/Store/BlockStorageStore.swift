import Database
import JSON
import Kernel
import WebAPI

/// The SQL of volumes, snapshots, attachments, types and services. Bodies run inside the transaction of the request or step.
enum BlockStorageStore {
    /// A table whose rows count their changes.
    enum Counted: String, Sendable {
        case volumes
        case snapshots = "volume_snapshots"
    }

    /// Changes columns of a row, and counts the change.
    static func change(
        _ connection: Connection, _ table: Counted, _ id: some SQLBindable, at now: Timestamp, _ body: (inout Changes) throws -> Void
    ) throws {
        var changes = Changes()
        try body(&changes)
        try changes.apply(connection, table.rawValue, id, at: now, isCounted: true, touching: true)
    }

    static func word<Word: RawRepresentable>(_ row: Row, _ name: String) throws -> Word where Word.RawValue == String {
        let text = try row.string(name)
        guard let word = Word(rawValue: text) else { throw ResourceError.internalError("column \(name) is '\(text)'") }
        return word
    }

    /// Names and ids are texts in bodies and UUIDs in tables.
    static func uuid(_ text: String?) -> SQL { "\(text)::uuid" }
}
