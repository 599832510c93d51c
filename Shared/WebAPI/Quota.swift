import Database
import JSON
import Kernel

/// Exact quotas: usage changes in the transaction that adds or removes what is counted, and never passes the limit.
package struct Quota: Sendable {
    /// Limits of projects that have none of their own; −1 means none. Names carry the service: `compute:cores`.
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
        // One order for all transactions, so that two of them cannot wait for each other.
        for (resource, amount) in amounts.sorted(by: { $0.resource < $1.resource }) where amount != 0 {
            let rows = try connection.query(
                """
                WITH effective AS (
                    SELECT coalesce((SELECT quota_limit FROM quota_limits
                        WHERE project_id = \(limits ?? project) AND resource = \(resource)), \(defaults[resource] ?? 0)) AS quota_limit)
                INSERT INTO quota_usages (project_id, resource, used)
                SELECT \(project), \(resource), \(amount) FROM effective WHERE quota_limit < 0 OR \(amount) <= quota_limit
                ON CONFLICT (project_id, resource) DO UPDATE SET used = quota_usages.used + EXCLUDED.used
                WHERE EXCLUDED.used <= 0 OR (SELECT quota_limit FROM effective) < 0
                    OR quota_usages.used + EXCLUDED.used <= (SELECT quota_limit FROM effective)
                RETURNING used
                """)
            guard rows.isEmpty else { continue }
            let used = try self.state(connection, project: project, resource: resource).used
            let limit = try self.state(connection, project: limits ?? project, resource: resource).limit
            let name = resource.split(separator: ":").last.map(String.init) ?? resource
            throw exceeded(name, amount, used, limit)
        }
    }

    /// Takes from a project's usage what `reserve` added.
    package func release(_ connection: Connection, project: String, _ amounts: [(resource: String, amount: Int)]) throws {
        for (resource, amount) in amounts.sorted(by: { $0.resource < $1.resource }) where amount != 0 {
            try connection.execute(
                "UPDATE quota_usages SET used = used - \(amount) WHERE project_id = \(project) AND resource = \(resource)")
        }
    }

    package func state(_ connection: Connection, project: String, resource: String) throws -> (limit: Int, used: Int) {
        let row = try connection.query(
            """
            SELECT coalesce((SELECT quota_limit FROM quota_limits WHERE project_id = \(project) AND resource = \(resource)),
                    \(defaults[resource] ?? 0)) AS quota_limit,
                coalesce((SELECT used FROM quota_usages WHERE project_id = \(project) AND resource = \(resource)), 0) AS used
            """)[0]
        return (try row.int("quota_limit"), try row.int("used"))
    }

    /// Limit and usage of every resource of this service, by name.
    package func all(_ connection: Connection, project: String) throws -> [String: (limit: Int, used: Int)] {
        var result = defaults.mapValues { (limit: $0, used: 0) }
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
