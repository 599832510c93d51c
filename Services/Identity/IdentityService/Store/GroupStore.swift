import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// The statements about groups and their members.
extension Identity {
    /// - Throws: 404 for a domain that does not exist; 409 for a name that is taken.
    func insert(_ connection: Connection, group decision: Authorized<JSONObject>, id: String, domain: String) throws {
        let body = try decision.value(for: "identity:create_group")
        guard try find(connection, project: domain, isDomain: true) != nil else { throw Identity.missing("domain", domain) }
        var row = Identity.groups.new(id, body)
        row.set("domain_id", domain)
        try storing("group", body["name"]?.stringValue) { try connection.execute(row.insertion("groups", at: ambient.now)) }
    }

    func update(_ connection: Connection, group decision: Authorized<Found>, _ body: JSONObject) throws {
        let id = try decision.value(for: "identity:update_group").id
        try storing("group", body["name"]?.stringValue) {
            try Identity.groups.changes(body).apply(connection, "groups", id, at: ambient.now, isCounted: true, touching: true)
        }
    }

    func delete(_ connection: Connection, group decision: Authorized<Found>) throws {
        let id = try decision.value(for: "identity:delete_group").id
        try connection.execute("DELETE FROM groups WHERE id = \(id)")
    }

    // MARK: members

    func isMember(_ connection: Connection, _ user: String, of group: String) throws -> Bool {
        try !connection.query("SELECT user_id FROM group_members WHERE group_id = \(group) AND user_id = \(user)").isEmpty
    }

    /// Adds a user to a group. If this turns the user into an operator, the user's default project is marked.
    func addMember(_ connection: Connection, _ user: Authorized<Found>, to group: Authorized<Found>) throws {
        let action = "identity:add_user_to_group"
        let (user, group) = (try user.value(for: action).id, try group.value(for: action).id)
        try storing("group membership", user) {
            try connection.execute("INSERT INTO group_members (group_id, user_id) VALUES (\(group), \(user)) ON CONFLICT DO NOTHING")
        }
        try cloudProjects.mark(connection)
    }

    /// - Returns: whether the user was in the group.
    func removeMember(_ connection: Connection, _ user: Authorized<Found>, from group: Authorized<Found>) throws -> Bool {
        let action = "identity:remove_user_from_group"
        let (user, group) = (try user.value(for: action).id, try group.value(for: action).id)
        return try connection.execute("DELETE FROM group_members WHERE group_id = \(group) AND user_id = \(user)") == 1
    }
}
