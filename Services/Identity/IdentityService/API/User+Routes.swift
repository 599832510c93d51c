import Authorization
import Database
import IdentityCore
import JSON
import Kernel
import WebAPI

extension Identity {
    private static let userOptions = BodySchema.object(
        [
            "ignore_change_password_upon_first_use", "ignore_password_expiry", "ignore_lockout_failure_attempts",
            "lock_password", "multi_factor_auth_enabled", "ignore_user_inactivity",
        ].map { BodySchema.Property($0, .nullable(.boolean)) }
            + [.init("multi_factor_auth_rules", .nullable(.list(.list(.text))))])

    private func userBody(required: Bool) -> RouteBody {
        Bodies.entity(
            "user",
            [
                Bodies.name(255, required: required), Bodies.domain, Bodies.enabled, Bodies.description,
                .init("default_project_id", .nullable(.string(min: 1, max: 64, format: nil))),
                .init("password", .nullable(.string(min: 1, max: 4096, format: nil))),
                .init("options", Identity.userOptions),
            ])
    }

    var userResource: Resource {
        let write = "rule:admin_required or rule:domain_manager"
        let read = "rule:cloud_reader or rule:domain_reader or rule:self"
        return Resource(
            "user",
            routes: [
                Route(
                    .get, "/v3/users", action: "identity:list_users", rule: "rule:cloud_reader or rule:domain_reader",
                    answer: .list(Identity.users), "List users", handler: listUsers),
                Route(
                    .post, "/v3/users", action: "identity:create_user", rule: write, body: userBody(required: true),
                    status: 201, answer: .one(Identity.users), "Create a user", handler: createUser),
                Route(
                    .get, "/v3/users/{user_id}", action: "identity:get_user", rule: read, answer: .one(Identity.users), "Show a user",
                    handler: showUser),
                Route(
                    .patch, "/v3/users/{user_id}", action: "identity:update_user", rule: write,
                    body: userBody(required: false), answer: .one(Identity.users), "Change a user", handler: updateUser),
                Route(
                    .delete, "/v3/users/{user_id}", action: "identity:delete_user", rule: write, status: 204,
                    "Delete a user", handler: deleteUser),
                Route(
                    .post, "/v3/users/{user_id}/password", action: nil,
                    body: .json(
                        .wrapped(
                            "user",
                            .object(
                                [
                                    .init("password", .string(min: 1, max: 4096, format: nil), required: true),
                                    .init("original_password", .string(min: 1, max: 4096, format: nil), required: true),
                                ]))), status: 204,
                    "Change one's own password; requires the current password", handler: changePassword),
                Route(
                    .get, "/v3/users/{user_id}/projects", action: "identity:list_user_projects", rule: read,
                    answer: .list(Identity.projects), "List the projects in which a user has a role", handler: listUserProjects),
                Route(
                    .get, "/v3/users/{user_id}/groups", action: "identity:list_groups_for_user", rule: read,
                    answer: .list(Identity.groups), "List the groups of a user", handler: listUserGroups),
            ])
    }

    /// Clients may send back the empty list that they received.
    ///
    /// - Throws: 400 for identities from other providers.
    private static func refuseFederated(_ body: JSONObject) throws {
        guard let federated = body["federated"], federated.arrayValue?.isEmpty != true else { return }
        throw ResourceError.badRequest(
            "Invalid input for field/attribute federated. It must be an empty list: this cloud has no identity providers.")
    }

    private func listUsers(_ context: RequestContext) async throws -> Response {
        let scope = try decideList(context)
        return try await database.read { try Identity.users.list($0, context, where: scope) }
    }

    private func createUser(_ context: RequestContext) async throws -> Response {
        let body = context.entity("user")
        let domain = try domain(context, body)
        let decision = try context.authorize(body, target: ["target.domain_id": domain])
        try FactorRules.check(body["options"])
        try Identity.refuseFederated(body)
        let hash = try await checkedHash(body["password"]?.stringValue)
        let id = newID()
        return try await context.write(database) { connection in
            try insert(connection, user: decision, id: id, domain: domain, hash: hash)
            return try Identity.users.change(connection, context, status: 201, id: id)
        }
    }

    private func showUser(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context).value
        return try await database.read { connection in
            return try Identity.users.one(connection, context, where: "t.id = \(user.id)", id: user.id)
        }
    }

    private func updateUser(_ context: RequestContext) async throws -> Response {
        let decision = try await decideUserChange(context)
        let body = try context.entity("user", of: decision.value.id)
        try requireSameDomain(body, decision.value)
        try FactorRules.check(body["options"])
        try Identity.refuseFederated(body)
        let hash = try await checkedHash(body["password"]?.stringValue)
        return try await reduceAccess(context) { connection in
            try update(connection, user: decision, body, hash: hash)
            return try Identity.users.change(connection, context, status: 200, id: decision.value.id)
        }
    }

    private func deleteUser(_ context: RequestContext) async throws -> Response {
        let decision = try await decideUserChange(context)
        return try await reduceAccess(context) { connection in
            try delete(connection, user: decision)
            return Change(.empty(), "user", decision.value.id)
        }
    }

    /// Needs no token, as in Keystone: a user whose password has expired has none.
    private func changePassword(_ context: RequestContext) async throws -> Response {
        let id = context.parameter("user_id")
        let body = context.entity("user")
        let original = Secret(body["original_password"]?.stringValue ?? "")
        let proof = try await provePassword(.id(id), original, evenIfExpired: true)
        guard !proof.passwordIsLocked else {
            throw ResourceError.forbidden("The password of this user is locked (options.lock_password).")
        }
        guard let hash = try await checkedHash(body["password"]?.stringValue), let proved = proof.passwordHash else {
            throw Identity.refused
        }
        let requestID = context.requestID
        let changed = try await database.write {
            try replacePassword($0, user: id, provedHash: proved, hash: hash, requestID: requestID)
        }
        guard changed else { throw Identity.refused }
        await authenticator.refresh()
        return .empty()
    }

    private func listUserProjects(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context).value.id
        return try await database.read { connection in
            try Identity.projects.list(
                connection, context,
                where: Identity.projectsOfUser(user))
        }
    }

    private func listUserGroups(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context).value.id
        return try await database.read { connection in
            try Identity.groups.list(
                connection, context,
                where: [Identity.groupsOfUser(user)])
        }
    }
}
