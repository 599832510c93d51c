import Glibc
import Kernel
import Synchronization

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

/// One run of a tool: an argument vector, never a shell. Blocks its thread until the tool has ended.
final class Command: Sendable {
    private static let outputMax = 16 * 1024
    private let arguments: [String]
    private let process = Mutex<pid_t>(0)
    private let cancelled = Atomic<Bool>(false)

    init(_ arguments: [String]) { self.arguments = arguments }

    /// Ends the tool as soon as possible.
    func cancel() {
        cancelled.store(true, ordering: .sequentiallyConsistent)
        process.withLock { if $0 > 0 { kill(-$0, SIGKILL) } }
    }

    /// - Parameter inheriting: a descriptor that stays open in the tool: a lock held as long as the tool lives, also
    ///   when this process does not.
    /// - Returns: its output, standard error included.
    /// - Throws: `CommandError`; `CancellationError`.
    @discardableResult
    func run(inheriting descriptor: Int32? = nil) throws -> String {
        let end = try Command.starting.withLock { _ in try start(descriptor) }
        let output = Command.read(end)
        close(end)
        let pid = process.withLock { $0 }
        var info = siginfo_t()
        // The process id stays reserved until the number is forgotten here: `cancel` never hits somebody else.
        while waitid(P_PID, id_t(pid), &info, WEXITED | WNOWAIT) < 0, errno == EINTR {}
        process.withLock { $0 = 0 }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        if cancelled.load(ordering: .sequentiallyConsistent) { throw CancellationError() }
        guard status & 0x7f == 0, status >> 8 & 0xff == 0 else {
            throw CommandError(
                arguments: arguments, status: status & 0x7f == 0 ? Int(status >> 8 & 0xff) : nil, output: output)
        }
        return output
    }

    /// One start at a time: a tool must not inherit another one's pipe before that is marked to be closed.
    private static let starting = Mutex(())

    /// - Returns: where the tool's output comes from.
    private func start(_ inherited: Int32?) throws -> Int32 {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw failure(errno) }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        defer { close(ends[1]) }
        do { try spawn(output: ends[1], inherited) } catch {
            close(ends[0])
            throw error
        }
        return ends[0]
    }

    private func failure(_ number: Int32) -> CommandError {
        CommandError(arguments: arguments, status: nil, output: String(cString: strerror(number)))
    }

    private func spawn(output: Int32, _ inherited: Int32?) throws {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_adddup2(&actions, output, 2)
        if let inherited { posix_spawn_file_actions_adddup2(&actions, inherited, 3) }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // A group of its own, no signal of ours blocked or ignored in it.
        posix_spawnattr_setpgroup(&attributes, 0)
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigaddset(&signals, SIGPIPE)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        var vector: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        let variables = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/"]
        var environment: [UnsafeMutablePointer<CChar>?] = variables.map { strdup($0) } + [nil]
        defer { for pointer in vector + environment { free(pointer) } }
        var pid = pid_t()
        let problem = posix_spawnp(&pid, arguments[0], &actions, &attributes, &vector, &environment)
        guard problem == 0 else { throw failure(problem) }
        process.withLock { $0 = pid }
        if cancelled.load(ordering: .sequentiallyConsistent) { kill(-pid, SIGKILL) }
    }

    private static func read(_ descriptor: Int32) -> String {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            if count <= 0 { break }
            if bytes.count < outputMax { bytes += buffer[0..<count] }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
