import CLinux
import Commands
import Glibc
import Kernel
import Libvirt

/// A network namespace without a name: it exists as long as this process holds it, and no crash leaves one behind.
package final class NetworkNamespace: Sendable {
    private let thread: WorkerThreads
    /// The id of the thread inside, by which the kernel finds the namespace.
    package let threadID: Int

    private init(thread: WorkerThreads, threadID: Int) {
        self.thread = thread
        self.threadID = threadID
    }

    deinit { thread.close() }

    /// - Throws: `FileError` without the right to make namespaces.
    package static func make() async throws -> NetworkNamespace {
        let thread = WorkerThreads(name: "netns", count: 1)
        let id = try await thread.run { () throws -> Int in
            guard clinux_unshare_network() == 0 else { throw FileError.last("unshare", "network namespace") }
            return Int(clinux_thread_id())
        }
        return NetworkNamespace(thread: thread, threadID: id)
    }

    /// Runs `body` in the namespace. A socket created there stays there, regardless of the thread that uses it later.
    package func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await thread.run(body)
    }

    /// Runs a tool inside; it must succeed.
    package func command(_ arguments: [String]) async throws {
        try await thread.run { _ = try CommandRunner.command(arguments).run(timeout: .seconds(10)) }
    }

    /// A listening TCP socket inside.
    ///
    /// - Throws: `FileError`.
    package func listen(_ address: String, port: UInt16) async throws -> Int32 {
        try await thread.run { try NetworkNamespace.listeningSocket(address, port: port) }
    }

    private static func listeningSocket(_ address: String, port: UInt16) throws -> Int32 {
        let name = "\(address):\(port)"
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw FileError.last("socket", name) }
        var reuse: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, socklen_t(MemoryLayout<Int32>.size))
        var target = sockaddr_in()
        target.sin_family = sa_family_t(AF_INET)
        target.sin_port = port.bigEndian
        inet_pton(AF_INET, address, &target.sin_addr)
        let bound = withUnsafePointer(to: &target) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard bound == 0, Glibc.listen(descriptor, 128) == 0 else {
            let error = FileError.last("listen", name)
            close(descriptor)
            throw error
        }
        return descriptor
    }
}
