import Authorization
import ComputeCore
import Database
import Kernel

/// The statements about locks, and about states that requests set directly.
enum ServerLocks {
    static func lock(
        _ connection: Connection, _ server: Authorized<ServerRecord>, by: String, reason: String?
    ) throws {
        let id = try server.value(for: "os_compute_api:os-lock-server:lock").id
        try connection.execute("UPDATE servers SET locked_by = \(by), locked_reason = \(reason) WHERE id = \(id) AND NOT deleted")
    }

    static func unlock(_ connection: Connection, _ server: Authorized<ServerRecord>) throws {
        let id = try server.value(for: "os_compute_api:os-lock-server:unlock").id
        try connection.execute("UPDATE servers SET locked_by = NULL, locked_reason = NULL WHERE id = \(id)")
    }

    /// Sets the state of a server, whose row is locked, and ends its task.
    static func reset(_ connection: Connection, _ server: Authorized<ServerRecord>, to state: VMState, at now: Timestamp) throws {
        let id = try server.value(for: "os_compute_api:os-admin-actions:reset_state").id
        try connection.execute("UPDATE servers SET vm_state = \(state.rawValue), task_state = NULL, updated_at = \(now) WHERE id = \(id)")
    }
}
