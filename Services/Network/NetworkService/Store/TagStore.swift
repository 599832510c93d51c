import Authorization
import Database
import Kernel
import WebAPI

/// The statements about tags, which the rows of all kinds with tags have in the same column.
extension NetworkAPI {
    /// - Throws: 404 if the row was deleted.
    func tags(_ connection: Connection, _ kind: ResourceKind, _ id: UUID128, lock: Bool = false) throws -> [String] {
        let rows = try connection.query(
            """
            SELECT array_to_json(tags) AS tags FROM \(raw: kind.relation) WHERE id = \(id) \(raw: lock ? "FOR UPDATE" : "")
            """)
        guard let row = rows.first else { throw kind.notFound("\(id)") }
        return try row.strings("tags")
    }

    func setTags(
        _ connection: Connection, _ kind: ResourceKind, of subject: Authorized<Subject>, _ tags: [String], for action: String
    ) throws {
        let id = try subject.value(for: action).id
        try connection.execute(
            "UPDATE \(raw: kind.relation) SET tags = \(tags)::text[], updated_at = \(ambient.now) WHERE id = \(id)")
    }
}
