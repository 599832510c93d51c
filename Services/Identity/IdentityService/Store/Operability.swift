import Database
import IdentityCore
import Kernel
import WebAPI

/// Conditions for a cloud to stay operable: an administrator who can sign on, and all roles of the cloud's service users. A
/// change that violates one is refused, whichever route it uses.
struct Operability: Sendable {
    /// A role of a service user on a project, the domain or the system, by the names that services sign on with.
    private struct Right: Hashable {
        let user: String
        let role: String
        let place: String
    }

    /// Names by id.
    private var administrators: [String: String] = [:]
    private var services: Set<Right> = []

    /// Serializes the changes that could violate a condition: otherwise two of them could each rely on the administrator that the other one
    /// removes.
    private static let lockKey = 8024

    /// Runs a change and checks that it left the cloud operable.
    ///
    /// - Parameter roles: the names in lower case of the roles that make a user an administrator.
    /// - Throws: 403 naming what would be lost; the caller must roll back the transaction.
    static func keeping<Value>(_ connection: Connection, administrators roles: [String], _ change: () throws -> Value) throws -> Value {
        try connection.query("SELECT pg_advisory_xact_lock(\(lockKey))")
        let before = try Operability(connection, roles)
        let value = try change()
        let after = try Operability(connection, roles)
        if after.administrators.isEmpty, !before.administrators.isEmpty {
            let names = before.administrators.values.sorted()
            let words = roles.joined(separator: " or ")
            let reason =
                names.count == 1
                ? "\(names[0]) is the last user with the role \(words)"
                : """
                it concerns all \(names.count) users with the role \(words) \
                (\(names.prefix(3).joined(separator: ", "))\(names.count > 3 ? ", …" : ""))
                """
            throw ResourceError.forbidden(
                "This would leave the cloud without an administrator who can sign on: \(reason), not counting the services' own.")
        }
        if let lost = before.services.subtracting(after.services).min(by: { ($0.user, $0.role) < ($1.user, $1.role) }) {
            throw ResourceError.forbidden(
                """
                The services of this cloud sign on as the user \(lost.user) and need its role \(lost.role) on \
                \(lost.place); this would end it. A service user is changed with `wolke-identity bootstrap`.
                """
            )
        }
        return value
    }

    private init(_ connection: Connection, _ administratorRoles: [String]) throws {
        let rows = try connection.query(
            """
            WITH RECURSIVE chief_roles AS (
                SELECT r.id FROM roles r WHERE lower(r.name) = ANY (\(administratorRoles)::text[]) AND r.domain_id IS NULL
                UNION
                SELECT i.prior_role_id FROM chief_roles l JOIN implied_roles i ON i.implied_role_id = l.id),
            held AS (
                SELECT x.user_id, a.role_id, a.project_id, a.domain_id, a.system
                FROM role_assignments a LEFT JOIN group_members m ON m.group_id = a.group_id
                    CROSS JOIN LATERAL (SELECT coalesce(a.user_id, m.user_id) AS user_id) x
                WHERE NOT a.inherited AND x.user_id IS NOT NULL
                    AND (a.role_id IN (SELECT id FROM chief_roles)
                        OR x.user_id IN (SELECT s.id FROM users s WHERE s.service_user))
                UNION
                SELECT h.user_id, i.implied_role_id, h.project_id, h.domain_id, h.system
                FROM held h JOIN implied_roles i ON i.prior_role_id = h.role_id)
            SELECT u.id AS user_id, u.name AS user_name, u.service_user, lower(r.name) AS role_name, h.system, p.name AS place_name,
                u.options, NOT u.service_user AND EXISTS (
                    SELECT FROM credentials c WHERE c.user_id = u.id AND c.type = 'totp') AS has_totp
            FROM held h JOIN users u ON u.id = h.user_id JOIN projects d ON d.id = u.domain_id
                JOIN roles r ON r.id = h.role_id
                LEFT JOIN projects p ON p.id = coalesce(h.project_id, h.domain_id)
                LEFT JOIN projects pd ON pd.id = p.domain_id
            WHERE r.domain_id IS NULL AND u.enabled AND d.enabled AND u.password_hash IS NOT NULL
                AND (h.system OR (p.enabled AND coalesce(pd.enabled, true)))
            """)
        for row in rows {
            // Methods for a first sign-on: tokens and application credentials expire, and a service only has its password.
            let methods = try row.bool("has_totp") ? ["password", "totp"] : ["password"]
            guard FactorRules(options: try row.optionalJSON("options")).areMet(by: methods) else { continue }
            let user = try row.string("user_name")
            if try row.bool("service_user") {
                // Services need no other roles. Clouds created by older versions have more, which operators may remove.
                guard try row.string("role_name") == "service" else { continue }
                let place = try row.bool("system") ? "the system" : "the project or domain \(row.string("place_name"))"
                services.insert(Right(user: user, role: try row.string("role_name"), place: place))
            } else if try administratorRoles.contains(row.string("role_name")) {
                administrators[try row.string("user_id")] = user
            }
        }
    }
}
