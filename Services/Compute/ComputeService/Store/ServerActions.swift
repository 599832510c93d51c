import Database
import JSON
import Kernel

/// The record of what was done with a server: its instance actions, each with one event.
enum ServerActions {
    /// Begins a record.
    ///
    /// - Returns: its number, to finish it with.
    @discardableResult
    static func begin(
        _ connection: Connection, server: String, action: String, event: String, requestID: String, user: String,
        project: String?, now: Timestamp
    ) throws -> Int {
        try connection.query(
            """
            INSERT INTO server_actions (
                server_id, request_id, action, user_id, project_id, start_time, updated_at, event)
            VALUES (\(server), \(requestID), \(action), \(user), \(project), \(now), \(now), \(event)) RETURNING id
            """)[0].int("id")
    }

    /// Ends the newest record of `action` that is not ended yet; none is fine.
    static func finish(
        _ connection: Connection, server: String, action: String, error: String? = nil, details: String? = nil,
        now: Timestamp
    ) throws {
        try connection.execute(
            """
            UPDATE server_actions SET finish_time = \(now), updated_at = \(now),
                result = \(error == nil ? "Success" : "Error"), message = \(error == nil ? nil : "Error"),
                details = \(details ?? error), host = (SELECT host FROM servers WHERE id = \(server))
            WHERE id = (SELECT max(id) FROM server_actions
                WHERE server_id = \(server) AND action = \(action) AND finish_time IS NULL)
            """)
    }
}
