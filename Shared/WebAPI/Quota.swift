package import Contracts
package import Database
package import JSON
package import Kernel

/// Exact quotas: usage changes in the transaction that adds or removes what is counted, and never passes the limit.
package struct Quota: Sendable {
    /// The quotas of a service, in the order in which its responses show them.
    package let declarations: [QuotaDeclaration]
    /// The operator's limits by name, for projects without their own; `setDefault` overrides them.
    private let limits: [String: Int]
    /// Creates the service's error from (quota's name, requested, used, limit).
    private let exceeded: @Sendable (String, Int, Int, Int) -> ResourceError

    /// - Parameter limits: from the settings, by name; missing ones have their preset.
    package init(
        _ declarations: [QuotaDeclaration], limits: [String: Int] = [:],
        exceeded: @escaping @Sendable (_ name: String, _ asked: Int, _ used: Int, _ limit: Int) -> ResourceError
    ) {
        self.declarations = declarations
        self.limits = limits
        self.exceeded = exceeded
    }

    /// The limit in the settings for projects without their own; −1 means no limit.
    package func preset(_ quota: QuotaDeclaration) -> Int { limits[quota.name] ?? quota.preset }

    private var resources: [String] { declarations.map(\.resource) }

    /// Adds to the usage of a project or user.
    ///
    /// - Parameters:
    ///   - owner: the project, or the user for quotas of users.
    ///   - limits: the project whose limits apply if the owner is a user.
    /// - Throws: the service's over-quota error; the transaction must not go on.
    package func reserve(
        _ connection: Connection, project owner: String, limitsOf limits: String? = nil, _ amounts: [(quota: QuotaDeclaration, amount: Int)]
    ) throws {
        let wanted = amounts.filter { $0.amount != 0 }.sorted { $0.quota.resource < $1.quota.resource }
        if wanted.isEmpty { return }
        let project = try Quota.ledgerOwner(owner, of: wanted.map(\.quota))
        // Rows are taken in one order by all transactions, so that two of them cannot wait for each other.
        let taken = try connection.query(
            """
            WITH asked AS (
                SELECT a.resource, a.amount, coalesce(l.quota_limit, d.quota_limit, a.preset) AS quota_limit
                FROM unnest(\(wanted.map(\.quota.resource))::text[], \(wanted.map(\.amount))::bigint[],
                    \(wanted.map { preset($0.quota) })::bigint[]) AS a (resource, amount, preset)
                LEFT JOIN quota_limits l ON l.project_id = \(limits ?? owner) AND l.resource = a.resource
                LEFT JOIN quota_defaults d ON d.resource = a.resource)
            INSERT INTO quota_usages AS u (project_id, resource, used)
            SELECT \(project), resource, amount FROM asked WHERE quota_limit < 0 OR amount <= quota_limit ORDER BY resource
            ON CONFLICT (project_id, resource) DO UPDATE SET used = u.used + EXCLUDED.used
            WHERE EXCLUDED.used <= 0 OR EXISTS (SELECT 1 FROM asked a WHERE a.resource = EXCLUDED.resource
                AND (a.quota_limit < 0 OR u.used + EXCLUDED.used <= a.quota_limit))
            RETURNING resource
            """
        ).map { try $0.string("resource") }
        guard let (quota, amount) = wanted.first(where: { !taken.contains($0.quota.resource) }) else { return }
        let used = try state(connection, project: project, quota).used
        let limit = try state(connection, project: limits ?? owner, quota).limit
        throw exceeded(quota.name, amount, used, limit)
    }

    /// Subtracts usage that `reserve` added.
    ///
    /// - Parameter owner: the project, or the user for quotas of users.
    package static func release(
        _ connection: Connection, project owner: String, _ amounts: [(quota: QuotaDeclaration, amount: Int)]
    ) throws {
        let given = amounts.filter { $0.amount != 0 }
        if given.isEmpty { return }
        let project = try ledgerOwner(owner, of: given.map(\.quota))
        try connection.execute(
            """
            UPDATE quota_usages u SET used = u.used - held.amount
            FROM (SELECT q.resource, a.amount FROM quota_usages q
                JOIN unnest(\(given.map(\.quota.resource))::text[], \(given.map(\.amount))::bigint[]) AS a (resource, amount)
                    ON a.resource = q.resource
                WHERE q.project_id = \(project) ORDER BY q.resource FOR UPDATE OF q) held
            WHERE u.project_id = \(project) AND u.resource = held.resource
            """)
    }

    /// Adds to the usage regardless of the limit, for resources that a project gets without a request.
    package static func add(_ connection: Connection, project owner: String, _ amounts: [(quota: QuotaDeclaration, amount: Int)]) throws {
        for (quota, amount) in amounts.sorted(by: { $0.quota.resource < $1.quota.resource }) {
            try connection.execute(
                """
                INSERT INTO quota_usages (project_id, resource, used)
                VALUES (\(try ledgerOwner(owner, of: [quota])), \(quota.resource), \(amount))
                ON CONFLICT (project_id, resource) DO UPDATE SET used = quota_usages.used + EXCLUDED.used
                """)
        }
    }

    /// - Throws: an internal error for a quota without a ledger, because nothing would recount its usage, and for a mixture of quotas of
    ///   users and of projects.
    private static func ledgerOwner(_ id: String, of quotas: [QuotaDeclaration]) throws -> String {
        let owners = Set(quotas.map { $0.ledgerOwner(id) })
        guard owners.count == 1, case let owner?? = owners.first else {
            throw ResourceError(.internalError, "The use of \(quotas.map(\.resource)) is not counted together.")
        }
        return owner
    }

    package func state(_ connection: Connection, project: String, _ quota: QuotaDeclaration) throws -> (limit: Int, used: Int) {
        let resource = quota.resource
        let row = try connection.query(
            """
            SELECT coalesce((SELECT quota_limit FROM quota_limits WHERE project_id = \(project) AND resource = \(resource)),
                    (SELECT quota_limit FROM quota_defaults WHERE resource = \(resource)), \(preset(quota))) AS quota_limit,
                coalesce((SELECT used FROM quota_usages WHERE project_id = \(project) AND resource = \(resource)), 0) AS used
            """)[0]
        return (try row.int("quota_limit"), try row.int("used"))
    }

    /// Limit and usage of all quotas of the service, by name.
    package func all(_ connection: Connection, project: String) throws -> [String: (limit: Int, used: Int)] {
        let rows = try connection.query(
            """
            SELECT r.resource, coalesce(l.quota_limit, d.quota_limit) AS quota_limit, coalesce(u.used, 0) AS used
            FROM unnest(\(resources)::text[]) AS r (resource)
            LEFT JOIN quota_limits l ON l.project_id = \(project) AND l.resource = r.resource
            LEFT JOIN quota_defaults d ON d.resource = r.resource
            LEFT JOIN quota_usages u ON u.project_id = \(project) AND u.resource = r.resource
            """)
        let found = try rows.map { (try $0.string("resource"), (limit: try $0.optionalInt("quota_limit"), used: try $0.int("used"))) }
        let states = Dictionary(uniqueKeysWithValues: found)
        return byName { (limit: states[$0.resource]?.limit ?? preset($0), used: states[$0.resource]?.used ?? 0) }
    }

    private func byName<Value>(_ value: (QuotaDeclaration) throws -> Value) rethrows -> [String: Value] {
        Dictionary(uniqueKeysWithValues: try declarations.map { ($0.name, try value($0)) })
    }

    /// The current limits of projects without their own, by name.
    package func currentDefaults(_ connection: Connection) throws -> [String: Int] {
        let changed = try connection.query("SELECT resource, quota_limit FROM quota_defaults WHERE resource = ANY(\(resources)::text[])")
            .map { (try $0.string("resource"), try $0.int("quota_limit")) }
        let limits = Dictionary(uniqueKeysWithValues: changed)
        return byName { limits[$0.resource] ?? preset($0) }
    }

    /// Projects with limits of their own, in order, with all limits by name; defaults for missing ones.
    package func changed(_ connection: Connection) throws -> [(project: String, limits: [String: Int])] {
        let defaults = try currentDefaults(connection)
        return try connection.query(
            """
            SELECT project_id, json_object_agg(resource, quota_limit) AS limits FROM quota_limits
            WHERE resource = ANY(\(resources)::text[]) GROUP BY project_id ORDER BY project_id
            """
        ).map { row in
            let own = try row.value("limits", as: [String: Int].self)
            return (try row.string("project_id"), byName { own[$0.resource] ?? defaults[$0.name] ?? preset($0) })
        }
    }

    /// Sets the limit of all projects without their own.
    package func setDefault(_ connection: Connection, _ quota: QuotaDeclaration, limit: Int) throws {
        try connection.execute(
            """
            INSERT INTO quota_defaults (resource, quota_limit) VALUES (\(quota.resource), \(limit))
            ON CONFLICT (resource) DO UPDATE SET quota_limit = EXCLUDED.quota_limit
            """)
    }

    /// Sets a limit of a project's own.
    package func set(_ connection: Connection, project: String, _ quota: QuotaDeclaration, limit: Int) throws {
        try connection.execute(
            """
            INSERT INTO quota_limits (project_id, resource, quota_limit) VALUES (\(project), \(quota.resource), \(limit))
            ON CONFLICT (project_id, resource) DO UPDATE SET quota_limit = EXCLUDED.quota_limit
            """)
    }

    /// Resets a project's quota to the defaults.
    package func reset(_ connection: Connection, project: String) throws {
        try connection.execute("DELETE FROM quota_limits WHERE project_id = \(project) AND resource = ANY(\(resources)::text[])")
    }

    /// The members of `absolute` in an answer about limits.
    ///
    /// - Parameters:
    ///   - states: the result of `all`.
    ///   - minor: the minor version of the negotiated microversion; nil for all members.
    package func absolute(_ states: [String: (limit: Int, used: Int)], minor: Int? = nil) -> JSONObject {
        var members = JSONObject()
        for quota in declarations {
            guard let names = quota.absolute else { continue }
            if let minor, let last = quota.lastMinor, minor > last { continue }
            members[names.maximum] = JSONValue(states[quota.name]?.limit ?? preset(quota))
            if let used = names.used { members[used] = JSONValue(states[quota.name]?.used ?? 0) }
        }
        return members
    }
}
