import Commands
import Foundation
import Kernel

/// An `ovsdb-server` with one database in a temporary directory; `stop` ends it.
package final class PrivateOVSDB {
    package let directory: String
    package let socket: String
    private let databaseFile: String
    /// Additional arguments of the server.
    private let options: [String]
    private var process: pid_t?

    /// `schema` is a schema file as OVS and OVN install them.
    package init(schema: String, options: [String] = []) throws {
        self.options = options
        directory = FileManager.default.temporaryDirectory.path + "/wolke-ovsdb-" + SystemRandom().uuid().compact
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        socket = directory + "/db.sock"
        databaseFile = directory + "/db"
        let tool = try Spawn.start(["/usr/bin/ovsdb-tool", "create", databaseFile, schema], environment: environment)
        guard Spawn.wait(for: tool) == 0 else { throw ResourceError.internalError("ovsdb-tool create failed") }
        try start()
    }

    /// Starts the server with the existing database.
    package func start() throws {
        let arguments = [databaseFile, "--remote=punix:\(socket)", "--unixctl=\(directory)/ctl", "-vconsole:off"] + options
        process = try Spawn.start(["/usr/sbin/ovsdb-server"] + arguments, environment: environment)
    }

    private var environment: [String] { ["OVS_RUNDIR=\(directory)", "OVS_LOGDIR=\(directory)", "PATH=/usr/bin:/usr/sbin"] }

    /// Suspends the server, so that requests wait until `resume`.
    package func pause() { if let process { Foundation.kill(process, SIGSTOP) } }

    /// Resumes the server after `pause`.
    package func resume() { if let process { Foundation.kill(process, SIGCONT) } }

    /// Kills the server without notifying its clients.
    package func kill() {
        guard let process else { return }
        Foundation.kill(process, SIGKILL)
        Spawn.wait(for: process)
        self.process = nil
    }

    /// Ends the server and removes the database.
    package func stop() throws {
        kill()
        try FileManager.default.removeItem(atPath: directory)
    }
}
