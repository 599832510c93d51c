import Authorization
import Database
import JSON
import Kernel
import WebAPI

extension Identity {
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
                Route(
                    .get, "/v3/groups", action: "identity:list_groups", rule: read, answer: .list(Identity.groups), "List groups",
                    handler: listGroups),
                Route(
                    .post, "/v3/groups", action: "identity:create_group", rule: write,
                    body: Identity.groupBody(required: true), status: 201, answer: .one(Identity.groups), "Create a group",
                    handler: createGroup),
                Route(
                    .get, "/v3/groups/{group_id}", action: "identity:get_group", rule: read, answer: .one(Identity.groups), "Show a group",
                    handler: showGroup),
                Route(
                    .patch, "/v3/groups/{group_id}", action: "identity:update_group", rule: write,
                    body: Identity.groupBody(required: false), answer: .one(Identity.groups), "Change a group", handler: updateGroup),
                Route(
                    .delete, "/v3/groups/{group_id}", action: "identity:delete_group", rule: write, status: 204,
                    "Delete a group", handler: deleteGroup),
                Route(
                    .get, "/v3/groups/{group_id}/users", action: "identity:list_users_in_group", rule: read,
                    answer: .list(Identity.users), "List the users in a group", handler: listGroupUsers),
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
        return try await database.read { try Identity.groups.list($0, context, where: scope) }
    }

    private func createGroup(_ context: RequestContext) async throws -> Response {
        let body = context.entity("group")
        let domain = try domain(context, body)
        let decision = try context.authorize(body, target: ["target.domain_id": domain])
        let id = newID()
        return try await context.write(database) { connection in
            try insert(connection, group: decision, id: id, domain: domain)
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
        let group = try await decideGroupChange(context)
        let body = try context.entity("group", of: group.value.id)
        try requireSameDomain(body, group.value)
        return try await context.write(database) { connection in
            try update(connection, group: group, body)
            return try Identity.groups.change(connection, context, status: 200, id: group.value.id)
        }
    }

    private func deleteGroup(_ context: RequestContext) async throws -> Response {
        let group = try await decideGroupChange(context)
        return try await reduceAccess(context) { connection in
            try delete(connection, group: group)
            return Change(.empty(), "group", group.value.id)
        }
    }

    // MARK: members

    private func listGroupUsers(_ context: RequestContext) async throws -> Response {
        let group = try await decideGroup(context).value.id
        return try await database.read { connection in
            try Identity.users.list(
                connection, context,
                where: [Identity.usersInGroup(group)])
        }
    }

    /// The user of the route, after the decision on the group: the caller needs access to both.
    private func groupAndUser(_ context: RequestContext) async throws -> (group: Authorized<Found>, user: Authorized<Found>) {
        (try await decideGroupChange(context), try await decideUserChange(context))
    }

    private func checkGroupUser(_ context: RequestContext) async throws -> Response {
        let group = try await decideGroup(context).value.id
        let user = try await decideUser(context).value.id
        guard try await database.read({ try isMember($0, user, of: group) }) else {
            throw ResourceError.notFound("User \(user) is not found in group \(group).")
        }
        return .empty()
    }

    private func addGroupUser(_ context: RequestContext) async throws -> Response {
        let (group, user) = try await groupAndUser(context)
        return try await extendAccess(context) { connection in
            try addMember(connection, user, to: group)
            return Change(.empty(), "group_member", group.value.id, content: ["user_id": .string(user.value.id)])
        }
    }

    private func removeGroupUser(_ context: RequestContext) async throws -> Response {
        let (group, user) = try await groupAndUser(context)
        return try await reduceAccess(context) { connection in
            guard try removeMember(connection, user, from: group) else {
                throw ResourceError.notFound("User \(user.value.id) is not found in group \(group.value.id).")
            }
            return Change(.empty(), "group_member", group.value.id, content: ["user_id": .string(user.value.id)])
        }
    }
}
