import Glibc
import Kernel
import Synchronization

/// A sandbox that could not be set up. The tool in it has not run.
package struct SandboxError: Error, Sendable, CustomStringConvertible {
    package let reason: String
    package init(_ reason: String) { self.reason = reason }
    package var description: String { "the sandbox for a tool that reads untrusted data could not be set up: \(reason)" }
}

/// Runs tools that read untrusted data, so that a compromised tool cannot access anything else.
///
/// The tool runs as a dedicated user without capabilities, network or other processes. It sees a file system with `/usr` and its
/// files, and has limits of memory, time and file size. If any of this cannot be set up, the tool does not run. Needs bubblewrap
/// (`bwrap`), `setpriv` and `prlimit` of util-linux, and root.
package struct Sandbox: Sendable {
    /// The limits of a tool.
    package struct Limits: Sendable {
        /// Bytes of address space.
        package var memory = 2 << 30
        /// Bytes of the largest file that the tool may write.
        package var fileSize: Int
        package var cpuSeconds: Int
        /// After this time the tool is killed.
        package var time: Duration

        package init(fileSize: Int, cpuSeconds: Int = 60, time: Duration = .seconds(120)) {
            self.fileSize = fileSize
            self.cpuSeconds = cpuSeconds
            self.time = time
        }
    }

    /// A file that the tool can access under the name `Sandbox.name(index)`.
    package struct File: Sendable {
        package let path: String
        package let isWritable: Bool
        var isTree = false

        package static func reading(_ path: String) -> File { File(path: path, isWritable: false) }
        package static func writing(_ path: String) -> File { File(path: path, isWritable: true) }
        /// A directory with all its contents: directories and regular files.
        package static func readingTree(_ path: String) -> File { File(path: path, isWritable: false, isTree: true) }
    }

    /// The default of the settings: a number that Debian does not assign.
    package static let defaultUser = 60_900
    private static let processesMax = 512
    private static let openFilesMax = 64

    /// The numeric id of the tool's user and of its group.
    package let user: Int
    private let bubblewrap: String
    private let filter: [UInt8]?

    /// The system call filter for this processor: a program for `seccomp(2)`, nil if there is none.
    package static let systemCallFilter = SystemCallFilter.program

    /// - Parameters:
    ///   - user: an id that nothing else on the host uses.
    ///   - bubblewrap: path of the program.
    ///   - filter: the system call filter; without one no tool runs.
    package init(
        user: Int = Sandbox.defaultUser, bubblewrap: String = "/usr/bin/bwrap", filter: [UInt8]? = Sandbox.systemCallFilter
    ) {
        self.user = user
        self.bubblewrap = bubblewrap
        self.filter = filter
    }

    /// The path under which the tool sees a file.
    package static func name(_ index: Int) -> String { "/disk\(index)" }

    /// Prepares one run of a tool.
    ///
    /// - Parameters:
    ///   - arguments: the program's full path and its arguments.
    ///   - files: the tool's group gets the required permission on them until the run has ended; then only their owner has access
    ///     again.
    /// - Throws: `SandboxError`, `FileError`.
    package func command(_ arguments: [String], files: [File], limits: Limits) throws -> SandboxedCommand {
        guard user > 0, user <= 65_533, user != Int(getuid()) else {
            throw SandboxError("its user id is \(user), which must be 1 to 65533 and not the service's own")
        }
        guard geteuid() == 0 else { throw SandboxError("only root can start a process as user \(user)") }
        guard let filter else {
            throw SandboxError("no system call filter for this processor architecture (available for x86_64 and aarch64)")
        }
        let grants = try files.flatMap { try FileGrant.grants($0, group: gid_t(user)) }
        var words = [bubblewrap]
        words += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        words += ["--die-with-parent", "--new-session", "--clearenv"]
        words += ["--setenv", "PATH", "/usr/bin", "--setenv", "LC_ALL", "C", "--setenv", "MALLOC_ARENA_MAX", "2"]
        // The capabilities that setpriv needs to drop all privileges.
        words += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP"]
        words += ["--seccomp", "3"]
        words += ["--ro-bind", "/usr", "/usr"]
        words += ["--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"]
        words += ["--perms", "0755", "--dir", "/dev", "--dev-bind", "/dev/null", "/dev/null"]
        words += ["--dev-bind", "/dev/urandom", "/dev/urandom"]
        for (index, file) in files.enumerated() {
            words += [file.isWritable ? "--bind" : "--ro-bind", file.path, Sandbox.name(index)]
        }
        words += ["--chdir", "/", "--", "/usr/bin/setpriv", "--reuid=\(user)", "--regid=\(user)", "--clear-groups"]
        words += ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"]
        words += ["/usr/bin/prlimit", "--as=\(limits.memory)", "--fsize=\(limits.fileSize)", "--cpu=\(limits.cpuSeconds)"]
        words += ["--core=0", "--nofile=\(Sandbox.openFilesMax)", "--nproc=\(Sandbox.processesMax)", "--"]
        return SandboxedCommand(
            Command(words + arguments, outputMax: 64 * 1024, input: filter), arguments: arguments, time: limits.time,
            grants: grants)
    }
}

/// One run of a tool in a sandbox. Blocks its thread until the tool has ended.
package final class SandboxedCommand: Sendable {
    private let command: Command
    private let arguments: [String]
    private let time: Duration
    private let grants: [FileGrant]

    init(_ command: Command, arguments: [String], time: Duration, grants: [FileGrant]) {
        self.grants = grants
        self.command = command
        self.arguments = arguments
        self.time = time
    }

    /// Kills the tool.
    package func cancel() { command.cancel() }

    /// Runs the tool; it is an error if it fails.
    ///
    /// - Parameter descriptor: stays open in the tool, for example a lock that is held as long as the tool lives.
    /// - Returns: its output, including standard error.
    /// - Throws: `SandboxError` if the tool was not started; `CommandError` if it failed; `CancellationError`.
    @discardableResult
    package func run(inheriting descriptor: Int32? = nil) throws -> String {
        defer { for grant in grants { grant.withdraw() } }
        let outcome: Command.Outcome
        do { outcome = try command.outcome(inheriting: descriptor, timeout: time) } catch let error as CommandError {
            throw SandboxError(error.output)
        }
        guard outcome.status != 0 else { return outcome.output }
        for starter in ["bwrap: ", "setpriv: ", "prlimit: "] where outcome.output.hasPrefix(starter) {
            throw SandboxError(String(outcome.output.prefix(500)))
        }
        throw CommandError(arguments: arguments, status: outcome.status, output: outcome.output)
    }
}
