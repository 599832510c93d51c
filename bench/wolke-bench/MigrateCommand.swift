import ArgumentParser
import Database
import Schema

/// Creates the schema in an empty database, for benchmarks that need their own database.
struct MigrateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "migrate", abstract: "Brings a database to this build's schema.")

    @Option(help: "libpq connection string.")
    var database: String

    func run() async throws {
        try await Schema.migrate(Database(DatabaseConfiguration(connectionString: database, connectionsMax: 1)))
    }
}
