import Authorization
import ComputeCore
import Database
import JSON
import Kernel
import WebAPI

/// The statements about server groups.
enum ServerGroupStore {
    struct Draft: Sendable {
        let id: String
        let project: String
        let user: String
        let name: String
        let policy: String
        let rules: JSONObject
    }

    /// The project of a group; nil if there is no such group.
    static func project(_ connection: Connection, of id: String?) throws -> String? {
        try connection.query("SELECT project_id FROM server_groups WHERE id = \(id)::uuid").first?.string("project_id")
    }

    /// - Throws: 403 if the quota is used up.
    static func insert(_ connection: Connection, _ decision: Authorized<Draft>, quota: Quota, at now: Timestamp) throws {
        let draft = try decision.value(for: "os_compute_api:os-server-groups:create")
        try quota.reserve(connection, project: draft.project, [(ComputeQuotas.serverGroups, 1)])
        let row: Changes = [
            "id": "\(draft.id)", "project_id": "\(draft.project)", "user_id": "\(draft.user)", "name": "\(draft.name)",
            "policy": "\(draft.policy)", "rules": "\(draft.rules)::jsonb",
        ]
        try connection.execute(row.insertion("server_groups", at: now, isUpdated: false))
    }

    /// - Throws: 404 if there is no such group any more.
    static func delete(_ connection: Connection, _ decision: Authorized<String>) throws {
        let id = try decision.value(for: "os_compute_api:os-server-groups:delete")
        let rows = try connection.query("DELETE FROM server_groups WHERE id = \(id) RETURNING project_id")
        guard let project = try rows.first?.string("project_id") else { throw ResourceKind.serverGroups.notFound(id) }
        try Quota.release(connection, project: project, [(ComputeQuotas.serverGroups, 1)])
    }
}
