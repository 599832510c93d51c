package import Contracts
package import Database
import WebAPI

/// Checks that the usage of every quota of a service equals the result of its counting statement.
package enum QuotaChecks {
    /// The problems of a service's quotas, after a test has created at least one resource of every kind.
    ///
    ///     #expect(try await QuotaChecks.problems(ComputeQuotas.all, cloud.database) == [])
    ///
    /// - Returns: quotas without any counted resource, for which the count is untested, and quotas whose ledger differs from the
    ///   count.
    package static func problems(_ quotas: [QuotaDeclaration], _ database: Database) async throws -> [String] {
        try await database.read { connection in
            var problems: [String] = []
            for quota in quotas {
                guard let counting = quota.counting else { continue }
                let counted = try totals(connection, counting)
                let kept = try totals(
                    connection, "SELECT project_id, used AS amount FROM quota_usages WHERE resource = '\(quota.resource)' AND used <> 0")
                if counted.isEmpty { problems.append("\(quota.resource): there is nothing to count") }
                if counted != kept { problems.append("\(quota.resource): the ledger has \(kept), there are \(counted)") }
            }
            return problems
        }
    }

    private static func totals(_ connection: Connection, _ sql: String) throws -> [String: Int] {
        let rows = try connection.query("\(raw: sql)").map { (try $0.string("project_id"), try $0.int("amount")) }
        return Dictionary(uniqueKeysWithValues: rows)
    }
}
