import Database
import JSON
import Kernel

/// Exact quotas: usage changes in the transaction that adds or removes what is counted, and never passes the limit.
package struct Quota: Sendable {
    /// Limits from the settings for projects that have none of their own; −1 means none. Names carry the service:
    /// `compute:cores`. What an operator has set since (`setDefault`) counts more.
    package let defaults: [String: Int]
    /// Makes the service's error of (resource without its prefix, asked, used, limit).
    private let exceeded: @Sendable (String, Int, Int, Int) -> ResourceError

    package init(
        defaults: [String: Int],
        exceeded: @escaping @Sendable (_ resource: String, _ asked: Int, _ used: Int, _ limit: Int) -> ResourceError
    ) {
        self.defaults = defaults
        self.exceeded = exceeded
    }

    /// Adds to a project's usage.
    ///
    /// - Parameter limits: the project whose limits count, where usage is kept by another owner (a user's key pairs).
    /// - Throws: the service's over-quota error; the transaction must not go on.
    package func reserve(
        _ connection: Connection, project: String, limitsOf limits: String? = nil, _ amounts: [(resource: String, amount: Int)]
    ) throws {
        let wanted = amounts.filter { $0.amount != 0 }.sorted { $0.resource < $1.resource }
        if wanted.isEmpty { return }
        // Rows are taken in one order by all transactions, so that two of them cannot wait for each other.
        let taken = try connection.query(
            """
            WITH asked AS (
                SELECT a.resource, a.amount, coalesce(l.quota_limit, d.quota_limit, a.preset) AS quota_limit
                FROM unnest(\(wanted.map(\.resource))::text[], \(wanted.map(\.amount))::bigint[],
                    \(wanted.map { defaults[$0.resource] ?? 0 })::bigint[]) AS a (resource, amount, preset)
                LEFT JOIN quota_limits l ON l.project_id = \(limits ?? project) AND l.resource = a.resource
                LEFT JOIN quota_defaults d ON d.resource = a.resource)
            INSERT INTO quota_usages AS u (project_id, resource, used)
            SELECT \(project), resource, amount FROM asked WHERE quota_limit < 0 OR amount <= quota_limit ORDER BY resource
            ON CONFLICT (project_id, resource) DO UPDATE SET used = u.used + EXCLUDED.used
            WHERE EXCLUDED.used <= 0 OR EXISTS (SELECT 1 FROM asked a WHERE a.resource = EXCLUDED.resource
                AND (a.quota_limit < 0 OR u.used + EXCLUDED.used <= a.quota_limit))
            RETURNING resource
            """
        ).map { try $0.string("resource") }
        guard let (resource, amount) = wanted.first(where: { !taken.contains($0.resource) }) else { return }
        let used = try self.state(connection, project: project, resource: resource).used
        let limit = try self.state(connection, project: limits ?? project, resource: resource).limit
        let name = resource.split(separator: ":").last.map(String.init) ?? resource
        throw exceeded(name, amount, used, limit)
    }

    /// Takes from a project's usage what `reserve` added.
    package static func release(_ connection: Connection, project: String, _ amounts: [(resource: String, amount: Int)]) throws {
        let given = amounts.filter { $0.amount != 0 }
        if given.isEmpty { return }
        try connection.execute(
            """
            UPDATE quota_usages u SET used = u.used - held.amount
            FROM (SELECT q.resource, a.amount FROM quota_usages q
                JOIN unnest(\(given.map(\.resource))::text[], \(given.map(\.amount))::bigint[]) AS a (resource, amount)
                    ON a.resource = q.resource
                WHERE q.project_id = \(project) ORDER BY q.resource FOR UPDATE OF q) held
            WHERE u.project_id = \(project) AND u.resource = held.resource
            """)
    }

    package func state(_ connection: Connection, project: String, resource: String) throws -> (limit: Int, used: Int) {
        let row = try connection.query(
            """
            SELECT coalesce((SELECT quota_limit FROM quota_limits WHERE project_id = \(project) AND resource = \(resource)),
                    (SELECT quota_limit FROM quota_defaults WHERE resource = \(resource)), \(defaults[resource] ?? 0)) AS quota_limit,
                coalesce((SELECT used FROM quota_usages WHERE project_id = \(project) AND resource = \(resource)), 0) AS used
            """)[0]
        return (try row.int("quota_limit"), try row.int("used"))
    }

    /// Limit and usage of every resource of this service, by name.
    package func all(_ connection: Connection, project: String) throws -> [String: (limit: Int, used: Int)] {
        var result = try currentDefaults(connection).mapValues { (limit: $0, used: 0) }
        for row in try connection.query(
            "SELECT resource, quota_limit FROM quota_limits WHERE project_id = \(project)")
        {
            let resource = try row.string("resource")
            if result[resource] != nil { result[resource]?.limit = try row.int("quota_limit") }
        }
        for row in try connection.query("SELECT resource, used FROM quota_usages WHERE project_id = \(project)") {
            let resource = try row.string("resource")
            if result[resource] != nil { result[resource]?.used = try row.int("used") }
        }
        return result
    }

    /// Limits of projects that have none of their own, as they are now.
    package func currentDefaults(_ connection: Connection) throws -> [String: Int] {
        var result = defaults
        let changed = try connection.query(
            "SELECT resource, quota_limit FROM quota_defaults WHERE resource = ANY(\(Array(defaults.keys))::text[])")
        for row in changed { result[try row.string("resource")] = try row.int("quota_limit") }
        return result
    }

    /// Sets the limit of all projects that have none of their own.
    package func setDefault(_ connection: Connection, resource: String, limit: Int) throws {
        try connection.execute(
            """
            INSERT INTO quota_defaults (resource, quota_limit) VALUES (\(resource), \(limit))
            ON CONFLICT (resource) DO UPDATE SET quota_limit = EXCLUDED.quota_limit
            """)
    }

    /// Sets a limit of a project's own.
    package func set(_ connection: Connection, project: String, resource: String, limit: Int) throws {
        try connection.execute(
            """
            INSERT INTO quota_limits (project_id, resource, quota_limit) VALUES (\(project), \(resource), \(limit))
            ON CONFLICT (project_id, resource) DO UPDATE SET quota_limit = EXCLUDED.quota_limit
            """)
    }

    /// Back to the defaults.
    package func reset(_ connection: Connection, project: String) throws {
        try connection.execute(
            "DELETE FROM quota_limits WHERE project_id = \(project) AND resource = ANY(\(Array(defaults.keys))::text[])")
    }
}
