import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// `/v3/credentials`: secrets that Identity stores encrypted for users. Secrets of type `totp` are used for sign-on; other
/// types are only stored for clients.
extension Identity {
    /// Most credentials that a user may have.
    private static let credentialsMax = 100

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
                Route(.get, "/v3/credentials", action: "identity:list_credentials", rule: rule, "List credentials", handler: listStored),
                Route(
                    .post, "/v3/credentials", action: "identity:create_credential", rule: rule,
                    body: Identity.body(required: true), status: 201, "Store a credential", handler: createStored),
                Route(.get, one, action: "identity:get_credential", rule: rule, "Show a credential", handler: showStored),
                Route(
                    .patch, one, action: "identity:update_credential", rule: rule, body: Identity.body(required: false),
                    "Change a credential", handler: updateStored),
                Route(
                    .delete, one, action: "identity:delete_credential", rule: rule, status: 204, "Delete a credential",
                    handler: deleteStored),
            ])
    }

    // MARK: decisions

    /// - Throws: 403 for a token of an application credential: a second factor, read or made with it, would let its
    ///   holder sign on as the user.
    private func requireOwnSignOn(_ context: RequestContext) throws {
        guard try context.caller.token.applicationCredentialID == nil else {
            throw ResourceError.forbidden("Using method 'application_credential' is not allowed for credentials.")
        }
    }

    private func requireKeys() throws -> CredentialKeys {
        guard let credentialKeys else {
            throw ResourceError(
                .notImplemented, "This cloud stores no credentials: its operator has not set identity.credential_keys_file.")
        }
        return credentialKeys
    }

    /// The owner of the route's credential, after the decision.
    private func decideStored(_ context: RequestContext) async throws -> Authorized<String> {
        let id = context.parameter("stored_id")
        let owner = try await database.read { connection in
            try connection.query("SELECT user_id FROM credentials WHERE id = \(id)").first?.string("user_id")
        }
        let decision = try context.authorize(owner ?? "", target: ["target.user.id": owner])
        try requireOwnSignOn(context)
        guard owner != nil else { throw Identity.missing("credential", id) }
        return decision
    }

    // MARK: reading

    private static func context(_ id: String, _ user: String, _ type: String) -> String { "\(id) \(user) \(type)" }

    /// The rows that a condition names, opened.
    private func stored(
        _ connection: Connection, _ context: RequestContext, where condition: SQL, limit: Int = 1
    ) throws -> [JSONObject] {
        let keys = try requireKeys()
        return try connection.query(
            """
            SELECT id, user_id, project_id, type, key_id, encode(sealed, 'hex') AS sealed FROM credentials
            WHERE \(condition) ORDER BY id LIMIT \(limit)
            """
        ).map { row in
            let (id, user, type) = (try row.string("id"), try row.string("user_id"), try row.string("type"))
            let blob = try keys.open(
                Hexadecimal.decode(try row.string("sealed")) ?? [], keyID: try row.string("key_id"),
                context: Identity.context(id, user, type))
            return [
                "id": .string(id), "type": .string(type), "blob": .string(blob), "user_id": .string(user),
                "project_id": JSONValue(try row.optionalString("project_id")),
                "links": ["self": .string("\(context.publicURL)/v3/credentials/\(id)")],
            ]
        }
    }

    private func listStored(_ context: RequestContext) async throws -> Response {
        let own = try context.caller.userID
        try context.authorize(target: ["target.user.id": own])
        try requireOwnSignOn(context)
        let request = try context.listRequest(filters: [])
        var conditions = try context.conditions(texts: ["user_id": "user_id", "type": "type"])
        if !context.allows(context.route.action ?? "") { conditions.append("user_id = \(own)") }
        if let marker = request.marker { conditions.append("id > \(marker)") }
        let condition = SQL.joined(conditions.isEmpty ? ["true"] : conditions, separator: " AND ")
        let limit = min(request.limit ?? Limits.pageSizeMax, Limits.pageSizeMax)
        let found = try await database.read { try stored($0, context, where: condition, limit: limit + 1) }
        let page = found.prefix(limit)
        let next = found.count > limit ? page.last?["id"]?.stringValue.map(context.nextLink) : nil
        return .json(
            200,
            [
                "credentials": .array(page.map { .object($0) }),
                "links": ["self": .string(context.selfLink), "next": JSONValue(next), "previous": nil],
            ])
    }

    private func showStored(_ context: RequestContext) async throws -> Response {
        _ = try await decideStored(context)
        let id = context.parameter("stored_id")
        let found = try await database.read { try stored($0, context, where: "id = \(id)").first }
        guard let found else { throw Identity.missing("credential", id) }
        return .json(200, ["credential": .object(found)])
    }

    // MARK: writing

    /// - Throws: 400 where the blob is not what its type needs, or the type would not work.
    private static func check(type: String, blob: String) throws {
        switch type.lowercased() {
        case "ec2":
            throw ResourceError.badRequest(
                "Invalid input for field/attribute credential.type. Value: ec2. This cloud has no EC2 or S3 API that would accept it.")
        case "totp":
            guard type == "totp", let secret = OneTimeCode.secret(base32: blob), secret.count >= OneTimeCode.secretBytesMin else {
                throw ResourceError.badRequest(
                    "Invalid input for field/attribute credential.blob. A credential of type totp needs a base 32 text of at least 16 characters."
                )
            }
        default: break
        }
    }

    /// - Throws: 400 for a project that does not exist.
    private static func requireProject(_ connection: Connection, _ body: JSONObject) throws {
        guard let project = body["project_id"]?.stringValue else { return }
        guard try connection.query("SELECT id FROM projects WHERE id = \(project) FOR KEY SHARE").isEmpty else { return }
        throw ResourceError.badRequest(
            "Invalid input for field/attribute credential.project_id. Value: \(project.prefix(64)). Could not find project.")
    }

    private func createStored(_ context: RequestContext) async throws -> Response {
        let body = context.entity("credential")
        let asked = body["user_id"]?.stringValue ?? ""
        let user = try context.authorize(asked, target: ["target.user.id": asked]).value(for: "identity:create_credential")
        try requireOwnSignOn(context)
        let (type, blob) = (body["type"]?.stringValue ?? "", body["blob"]?.stringValue ?? "")
        try Identity.check(type: type, blob: blob)
        let id = newID()
        let sealed = try requireKeys().seal(blob, context: Identity.context(id, user, type), nonce: ambient.random.bytes(12))
        let now = ambient.now
        return try await context.write(database) { connection in
            guard !(try connection.query("SELECT id FROM users WHERE id = \(user) FOR NO KEY UPDATE")).isEmpty else {
                throw ResourceError.badRequest("Invalid input for field/attribute credential.user_id. Value: \(user). Could not find user.")
            }
            try Identity.requireProject(connection, body)
            let count = try connection.query("SELECT count(*) AS n FROM credentials WHERE user_id = \(user)")[0].int("n")
            guard count < Identity.credentialsMax else {
                throw ResourceError.forbidden("A user has at most \(Identity.credentialsMax) credentials.")
            }
            try storing("credential", nil) {
                try connection.execute(
                    """
                    INSERT INTO credentials (id, user_id, project_id, type, sealed, key_id, created_at, updated_at)
                    VALUES (\(id), \(user), \(body["project_id"]?.stringValue), \(type),
                        decode(\(Hexadecimal.encode(sealed.bytes)), 'hex'), \(sealed.keyID), \(now), \(now))
                    """)
            }
            return try change(connection, context, id: id, status: 201)
        }
    }

    /// The answer has the blob; the audit's content does not.
    private func change(_ connection: Connection, _ context: RequestContext, id: String, status: Int) throws -> Change {
        guard let shown = try stored(connection, context, where: "id = \(id)").first else { throw Identity.missing("credential", id) }
        var content = shown
        content["blob"] = nil
        return Change(
            .json(status, ["credential": .object(shown)]), "credential", id, content: .object(content), holdsSecret: true)
    }

    private func updateStored(_ context: RequestContext) async throws -> Response {
        let owner = try await decideStored(context).value(for: "identity:update_credential")
        let id = context.parameter("stored_id")
        let body = context.entity("credential")
        if let user = body["user_id"]?.stringValue, user != owner {
            throw ResourceError.badRequest("Invalid input for field/attribute credential.user_id. Value: \(user). It cannot be changed.")
        }
        let keys = try requireKeys()
        let nonce = ambient.random.bytes(12)
        let now = ambient.now
        return try await context.write(database) { connection in
            try Operability.keeping(connection) {
                try connection.query("SELECT id FROM credentials WHERE id = \(id) FOR UPDATE")
                try Identity.requireProject(connection, body)
                guard let before = try stored(connection, context, where: "id = \(id)").first else {
                    throw Identity.missing("credential", id)
                }
                let type = body["type"]?.stringValue ?? before["type"]?.stringValue ?? ""
                let blob = body["blob"]?.stringValue ?? before["blob"]?.stringValue ?? ""
                try Identity.check(type: type, blob: blob)
                let sealed = try keys.seal(blob, context: Identity.context(id, owner, type), nonce: nonce)
                let project = body["project_id"] == nil ? before["project_id"]?.stringValue : body["project_id"]?.stringValue
                try storing("credential", nil) {
                    try connection.execute(
                        """
                        UPDATE credentials SET type = \(type), sealed = decode(\(Hexadecimal.encode(sealed.bytes)), 'hex'),
                            key_id = \(sealed.keyID), project_id = \(project), updated_at = \(now) WHERE id = \(id)
                        """)
                }
                return try change(connection, context, id: id, status: 200)
            }
        }
    }

    private func deleteStored(_ context: RequestContext) async throws -> Response {
        try await decideStored(context).value(for: "identity:delete_credential")
        let id = context.parameter("stored_id")
        return try await context.write(database) { connection in
            try Operability.keeping(connection) {
                guard try connection.execute("DELETE FROM credentials WHERE id = \(id)") == 1 else {
                    throw Identity.missing("credential", id)
                }
                return Change(.empty(), "credential", id)
            }
        }
    }

    // MARK: sign-on

    /// Number of consecutive wrong codes after which a user's codes are refused for a while, because a code has only a
    /// million values.
    private static let wrongCodesMax = 5
    private static let wrongCodesPause: Duration = .seconds(300)

    /// Whether `code` is one that an authenticator of the user shows now or showed in the step before, and was not used
    /// yet. Uses it up.
    func spendCode(_ code: Secret<String>, user: String) async throws -> Bool {
        let keys = try requireKeys()
        let now = ambient.now
        let step = OneTimeCode.step(at: now)
        return try await database.write { connection in
            let account = try connection.query(
                "SELECT failed_codes, failed_code_at FROM users WHERE id = \(user) FOR NO KEY UPDATE")
            guard let account = account.first else { return false }
            let failed = try account.int("failed_codes")
            let pausedSince = try account.optionalTimestamp("failed_code_at")
            let recent = pausedSince.map { now < $0 + Identity.wrongCodesPause } ?? false
            if recent, failed >= Identity.wrongCodesMax { return false }
            let rows = try connection.query(
                """
                SELECT id, type, key_id, last_step, encode(sealed, 'hex') AS sealed FROM credentials
                WHERE user_id = \(user) AND type = 'totp' ORDER BY id
                """)
            for row in rows {
                let (id, last) = (try row.string("id"), Int64(try row.int("last_step")))
                let blob = try keys.open(
                    Hexadecimal.decode(try row.string("sealed")) ?? [], keyID: try row.string("key_id"),
                    context: Identity.context(id, user, "totp"))
                guard let secret = OneTimeCode.secret(base32: blob) else { continue }
                let right = [step, step - 1].first { step in
                    step > last
                        && constantTimeEqual(Array(OneTimeCode.code(secret: secret, step: step).utf8), Array(code.exposed.utf8))
                }
                guard let right else { continue }
                try connection.execute("UPDATE credentials SET last_step = \(right) WHERE id = \(id)")
                try connection.execute("UPDATE users SET failed_codes = 0, failed_code_at = NULL WHERE id = \(user)")
                return true
            }
            try connection.execute(
                "UPDATE users SET failed_codes = \(recent ? failed + 1 : 1), failed_code_at = \(now) WHERE id = \(user)")
            return false
        }
    }
}
