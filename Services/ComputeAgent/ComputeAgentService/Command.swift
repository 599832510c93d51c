import Glibc
import Kernel
import Libvirt

/// A tool that ended badly.
package struct CommandError: Error, Sendable, CustomStringConvertible {
    package let arguments: [String]
    /// The exit status; nil when it was killed, or could not be started.
    package let status: Int?
    package let output: String

    package var description: String {
        let ending = status.map { "ended with status \($0)" } ?? "did not end by itself"
        return "\(arguments.joined(separator: " ")) \(ending): \(output)"
    }
}

/// Runs the host's tools: argument vectors only, never a shell; bounded time and output; never on the cooperative pool.
package struct CommandRunner: Sendable {
    package struct Outcome: Sendable {
        /// Nil when a signal ended it, or the deadline did.
        package let status: Int?
        package let output: String
    }

    /// Output that is kept, in bytes; the rest is read and dropped.
    private static let outputMax = 64 * 1024
    /// Tools get nothing of our own environment.
    private static let environment: [String] = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/",
    ]
    private let threads: WorkerThreads

    package init(threads: WorkerThreads) { self.threads = threads }

    /// Runs a tool that must succeed.
    ///
    /// - Returns: its output, standard error included.
    /// - Throws: `CommandError`.
    @discardableResult
    package func run(_ arguments: [String], timeout: Duration = .seconds(30)) async throws -> String {
        let outcome = try await outcome(arguments, timeout: timeout)
        guard outcome.status == 0 else {
            throw CommandError(arguments: arguments, status: outcome.status, output: outcome.output)
        }
        return outcome.output
    }

    /// Runs a tool and says how it ended.
    ///
    /// - Throws: `CommandError` when it cannot be started.
    package func outcome(_ arguments: [String], timeout: Duration = .seconds(30)) async throws -> Outcome {
        try await threads.run { try CommandRunner.spawn(arguments, timeout: timeout) }
    }

    static func spawn(_ arguments: [String], timeout: Duration) throws -> Outcome {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw CommandError(arguments: arguments, status: nil, output: errorText(errno)) }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        defer { close(ends[0]) }

        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
        posix_spawn_file_actions_adddup2(&actions, ends[1], 2)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // Its own group, so that the deadline reaches its children too; no signal of ours blocked or ignored in it.
        posix_spawnattr_setpgroup(&attributes, 0)
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigaddset(&signals, SIGPIPE)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

        var vector: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        var environment: [UnsafeMutablePointer<CChar>?] = CommandRunner.environment.map { strdup($0) } + [nil]
        defer { for pointer in vector + environment { free(pointer) } }
        var pid = pid_t()
        let failure = posix_spawnp(&pid, arguments[0], &actions, &attributes, &vector, &environment)
        close(ends[1])
        guard failure == 0 else {
            throw CommandError(arguments: arguments, status: nil, output: errorText(failure))
        }
        let (output, inTime) = read(ends[0], timeout: timeout)
        if !inTime { kill(-pid, SIGKILL) }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        let exited = status & 0x7f == 0
        return Outcome(status: inTime && exited ? Int(status >> 8 & 0xff) : nil, output: output)
    }

    /// Reads until the other end is closed or the time is over.
    private static func read(_ descriptor: Int32, timeout: Duration) -> (output: String, inTime: Bool) {
        let time = SystemTime()
        let deadline = time.monotonicNanoseconds() + UInt64(timeout.microseconds) * 1000
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        var inTime = true
        while true {
            let now = time.monotonicNanoseconds()
            guard now < deadline else {
                inTime = false
                break
            }
            var poller = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            let ready = poll(&poller, 1, Int32(min((deadline - now) / 1_000_000 + 1, 60_000)))
            if ready <= 0 { continue }
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            if count <= 0 { break }
            if bytes.count < outputMax { bytes += buffer[0..<count] }
        }
        return (String(decoding: bytes, as: UTF8.self), inTime)
    }
}

/// What a number of `errno` means.
func errorText(_ number: Int32) -> String { String(cString: strerror(number)) }
