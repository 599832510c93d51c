import Commands
import Foundation
import Kernel

/// A process, distinguished by its start time from a later one with the same id.
struct ProcessIdentity: Sendable, Hashable {
    let pid: Int32
    /// Clock ticks after boot, from /proc/PID/stat.
    let startTicks: UInt64

    /// The running process with this id; nil if there is none, or only a zombie.
    static func current(_ pid: Int32) -> ProcessIdentity? {
        guard let text = Machine.readText("/proc/\(pid)/stat"), let close = text.lastIndex(of: ")") else { return nil }
        // After the command in parentheses: state is field 3, start time field 22.
        let fields = text[text.index(after: close)...].split(separator: " ")
        guard fields.count > 19, let state = fields.first, state != "Z", state != "X", let ticks = UInt64(fields[19]) else {
            return nil
        }
        return ProcessIdentity(pid: pid, startTicks: ticks)
    }

    var isRunning: Bool { ProcessIdentity.current(pid) == self }

    /// Proportional set size in bytes: shared pages are divided among their users.
    var proportionalMemory: Int? {
        guard let text = Machine.readText("/proc/\(pid)/smaps_rollup") else { return nil }
        for line in text.split(separator: "\n") where line.hasPrefix("Pss:") {
            return line.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 * 1024 }
        }
        return nil
    }

    /// Sends a signal, unless the process has ended.
    func signal(_ number: Int32) {
        if isRunning { kill(pid, number) }
    }

    /// Waits until the process has ended; false if it has not within `limit`.
    func waitForEnd(_ limit: Duration, _ time: any TimeSource) async throws -> Bool {
        let end = time.monotonicNanoseconds() + UInt64(limit.microseconds) * 1000
        while isRunning {
            var status: Int32 = 0
            waitpid(pid, &status, WNOHANG)
            if time.monotonicNanoseconds() > end { return false }
            try await time.sleep(for: .milliseconds(25))
        }
        return true
    }

    /// Ends the process: sends the given signal, and SIGKILL after `grace`.
    func stop(_ number: Int32, grace: Duration, _ time: any TimeSource) async throws {
        signal(number)
        if try await waitForEnd(grace, time) { return }
        signal(SIGKILL)
        _ = try await waitForEnd(.seconds(5), time)
    }
}

/// How to start a command.
struct Launch: Sendable {
    /// Program (absolute path) and arguments.
    var arguments: [String]
    var environment: [String: String]
    /// The file to which standard output and error are appended.
    var output: String

    /// Starts the process in its own session; it inherits only the output file.
    ///
    /// - Throws: `CloudError` if the program cannot be started.
    func spawn() throws -> ProcessIdentity {
        let descriptor = open(output, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o640)
        guard descriptor >= 0 else { throw Machine.failure("write", output) }
        defer { close(descriptor) }
        let pid = try Launch.spawn(arguments, environment, output: descriptor)
        guard let identity = ProcessIdentity.current(pid) else {
            // It has already ended: use an identity that is never running.
            return ProcessIdentity(pid: pid, startTicks: UInt64.max)
        }
        return identity
    }

    static func spawn(
        _ arguments: [String], _ environment: [String: String], output: Int32
    ) throws -> Int32 {
        do {
            return try Spawn.start(
                arguments, environment: environment.map { "\($0.key)=\($0.value)" },
                descriptors: [nil, output, output], group: .session)
        } catch let error as CommandError {
            throw CloudError("cannot start \(arguments[0]): \(error.output)")
        }
    }
}

/// Runs short-lived helper programs.
enum Tool {
    /// A program's output and exit status.
    struct Result: Sendable {
        let status: Int32
        let output: String
    }

    static let searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    /// The absolute path of a program; nil if it is not installed.
    static func find(_ program: String) -> String? {
        if program.hasPrefix("/") { return access(program, X_OK) == 0 ? program : nil }
        return searchPath.split(separator: ":").map { "\($0)/\(program)" }.first { access($0, X_OK) == 0 }
    }

    /// Runs a program to its end on a thread of its own.
    ///
    /// - Throws: `CloudError` if it is not installed.
    static func run(_ arguments: [String], environment: [String: String] = [:]) async throws -> Result {
        guard let path = find(arguments[0]) else {
            throw CloudError("\(arguments[0]) is not installed; run `make install`", isFinal: true)
        }
        var complete = environment
        complete["PATH"] = searchPath
        complete["LC_ALL"] = "C.UTF-8"
        let command = [path] + arguments.dropFirst()
        let all = complete
        return try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread { continuation.resume(with: Swift.Result { try runBlocking(command, all) }) }
        }
    }

    /// Like `run`, but a failure is an error with the program's output.
    @discardableResult
    static func require(_ arguments: [String], environment: [String: String] = [:]) async throws -> String {
        let result = try await run(arguments, environment: environment)
        guard result.status == 0 else {
            let said = result.output.split(separator: "\n").suffix(4).joined(separator: "\n")
            throw CloudError("\(arguments.prefix(4).joined(separator: " ")) … failed: \(said)")
        }
        return result.output
    }

    private static func runBlocking(_ command: [String], _ environment: [String: String]) throws -> Result {
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { throw Machine.failure("make a pipe for", command[0]) }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        defer { close(ends[0]) }
        let pid: Int32
        do {
            defer { close(ends[1]) }
            pid = try Launch.spawn(command, environment, output: ends[1])
        }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 16_384)
        while true {
            let count = read(ends[0], &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            bytes += buffer[..<count]
        }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        let code = status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
        return Result(status: code, output: String(decoding: bytes, as: UTF8.self))
    }
}
