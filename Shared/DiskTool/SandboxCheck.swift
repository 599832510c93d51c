package import Commands
import Foundation
import Glibc
package import Kernel
import Synchronization

/// Checks that tools run in this machine's sandbox, and that they are confined.
package enum SandboxCheck {
    private static let limits = Sandbox.Limits(fileSize: 0, cpuSeconds: 10, time: .seconds(30))

    /// Runs some tools in the sandbox; blocks its thread for about a tenth of a second.
    ///
    /// - Returns: a description of the problem for operators; nil if there is none.
    package static func problem(_ sandbox: Sandbox) -> String? {
        func run(_ arguments: String...) throws -> String {
            try sandbox.command(arguments, files: [], limits: limits).run().trimmingCharacters(in: .whitespacesAndNewlines)
        }
        do {
            let user = "\(sandbox.user)"
            guard try run("/usr/bin/id", "-u") == user, try run("/usr/bin/id", "-G") == user else {
                return "a tool in the sandbox does not run as user and group \(user) alone"
            }
            guard try run("/usr/bin/qemu-img", "--version").hasPrefix("qemu-img") else { return "qemu-img does not run in the sandbox" }
            do {
                _ = try run("/usr/bin/ls", "/etc")
                return "a tool in the sandbox can read the machine's files"
            } catch is CommandError {}
            let listener = try LoopbackListener()
            let reaching = try sandbox.command(
                [
                    "/usr/bin/qemu-img", "info", "--image-opts",
                    "driver=raw,file.driver=nbd,file.server.type=inet,file.server.host=127.0.0.1,file.server.port=\(listener.port)",
                ], files: [], limits: limits)
            // The tool fails in any case, because there is no NBD server. The check is whether its connection arrived.
            do { try reaching.run() } catch is CommandError {}
            return listener.wasReached ? "a tool in the sandbox can access the machine's network" : nil
        } catch {
            return String("\(error)".prefix(500))
        }
    }
}

/// Listens on a free port of the loopback address.
private final class LoopbackListener {
    private let descriptor: Int32
    let port: UInt16

    /// - Throws: `FileError`.
    init() throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        guard descriptor >= 0 else { throw FileError.last("open", "a socket") }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = descriptor
        let isListening = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                bind(descriptor, address, length) == 0 && listen(descriptor, 8) == 0 && getsockname(descriptor, address, &length) == 0
            }
        }
        port = UInt16(bigEndian: address.sin_port)
        guard isListening else { throw FileError.last("listen on", "the loopback address") }
    }

    deinit { close(descriptor) }

    /// Whether a connection has arrived.
    var wasReached: Bool {
        let connection = accept(descriptor, nil, nil)
        guard connection >= 0 else { return false }
        close(connection)
        return true
    }
}

/// Checks the sandbox periodically and stores the result.
package final class SandboxWatch: Sendable {
    /// Time between two checks.
    package static let interval: Duration = .seconds(300)

    private let look: @Sendable () -> String?
    private let time: any TimeSource
    private let last = Mutex<(looked: Bool, problem: String?)>((false, nil))

    package convenience init(_ sandbox: Sandbox, time: any TimeSource) {
        self.init(time: time) { SandboxCheck.problem(sandbox) }
    }

    /// - Parameter look: runs the check, blocking its thread.
    package init(time: any TimeSource, look: @escaping @Sendable () -> String?) {
        self.look = look
        self.time = time
    }

    /// The latest result; runs the check if there is none yet.
    package func problem() async -> String? {
        let known = last.withLock { $0 }
        if known.looked { return known.problem }
        return await check()
    }

    /// Runs the check now.
    @discardableResult
    package func check() async -> String? {
        let found = await withCheckedContinuation { (continuation: CheckedContinuation<String?, Never>) in
            let thread = Thread { [look] in continuation.resume(returning: look()) }
            thread.name = "sandbox"
            thread.stackSize = 1 << 18
            thread.start()
        }
        last.withLock { $0 = (true, found) }
        return found
    }

    /// Runs the check periodically until the task is cancelled.
    package func run() async throws {
        while true {
            await check()
            try await time.sleep(for: SandboxWatch.interval)
        }
    }
}
