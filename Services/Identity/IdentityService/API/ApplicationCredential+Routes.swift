import Authorization
import Database
import IdentityCore
import JSON
import Kernel
import WebAPI

/// Application credentials: passwords of a program, for one project, with at most their owner's roles.
extension Identity {
    static let credentials = ResourceKind.identity(
        "application_credential",
        Table(
            "application_credentials t",
            fields: [
                Field("id"), Field("name", sortable: true), Field("description"), Field("project_id"), Field("user_id"),
                Field("unrestricted", .boolean), Field("expires_at", .timestampMicroseconds),
                Field(
                    "roles", .json,
                    """
                    (SELECT coalesce(json_agg(json_build_object('id', r.id, 'name', r.name, 'domain_id', r.domain_id)
                        ORDER BY r.name), '[]') FROM application_credential_roles c JOIN roles r ON r.id = c.role_id
                        WHERE c.application_credential_id = t.id)
                    """),
                Field("access_rules", .json),
                Field("system", .json, "NULL::json"),
            ])
    ) { "/v3/users/\(Query.encode($0.parameter("user_id")))/application_credentials" }

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
                            [.init("id", .string(min: 1, max: 64, format: nil)), .init("name", .text)],
                            additional: .allowed)))),
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
                    .get, base, action: "identity:list_application_credentials", rule: read, "List application credentials",
                    handler: listCredentials),
                Route(
                    .post, base, action: "identity:create_application_credential", rule: "rule:self",
                    body: Identity.credentialBody, status: 201, "Create an application credential", handler: createCredential),
                Route(
                    .get, base + "/{credential_id}", action: "identity:get_application_credential", rule: read,
                    "Show an application credential", handler: showCredential),
                Route(
                    .delete, base + "/{credential_id}", action: "identity:delete_application_credential",
                    rule: "rule:admin_required or rule:self", status: 204, "Delete an application credential", handler: deleteCredential),
                Route(.get, rules, action: "identity:list_access_rules", rule: read, "List access rules", handler: listRules),
                Route(.get, rules + "/{rule_id}", action: "identity:get_access_rule", rule: read, "Show an access rule", handler: showRule),
                Route(
                    .delete, rules + "/{rule_id}", action: "identity:delete_access_rule", rule: "rule:admin_required or rule:self",
                    status: 204, "Delete an access rule that no application credential uses", handler: deleteRule),
            ])
    }

    // MARK: reading

    private func listCredentials(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context).value.id
        let conditions = try context.conditions(texts: ["name": "t.name"])
        return try await database.read {
            try Identity.credentials.list($0, context, where: conditions + ["t.user_id = \(user)"])
        }
    }

    private func showCredential(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context).value.id
        let id = context.parameter("credential_id")
        return try await database.read {
            try Identity.credentials.one($0, context, where: "t.id = \(id) AND t.user_id = \(user)", id: id)
        }
    }

    // MARK: writing

    /// The attributes of a new credential.
    private struct NewCredential: Sendable {
        let id: String
        let project: String
        let secretHash: String
        let expiresAt: Timestamp?
        let body: JSONObject
        let caller: Caller
    }

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
            try insert(connection, new, user: user)
            let change = try Identity.credentials.change(connection, context, status: 201, id: new.id)
            // Only the response contains the secret, the audit record does not.
            var shown = try JSONValue.parse(change.response.bytes ?? [])["application_credential"]?.objectValue ?? JSONObject()
            shown["secret"] = .string(secret)
            return change.answering(.json(201, ["application_credential": .object(shown)]), holdsSecret: true)
        }
    }

    /// A restricted credential must not create or delete credentials; otherwise a leaked one could not be revoked
    /// effectively.
    func requireMayManage(_ caller: Caller) async throws {
        guard let id = caller.token.applicationCredentialID else { return }
        let unrestricted = try await database.read {
            try $0.query("SELECT unrestricted FROM application_credentials WHERE id = \(id)").first?.bool("unrestricted") ?? false
        }
        guard unrestricted else { throw Identity.mayNotManage }
    }

    private static let mayNotManage = ResourceError.forbidden(
        "Using method 'application_credential' is not allowed for managing additional application credentials.")

    /// Upper limits of a credential created by this caller. Locks the caller's own credential until the transaction ends.
    private func limits(_ connection: Connection, _ caller: Caller) throws -> CredentialLimits {
        guard let id = caller.token.applicationCredentialID else { return CredentialLimits(expiresAt: nil, accessRules: nil) }
        let rows = try connection.query(
            "SELECT unrestricted, expires_at, access_rules FROM application_credentials WHERE id = \(id) FOR SHARE")
        guard let own = rows.first, try own.bool("unrestricted") else { throw Identity.mayNotManage }
        let rules = try own.optionalJSON("access_rules")?.arrayValue
        return CredentialLimits(
            expiresAt: try own.optionalTimestamp("expires_at"), accessRules: rules?.compactMap { AccessRule($0) })
    }

    private func insert(_ connection: Connection, _ new: NewCredential, user decision: Authorized<Found>) throws {
        let user = try decision.value(for: "identity:create_application_credential").id
        let now = ambient.now
        let body = new.body
        let name = body["name"]?.stringValue
        let limits = try limits(connection, new.caller)
        let rules = try accessRules(connection, body, user: user, limits)
        let expiresAt = try limits.expiry(asked: new.expiresAt)
        try storing("application_credential", name) {
            try connection.execute(
                """
                INSERT INTO application_credentials (id, user_id, project_id, name, secret_hash, description,
                    unrestricted, expires_at, access_rules, created_at)
                VALUES (\(new.id), \(user), \(new.project), \(name), \(new.secretHash), \(body["description"]?.stringValue),
                    \(body["unrestricted"]?.boolValue ?? false), \(expiresAt), \(rules)::jsonb, \(now))
                """)
        }
        for role in try roles(body, held: new.caller.roles) {
            try connection.execute(
                "INSERT INTO application_credential_roles (application_credential_id, role_id) VALUES (\(new.id), \(role)) ON CONFLICT DO NOTHING"
            )
        }
    }

    /// The ids of the roles asked for, all of the token's where none are named.
    private func roles(_ body: JSONObject, held: [RoleReference]) throws -> [String] {
        guard let asked = body["roles"]?.arrayValue, !asked.isEmpty else { return held.map(\.id) }
        return try asked.map { role in
            let found = held.first {
                role["id"]?.stringValue == $0.id || (role["id"] == nil && role["name"]?.stringValue == $0.name)
            }
            guard let found else {
                throw ResourceError.badRequest(
                    "Invalid application credential: Could not find role assignment with role: \(role["id"]?.stringValue ?? role["name"]?.stringValue ?? "")."
                )
            }
            return found.id
        }
    }

    private func deleteCredential(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context).value(for: "identity:delete_application_credential").id
        try await requireMayManage(try context.caller)
        let id = context.parameter("credential_id")
        let response = try await context.write(database) { connection in
            let removed = try connection.execute("DELETE FROM application_credentials WHERE id = \(id) AND user_id = \(user)")
            guard removed == 1 else { throw Identity.missing("application credential", id) }
            return Change(.empty(), "application_credential", id)
        }
        await authenticator.refresh()
        return response
    }
}
