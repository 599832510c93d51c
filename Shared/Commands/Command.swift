import Glibc
import Kernel
import Synchronization

/// The error of a failed tool.
package struct CommandError: Error, Sendable, CustomStringConvertible {
    package let arguments: [String]
    /// The exit status; nil if the tool was killed or could not be started.
    package let status: Int?
    package let output: String

    package init(arguments: [String], status: Int?, output: String) {
        self.arguments = arguments
        self.status = status
        self.output = output
    }

    package var description: String {
        let ending = status.map { "ended with status \($0)" } ?? "was killed or could not be started"
        return "\(arguments.joined(separator: " ")) \(ending): \(output)"
    }
}

/// One run of a tool: an argument vector without a shell, limited output, and none of our environment. Blocks its thread until
/// the tool has ended.
package final class Command: Sendable {
    /// How a run ended.
    package struct Outcome: Sendable {
        /// Nil if the tool was ended by a signal or the timeout.
        package let status: Int?
        /// The output, including standard error.
        package let output: String
    }

    private let arguments: [String]
    private let outputMax: Int
    private let input: [UInt8]?
    private let process = Mutex<pid_t>(0)
    private let cancelled = Atomic<Bool>(false)

    /// - Parameters:
    ///   - outputMax: the number of bytes of output that are kept; the rest is read and discarded.
    ///   - input: readable by the tool from descriptor 3; at most the capacity of a pipe (64 KiB).
    package init(_ arguments: [String], outputMax: Int = 16 * 1024, input: [UInt8]? = nil) {
        self.arguments = arguments
        self.outputMax = outputMax
        self.input = input
    }

    /// Kills the tool.
    package func cancel() {
        cancelled.store(true, ordering: .sequentiallyConsistent)
        process.withLock { if $0 > 0 { kill(-$0, SIGKILL) } }
    }

    /// Runs a tool that must succeed.
    ///
    /// - Returns: its output, including standard error.
    /// - Throws: `CommandError`; `CancellationError`.
    @discardableResult
    package func run(inheriting descriptor: Int32? = nil, timeout: Duration? = nil) throws -> String {
        let outcome = try outcome(inheriting: descriptor, timeout: timeout)
        guard outcome.status == 0 else {
            throw CommandError(arguments: arguments, status: outcome.status, output: outcome.output)
        }
        return outcome.output
    }

    /// Runs a tool and returns how it ended.
    ///
    /// - Parameters:
    ///   - descriptor: stays open in the tool, for example a lock that is held as long as the tool lives, even if this process
    ///     ends.
    ///   - timeout: after this the tool and its children are killed; nil for no limit.
    /// - Throws: `CommandError` if the tool cannot be started; `CancellationError`.
    package func outcome(inheriting descriptor: Int32? = nil, timeout: Duration? = nil) throws -> Outcome {
        let end = try start(descriptor)
        let (output, inTime) = read(end, timeout: timeout)
        close(end)
        let pid = process.withLock { $0 }
        if !inTime { kill(-pid, SIGKILL) }
        var info = siginfo_t()
        // The process is reaped only after its id is cleared here, so that `cancel` cannot signal another process with a reused
        // id.
        while waitid(P_PID, id_t(pid), &info, WEXITED | WNOWAIT) < 0, errno == EINTR {}
        process.withLock { $0 = 0 }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        if cancelled.load(ordering: .sequentiallyConsistent) { throw CancellationError() }
        let exited = status & 0x7f == 0
        return Outcome(status: inTime && exited ? Int(status >> 8 & 0xff) : nil, output: output)
    }

    /// - Returns: the descriptor of the tool's output.
    private func start(_ inherited: Int32?) throws -> Int32 {
        let (end, output) = try makePipe()
        defer { close(output) }
        do {
            let given = try input.map { try filledPipe($0) }
            defer { if let given { close(given) } }
            try spawn(output: output, [given, inherited].compactMap { $0 })
        } catch {
            close(end)
            throw error
        }
        return end
    }

    private func makePipe() throws -> (read: Int32, write: Int32) {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw failure(errno) }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        return (ends[0], ends[1])
    }

    private func filledPipe(_ bytes: [UInt8]) throws -> Int32 {
        precondition(bytes.count <= 64 * 1024)
        let ends = try makePipe()
        defer { close(ends.write) }
        guard write(ends.write, bytes, bytes.count) == bytes.count else {
            let number = errno
            close(ends.read)
            throw failure(number)
        }
        return ends.read
    }

    private func failure(_ number: Int32) -> CommandError {
        CommandError(arguments: arguments, status: nil, output: String(cString: strerror(number)))
    }

    private func spawn(output: Int32, _ inherited: [Int32]) throws {
        let environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/"]
        // The tool gets its own process group, so that a kill reaches its children too.
        let pid = try Spawn.start(
            arguments, environment: environment, descriptors: [nil, output, output] + inherited, group: .own)
        process.withLock { $0 = pid }
        if cancelled.load(ordering: .sequentiallyConsistent) { kill(-pid, SIGKILL) }
    }

    /// Reads until the other end is closed or the timeout has passed.
    private func read(_ descriptor: Int32, timeout: Duration?) -> (output: String, inTime: Bool) {
        let time = SystemTime()
        let deadline = timeout.map { time.monotonicNanoseconds() + UInt64($0.microseconds) * 1000 }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            if let deadline {
                let now = time.monotonicNanoseconds()
                guard now < deadline else { return (String(decoding: bytes, as: UTF8.self), false) }
                var poller = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
                if poll(&poller, 1, Int32(min((deadline - now) / 1_000_000 + 1, 60_000))) <= 0 { continue }
            }
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            if count <= 0 { return (String(decoding: bytes, as: UTF8.self), true) }
            if bytes.count < outputMax { bytes += buffer[0..<count] }
        }
    }
}
