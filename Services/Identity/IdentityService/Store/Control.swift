import Authorization
import Database
import Kernel
import WebAPI

/// A caller may not change a user or group with more rights than its own, because whoever sets a password, an e-mail
/// address or a membership controls the rights of that user or group.
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
    /// - Throws: 403 where the caller is no administrator and the user or group has any role, directly, through a group
    ///   or implied, that the caller's token does not have, or has one outside of the token's scope.
    func requireControl(_ caller: Caller, over controlled: Controlled) async throws {
        if caller.isAdmin { return }
        let held = caller.roles.map(\.id)
        let inScope: SQL =
            switch caller.scope {
            case .system: "true"
            case .domain(let id):
                "NOT r.system AND coalesce(r.domain_id, p.domain_id, p.id) = \(id.text) AND NOT \(Identity.reachesCloudProject("r"))"
            case .project(let id): "NOT r.inherited AND r.project_id IS NOT DISTINCT FROM \(id.text)"
            case .unscoped: "false"
            }
        let beyond = try await database.read { connection in
            try connection.query(
                """
                WITH RECURSIVE \(Identity.cloudProjects), rights AS (
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

    /// Decides about a change of a role assignment.
    ///
    /// - Throws: 403 if the caller is not an administrator, and the assignment is on a project of the cloud's operators
    ///   (`cloudProjects`), or is inherited by one.
    func requireTenantAssignments(_ caller: Caller, _ assignment: Assignment) async throws {
        guard !caller.isAdmin, let target = assignment.inherited ? assignment.targetID : assignment.projectID else { return }
        guard try await isCloud(project: target, orAbove: assignment.inherited) else { return }
        throw ResourceError.forbidden(
            """
            The services or administrators of this cloud act in the \(assignment.target.rawValue) \(target.prefix(64))\
            \(assignment.inherited ? " or in a project below it" : ""). Only a cloud administrator may change role assignments there.
            """
        )
    }

    /// - Throws: 403 if the caller is not an administrator, and the project is one of the cloud's operators (`cloudProjects`).
    func requireTenantProject(_ caller: Caller, _ project: String) async throws {
        guard !caller.isAdmin, try await isCloud(project: project) else { return }
        throw ResourceError.forbidden(
            """
            The services or administrators of this cloud act in the project \(project.prefix(64)). Only a cloud administrator may \
            change it or its role assignments.
            """
        )
    }

    /// - Parameter orAbove: whether a project or domain from which one of `cloudProjects` inherits role assignments counts as well.
    private func isCloud(project id: String, orAbove: Bool = false) async throws -> Bool {
        let set: SQL = orAbove ? "above" : "cloud_projects"
        return try await database.read { connection in
            try !connection.query(
                "WITH RECURSIVE \(Identity.cloudProjects) SELECT 1 AS one WHERE \(id) IN (SELECT id FROM \(set))"
            ).isEmpty
        }
    }

    /// Common table expressions of two sets of ids.
    ///
    /// `cloud_projects` are the projects of the cloud's operators, which own what all projects use (public images, external and
    /// shared networks):
    /// - projects that the bootstrap file gives to administrators or services;
    /// - projects in which a user or group has a role that is or implies `admin` or `service`, also if it is inherited from a
    ///   domain or a parent project;
    /// - projects in which a service user has any role;
    /// - default projects of service users, and of users who have one of these roles anywhere.
    ///
    /// `above` are these projects with all projects and domains that they inherit role assignments from, and those from which later
    /// projects will inherit such a role.
    private static let cloudProjects: SQL = """
        powers AS (
            SELECT id FROM roles WHERE lower(name) IN ('admin', 'service') AND domain_id IS NULL
            UNION
            SELECT i.prior_role_id FROM powers w JOIN implied_roles i ON i.implied_role_id = w.id),
        powerful AS (
            SELECT a.user_id, a.group_id, a.project_id, a.domain_id, a.inherited
            FROM role_assignments a WHERE a.role_id IN (SELECT id FROM powers)),
        heirs AS (
            SELECT p.id FROM powerful w JOIN projects p ON p.parent_id = coalesce(w.project_id, w.domain_id) WHERE w.inherited
            UNION
            SELECT p.id FROM heirs h JOIN projects p ON p.parent_id = h.id),
        cloud_projects AS (
            SELECT id FROM projects WHERE cloud_project
            UNION
            SELECT project_id FROM powerful WHERE NOT inherited AND project_id IS NOT NULL
            UNION
            SELECT id FROM heirs
            UNION
            SELECT a.project_id FROM role_assignments a JOIN users u ON u.id = a.user_id
            WHERE u.service_user AND a.project_id IS NOT NULL
            UNION
            SELECT u.default_project_id FROM users u WHERE u.default_project_id IS NOT NULL AND (u.service_user OR u.id IN (
                SELECT w.user_id FROM powerful w WHERE w.user_id IS NOT NULL
                UNION
                SELECT m.user_id FROM powerful w JOIN group_members m ON m.group_id = w.group_id))),
        above AS (
            SELECT id FROM cloud_projects
            UNION
            SELECT coalesce(w.project_id, w.domain_id) FROM powerful w WHERE w.inherited
            UNION
            SELECT p.parent_id FROM above a JOIN projects p ON p.id = a.id WHERE p.parent_id IS NOT NULL)
        """

    /// Whether an assignment gives rights in one of `cloudProjects`.
    private static func reachesCloudProject(_ alias: String) -> SQL {
        """
        (\(raw: alias).inherited AND coalesce(\(raw: alias).project_id, \(raw: alias).domain_id) IN (SELECT id FROM above)
            OR NOT \(raw: alias).inherited AND \(raw: alias).project_id IN (SELECT id FROM cloud_projects))
        """
    }
}
