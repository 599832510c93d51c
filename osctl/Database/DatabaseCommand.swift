import ArgumentParser
import Database
import Kernel
import Schema
import Settings

/// `osctl db`: the schema of the database.
struct DatabaseCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "db", abstract: "The database's schema.", subcommands: [Migrate.self, Contract.self, Status.self])

    /// Selects the database.
    struct Options: ParsableArguments {
        @Option(help: "The configuration file, from which database.url is read.")
        var config: String

        /// Runs `body` with the database, without time limits.
        func with<Value: Sendable>(_ body: (Database) async throws -> Value) async throws -> Value {
            let settings = try Settings.load(path: config, environment: Machine.environment, schema: .database)
            var configuration = DatabaseConfiguration(
                connectionString: settings.requiredSecret("database.url").exposed, connectionsMax: 1
            ).unlimited()
            configuration.applicationName = "osctl"
            let database = Database(configuration)
            defer { database.close() }
            do { return try await body(database) } catch let error as ResourceError {
                throw CloudError(error.context ?? error.message)
            }
        }
    }

    struct Migrate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Migrate the database to the schema of this build. Can be repeated, run concurrently, and run while services run.",
            discussion: """
                Applies the migrations that replicas of the previous release can live with. Contracting ones are left for \
                `osctl db contract`.
                """)

        @OptionGroup var options: Options

        func run() async throws {
            try await options.with { database in
                let applied = try await Schema.migrate(database)
                let state = try await Schema.state(database)
                print(applied.isEmpty ? "The database has schema \(state.newest) already." : SchemaWords.applied(applied, state))
                let pending = state.pending()
                if !pending.isEmpty { print("Pending until `osctl db contract`: \(SchemaWords.list(pending)).") }
            }
        }
    }

    struct Contract: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Apply the contracting migrations of this build, once no replica of an older release runs.",
            discussion: """
                Refuses with the names of the replicas that would break. A replica that was killed counts as running for \
                \(Replicas.silence.components.seconds) s. There is no way back: an older release does not start afterwards.
                """)

        @OptionGroup var options: Options
        @Option(help: "Wait up to this many seconds for older replicas to stop.")
        var wait = 0

        func run() async throws {
            try await options.with { database in
                let time = SystemTime()
                let end = time.monotonicNanoseconds() + UInt64(max(0, wait)) * 1_000_000_000
                while true {
                    do {
                        let applied = try await Schema.contract(database)
                        let state = try await Schema.state(database)
                        print(applied.isEmpty ? "Nothing is pending; the schema is \(state.newest)." : SchemaWords.applied(applied, state))
                        return
                    } catch let error as ResourceError where error.code == .conflict && time.monotonicNanoseconds() < end {
                        try await time.sleep(for: .seconds(1))
                    }
                }
            }
        }
    }

    struct Status: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show the schema of the database, the schema that this build needs, and the running releases.")

        @OptionGroup var options: Options

        func run() async throws {
            try await options.with { database in
                let ambient = Ambient()
                let (state, replicas) = try await database.snapshot { connection in
                    (try SchemaState.read(connection), try Replicas.live(connection, ambient))
                }
                print(SchemaWords.status(state, replicas))
            }
        }
    }
}

/// Describes the schema's state.
enum SchemaWords {
    static func applied(_ numbers: [Int], _ state: SchemaState) -> String {
        "Applied \(numbers.count == 1 ? "migration" : "migrations") \(numbers.map(String.init).joined(separator: ", ")); "
            + "the schema is \(state.newest)."
    }

    static func list(_ migrations: [Migration]) -> String {
        migrations.map { "\($0.number) (\($0.name))" }.joined(separator: ", ")
    }

    static func status(_ state: SchemaState, _ replicas: [Replicas.Replica]) -> String {
        var lines = [
            "This build: release \(WolkeVersion.current), schema \(Schema.version)",
            "Database:   schema \(state.newest)\(state.newestRelease.map { ", written by release \($0)" } ?? "")",
            "Required:   a release that knows schema \(state.required)\(state.requiredRelease.map { " (\($0) or newer)" } ?? "")",
        ]
        if !state.missing().isEmpty { lines.append("Missing:    \(list(state.missing())); run `osctl db migrate`") }
        if !state.pending().isEmpty { lines.append("Pending:    \(list(state.pending())); run `osctl db contract`") }
        lines.append(replicas.isEmpty ? "No replica is registered." : "Replicas:")
        lines += replicas.map { "  \($0.words)" }
        return lines.joined(separator: "\n")
    }
}
