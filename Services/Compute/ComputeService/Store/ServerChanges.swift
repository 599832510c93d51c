import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Telemetry
import WebAPI

/// Starts an action that ends with a report of the server's host.
enum ServerChanges {
    /// The locked row of a server on which the action is possible now.
    ///
    /// - Throws: 404, or 409 with Nova's message.
    static func locked(
        _ connection: Connection, _ context: RequestContext, _ id: String, for change: ServerChange
    ) throws -> ServerRecord {
        let current = try ServerRecord.find(connection, id, lock: true)
        try current.requireUnlocked(context)
        try current.require(states: change.from.map(\.rawValue), for: change.name)
        if [.resize, .migrate, .liveMigrate].contains(change), try HostJobs.copiesVolumes(connection, of: id) {
            throw ResourceError.conflict("Cannot '\(change.name)' instance \(id) while its host copies volumes for a snapshot or an image")
        }
        if [.resize, .migrate, .liveMigrate].contains(change),
            let busy = try ServerActions.unfinished(connection, server: id, among: ServerActions.ofDevices)
        {
            throw ResourceError.conflict(
                "Cannot '\(change.name)' instance \(id) while the action '\(busy)' is in progress for it. Try again when it has finished.")
        }
        // Only the host, or an operator who has fenced it, decides which volume the guest has.
        if change == .evacuate, try ServerActions.unfinished(connection, server: id, among: [VolumeSwap.action]) != nil {
            throw ResourceError.conflict(
                """
                Cannot 'evacuate' instance \(id) while a volume of it is being swapped. Force its host's service down, which ends \
                that, and try again.
                """)
        }
        guard current.host != nil else {
            throw ResourceError.conflict("Instance \(id) is not on a host: '\(change.name)' is not possible.")
        }
        return current
    }

    /// Sets the rescue system that the server boots instead of its own; nil for none.
    static func set(
        _ connection: Connection, _ decision: Authorized<ServerRecord>, rescue: JSONValue?, for action: String
    ) throws {
        let id = try decision.value(for: action).id
        try connection.execute("UPDATE servers SET rescue = \(rescue)::jsonb WHERE id = \(id)")
    }

    /// Writes the new desired state, and sends it to the host.
    static func begin(
        _ connection: Connection, _ context: RequestContext, _ decision: Authorized<ServerRecord>, for action: String,
        _ change: ServerChange, power: DesiredPower, operation: ServerSpec.Operation, ambient: Ambient
    ) throws {
        let id = try decision.value(for: action).id
        let caller = try context.caller
        try DesiredState.change(connection, server: id, power: power, operation: try JSONValue(encoding: operation))
        try connection.execute(
            """
            UPDATE servers SET task_state = \(change.task?.rawValue), updated_at = \(ambient.databaseNow), fault = NULL WHERE id = \(id)
            """)
        try ServerActions.begin(
            connection, server: id, action: change.name, event: change.event, requestID: context.requestID, user: caller.userID,
            project: caller.projectID, now: ambient.now)
        try DesiredState.publish(connection, server: id, first: true, ambient: ambient)
    }
}
