import Authorization
import Database
import Kernel
import WebAPI

/// A caller may not change a user or group with more rights than its own, because setting a password, an e-mail address or a membership
/// gives control over the rights of that user or group.
extension Identity {
    /// The user or group to be changed.
    enum Controlled: Sendable {
        case user(String)
        case group(String)

        /// The condition on `role_assignments a`.
        fileprivate var condition: SQL {
            switch self {
            case .user(let id):
                "(a.user_id = \(id) OR a.group_id IN (SELECT m.group_id FROM group_members m WHERE m.user_id = \(id)))"
            case .group(let id): "a.group_id = \(id)"
            }
        }

        fileprivate var words: String {
            switch self {
            case .user(let id): "The user \(id.prefix(64))"
            case .group(let id): "The group \(id.prefix(64))"
            }
        }
    }

    /// A domain-specific role gives no rights by itself, so the token need not have it. Outside of the token's scope it counts like
    /// any other role: what it implies may change later.
    ///
    /// - Throws: 403 if the caller is not an administrator and the user or group has any role, directly, through a group or implied, that
    ///   the caller's token does not have, or has one outside of the token's scope.
    func requireControl(_ caller: Caller, over controlled: Controlled) async throws {
        if caller.isAdmin { return }
        let held = caller.roles.map(\.id)
        let inScope: SQL =
            switch caller.scope {
            case .system: "true"
            case .domain(let id):
                "NOT r.system AND coalesce(r.domain_id, p.domain_id, p.id) = \(id.text) AND NOT \(CloudProjects.isReached(by: "r"))"
            case .project(let id): "NOT r.inherited AND r.project_id IS NOT DISTINCT FROM \(id.text)"
            case .unscoped: "false"
            }
        let beyond = try await database.read { connection in
            try connection.query(
                """
                WITH RECURSIVE \(cloudProjects.sets), rights AS (
                    SELECT a.role_id, a.project_id, a.domain_id, a.system, a.inherited
                    FROM role_assignments a WHERE \(controlled.condition)
                    UNION
                    SELECT i.implied_role_id, r.project_id, r.domain_id, r.system, r.inherited
                    FROM rights r JOIN implied_roles i ON i.prior_role_id = r.role_id)
                SELECT o.name FROM rights r JOIN roles o ON o.id = r.role_id LEFT JOIN projects p ON p.id = r.project_id
                WHERE NOT (\(inScope)) OR (o.domain_id IS NULL AND NOT r.role_id = ANY (\(held)::text[]))
                ORDER BY o.name LIMIT 1
                """
            ).first?.string("name")
        }
        guard let beyond else { return }
        throw ResourceError.forbidden(
            """
            \(controlled.words) has the role \(beyond) where the token of this request does not have it. Only a \
            cloud administrator may change it.
            """
        )
    }

    /// - Throws: 403 if the caller is not an administrator and the role is, or implies, a role that the token does not have.
    func requireHolding(_ caller: Caller, role id: String) async throws {
        if caller.isAdmin { return }
        let held = caller.roles.map(\.id)
        let beyond = try await database.read { connection in
            try connection.query(
                """
                WITH RECURSIVE given AS (
                    SELECT \(id)::text AS id
                    UNION
                    SELECT i.implied_role_id FROM given g JOIN implied_roles i ON i.prior_role_id = g.id)
                SELECT o.name FROM given g JOIN roles o ON o.id = g.id
                WHERE o.domain_id IS NULL AND NOT (o.id = ANY (\(held)::text[])) ORDER BY o.name LIMIT 1
                """
            ).first?.string("name")
        }
        guard let beyond else { return }
        throw ResourceError.forbidden(
            """
            The role \(id.prefix(64)) is or implies \(beyond), which the token of this request does not have. Only \
            a cloud administrator may assign or remove it.
            """
        )
    }

    /// Decides about a change of a role assignment, in the transaction that makes it.
    ///
    /// - Throws: 403 if the caller is not an administrator, and the assignment is on a project of the cloud's operators
    ///   (`CloudProjects`), or is inherited by one.
    func requireTenantAssignments(_ connection: Connection, _ caller: Caller, _ assignment: Assignment) throws {
        guard !caller.isAdmin, let target = assignment.inherited ? assignment.targetID : assignment.projectID else { return }
        guard try cloudProjects.contain(connection, target, orAbove: assignment.inherited) else { return }
        throw ResourceError.forbidden(
            """
            The \(assignment.target.rawValue) \(target.prefix(64)) is a cloud project\
            \(assignment.inherited ? ", or has one below it" : ""). Only a cloud administrator may change role assignments there.
            """
        )
    }

    /// - Throws: 403 if the caller is not an administrator, and the project is one of the cloud's operators (`CloudProjects`).
    func requireTenantProject(_ caller: Caller, _ project: String) async throws {
        guard !caller.isAdmin, try await database.read({ try cloudProjects.contain($0, project) }) else { return }
        throw ResourceError.forbidden(
            """
            The project \(project.prefix(64)) is a cloud project: it belongs to the operators of this cloud. Only a cloud \
            administrator may change it or its role assignments.
            """
        )
    }
}
