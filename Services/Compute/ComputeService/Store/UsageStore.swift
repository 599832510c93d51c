import Database
import Kernel
import WebAPI

/// The statements about the usage of servers over a period.
enum UsageStore {
    /// The servers that ran in the period, by project, creation and id, with `hours`.
    ///
    /// - Parameters:
    ///   - project: nil for all.
    ///   - marker: the id of the server before the first one.
    /// - Throws: 400 if there is no server with the marker's id.
    static func servers(
        _ connection: Connection, _ period: UsagePeriod, project: String?, after marker: String?, limit: Int
    ) throws -> Rows {
        var condition: SQL = "(\(project)::text IS NULL OR s.project_id = \(project))"
        if let marker {
            let isMarker = Field.Filter.uuid("s.id", marker)
            let found = try connection.query(
                "SELECT s.project_id, s.created_at::text AS at, s.id FROM servers s WHERE \(isMarker) AND \(condition)")
            guard let row = found.first else { throw ResourceError.badRequest("marker [\(marker.prefix(64))] not found") }
            let place: SQL = "(\(try row.string("project_id")), \(try row.string("at"))::timestamptz, \(try row.uuid("id")))"
            condition = condition + " AND (s.project_id, s.created_at, s.id) > \(place)"
        }
        let (start, end) = (period.start, period.end)
        return try connection.query(
            """
            SELECT s.project_id, s.id, s.name, s.flavor, s.vm_state, s.deleted, s.created_at, s.launched_at, s.terminated_at,
                extract(epoch FROM least(coalesce(s.terminated_at, \(end)), \(end)) - greatest(s.launched_at, \(start)))
                    / 3600 AS hours
            FROM servers s WHERE s.launched_at <= \(end) AND (s.terminated_at IS NULL OR s.terminated_at > \(start))
            AND \(condition) ORDER BY s.project_id, s.created_at, s.id LIMIT \(limit)::bigint
            """)
    }
}
