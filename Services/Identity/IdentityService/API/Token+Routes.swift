import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// Tokens and what a token's owner may ask about its own.
extension Identity {
    private static let validateRule =
        "rule:admin_required or role:service or (role:reader and system_scope:all) or user_id:%(target.token.user_id)s"

    var tokenResource: Resource {
        Resource(
            "token",
            routes: [
                Route(
                    .post, "/v3/auth/tokens", action: nil, body: .json(.object([], additional: .allowed)), status: 201,
                    answer: .form(Forms.token), "Sign on and receive a token", handler: issue),
                Route(
                    .get, "/v3/auth/tokens", action: "identity:validate_token", rule: Identity.validateRule,
                    answer: .form(Forms.token), "Validate and describe a token", handler: validate),
                Route(
                    .head, "/v3/auth/tokens", action: "identity:check_token", rule: Identity.validateRule,
                    "Check a token", handler: validate),
                Route(
                    .delete, "/v3/auth/tokens", action: "identity:revoke_token",
                    rule: "rule:admin_required or user_id:%(target.token.user_id)s", status: 204,
                    "Revoke a token", handler: revoke),
                Route(
                    .get, "/v3/auth/catalog", action: "identity:get_auth_catalog", rule: "@",
                    answer: .form(Forms.list("catalog", Forms.catalogService)), "The catalog for this token", handler: catalog),
                Route(
                    .get, "/v3/auth/projects", action: "identity:get_auth_projects", rule: "@",
                    answer: .list(Identity.projects), "Projects that a token can be scoped to", handler: ownProjects),
                Route(
                    .get, "/v3/auth/domains", action: "identity:get_auth_domains", rule: "@",
                    answer: .list(Identity.domains), "Domains that a token can be scoped to", handler: ownDomains),
                Route(
                    .get, "/v3/auth/system", action: "identity:get_auth_system", rule: "@",
                    answer: .form(Forms.list("system", .wrapped("all", .strictBoolean))), "Whether a token can be scoped to the system",
                    handler: ownSystem),
            ])
    }

    // MARK: validation

    private func subject(_ context: RequestContext) async throws -> (token: String, caller: Caller) {
        guard let token = context.headers["x-subject-token"], !token.isEmpty else {
            try context.authorize(target: .none)
            throw ResourceError.notFound("Could not find token: the request has no X-Subject-Token.")
        }
        if token == context.headers["x-auth-token"] { return (token, try context.caller) }
        do { return (token, try await authenticator.caller(token: token)) } catch let error as ResourceError
            where error.code == .unauthorized
        {
            // A token that is no longer valid. As in Keystone, any authenticated caller may learn this.
            try context.authorize(target: ["target.token.user_id": try context.caller.userID])
            throw ResourceError.notFound("Failed to validate token")
        }
    }

    private func validate(_ context: RequestContext) async throws -> Response {
        let (token, caller) = try await subject(context)
        try context.authorize(target: ["target.token.user_id": caller.userID])
        let withCatalog = context.query["nocatalog"] == nil
        let key = withCatalog ? token : "nocatalog " + token
        let headers: Headers = ["x-subject-token": token, "vary": "X-Auth-Token"]
        if let epoch = authenticator.confirmedEpoch(), let bytes = documents.find(key, epoch: epoch) {
            return .json(200, headers: headers, bytes: bytes)
        }
        let (bytes, epoch) = try await database.read { connection in
            let epoch = try TokenAuthenticator.epoch(connection)
            var writer = JSONWriter(capacity: 8192)
            try TokenDocument.write(connection, caller, withCatalog: withCatalog, into: &writer)
            return (writer.bytes, epoch)
        }
        documents.keep(key, epoch: epoch, bytes)
        return .json(200, headers: headers, bytes: bytes)
    }

    private func revoke(_ context: RequestContext) async throws -> Response {
        let (_, subject) = try await subject(context)
        let decision = try context.authorize(subject.token, target: ["target.token.user_id": subject.userID])
        return try await changeAccess(context) { connection in
            let audit = try revoke(connection, token: decision)
            return Change(.empty(), "token", audit)
        }
    }

    // MARK: own

    private func catalog(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let caller = try context.caller
        guard caller.scope != .unscoped else {
            throw ResourceError.forbidden("The catalog needs a scoped token.")
        }
        return try await database.read { connection in
            try Response.object {
                $0.name("catalog")
                try Catalog.write(connection, projectID: caller.projectID, userID: caller.userID, into: &$0)
                $0.objectField("links") {
                    $0.field("self", context.selfLink)
                    $0.name("next")
                    $0.null()
                    $0.name("previous")
                    $0.null()
                }
            }
        }
    }

    private func ownProjects(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let user = try context.caller.userID
        return try await database.read { connection in
            try Identity.projects.list(
                connection, context,
                where: ["t.enabled"] + Identity.projectsOfUser(user))
        }
    }

    private func ownDomains(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let user = try context.caller.userID
        return try await database.read { connection in
            try Identity.domains.list(
                connection, context,
                where: ["t.enabled"] + Identity.domainsOfUser(user))
        }
    }

    private func ownSystem(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let user = try context.caller.userID
        let hasRole = try await database.read { try hasSystemRole($0, user) }
        return .json(200, ["system": hasRole ? [["all": true]] : [], "links": context.wholeListLinks])
    }
}
