package import Commands
import Glibc
package import Kernel
import Libvirt

/// Runs the host's tools in bounded time, never on the cooperative pool.
package struct CommandRunner: Sendable {
    private static let outputMax = 64 * 1024
    private let threads: WorkerThreads

    package init(threads: WorkerThreads) { self.threads = threads }

    /// Runs a tool that must succeed.
    ///
    /// - Returns: its output, standard error included.
    /// - Throws: `CommandError`.
    @discardableResult
    package func run(_ arguments: [String], timeout: Duration = .seconds(30)) async throws -> String {
        try await threads.run { try CommandRunner.command(arguments).run(timeout: timeout) }
    }

    /// Runs a tool and says how it ended.
    ///
    /// - Throws: `CommandError` when it cannot be started.
    package func outcome(_ arguments: [String], timeout: Duration = .seconds(30)) async throws -> Command.Outcome {
        try await threads.run { try CommandRunner.command(arguments).outcome(timeout: timeout) }
    }

    /// For those who run a tool on a thread of their own.
    static func command(_ arguments: [String]) -> Command { Command(arguments, outputMax: outputMax) }
}

/// The text for an `errno`.
func errorText(_ number: Int32) -> String { String(cString: strerror(number)) }
