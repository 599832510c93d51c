import Authorization
import Cryptography
import Database
import Kernel
import WebAPI

/// A credential with its decrypted secret.
struct StoredCredential: Sendable {
    let id: String
    let userID: String
    var projectID: String?
    var type: String
    var blob: String

    /// Authenticated together with the secret, so that it cannot be moved to another row.
    static func context(_ id: String, _ user: String, _ type: String) -> String { "\(id) \(user) \(type)" }
}

/// The statements about users' credentials, whose secrets are sealed.
extension Identity {
    /// The maximum number of credentials of a user.
    private static let credentialsMax = 100

    /// The conditions of a list.
    ///
    /// - Parameters:
    ///   - owner: the only user whose credentials are listed; nil for all.
    ///   - marker: the id after which the list begins.
    static func storedConditions(_ query: Query, owner: String?, after marker: String?) -> [SQL] {
        var conditions: [SQL] = query.items.compactMap { TextFilter.condition($0.name, $0.value, on: ["user_id", "type"]) }
        if let owner { conditions.append("user_id = \(owner)") }
        if let marker { conditions.append("id > \(marker)") }
        return conditions
    }

    func owner(_ connection: Connection, ofCredential id: String) throws -> String? {
        try connection.query("SELECT user_id FROM credentials WHERE id = \(id)").first?.string("user_id")
    }

    /// The first of the credentials that match all of `conditions`, ordered by id and decrypted.
    ///
    /// - Throws: 501 without keys; 500 if a secret cannot be decrypted.
    func credentials(
        _ connection: Connection, where conditions: [SQL], limit: Int, locked: Bool = false
    ) throws -> [StoredCredential] {
        let keys = try requireKeys()
        let condition = SQL.joined(conditions.isEmpty ? ["true"] : conditions, separator: " AND ")
        return try connection.query(
            """
            SELECT id, user_id, project_id, type, key_id, encode(sealed, 'hex') AS sealed FROM credentials
            WHERE \(condition) ORDER BY id LIMIT \(limit) \(raw: locked ? "FOR UPDATE" : "")
            """
        ).map { row in
            let (id, user, type) = (try row.string("id"), try row.string("user_id"), try row.string("type"))
            let blob = try keys.open(
                Hexadecimal.decode(try row.string("sealed")) ?? [], keyID: try row.string("key_id"),
                context: StoredCredential.context(id, user, type))
            return StoredCredential(id: id, userID: user, projectID: try row.optionalString("project_id"), type: type, blob: blob)
        }
    }

    /// - Throws: 404 if the credential does not exist.
    func credential(_ connection: Connection, _ id: String, locked: Bool = false) throws -> StoredCredential {
        guard let found = try credentials(connection, where: ["id = \(id)"], limit: 1, locked: locked).first else {
            throw Identity.missing("credential", id)
        }
        return found
    }

    /// The columns of a credential that can change, with its sealed secret.
    private func changes(_ credential: StoredCredential) throws -> Changes {
        let context = StoredCredential.context(credential.id, credential.userID, credential.type)
        let sealed = try requireKeys().seal(credential.blob, context: context, nonce: ambient.random.bytes(12))
        return [
            "type": "\(credential.type)", "sealed": "decode(\(Hexadecimal.encode(sealed.bytes)), 'hex')", "key_id": "\(sealed.keyID)",
            "project_id": "\(credential.projectID)",
        ]
    }

    /// - Throws: 400 for a user or project that does not exist; 403 if the user has too many.
    func insert(_ connection: Connection, credential new: StoredCredential, of decision: Authorized<String>) throws {
        let user = try decision.value(for: "identity:create_credential")
        guard !(try connection.query("SELECT id FROM users WHERE id = \(user) FOR NO KEY UPDATE")).isEmpty else {
            throw ResourceError.badRequest("Invalid input for field/attribute credential.user_id. Value: \(user). Could not find user.")
        }
        try requireProject(connection, new.projectID)
        let count = try connection.query("SELECT count(*) AS n FROM credentials WHERE user_id = \(user)")[0].int("n")
        guard count < Identity.credentialsMax else {
            throw ResourceError.forbidden("A user has at most \(Identity.credentialsMax) credentials.")
        }
        var row = try changes(new)
        row.merge(["id": "\(new.id)", "user_id": "\(user)"])
        try storing("credential", nil) { try connection.execute(row.insertion("credentials", at: ambient.now)) }
    }

    /// - Throws: 400 for a project that does not exist.
    func update(_ connection: Connection, credential changed: StoredCredential, of decision: Authorized<String>) throws {
        try decision.value(for: "identity:update_credential")
        try requireProject(connection, changed.projectID)
        let changes = try changes(changed)
        try storing("credential", nil) { try changes.apply(connection, "credentials", changed.id, at: ambient.now) }
    }

    private func requireProject(_ connection: Connection, _ project: String?) throws {
        guard let project, try connection.query("SELECT id FROM projects WHERE id = \(project) FOR KEY SHARE").isEmpty else { return }
        throw ResourceError.badRequest(
            "Invalid input for field/attribute credential.project_id. Value: \(project.prefix(64)). Could not find project.")
    }

    /// - Throws: 404 if the credential does not exist.
    func delete(_ connection: Connection, credential id: String, of decision: Authorized<String>) throws {
        try decision.value(for: "identity:delete_credential")
        guard try connection.execute("DELETE FROM credentials WHERE id = \(id)") == 1 else { throw Identity.missing("credential", id) }
    }
}
