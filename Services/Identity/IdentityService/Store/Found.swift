import Database
import JSON
import Kernel
import WebAPI

/// Looks up rows for policy decisions.
extension Identity {
    /// The attributes of a row that policy rules and handlers need.
    struct Found: Sendable {
        let id: String
        let name: String
        /// The domain that it belongs to; a domain belongs to itself. Nil for cloud-wide resources.
        let domainID: String?
        let immutable: Bool

        /// - Throws: 403 for an immutable resource.
        func requireMutable(_ kind: String, _ changes: JSONObject? = nil) throws {
            guard immutable else { return }
            if let options = changes?["options"]?.objectValue, let flag = options["immutable"], flag != true { return }
            throw ResourceError.forbidden(
                "Cannot modify or delete the \(kind) \(id): it is immutable (options.immutable).")
        }
    }

    func find(_ connection: Connection, user id: String) throws -> Found? {
        try Identity.found(connection.query("SELECT id, name, domain_id, false AS immutable FROM users WHERE id = \(id)"))
    }

    func find(_ connection: Connection, group id: String) throws -> Found? {
        try Identity.found(connection.query("SELECT id, name, domain_id, false AS immutable FROM groups WHERE id = \(id)"))
    }

    /// A project, or a domain as a project.
    func find(_ connection: Connection, project id: String, isDomain: Bool? = nil) throws -> Found? {
        try Identity.found(
            connection.query(
                """
                SELECT id, name, coalesce(domain_id, id) AS domain_id,
                    coalesce((options ->> 'immutable')::boolean, false) AS immutable
                FROM projects WHERE id = \(id) AND is_domain = coalesce(\(isDomain)::boolean, is_domain)
                """))
    }

    func find(_ connection: Connection, role id: String) throws -> Found? {
        try Identity.found(
            connection.query(
                """
                SELECT id, name, domain_id, coalesce((options ->> 'immutable')::boolean, false) AS immutable
                FROM roles WHERE id = \(id)
                """))
    }

    private static func found(_ rows: Rows) throws -> Found? {
        guard let row = rows.first else { return nil }
        return Found(
            id: try row.string("id"), name: try row.string("name"), domainID: try row.optionalString("domain_id"),
            immutable: try row.bool("immutable"))
    }

    static func missing(_ kind: String, _ id: String) -> ResourceError {
        .notFound("Could not find \(kind): \(id.prefix(255)).")
    }
}

/// Turns violations of constraints into the API's errors.
@discardableResult
func storing<Value>(_ kind: String, _ name: String?, _ body: () throws -> Value) throws -> Value {
    do { return try body() } catch let error as DatabaseError {
        if error.isUniqueViolation {
            throw ResourceError.conflict(
                "Conflict occurred attempting to store \(kind) - Duplicate entry found with name \(name ?? "").")
        }
        if error.isForeignKeyViolation {
            // PostgreSQL names the constraint TABLE_COLUMN_fkey, and the column has the member's name.
            let member = (error.constraint ?? "").replacing((error.table ?? "") + "_", with: "", maxReplacements: 1)
                .replacing("_fkey", with: "")
            throw ResourceError.badRequest(
                "Invalid input for field/attribute \(member) of a \(kind). It refers to something that does not exist.")
        }
        if error.isCheckViolation {
            throw ResourceError.badRequest("The \(kind) breaks the rule \(error.constraint ?? "of its table").")
        }
        throw error
    }
}
