import Glibc
import Kernel
import Synchronization

/// A sandbox that could not be set up. The tool in it has not run.
package struct SandboxError: Error, Sendable, CustomStringConvertible {
    package let reason: String
    package init(_ reason: String) { self.reason = reason }
    package var description: String { "the sandbox for a tool that reads foreign bytes could not be set up: \(reason)" }
}

/// Runs tools that read foreign bytes so that a tool that such bytes have taken over can reach nothing.
///
/// The tool has a user of its own without capabilities, no network, no processes but its own, a file system with
/// `/usr` and the files that it is given, and limits of memory, time and file size. Nothing runs when any of this
/// cannot be set up. Needs bubblewrap (`bwrap`), and `setpriv` and `prlimit` of util-linux, and to be started as root.
package struct Sandbox: Sendable {
    /// What the tool may use.
    package struct Limits: Sendable {
        /// Bytes of address space.
        package var memory = 2 << 30
        /// Bytes of the largest file that the tool may write.
        package var fileSize: Int
        package var cpuSeconds: Int
        /// After this the tool is killed.
        package var time: Duration

        package init(fileSize: Int, cpuSeconds: Int = 60, time: Duration = .seconds(120)) {
            self.fileSize = fileSize
            self.cpuSeconds = cpuSeconds
            self.time = time
        }
    }

    /// A file that the tool can see, under the name `Sandbox.name(index)`.
    package struct File: Sendable {
        package let path: String
        package let isWritable: Bool
        var isTree = false

        package static func reading(_ path: String) -> File { File(path: path, isWritable: false) }
        package static func writing(_ path: String) -> File { File(path: path, isWritable: true) }
        /// A directory with all that is in it: directories and regular files.
        package static func readingTree(_ path: String) -> File { File(path: path, isWritable: false, isTree: true) }
    }

    /// The default of the settings: a number that Debian gives to nobody.
    package static let defaultUser = 60_900
    private static let processesMax = 512
    private static let openFilesMax = 64

    /// The numeric id of the tool's user and of its group.
    package let user: Int
    private let bubblewrap: String
    private let filter: [UInt8]?

    /// The filter of system calls for this processor: a program for `seccomp(2)`, nil where there is none.
    package static let systemCallFilter = SystemCallFilter.program

    /// - Parameters:
    ///   - user: an id that nothing else on the host uses.
    ///   - bubblewrap: the program.
    ///   - filter: of system calls; without one no tool runs.
    package init(
        user: Int = Sandbox.defaultUser, bubblewrap: String = "/usr/bin/bwrap", filter: [UInt8]? = Sandbox.systemCallFilter
    ) {
        self.user = user
        self.bubblewrap = bubblewrap
        self.filter = filter
    }

    /// The path under which the tool sees a file that it was given.
    package static func name(_ index: Int) -> String { "/disk\(index)" }

    /// Prepares one run of a tool.
    ///
    /// - Parameters:
    ///   - arguments: the program with its full path, and what it is told.
    ///   - files: the tool's group has them, with the permission that is needed, until the run has ended; then they are
    ///     their owner's alone again.
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
        // What setpriv needs to give everything up.
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

    /// Ends the tool as soon as possible.
    package func cancel() { command.cancel() }

    /// Runs the tool, which must succeed.
    ///
    /// - Parameter descriptor: stays open in the tool: a lock held as long as the tool lives.
    /// - Returns: its output, standard error included.
    /// - Throws: `SandboxError` when the tool was not started; `CommandError` when it failed; `CancellationError`.
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
