import Authorization
import Database
package import IdentityCore
import Kernel

/// Applies a plan to Identity's database. It is idempotent: changed passwords, URLs and assignments are applied, and
/// nothing is ever removed. The domain `default`, users with the role `service` and their projects are enabled again if
/// they were disabled, because no service works without them.
package struct Bootstrap: Sendable {
    private let database: Database
    private let hasher: PasswordHasher
    private let ambient: Ambient
    private let operatorRoles: OperatorRoles
    /// Whether to enable and unlock every user and project of the plan.
    private let restoring: Bool

    /// - Parameters:
    ///   - operatorRoles: the operators according to the policy in force.
    ///   - restoring: for an operator who is locked out: every project and user of the plan is enabled, the users are unlocked and
    ///     asked for their password alone.
    init(database: Database, hasher: PasswordHasher, ambient: Ambient, operatorRoles: OperatorRoles, restoring: Bool = false) {
        self.operatorRoles = operatorRoles
        self.restoring = restoring
        self.database = database
        self.hasher = hasher
        self.ambient = ambient
    }

    /// Carries the plan out in one transaction.
    package func run(_ plan: BootstrapPlan) async throws {
        var hashes: [String: String] = [:]
        for user in plan.users {
            let name = user.name
            let stored = try await database.read { connection in
                try connection.query("SELECT password_hash FROM users WHERE domain_id = 'default' AND name = \(name)")
                    .first?.optionalString("password_hash")
            }
            if let stored, try await hasher.verify(user.password, hash: stored) { continue }
            hashes[name] = try await hasher.hash(user.password)
        }
        let fresh = hashes
        try await database.write { connection in
            // Serialized, because concurrent runs would not see each other's insertions.
            try connection.query("SELECT pg_advisory_xact_lock(8023)")
            try CloudProjects(roles: operatorRoles).lock(connection)
            try domainAndRoles(connection)
            for project in plan.projects { try self.project(connection, project.name, project.description) }
            for user in plan.users { try self.user(connection, user, hash: fresh[user.name]) }
            try markCloudProjects(connection, plan)
            try catalog(connection, plan)
        }
    }

    private func newID() -> String { ambient.newUUID().compact }

    private func domainAndRoles(_ connection: Connection) throws {
        let now = ambient.now
        try connection.execute(
            """
            INSERT INTO projects (id, name, is_domain, description, created_at, updated_at)
            VALUES ('default', 'Default', true, 'The default domain', \(now), \(now)) ON CONFLICT DO NOTHING
            """)
        try connection.execute(
            """
            UPDATE projects SET enabled = true, updated_at = \(now), generation = generation + 1
            WHERE id = 'default' AND NOT enabled
            """)
        for role in BootstrapPlan.roles {
            try connection.execute(
                "INSERT INTO roles (id, name, created_at, updated_at) VALUES (\(newID()), \(role), \(now), \(now)) ON CONFLICT DO NOTHING")
        }
        for (prior, implied) in BootstrapPlan.implied {
            try connection.execute(
                """
                INSERT INTO implied_roles (prior_role_id, implied_role_id)
                SELECT a.id, b.id FROM roles a, roles b
                WHERE a.name = \(prior) AND b.name = \(implied) AND a.domain_id IS NULL AND b.domain_id IS NULL
                ON CONFLICT DO NOTHING
                """)
        }
    }

    private func project(_ connection: Connection, _ name: String, _ description: String) throws {
        let now = ambient.now
        try connection.execute(
            """
            INSERT INTO projects (id, name, domain_id, parent_id, description, created_at, updated_at)
            VALUES (\(newID()), \(name), 'default', 'default', \(description), \(now), \(now)) ON CONFLICT DO NOTHING
            """)
    }

    /// Marks the operators' projects (`CloudProjects`), and confirms the role assignments of the plan in them.
    private func markCloudProjects(_ connection: Connection, _ plan: BootstrapPlan) throws {
        let cloudProjects = CloudProjects(roles: operatorRoles)
        let names = plan.cloudProjects(operatorRoles.names)
        try cloudProjects.mark(connection, also: "p.domain_id = 'default' AND p.name = ANY (\(names)::text[])")
        for user in plan.users {
            for (target, roles) in user.assignments {
                let place: SQL
                switch target {
                case .project(let name): place = "a.project_id = (SELECT id FROM projects WHERE domain_id = 'default' AND name = \(name))"
                case .defaultDomain: place = "a.domain_id = 'default'"
                case .system: place = "a.system"
                }
                try cloudProjects.confirm(
                    connection,
                    where: """
                        a.user_id = (SELECT id FROM users WHERE domain_id = 'default' AND name = \(user.name)) AND NOT a.inherited
                        AND a.role_id IN (SELECT id FROM roles WHERE domain_id IS NULL AND name = ANY (\(roles)::text[])) AND \(place)
                        """)
            }
        }
    }

    private func user(_ connection: Connection, _ user: BootstrapPlan.User, hash: String?) throws {
        let now = ambient.now
        let project = user.defaultProject
        try connection.execute(
            """
            INSERT INTO users (id, name, domain_id, default_project_id, created_at, updated_at)
            VALUES (\(newID()), \(user.name), 'default',
                (SELECT id FROM projects WHERE domain_id = 'default' AND name = \(project)), \(now), \(now))
            ON CONFLICT DO NOTHING
            """)
        if let hash {
            try connection.execute(
                """
                UPDATE users SET password_hash = \(hash), password_set_at = \(now), tokens_valid_from = \(now),
                    failed_attempts = 0, failed_at = NULL, updated_at = \(now), generation = generation + 1
                WHERE domain_id = 'default' AND name = \(user.name)
                """)
        }
        for (target, roles) in user.assignments {
            for role in roles { try assign(connection, user.name, target, role) }
        }
        let isService = user.assignments.contains { $0.roles.contains("service") }
        try connection.execute(
            """
            UPDATE users SET service_user = \(isService) WHERE domain_id = 'default' AND name = \(user.name) AND \
            service_user <> \(isService)
            """
        )
        if isService || restoring { try enable(connection, user) }
    }

    /// Lets a user sign on with its password alone, and use its projects.
    private func enable(_ connection: Connection, _ user: BootstrapPlan.User) throws {
        let now = ambient.now
        try connection.execute(
            """
            UPDATE users SET enabled = true, failed_attempts = 0, failed_at = NULL, failed_codes = 0, failed_code_at = NULL,
                password_expires_at = NULL, options = options - 'multi_factor_auth_rules', updated_at = \(now),
                generation = generation + 1
            WHERE domain_id = 'default' AND name = \(user.name) AND (NOT enabled OR failed_attempts > 0 OR failed_codes > 0
                OR password_expires_at IS NOT NULL OR options ? 'multi_factor_auth_rules')
            """)
        let projects = user.assignments.compactMap { if case .project(let name) = $0.target { name } else { nil } }
        try connection.execute(
            """
            UPDATE projects SET enabled = true, updated_at = \(now), generation = generation + 1
            WHERE domain_id = 'default' AND name = ANY (\(projects)::text[]) AND NOT enabled
            """)
    }

    private func assign(
        _ connection: Connection, _ user: String, _ target: BootstrapPlan.Target, _ role: String
    ) throws {
        var project: String?
        var domain: String?
        if case .project(let name) = target { project = name }
        if target == .defaultDomain { domain = "default" }
        try connection.execute(
            """
            INSERT INTO role_assignments (role_id, user_id, project_id, domain_id, system, created_at)
            SELECT r.id, u.id, (SELECT id FROM projects WHERE domain_id = 'default' AND name = \(project)), \(domain),
                \(target == .system), \(ambient.now)
            FROM roles r, users u
            WHERE r.name = \(role) AND r.domain_id IS NULL AND u.name = \(user) AND u.domain_id = 'default'
            ON CONFLICT DO NOTHING
            """)
    }

    private func catalog(_ connection: Connection, _ plan: BootstrapPlan) throws {
        let now = ambient.now
        try connection.execute(
            "INSERT INTO catalog_regions (id, created_at, updated_at) VALUES (\(plan.region), \(now), \(now)) ON CONFLICT DO NOTHING")
        for service in plan.services {
            let found = try connection.query("SELECT id FROM catalog_services WHERE type = \(service.type) ORDER BY created_at, id")
            let id = try found.first?.string("id") ?? newID()
            if found.isEmpty {
                try connection.execute(
                    """
                    INSERT INTO catalog_services (id, type, name, description, created_at, updated_at)
                    VALUES (\(id), \(service.type), \(service.name), \(service.description), \(now), \(now))
                    """)
            }
            for (interface, url) in service.endpoints { try endpoint(connection, id, plan.region, interface, url) }
        }
    }

    private func endpoint(
        _ connection: Connection, _ service: String, _ region: String, _ interface: String, _ url: String
    ) throws {
        let now = ambient.now
        let found = try connection.query(
            """
            SELECT id, url FROM catalog_endpoints
            WHERE service_id = \(service) AND region_id = \(region) AND interface = \(interface)
            """)
        if let row = found.first {
            guard try row.string("url") != url else { return }
            try connection.execute(
                "UPDATE catalog_endpoints SET url = \(url), updated_at = \(now) WHERE id = \(try row.string("id"))")
            return
        }
        try connection.execute(
            """
            INSERT INTO catalog_endpoints (id, service_id, region_id, interface, url, created_at, updated_at)
            VALUES (\(newID()), \(service), \(region), \(interface), \(url), \(now), \(now))
            """)
    }
}
