import ArgumentParser
import Database
import Schema
import Settings

/// `osctl db`: the schema of the database.
struct DatabaseCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "db", abstract: "The database's schema.", subcommands: [Migrate.self])

    struct Migrate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Bring the database to the schema of this build; safe to run again and from several places.")

        @Option(help: "The configuration file (database.url is read).")
        var config: String

        func run() async throws {
            let settings = try Settings.load(path: config, environment: Machine.environment, schema: .database)
            let database = Database(
                DatabaseConfiguration(
                    connectionString: settings.requiredSecret("database.url").exposed, connectionsMax: 1
                ).unlimited())
            let applied = try await Schema.migrate(database)
            if applied.isEmpty {
                print("The database has schema \(Schema.version) already.")
            } else {
                print("Applied migrations \(applied.map(String.init).joined(separator: ", ")); the schema is \(Schema.version).")
            }
        }
    }
}
