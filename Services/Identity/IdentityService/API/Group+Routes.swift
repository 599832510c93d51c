import Authorization
import Database
import JSON
import Kernel
import WebAPI

extension Identity {
    static let groups = ResourceKind.identity(
        "group",
        Table(
            "groups t",
            fields: [
                Field("id"), Field("name", sortable: true), Field("domain_id"), Field("description"), Field("extra", .members),
            ]))

    private static let groupMembers: Set<String> = ["id", "name", "domain_id", "description"]

    private static func groupBody(required: Bool) -> RouteBody {
        Bodies.entity("group", [Bodies.name(64, required: required), Bodies.domain, Bodies.description])
    }

    var groupResource: Resource {
        let write = "rule:admin_required or rule:domain_manager"
        let read = "rule:cloud_reader or rule:domain_reader"
        let member = "/v3/groups/{group_id}/users/{user_id}"
        return Resource(
            "group",
            routes: [
                Route(.get, "/v3/groups", action: "identity:list_groups", rule: read, "List groups", handler: listGroups),
                Route(
                    .post, "/v3/groups", action: "identity:create_group", rule: write,
                    body: Identity.groupBody(required: true), status: 201, "Create a group", handler: createGroup),
                Route(.get, "/v3/groups/{group_id}", action: "identity:get_group", rule: read, "Show a group", handler: showGroup),
                Route(
                    .patch, "/v3/groups/{group_id}", action: "identity:update_group", rule: write,
                    body: Identity.groupBody(required: false), "Change a group", handler: updateGroup),
                Route(
                    .delete, "/v3/groups/{group_id}", action: "identity:delete_group", rule: write, status: 204,
                    "Delete a group", handler: deleteGroup),
                Route(
                    .get, "/v3/groups/{group_id}/users", action: "identity:list_users_in_group", rule: read,
                    "List the users in a group", handler: listGroupUsers),
                Route(
                    .get, member, action: "identity:check_user_in_group", rule: read, status: 204,
                    "Check whether a user is in a group", handler: checkGroupUser),
                Route(
                    .put, member, action: "identity:add_user_to_group", rule: write, status: 204, "Add a user to a group",
                    handler: addGroupUser),
                Route(
                    .delete, member, action: "identity:remove_user_from_group", rule: write, status: 204,
                    "Remove a user from a group", handler: removeGroupUser),
            ])
    }

    private func listGroups(_ context: RequestContext) async throws -> Response {
        let scope = try decideList(context)
        let conditions = try context.conditions(texts: ["name": "t.name", "domain_id": "t.domain_id"])
        return try await database.read { try Identity.groups.list($0, context, where: scope + conditions) }
    }

    private func createGroup(_ context: RequestContext) async throws -> Response {
        let body = context.entity("group")
        let domain = try domain(context, body)
        try context.authorize(target: ["target.domain_id": domain]).value(for: "identity:create_group")
        let id = newID()
        let now = ambient.now
        return try await context.write(database) { connection in
            guard try find(connection, project: domain, isDomain: true) != nil else {
                throw Identity.missing("domain", domain)
            }
            let name = body["name"]?.stringValue
            try storing("group", name) {
                try connection.execute(
                    """
                    INSERT INTO groups (id, name, domain_id, description, extra, created_at, updated_at)
                    VALUES (\(id), \(name), \(domain), \(body["description"]?.stringValue ?? ""),
                        \(body.extra(beside: Identity.groupMembers))::jsonb, \(now), \(now))
                    """)
            }
            return try Identity.groups.change(connection, context, status: 201, id: id)
        }
    }

    private func showGroup(_ context: RequestContext) async throws -> Response {
        let group = try await decideGroup(context).value
        return try await database.read { connection in
            return try Identity.groups.one(connection, context, where: "t.id = \(group.id)", id: group.id)
        }
    }

    private func updateGroup(_ context: RequestContext) async throws -> Response {
        let group = try await decideGroupChange(context).value(for: "identity:update_group")
        let body = context.entity("group")
        try requireSameDomain(body, group)
        var changes = Changes()
        if body["name"] != nil { changes.text(body, "name") }
        changes.text(body, "description")
        changes.extra(body, beside: Identity.groupMembers)
        let asked = changes
        return try await context.write(database) { connection in
            try storing("group", body["name"]?.stringValue) {
                _ = try asked.apply(connection, "groups", group.id, at: ambient.now, isCounted: true, touching: true)
            }
            return try Identity.groups.change(connection, context, status: 200, id: group.id)
        }
    }

    private func deleteGroup(_ context: RequestContext) async throws -> Response {
        let group = try await decideGroupChange(context).value(for: "identity:delete_group")
        let response = try await context.write(database) { connection in
            try Operability.keeping(connection) {
                try connection.execute("DELETE FROM groups WHERE id = \(group.id)")
                return Change(.empty(), "group", group.id)
            }
        }
        await authenticator.refresh()
        return response
    }

    // MARK: members

    private func listGroupUsers(_ context: RequestContext) async throws -> Response {
        let group = try await decideGroup(context).value.id
        let conditions = try context.conditions(texts: ["name": "t.name"], flags: ["enabled": "t.enabled"])
        return try await database.read { connection in
            try Identity.users.list(
                connection, context,
                where: conditions + ["t.id IN (SELECT m.user_id FROM group_members m WHERE m.group_id = \(group))"])
        }
    }

    /// The user of the route, after the decision on the group: both must be in reach of the caller.
    ///
    /// - Parameter action: the one that changes the group's members.
    private func groupAndUser(_ context: RequestContext, for action: String) async throws -> (group: String, user: String) {
        let group = try await decideGroupChange(context).value(for: action).id
        return (group, try await decideUserChange(context).value(for: action).id)
    }

    private func checkGroupUser(_ context: RequestContext) async throws -> Response {
        let group = try await decideGroup(context).value.id
        let user = try await decideUser(context).value.id
        let found = try await database.read {
            try !$0.query("SELECT user_id FROM group_members WHERE group_id = \(group) AND user_id = \(user)").isEmpty
        }
        guard found else { throw ResourceError.notFound("User \(user) is not found in group \(group).") }
        return .empty()
    }

    private func addGroupUser(_ context: RequestContext) async throws -> Response {
        let (group, user) = try await groupAndUser(context, for: "identity:add_user_to_group")
        let response = try await context.write(database) { connection in
            try storing("group membership", user) {
                try connection.execute("INSERT INTO group_members (group_id, user_id) VALUES (\(group), \(user)) ON CONFLICT DO NOTHING")
            }
            return Change(.empty(), "group_member", group, content: ["user_id": .string(user)])
        }
        await authenticator.refresh()
        return response
    }

    private func removeGroupUser(_ context: RequestContext) async throws -> Response {
        let (group, user) = try await groupAndUser(context, for: "identity:remove_user_from_group")
        let response = try await context.write(database) { connection in
            try Operability.keeping(connection) {
                let removed = try connection.execute("DELETE FROM group_members WHERE group_id = \(group) AND user_id = \(user)")
                guard removed == 1 else { throw ResourceError.notFound("User \(user) is not found in group \(group).") }
                return Change(.empty(), "group_member", group, content: ["user_id": .string(user)])
            }
        }
        await authenticator.refresh()
        return response
    }
}
