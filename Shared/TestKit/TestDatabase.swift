import Commands
package import Database
import Foundation
import Kernel
import Schema
import Synchronization

/// A private database for a test, copied from a template that already has the schema.
///
/// `WOLKE_TEST_PG` (a libpq connection string) names the PostgreSQL server, which `make test` starts. Without it the tests start
/// a private one in a temporary directory and stop it when they end.
package final class TestDatabase: Sendable {
    package let database: Database
    package let name: String
    package let connectionString: String

    private init(database: Database, name: String, connectionString: String) {
        self.database = database
        self.name = name
        self.connectionString = connectionString
    }

    private static let turns = Turns(max(4, 2 * ProcessInfo.processInfo.activeProcessorCount))

    /// Runs `body` with a new database and deletes it afterwards.
    package static func with<Value: Sendable>(
        connectionsMax: Int = 4, _ body: (TestDatabase) async throws -> Value
    ) async throws -> Value {
        // Waiting here does not count against the test's own deadlines on a busy machine.
        await turns.enter()
        defer { turns.leave() }
        let server = try await TestServer.shared()
        let name = "t_" + SystemRandom().uuid().compact
        try await server.create(name)
        let connectionString = server.connectionString(database: name)
        let database = Database(
            DatabaseConfiguration(connectionString: connectionString, connectionsMax: connectionsMax))
        let test = TestDatabase(database: database, name: name, connectionString: connectionString)
        do {
            let value = try await body(test)
            database.close()
            try await server.drop(name)
            return value
        } catch {
            database.close()
            try await server.drop(name)
            throw error
        }
    }
}

/// Limits the number of concurrent tasks; waiting tasks continue in order.
private final class Turns: Sendable {
    private struct State {
        var free: Int
        var waiting: [CheckedContinuation<Void, Never>] = []
    }

    private let state: Mutex<State>

    init(_ width: Int) { state = Mutex(State(free: width)) }

    func enter() async {
        await withCheckedContinuation { continuation in
            let enters = state.withLock { state in
                if state.free > 0 {
                    state.free -= 1
                    return true
                }
                state.waiting.append(continuation)
                return false
            }
            if enters { continuation.resume() }
        }
    }

    func leave() {
        let next = state.withLock { state -> CheckedContinuation<Void, Never>? in
            if state.waiting.isEmpty {
                state.free += 1
                return nil
            }
            return state.waiting.removeFirst()
        }
        next?.resume()
    }
}

/// The PostgreSQL server that tests share.
private actor TestServer {
    private static let starting = Task { try await TestServer() }

    static func shared() async throws -> TestServer { try await starting.value }

    private let base: String
    private let admin: Database
    private let template: String

    private init() async throws {
        base = try ProcessInfo.processInfo.environment["WOLKE_TEST_PG"] ?? PrivatePostgreSQL.start()
        admin = Database(DatabaseConfiguration(connectionString: base + " dbname=postgres", connectionsMax: 1))
        template = "template_\(ProcessInfo.processInfo.processIdentifier)"
        let name = template
        try await admin.autocommit { try $0.script("CREATE DATABASE \(name)") }
        let database = Database(
            DatabaseConfiguration(connectionString: base + " dbname=" + template, connectionsMax: 1))
        try await Schema.migrate(database)
        database.close()
    }

    nonisolated func connectionString(database: String) -> String { base + " dbname=" + database }

    func create(_ name: String) async throws {
        let template = template
        // The template must have no open session; its own closes on another thread.
        for attempt in 0... {
            do {
                try await admin.autocommit { try $0.script("CREATE DATABASE \(name) TEMPLATE \(template) STRATEGY file_copy") }
                return
            } catch let error as DatabaseError where error.sqlState == "55006" && attempt < 200 {
                try await SystemTime().sleep(for: .milliseconds(20))
            }
        }
    }

    func drop(_ name: String) async throws {
        try await admin.autocommit { try $0.script("DROP DATABASE IF EXISTS \(name) WITH (FORCE)") }
    }
}

/// A PostgreSQL server in a temporary directory that ends with the test process.
private enum PrivatePostgreSQL {
    static func start() throws -> String {
        let directory = FileManager.default.temporaryDirectory
            .appendingPathComponent("wolke-pg-\(ProcessInfo.processInfo.processIdentifier)").path
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let binaries = "/usr/lib/postgresql/15/bin"
        let asOwner = getuid() == 0 ? ["/usr/bin/setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] : []
        if getuid() == 0 { try run(["/bin/chown", "postgres:postgres", directory]) }
        let data = directory + "/data"
        try run(
            asOwner + [binaries + "/initdb", "-D", data, "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", "postgres", "--no-sync"])
        let options =
            "-k \(directory) -c listen_addresses= -c fsync=off -c synchronous_commit=off"
            + " -c full_page_writes=off -c max_connections=200"
        try run(asOwner + [binaries + "/pg_ctl", "-D", data, "-l", directory + "/log", "-o", options, "-w", "start"])
        PrivatePostgreSQL.stopCommand.withLock { $0 = asOwner + [binaries + "/pg_ctl", "-D", data, "-m", "immediate", "stop"] }
        atexit {
            let command = PrivatePostgreSQL.stopCommand.withLock { $0 }
            do {
                try PrivatePostgreSQL.run(command)
                // The data directory follows `-D`; the server inherited the environment of its parent.
                if let data = command.drop(while: { $0 != "-D" }).dropFirst().first {
                    try FileManager.default.removeItem(atPath: (data as NSString).deletingLastPathComponent)
                }
            } catch { print("could not stop PostgreSQL: \(error)") }
        }
        return "host=\(directory) user=postgres"
    }

    private static let stopCommand = Mutex<[String]>([])

    private static func run(_ arguments: [String]) throws {
        // Foundation's Process is not used: it waits until a descriptor is closed that a daemon inherits.
        let status = Spawn.wait(for: try Spawn.start(arguments, environment: ["PATH=/usr/bin:/bin", "LC_ALL=C"]))
        guard status == 0 else {
            throw ResourceError.internalError("\(arguments.joined(separator: " ")) ended with status \(status)")
        }
    }
}
