import Authorization
import Database
import Kernel
import WebAPI

/// The part of a server's row that request handlers need for authorization and state checks.
struct ServerRecord: Sendable {
    let id: String
    let name: String
    let project: String
    let user: String
    let vmState: String
    let taskState: String?
    let host: String?
    let lockedBy: String?
    let powerState: Int

    /// - Throws: 404 for a server that does not exist (any more).
    static func find(_ connection: Connection, _ id: String, lock: Bool = false) throws -> ServerRecord {
        let rows = try connection.query(
            """
            SELECT id, name, project_id, user_id, vm_state, task_state, host, locked_by, power_state FROM servers
            WHERE id = \(id) AND NOT deleted \(raw: lock ? "FOR UPDATE" : "")
            """)
        guard let row = rows.first else { throw missing(id) }
        return ServerRecord(
            id: try row.string("id"), name: try row.string("name"), project: try row.string("project_id"),
            user: try row.string("user_id"), vmState: try row.string("vm_state"),
            taskState: try row.optionalString("task_state"), host: try row.optionalString("host"),
            lockedBy: try row.optionalString("locked_by"), powerState: try row.int("power_state"))
    }

    static func missing(_ id: String) -> ResourceError { .notFound("Instance \(id) could not be found.") }

    var target: PolicyTarget { ["project_id": project, "tenant_id": project, "user_id": user] }

    /// - Throws: 409 in Compute's words when the server is locked against this caller.
    func requireUnlocked(_ context: RequestContext) throws {
        guard lockedBy != nil, !context.allows("os_compute_api:os-lock-server:unlock:unlock_override", target: target)
        else { return }
        throw ResourceError.conflict("Instance \(id) is locked")
    }

    /// - Throws: 409 in Compute's words.
    func require(states: [String], for action: String) throws {
        guard states.contains(vmState) else {
            throw ResourceError.conflict("Cannot '\(action)' instance \(id) while it is in vm_state \(vmState)")
        }
        if let taskState {
            throw ResourceError.conflict("Cannot '\(action)' instance \(id) while it is in task_state \(taskState)")
        }
    }
}

extension Compute {
    /// Looks up a server and authorizes the route's action on it: 404 if the caller may not see it, 403 if they may see it
    /// but not do the action.
    func authorizedServer(_ context: RequestContext) async throws -> Authorized<ServerRecord> {
        let id = try context.uuidParameter("server_id", of: "Instance")
        let server = try await database.read { try ServerRecord.find($0, id) }
        return try context.authorizeVisible(
            server, target: server.target, visibleBy: "os_compute_api:servers:show",
            notFound: ServerRecord.missing(id))
    }
}
