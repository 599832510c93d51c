import ArgumentParser
import Database
import Kernel

/// The peer of the list row: libpq fetching the same rows, on as many connections as the service has.
struct RowFetcher: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rows", abstract: "Fetches the rows of a query again and again; prints fetches per second.")

    @Option(help: "libpq connection string.")
    var database: String

    @Option(help: "File with the query.")
    var query: String

    @Option(help: "Connections at once.")
    var connections = 2

    @Option(help: "Seconds.")
    var seconds = 5

    func run() async throws {
        let ambient = Ambient()
        let pool = Database(DatabaseConfiguration(connectionString: database, connectionsMax: connections))
        let text = String(decoding: try readFile(query), as: UTF8.self)
        let end = ambient.time.monotonicNanoseconds() + UInt64(seconds) * 1_000_000_000
        let fetched = try await withThrowingTaskGroup(of: (Int, Int).self) { group in
            for _ in 0..<connections {
                group.addTask {
                    var fetches = 0
                    var rows = 0
                    while ambient.time.monotonicNanoseconds() < end {
                        rows = try await pool.read { try $0.query("\(raw: text)").count }
                        fetches += 1
                    }
                    return (fetches, rows)
                }
            }
            return try await group.reduce(into: (0, 0)) { $0 = ($0.0 + $1.0, $1.1) }
        }
        print("{\"fetches_per_second\": \(Double(fetched.0) / Double(seconds)), \"rows\": \(fetched.1)}")
    }
}
