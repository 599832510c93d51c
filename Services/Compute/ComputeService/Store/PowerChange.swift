import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import WebAPI

/// The user who requested an action on a server, for the action's record.
struct ActionOrigin: Sendable {
    let requestID: String
    let user: String
    let project: String?

    /// - Throws: 401 without a caller.
    init(_ context: RequestContext) throws {
        let caller = try context.caller
        (requestID, user, project) = (context.requestID, caller.userID, caller.projectID)
    }

    /// An action that the service starts on its own.
    init(requestID: String) { (self.requestID, user, project) = (requestID, "", nil) }
}

/// Starts power actions.
enum PowerChange {
    /// Orders the server's host to carry out a power action. The host's report ends the action.
    ///
    /// - Parameter current: locked, in a state in which the action is allowed.
    /// - Throws: 409 if the server is not on a host.
    static func begin(
        _ connection: Connection, of server: Authorized<ServerRecord>, _ current: ServerRecord, _ action: PowerAction,
        _ origin: ActionOrigin, ambient: Ambient
    ) throws {
        try server.value(for: "os_compute_api:\(action.policy)")
        try begin(connection, current, action, origin, ambient: ambient)
    }

    /// The same, authorized by another decision: for a deletion that keeps the server for a restore.
    static func begin(
        _ connection: Connection, _ current: ServerRecord, _ action: PowerAction, _ origin: ActionOrigin, ambient: Ambient
    ) throws {
        guard current.host != nil else {
            throw ResourceError.conflict("Instance \(current.id) is not on a host: '\(action.name)' is not possible.")
        }
        let operation = action.operationKind.map { ServerSpec.Operation(id: ambient.newUUID().description, kind: $0) }
        try DesiredState.change(
            connection, server: current.id, power: action.power, operation: try operation.map { try JSONValue(encoding: $0) } ?? .null)
        try connection.execute(
            """
            UPDATE servers SET task_state = \(action.task.rawValue), updated_at = \(ambient.databaseNow), fault = NULL
            WHERE id = \(current.id)
            """)
        try ServerActions.begin(
            connection, server: current.id, action: action.name, event: action.event, requestID: origin.requestID,
            user: origin.user, project: origin.project, now: ambient.now)
        try DesiredState.publish(connection, server: current.id, first: true, ambient: ambient)
    }
}
