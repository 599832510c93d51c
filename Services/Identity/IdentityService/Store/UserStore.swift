import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// Users as a table, and the statements that change them.
extension Identity {
    static let users = ResourceKind.identity(
        "user",
        Table(
            "users t",
            fields: [
                Field("id"), Field("name", sortable: true), Field("domain_id"), Field("enabled", .boolean),
                Field("default_project_id"), Field("password_expires_at", .timestampMicroseconds),
                Field("options", .json), Field("extra", .members),
            ]))

    static let userMembers: Set<String> = [
        "id", "name", "domain_id", "enabled", "default_project_id", "password", "original_password",
        "password_expires_at", "options",
    ]

    static let userOptions = BodySchema.object(
        [
            "ignore_change_password_upon_first_use", "ignore_password_expiry", "ignore_lockout_failure_attempts",
            "lock_password", "multi_factor_auth_enabled", "ignore_user_inactivity",
        ].map { BodySchema.Property($0, .nullable(.boolean)) }
            + [.init("multi_factor_auth_rules", .nullable(.list(.list(.text))))])

    func userBody(required: Bool) -> RouteBody {
        Bodies.entity(
            "user",
            [
                Bodies.name(255, required: required), Bodies.domain, Bodies.enabled,
                .init("default_project_id", .nullable(.string(min: 1, max: 64, format: nil))),
                .init("password", .nullable(.string(min: 1, max: 4096, format: nil))),
                .init("options", Identity.userOptions),
            ])
    }

    /// - Throws: 400 where the operator's rule about passwords is broken.
    func checkedHash(_ password: String?) async throws -> String? {
        guard let password else { return nil }
        guard password.unicodeScalars.count >= options.passwordLengthMin else {
            throw ResourceError.badRequest(
                "The password does not meet the requirements: it must have \(options.passwordLengthMin) characters or more.")
        }
        return try await hasher.hash(Secret(password))
    }

    func insert(
        _ connection: Connection, user decision: Authorized<JSONObject>, id: String, domain: String, hash: String?
    ) throws {
        let body = try decision.value(for: "identity:create_user")
        let now = ambient.now
        guard try find(connection, project: domain, isDomain: true) != nil else {
            throw Identity.missing("domain", domain)
        }
        let name = body["name"]?.stringValue
        let options = JSONObject(
            (body["options"]?.objectValue ?? JSONObject()).members.filter { !$0.value.isNull }.map { ($0.name, $0.value) })
        try storing("user", name) {
            try connection.execute(
                """
                INSERT INTO users (id, name, domain_id, enabled, default_project_id, options, extra, password_hash,
                    password_set_at, created_at, updated_at)
                VALUES (\(id), \(name), \(domain), \(body["enabled"]?.boolValue ?? true),
                    \(body["default_project_id"]?.stringValue), \(options)::jsonb,
                    \(body.extra(beside: Identity.userMembers))::jsonb, \(hash),
                    \(hash == nil ? nil : now), \(now), \(now))
                """)
        }
    }

    func update(
        _ connection: Connection, user decision: Authorized<Found>, _ body: JSONObject, hash: String?
    ) throws {
        let id = try decision.value(for: "identity:update_user").id
        let now = ambient.now
        var changes = Changes()
        if body["name"] != nil { changes.text(body, "name") }
        changes.text(body, "default_project_id", absent: nil)
        changes.flag(body, "enabled")
        changes.options(body)
        changes.extra(body, beside: Identity.userMembers)
        if body["password"] != nil { Identity.setPassword(&changes, hash: hash, now: now) }
        if body["enabled"]?.boolValue == false, body["password"] == nil { changes.set("tokens_valid_from", now) }
        try storing("user", body["name"]?.stringValue) {
            _ = try changes.apply(connection, "users", id, at: now, isCounted: true, touching: true)
        }
    }

    /// A new password ends all tokens that the old one gave.
    private static func setPassword(_ changes: inout Changes, hash: String?, now: Timestamp) {
        changes.set("password_hash", hash)
        changes.set("password_set_at", now)
        changes.set("password_expires_at = NULL")
        changes.set("tokens_valid_from", now)
        changes.set("failed_attempts = 0")
        changes.set("failed_at = NULL")
    }

    /// Replaces a password that its owner has proved to know.
    ///
    /// - Returns: false where the stored hash is no longer the one that was proved.
    func replacePassword(
        _ connection: Connection, user id: String, provedHash: String, hash: String, requestID: String
    ) throws -> Bool {
        let now = ambient.now
        var changes = Changes()
        Identity.setPassword(&changes, hash: hash, now: now)
        let changed = try changes.apply(
            connection, "users", where: "id = \(id) AND password_hash = \(provedHash)", at: now, isCounted: true)
        guard changed == 1 else { return false }
        try connection.execute(
            """
            INSERT INTO audit_records (at, request_id, user_id, action, resource_type, resource_id)
            VALUES (\(now), \(requestID), \(id), 'identity:change_password', 'user', \(id))
            """)
        return true
    }

    func delete(_ connection: Connection, user decision: Authorized<Found>) throws {
        let id = try decision.value(for: "identity:delete_user").id
        try connection.execute("DELETE FROM users WHERE id = \(id)")
    }
}
