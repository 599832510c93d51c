import Database
import Kernel

/// The projects of the cloud's operators, which own resources that all projects use: public images, external and shared networks.
struct CloudProjects: Sendable {
    let roles: OperatorRoles

    private static let lockKey = 8025

    /// Common table expressions, to follow `WITH RECURSIVE`.
    ///
    /// `cloud_projects` are
    /// - projects with the mark `cloud_project`: all that have ever been in one of the other groups, and those that the bootstrap file
    ///   or an administrator marked;
    /// - projects in which a user or group has a role that is or implies one of `OperatorRoles.names`, also if it is inherited from a
    ///   domain or a parent project;
    /// - projects on which a service user, or a user whom the policy makes an administrator by id or domain, has any role of its own;
    /// - projects whose users the policy makes administrators by the project's id or domain;
    /// - default projects of service users, and of users who have one of these roles anywhere.
    ///
    /// `above` are these projects with all projects and domains that they inherit role assignments from, and those from which later
    /// projects will inherit such a role. `powers` are the roles, `powerful` their assignments, `operators` the users.
    var sets: SQL {
        """
        powers AS (
            SELECT id FROM roles WHERE lower(name) = ANY (\(roles.names)::text[]) AND domain_id IS NULL
            UNION
            SELECT i.prior_role_id FROM powers w JOIN implied_roles i ON i.implied_role_id = w.id),
        powerful AS (
            SELECT a.role_id, a.user_id, a.group_id, a.project_id, a.domain_id, a.inherited
            FROM role_assignments a WHERE a.role_id IN (SELECT id FROM powers)),
        named_users AS (
            SELECT id FROM users WHERE service_user
            UNION
            SELECT id FROM users WHERE id = ANY (\(roles.users)::text[]) OR domain_id = ANY (\(roles.userDomains)::text[])),
        operators AS (
            SELECT id FROM named_users
            UNION
            SELECT w.user_id FROM powerful w WHERE w.user_id IS NOT NULL
            UNION
            SELECT m.user_id FROM powerful w JOIN group_members m ON m.group_id = w.group_id),
        heirs AS (
            SELECT p.id FROM powerful w JOIN projects p ON p.parent_id = coalesce(w.project_id, w.domain_id) WHERE w.inherited
            UNION
            SELECT p.id FROM heirs h JOIN projects p ON p.parent_id = h.id),
        derived AS (
            SELECT project_id AS id FROM powerful WHERE NOT inherited AND project_id IS NOT NULL
            UNION
            SELECT id FROM heirs
            UNION
            SELECT id FROM projects WHERE \(makesOperators)
            UNION
            SELECT a.project_id FROM named_users n JOIN role_assignments a ON a.user_id = n.id WHERE a.project_id IS NOT NULL
            UNION
            SELECT u.default_project_id FROM operators o JOIN users u ON u.id = o.id WHERE u.default_project_id IS NOT NULL),
        cloud_projects AS (
            SELECT id FROM projects WHERE cloud_project
            UNION
            SELECT id FROM derived),
        above AS (
            SELECT id FROM cloud_projects
            UNION
            SELECT coalesce(w.project_id, w.domain_id) FROM powerful w WHERE w.inherited
            UNION
            SELECT p.parent_id FROM above a JOIN projects p ON p.id = a.id WHERE p.parent_id IS NOT NULL)
        """
    }

    /// Whether the policy turns the users of a row of `projects` into operators.
    private var makesOperators: SQL {
        "(id = ANY (\(roles.projects)::text[]) OR NOT is_domain AND domain_id = ANY (\(roles.projectDomains)::text[]))"
    }

    /// Whether an assignment gives rights in one of `cloud_projects`.
    static func isReached(by alias: String) -> SQL {
        """
        (\(raw: alias).inherited AND coalesce(\(raw: alias).project_id, \(raw: alias).domain_id) IN (SELECT id FROM above)
            OR NOT \(raw: alias).inherited AND \(raw: alias).project_id IN (SELECT id FROM cloud_projects))
        """
    }

    /// - Parameter orAbove: whether a project or domain from which one of the cloud projects inherits role assignments counts as well.
    func contain(_ connection: Connection, _ id: String, orAbove: Bool = false) throws -> Bool {
        let set: SQL = orAbove ? "above" : "cloud_projects"
        return try !connection.query("WITH RECURSIVE \(sets) SELECT 1 AS one WHERE \(id) IN (SELECT id FROM \(set))").isEmpty
    }

    /// Serializes changes of rights until the end of the transaction. Call it before locking any row.
    func lock(_ connection: Connection) throws {
        try connection.query("SELECT pg_advisory_xact_lock(\(CloudProjects.lockKey))")
    }

    /// Marks all projects that are now operators' projects, so that they remain so when the assignment ends, and confirms the operators'
    /// assignments there. Call it after every change of roles, memberships and default projects, in the same transaction.
    ///
    /// - Parameter also: a condition on `projects p` for other projects to be marked.
    func mark(_ connection: Connection, also condition: SQL = "false") throws {
        // An assignment that no longer applies to a cloud project can be changed by others, so an administrator's confirmation expires.
        try connection.execute(
            """
            WITH RECURSIVE \(sets)
            UPDATE role_assignments a SET confirmed = false WHERE a.confirmed AND \(CloudProjects.isReached(by: "a")) IS NOT TRUE
            """)
        let marked = try connection.execute(
            """
            WITH RECURSIVE \(sets)
            UPDATE projects p SET cloud_project = true
            WHERE (p.id IN (SELECT id FROM derived) OR \(condition)) AND NOT p.cloud_project AND NOT p.is_domain
            """)
        guard marked > 0 else { return }
        try connection.execute(
            """
            WITH RECURSIVE \(sets)
            UPDATE role_assignments a SET confirmed = true
            WHERE NOT a.confirmed AND \(CloudProjects.isReached(by: "a"))
                AND (a.role_id IN (SELECT id FROM powers) OR a.user_id IN (SELECT id FROM operators)
                    OR a.group_id IN (SELECT w.group_id FROM powerful w WHERE w.group_id IS NOT NULL))
            """)
    }

    /// Records that an administrator made the assignments that match `condition`, which is on `a`, if they apply to a cloud project. Others
    /// are not confirmed, because their project may become an operators' project later.
    func confirm(_ connection: Connection, where condition: SQL) throws {
        try connection.execute(
            """
            WITH RECURSIVE \(sets)
            UPDATE role_assignments a SET confirmed = true WHERE \(condition) AND NOT a.confirmed AND \(CloudProjects.isReached(by: "a"))
            """)
    }

    /// Removes the mark of a project.
    ///
    /// - Throws: 409 with the reasons if it is an operators' project even without the mark.
    func unmark(_ connection: Connection, _ project: String) throws {
        let reasons = try reasons(connection, project)
        guard reasons.isEmpty else {
            throw ResourceError.conflict(
                """
                The project \(project) cannot cease to be a cloud project: \(reasons.joined(separator: "; ")). Remove these roles and \
                default projects first.
                """
            )
        }
        try connection.execute("UPDATE projects SET cloud_project = false WHERE id = \(project)")
        try mark(connection)
    }

    /// Why a project is an operators' project, apart from its mark.
    ///
    /// - Returns: at most three reasons.
    private func reasons(_ connection: Connection, _ project: String) throws -> [String] {
        try connection.query(
            """
            WITH RECURSIVE \(sets),
            held AS (
                SELECT w.project_id, w.domain_id, w.inherited,
                    coalesce('the user ' || u.name, 'the group ' || g.name) || ' has the role ' || r.name || ' there' AS words
                FROM powerful w JOIN roles r ON r.id = w.role_id
                LEFT JOIN users u ON u.id = w.user_id LEFT JOIN groups g ON g.id = w.group_id),
            reasons AS (
                SELECT 1 AS rank, words FROM held WHERE NOT inherited AND project_id = \(project)
                UNION ALL
                SELECT 2, h.words || ', inherited from the ' || CASE WHEN p.is_domain THEN 'domain ' ELSE 'project ' END || p.name
                FROM held h JOIN projects p ON p.id = coalesce(h.project_id, h.domain_id)
                WHERE h.inherited AND p.id <> \(project) AND p.id IN (SELECT x.id FROM project_ancestors(\(project)) x)
                UNION ALL
                SELECT 3, 'the operators'' user ' || u.name || ' has the role ' || r.name || ' there'
                FROM named_users n JOIN role_assignments a ON a.user_id = n.id
                JOIN users u ON u.id = n.id JOIN roles r ON r.id = a.role_id
                WHERE a.project_id = \(project) AND a.role_id NOT IN (SELECT id FROM powers)
                UNION ALL
                SELECT 4, 'it is the default project of ' || u.name || ', who is an operator'
                FROM operators o JOIN users u ON u.id = o.id WHERE u.default_project_id = \(project)
                UNION ALL
                SELECT 5, 'the policy makes its users administrators' FROM projects WHERE id = \(project) AND \(makesOperators))
            SELECT words FROM reasons ORDER BY rank, words LIMIT 3
            """
        ).map { try $0.string("words") }
    }
}
