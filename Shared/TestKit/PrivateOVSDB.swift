import Foundation
import Kernel

/// An `ovsdb-server` of one database in a temporary directory, ended by `stop`.
package final class PrivateOVSDB {
    package let directory: String
    package let socket: String
    private let databaseFile: String
    private var process: Process?

    /// `schema` is a file as OVS and OVN install them.
    package init(schema: String) throws {
        directory = FileManager.default.temporaryDirectory.path + "/wolke-ovsdb-" + SystemRandom().uuid().compact
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        socket = directory + "/db.sock"
        databaseFile = directory + "/db"
        let tool = Process()
        tool.executableURL = URL(fileURLWithPath: "/usr/bin/ovsdb-tool")
        tool.arguments = ["create", databaseFile, schema]
        try tool.run()
        tool.waitUntilExit()
        guard tool.terminationStatus == 0 else { throw ResourceError.internalError("ovsdb-tool create failed") }
        try start()
    }

    /// Starts the server on the database that is there.
    package func start() throws {
        let server = Process()
        server.executableURL = URL(fileURLWithPath: "/usr/sbin/ovsdb-server")
        server.arguments = [databaseFile, "--remote=punix:\(socket)", "--unixctl=\(directory)/ctl", "-vconsole:off"]
        server.environment = ["OVS_RUNDIR": directory, "OVS_LOGDIR": directory, "PATH": "/usr/bin:/usr/sbin"]
        try server.run()
        process = server
    }

    /// Ends the server without a word to its clients.
    package func kill() {
        guard let process else { return }
        Foundation.kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
        self.process = nil
    }

    /// Ends the server and removes the database.
    package func stop() throws {
        kill()
        try FileManager.default.removeItem(atPath: directory)
    }
}
