import Authorization
import Database
import IdentityCore
import JSON
import Kernel
import WebAPI

/// Application credentials: passwords for programs, limited to one project and to at most their owner's roles.
extension Identity {
    private static let credentialBody = Bodies.entity(
        "application_credential",
        [
            Bodies.name(255, required: true), Bodies.description,
            .init("secret", .nullable(.string(min: 1, max: 255, format: nil))), .init("unrestricted", .nullable(.boolean)),
            .init("expires_at", .nullable(.string(min: 1, max: 64, format: .dateTime))),
            .init(
                "roles",
                .nullable(
                    .list(
                        .object(
                            [.init("id", .string(min: 1, max: 64, format: nil)), .init("name", .text)])))),
            .init("access_rules", .nullable(.list(accessRule))), .init("project_id", .nullable(.text)),
        ])

    private static let accessRule = BodySchema.object(
        [
            .init("id", .string(min: 1, max: 64, format: nil)), .init("service", .string(min: 1, max: 255, format: nil)),
            .init("path", .string(min: 1, max: 255, format: nil)),
            .init("method", .enumeration(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])),
        ])

    var credentialResource: Resource {
        let base = "/v3/users/{user_id}/application_credentials"
        let read = "rule:cloud_reader or rule:self"
        let rules = "/v3/users/{user_id}/access_rules"
        return Resource(
            "application_credential",
            routes: [
                Route(
                    .get, base, action: "identity:list_application_credentials", rule: read,
                    answer: .list(Identity.credentials), "List application credentials",
                    handler: listCredentials),
                Route(
                    .post, base, action: "identity:create_application_credential", rule: "rule:self",
                    body: Identity.credentialBody, status: 201,
                    answer: .one(Identity.newCredentials), "Create an application credential", handler: createCredential),
                Route(
                    .get, base + "/{credential_id}", action: "identity:get_application_credential", rule: read,
                    answer: .one(Identity.credentials), "Show an application credential", handler: showCredential),
                Route(
                    .delete, base + "/{credential_id}", action: "identity:delete_application_credential",
                    rule: "rule:admin_required or rule:self", status: 204, "Delete an application credential", handler: deleteCredential),
                Route(
                    .get, rules, action: "identity:list_access_rules", rule: read, answer: .list(Identity.accessRules),
                    "List access rules", handler: listRules),
                Route(
                    .get, rules + "/{rule_id}", action: "identity:get_access_rule", rule: read, answer: .one(Identity.accessRules),
                    "Show an access rule", handler: showRule),
                Route(
                    .delete, rules + "/{rule_id}", action: "identity:delete_access_rule", rule: "rule:admin_required or rule:self",
                    status: 204, "Delete an access rule that no application credential uses", handler: deleteRule),
            ])
    }

    // MARK: reading

    private func listCredentials(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context).value.id
        return try await database.read { try Identity.credentials.list($0, context, where: ["t.user_id = \(user)"]) }
    }

    private func showCredential(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context).value.id
        let id = context.parameter("credential_id")
        return try await database.read {
            try Identity.credentials.one($0, context, where: "t.id = \(id) AND t.user_id = \(user)", id: id)
        }
    }

    // MARK: writing

    private func createCredential(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context)
        let caller = user.caller
        let body = context.entity("application_credential")
        try await requireMayManage(caller)
        let project = try caller.requireProject()
        if let asked = body["project_id"]?.stringValue, asked != project {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute project_id. Value: '\(asked.prefix(64))'. It must be the token's project, \(project).")
        }
        let expiresAt = body["expires_at"]?.stringValue.flatMap { Timestamp($0) }
        if let expiresAt, expiresAt <= ambient.now {
            throw ResourceError.badRequest("Invalid input for field/attribute expires_at. It must be in the future.")
        }
        let secret = body["secret"]?.stringValue ?? Base64URL.encode(ambient.random.bytes(64))
        let new = NewCredential(
            id: newID(), project: project, secretHash: try await hasher.hash(Secret(secret)), expiresAt: expiresAt,
            body: body, caller: caller)
        return try await context.write(database) { connection in
            try insert(connection, credential: new, of: user)
            let change = try Identity.credentials.change(connection, context, status: 201, id: new.id)
            // Only the response contains the secret, the audit record does not.
            var shown = try JSONValue.parse(change.response.bytes ?? [])["application_credential"]?.objectValue ?? JSONObject()
            shown["secret"] = .string(secret)
            return change.answering(.json(201, ["application_credential": .object(shown)]), holdsSecret: true)
        }
    }

    private func deleteCredential(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context)
        try await requireMayManage(try context.caller)
        let id = context.parameter("credential_id")
        return try await changeAccess(context) { connection in
            try delete(connection, credential: id, of: user)
            return Change(.empty(), "application_credential", id)
        }
    }
}
