import Authorization
import Cryptography
import Database
import JSON
import Kernel
import WebAPI

/// `/v3/credentials`: secrets that Identity stores encrypted for users. Secrets of type `totp` are used for sign-on; other
/// types are only stored for clients.
extension Identity {
    private static func body(required: Bool) -> RouteBody {
        Bodies.entity(
            "credential",
            [
                .init("type", .string(min: 1, max: 255, format: nil), required: required),
                .init("blob", .string(min: 1, max: 65_535, format: nil), required: required),
                .init("user_id", .string(min: 1, max: 64, format: nil), required: required),
                .init("project_id", .nullable(.string(min: 1, max: 64, format: nil))),
            ])
    }

    var storedCredentialResource: Resource {
        let rule = "rule:admin_required or rule:self"
        let one = "/v3/credentials/{stored_id}"
        return Resource(
            "credential",
            routes: [
                Route(
                    .get, "/v3/credentials", action: "identity:list_credentials", rule: rule,
                    answer: .form(Forms.list("credentials", Forms.credential)), "List credentials", handler: listStored),
                Route(
                    .post, "/v3/credentials", action: "identity:create_credential", rule: rule,
                    body: Identity.body(required: true), status: 201,
                    answer: .form(.wrapped("credential", Forms.credential)), "Store a credential", handler: createStored),
                Route(
                    .get, one, action: "identity:get_credential", rule: rule, answer: .form(.wrapped("credential", Forms.credential)),
                    "Show a credential", handler: showStored),
                Route(
                    .patch, one, action: "identity:update_credential", rule: rule, body: Identity.body(required: false),
                    answer: .form(.wrapped("credential", Forms.credential)), "Change a credential", handler: updateStored),
                Route(
                    .delete, one, action: "identity:delete_credential", rule: rule, status: 204, "Delete a credential",
                    handler: deleteStored),
            ])
    }

    // MARK: decisions

    /// - Throws: 403 for a token of an application credential: with a second factor that it reads or creates, its holder could sign on as
    ///   the user.
    private func requireOwnSignOn(_ context: RequestContext) throws {
        guard try context.caller.token.applicationCredentialID == nil else {
            throw ResourceError.forbidden("Using method 'application_credential' is not allowed for credentials.")
        }
    }

    func requireKeys() throws -> CredentialKeys {
        guard let credentialKeys else {
            throw ResourceError(
                .notImplemented, "This cloud stores no credentials: its operator has not set identity.credential_keys_file.")
        }
        return credentialKeys
    }

    /// The owner of the route's credential, after the decision.
    private func decideStored(_ context: RequestContext) async throws -> Authorized<String> {
        let id = context.parameter("stored_id")
        let owner = try await database.read { connection in try self.owner(connection, ofCredential: id) }
        let decision = try context.authorize(owner ?? "", target: ["target.user.id": owner])
        try requireOwnSignOn(context)
        guard owner != nil else { throw Identity.missing("credential", id) }
        return decision
    }

    // MARK: reading

    private static func show(_ credential: StoredCredential, _ context: RequestContext) -> JSONObject {
        [
            "id": .string(credential.id), "type": .string(credential.type), "blob": .string(credential.blob),
            "user_id": .string(credential.userID), "project_id": JSONValue(credential.projectID),
            "links": ["self": .string("\(context.publicURL)/v3/credentials/\(credential.id)")],
        ]
    }

    private func listStored(_ context: RequestContext) async throws -> Response {
        let own = try context.caller.userID
        try context.authorize(target: ["target.user.id": own])
        try requireOwnSignOn(context)
        let request = try context.listRequest(filters: [])
        let conditions = Identity.storedConditions(
            context.query, owner: context.allows(context.route.action ?? "") ? nil : own, after: request.marker)
        let limit = min(request.limit ?? Limits.pageSizeMax, Limits.pageSizeMax)
        let found = try await database.read { try credentials($0, where: conditions, limit: limit + 1) }
        let page = found.prefix(limit)
        let next = found.count > limit ? page.last.map { context.nextLink(marker: $0.id) } : nil
        return .json(
            200,
            [
                "credentials": .array(page.map { .object(Identity.show($0, context)) }),
                "links": ["self": .string(context.selfLink), "next": JSONValue(next), "previous": nil],
            ])
    }

    private func showStored(_ context: RequestContext) async throws -> Response {
        _ = try await decideStored(context)
        let id = context.parameter("stored_id")
        let found = try await database.read { try credential($0, id) }
        return .json(200, ["credential": .object(Identity.show(found, context))])
    }

    // MARK: writing

    /// - Throws: 400 if the blob is not valid for its type, or the type is not supported.
    private static func check(type: String, blob: String) throws {
        switch type.lowercased() {
        case "ec2":
            throw ResourceError.badRequest(
                "Invalid input for field/attribute credential.type. Value: ec2. This cloud has no EC2 or S3 API that would accept it.")
        case "totp":
            guard type == "totp", let secret = OneTimeCode.secret(base32: blob), secret.count >= OneTimeCode.secretBytesMin else {
                throw ResourceError.badRequest(
                    """
                    Invalid input for field/attribute credential.blob. A credential of type totp needs a base 32 \
                    text of at least 16 characters.
                    """
                )
            }
        default: break
        }
    }

    private func createStored(_ context: RequestContext) async throws -> Response {
        let body = context.entity("credential")
        let asked = body["user_id"]?.stringValue ?? ""
        let decision = try context.authorize(asked, target: ["target.user.id": asked])
        try requireOwnSignOn(context)
        let new = StoredCredential(
            id: newID(), userID: decision.value, projectID: body["project_id"]?.stringValue, type: body["type"]?.stringValue ?? "",
            blob: body["blob"]?.stringValue ?? "")
        try Identity.check(type: new.type, blob: new.blob)
        return try await context.write(database) { connection in
            try insert(connection, credential: new, of: decision)
            return try change(connection, context, id: new.id, status: 201)
        }
    }

    /// The answer contains the blob, the audit record does not.
    private func change(_ connection: Connection, _ context: RequestContext, id: String, status: Int) throws -> Change {
        let shown = Identity.show(try credential(connection, id), context)
        var content = shown
        content["blob"] = nil
        return Change(
            .json(status, ["credential": .object(shown)]), "credential", id, content: .object(content), holdsSecret: true)
    }

    private func updateStored(_ context: RequestContext) async throws -> Response {
        let decision = try await decideStored(context)
        let id = context.parameter("stored_id")
        let body = try context.entity("credential", of: id)
        if let user = body["user_id"]?.stringValue, user != decision.value {
            throw ResourceError.badRequest("Invalid input for field/attribute credential.user_id. Value: \(user). It cannot be changed.")
        }
        return try await reduceAccess(context) { connection in
            var changed = try credential(connection, id, locked: true)
            changed.type = body["type"]?.stringValue ?? changed.type
            changed.blob = body["blob"]?.stringValue ?? changed.blob
            if let project = body["project_id"] { changed.projectID = project.stringValue }
            try Identity.check(type: changed.type, blob: changed.blob)
            try update(connection, credential: changed, of: decision)
            return try change(connection, context, id: id, status: 200)
        }
    }

    private func deleteStored(_ context: RequestContext) async throws -> Response {
        let decision = try await decideStored(context)
        let id = context.parameter("stored_id")
        return try await reduceAccess(context) { connection in
            try delete(connection, credential: id, of: decision)
            return Change(.empty(), "credential", id)
        }
    }
}
