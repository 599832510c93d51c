import Authorization
import ComputeCore
import Database
import JSON
import Kernel

/// The statements with which long actions on servers are accepted.
enum ServerTasks {
    /// Sets the task of a server, whose row is locked. A workflow ends the task.
    ///
    /// - Parameter policy: the action of the decision.
    static func enter(
        _ connection: Connection, _ server: Authorized<ServerRecord>, for policy: String, _ task: TaskState, ambient: Ambient
    ) throws {
        let id = try server.value(for: policy).id
        try connection.execute(
            "UPDATE servers SET task_state = \(task.rawValue), progress = 0, updated_at = \(ambient.databaseNow) WHERE id = \(id)")
    }

    /// Records where a shelved server is to be placed. A null zone removes the restriction to a zone.
    ///
    /// - Returns: the host and the zone as they are recorded.
    /// - Throws: 400 for a host or a zone that does not exist.
    static func place(
        _ connection: Connection, _ server: Authorized<ServerRecord>, _ place: JSONObject, _ settings: ComputeSettings
    ) throws -> JSONObject {
        let id = try server.value(for: "os_compute_api:os-shelve:unshelve").id
        if let host = place["host"]?.stringValue {
            let known = try connection.query("SELECT 1 AS one FROM compute_services WHERE host = \(host)")
            if known.isEmpty { throw ResourceError.badRequest("Compute host \(host.prefix(255)) could not be found.") }
            try connection.execute("UPDATE servers SET requested_host = \(host) WHERE id = \(id)")
        }
        if let zone = place["availability_zone"] {
            if let name = zone.stringValue { try ServerCreation.requireZone(connection, name, settings) }
            try connection.execute("UPDATE servers SET pinned_zone = \(zone.stringValue) WHERE id = \(id)")
        }
        let row = try connection.query("SELECT requested_host, pinned_zone FROM servers WHERE id = \(id)")[0]
        return [
            "host": JSONValue(try row.optionalString("requested_host")),
            "availability_zone": JSONValue(try row.optionalString("pinned_zone")),
        ]
    }
}
