import Foundation
import Kernel

/// An error of this command, described for the operator.
struct CloudError: Error, CustomStringConvertible, LocalizedError {
    let description: String
    /// Whether a retry is useless until the operator has followed the text.
    let isFinal: Bool

    init(_ description: String, isFinal: Bool = false) {
        self.description = description
        self.isFinal = isFinal
    }

    var errorDescription: String? { description }
}

/// Files and properties of this machine.
enum Machine {
    static var environment: [String: String] { ProcessInfo.processInfo.environment }

    /// The running executable.
    static func executablePath() throws -> String {
        guard let path = realpath("/proc/self/exe", nil) else { throw failure("find this program", "/proc/self/exe") }
        defer { free(path) }
        return String(cString: path)
    }

    static func hostName() -> String {
        var buffer = [CChar](repeating: 0, count: 256)
        gethostname(&buffer, buffer.count - 1)
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    static func failure(_ action: String, _ path: String) -> CloudError {
        CloudError("cannot \(action) \(path): \(String(cString: strerror(errno)))")
    }

    static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    /// Creates a directory and its parents; sets the mode of the last one.
    static func makeDirectory(_ path: String, mode: mode_t = 0o755) throws {
        var partial = ""
        for component in path.split(separator: "/") {
            partial += "/" + component
            if mkdir(partial, 0o755) != 0, errno != EEXIST { throw failure("create the directory", partial) }
        }
        guard chmod(path, mode) == 0 else { throw failure("set the mode of", path) }
    }

    static func read(_ path: String) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { return nil }
            if count == 0 { return bytes }
            bytes += buffer[..<count]
        }
    }

    static func readText(_ path: String) -> String? { read(path).map { String(decoding: $0, as: UTF8.self) } }

    /// Replaces a file atomically; the new file has its mode from the start.
    static func write(_ path: String, _ text: String, mode: mode_t = 0o644) throws {
        let temporary = path + ".new"
        unlink(temporary)
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        guard descriptor >= 0 else { throw failure("write", temporary) }
        fchmod(descriptor, mode)
        let complete = writeAll(descriptor, Array(text.utf8))
        close(descriptor)
        guard complete, rename(temporary, path) == 0 else { throw failure("write", path) }
    }

    /// Writes to an existing file, such as a kernel parameter.
    static func write(descriptorOf path: String, _ text: String) throws {
        let descriptor = open(path, O_WRONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure("write", path) }
        defer { close(descriptor) }
        guard writeAll(descriptor, Array(text.utf8)) else { throw failure("write", path) }
    }

    static func append(_ path: String, _ text: String) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { return }
        _ = writeAll(descriptor, Array(text.utf8))
        close(descriptor)
    }

    static func write(to descriptor: Int32, _ text: String) { _ = writeAll(descriptor, Array(text.utf8)) }
    static func write(to descriptor: Int32, _ bytes: [UInt8]) { _ = writeAll(descriptor, bytes) }

    private static func writeAll(_ descriptor: Int32, _ bytes: [UInt8]) -> Bool {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return false }
            rest = rest.dropFirst(count)
        }
        return true
    }

    /// The last lines of a log, for error messages.
    static func tail(_ path: String, lines: Int) -> [String] {
        guard let bytes = read(path) else { return [] }
        return String(decoding: bytes.suffix(16_384), as: UTF8.self)
            .split(separator: "\n").suffix(lines).map(String.init)
    }

    /// Whether unprivileged users can access `path`.
    static func isReachableByOthers(_ path: String) -> Bool { closedDirectory(path) == nil }

    /// The first parent of `path` that other users cannot traverse; nil if there is none.
    static func closedParent(of path: String) -> String? { closedDirectory(path).flatMap { $0 == path ? nil : $0 } }

    private static func closedDirectory(_ path: String) -> String? {
        var partial = ""
        for component in path.split(separator: "/") {
            partial += "/" + component
            var information = stat()
            guard stat(partial, &information) == 0 else { return partial }
            if information.st_mode & S_IFMT == S_IFDIR, information.st_mode & S_IXOTH == 0 { return partial }
        }
        return nil
    }

    /// Whether a TCP port of the loopback address is free.
    static func isFree(port: Int) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return true }
        defer { close(descriptor) }
        var yes: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(truncatingIfNeeded: port)).bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
    }
}
