package import Database
package import Kernel
package import ServiceCatalog

extension Inspection {
    /// The current violations.
    ///
    /// - Parameter limit: maximum number of findings.
    package func findings(_ connection: Connection, _ ambient: Ambient = Ambient(), limit: Int = 10_000) throws -> [Finding] {
        let parts = query.split(separator: "{now}", omittingEmptySubsequences: false).map { "\(raw: String($0))" as SQL }
        let statement = parts.dropFirst().reduce(parts[0]) { $0 + ambient.databaseNow + $1 }
        return try connection.query("\(statement) LIMIT \(limit)").map { row in
            Finding(
                invariant: invariant, rule: rule, subject: try row.string("subject"), words: try row.string("words"))
        }
    }
}
