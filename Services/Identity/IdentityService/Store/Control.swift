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
                WHERE o.domain_id IS NULL AND NOT (r.role_id = ANY (\(held)::text[]) AND (\(inScope)))
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
    /// - Throws: 403 if the caller is not an administrator, and the assignment is on a project that the whole cloud depends on
    ///   (`cloudProjects`), or is inherited by one. Other projects in which an administrator has a role stay their domain's.
    func requireTenantAssignments(_ caller: Caller, _ assignment: Assignment) async throws {
        guard !caller.isAdmin, let target = assignment.targetID else { return }
        let reached: SQL = assignment.inherited ? "SELECT id FROM above" : "SELECT id FROM cloud_projects"
        let isReached = try await database.read { connection in
            try !connection.query("WITH RECURSIVE \(Identity.cloudProjects) SELECT 1 AS one WHERE \(target) IN (\(reached))").isEmpty
        }
        guard isReached else { return }
        throw ResourceError.forbidden(
            """
            The services or administrators of this cloud act in the \(assignment.target.rawValue) \(target.prefix(64))\
            \(assignment.inherited ? " or in a project below it" : ""). Only a cloud administrator may change role assignments there.
            """
        )
    }

    /// Common table expressions of two sets of ids: `cloud_projects`, the projects that own what all projects use (those of the
    /// service users, and the default projects of administrators, with public images and external networks), and `above`, these
    /// projects with all projects and domains that they inherit role assignments from.
    private static let cloudProjects: SQL = """
        \(admins),
        cloud_projects AS (
            SELECT a.project_id AS id FROM role_assignments a JOIN users u ON u.id = a.user_id
            WHERE u.service_user AND a.project_id IS NOT NULL
            UNION
            SELECT a.project_id FROM role_assignments a JOIN users u ON u.default_project_id = a.project_id
            WHERE a.role_id IN (SELECT id FROM admins) AND (u.id = a.user_id
                OR EXISTS (SELECT 1 FROM group_members m WHERE m.user_id = u.id AND m.group_id = a.group_id))),
        above AS (
            SELECT id FROM cloud_projects
            UNION
            SELECT p.parent_id FROM above a JOIN projects p ON p.id = a.id WHERE p.parent_id IS NOT NULL)
        """

    /// The common table expression of the roles that are, or imply, `admin`.
    private static let admins: SQL = """
        admins AS (
            SELECT id FROM roles WHERE name = 'admin' AND domain_id IS NULL
            UNION
            SELECT i.prior_role_id FROM admins a JOIN implied_roles i ON i.implied_role_id = a.id)
        """

    /// Whether an assignment gives rights in one of `cloudProjects`.
    private static func reachesCloudProject(_ alias: String) -> SQL {
        """
        (\(raw: alias).inherited AND coalesce(\(raw: alias).project_id, \(raw: alias).domain_id) IN (SELECT id FROM above)
            OR NOT \(raw: alias).inherited AND \(raw: alias).project_id IN (SELECT id FROM cloud_projects))
        """
    }

    /// - Throws: 403 if the caller is not an administrator, and the cloud's services or its administrators act in the project:
    ///   they could not sign on without it.
    func requireTenantProject(_ caller: Caller, _ project: String) async throws {
        if caller.isAdmin { return }
        try await requireNoServices(in: project)
        try await requireNoAdministrators(in: project)
    }

    private func requireNoServices(in project: String) async throws {
        let services = try await database.read { connection in
            try !connection.query(
                """
                SELECT 1 AS one FROM role_assignments a JOIN users u ON u.id = a.user_id
                WHERE a.project_id = \(project) AND u.service_user LIMIT 1
                """
            ).isEmpty
        }
        guard services else { return }
        throw ResourceError.forbidden(
            """
            The services of this cloud act in the project \(project.prefix(64)). Only a cloud administrator may \
            change it or its role assignments.
            """
        )
    }

    private func requireNoAdministrators(in project: String) async throws {
        let found = try await database.read { connection in
            try !connection.query(
                """
                WITH RECURSIVE \(Identity.admins)
                SELECT 1 AS one FROM role_assignments a
                WHERE a.project_id = \(project) AND a.role_id IN (SELECT id FROM admins) LIMIT 1
                """
            ).isEmpty
        }
        guard found else { return }
        throw ResourceError.forbidden(
            """
            Administrators of this cloud act in the project \(project.prefix(64)). Only a cloud administrator may \
            change it or its role assignments.
            """
        )
    }
}
