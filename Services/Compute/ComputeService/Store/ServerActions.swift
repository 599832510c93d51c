import Authorization
import Database
import JSON
import Kernel
import WebAPI

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
        let insertion = insertion(
            server: server, action: action, event: event, requestID: requestID, user: user, project: project, now: now)
        return try connection.query("\(insertion) RETURNING id")[0].int("id")
    }

    /// The statement that begins a record.
    static func insertion(
        server: String, action: String, event: String, requestID: String, user: String, project: String?, now: Timestamp
    ) -> SQL {
        """
        INSERT INTO server_actions (server_id, request_id, action, user_id, project_id, start_time, updated_at, event)
        VALUES (\(server), \(requestID), \(action), \(user), \(project), \(now), \(now), \(event))
        """
    }

    /// Begins the record of an accepted request.
    ///
    /// - Parameter policy: the action of the decision.
    static func begin(
        _ connection: Connection, _ context: RequestContext, of server: Authorized<ServerRecord>, for policy: String, action: String,
        event: String, now: Timestamp
    ) throws {
        let id = try server.value(for: policy).id
        let caller = try context.caller
        try begin(
            connection, server: id, action: action, event: event, requestID: context.requestID,
            user: caller.userID, project: caller.projectID, now: now)
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
                details = coalesce(\(details ?? error), details), host = (SELECT host FROM servers WHERE id = \(server))
            WHERE id = (SELECT max(id) FROM server_actions
                WHERE server_id = \(server) AND action = \(action) AND finish_time IS NULL)
            """)
    }

    /// Actions that attach a device to a server or detach one, on its current host.
    static let ofDevices = ["attach_interface", "detach_interface", "attach_volume", "detach_volume", VolumeSwap.action]

    /// One of the given actions that has begun and not ended; nil if there is none.
    static func unfinished(_ connection: Connection, server: String, among actions: [String]) throws -> String? {
        try connection.query(
            """
            SELECT action FROM server_actions
            WHERE server_id = \(server) AND action = ANY(\(actions)::text[]) AND finish_time IS NULL ORDER BY id LIMIT 1
            """
        ).first?.string("action")
    }

    /// The newest record of `action`, which may have ended, has failed nevertheless.
    static func fail(_ connection: Connection, server: String, action: String, error: String, now: Timestamp) throws {
        try connection.execute(
            """
            UPDATE server_actions SET finish_time = coalesce(finish_time, \(now)), updated_at = \(now), result = 'Error',
                message = 'Error', details = \(error)
            WHERE id = (SELECT max(id) FROM server_actions WHERE server_id = \(server) AND action = \(action))
            """)
    }

    /// Adds to the details of a running action what was left undone, for operators.
    static func note(_ connection: Connection, server: String, action: String, _ words: String) throws {
        try connection.execute(
            """
            UPDATE server_actions SET details = concat_ws(' ', details, \(words)::text)
            WHERE id = (SELECT max(id) FROM server_actions
                WHERE server_id = \(server) AND action = \(action) AND finish_time IS NULL)
            """)
    }

    /// The event of an action, with the times and result of the action.
    struct Event: Sendable {
        let name: String?
        let startTime: Timestamp
        let finishTime: Timestamp?
        let result: String?
        let details: String?
        let host: String?
        /// The host's name as tenants see it: a hash.
        let hostID: String?
    }

    /// The first action of a request on a server, with the columns of `fields`; no row if there is none.
    static func first(_ connection: Connection, _ table: Table, _ fields: [Field], server: String, requestID: String) throws -> Rows {
        try table.query(
            connection, fields, where: "t.server_id = \(server) AND t.request_id = \(requestID)", suffix: "ORDER BY t.id LIMIT 1")
    }

    /// The events of a request, in order.
    static func events(_ connection: Connection, server: String, requestID: String) throws -> [Event] {
        try connection.query(
            """
            SELECT event, start_time, finish_time, result, details, host, encode(sha224(convert_to(
                (SELECT s.project_id FROM servers s WHERE s.id = t.server_id) || t.host, 'UTF8')), 'hex') AS host_id
            FROM server_actions t WHERE t.server_id = \(server) AND t.request_id = \(requestID) ORDER BY t.id
            """
        ).map { row in
            Event(
                name: try row.optionalString("event"), startTime: try row.timestamp("start_time"),
                finishTime: try row.optionalTimestamp("finish_time"), result: try row.optionalString("result"),
                details: try row.optionalString("details"), host: try row.optionalString("host"),
                hostID: try row.optionalString("host_id"))
        }
    }
}
