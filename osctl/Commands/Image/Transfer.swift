import Glibc
import Kernel
import NIOCore
import Synchronization

/// A local file for an upload.
struct FileContent: Sendable {
    let path: String
    /// Size in bytes.
    let length: Int

    /// - Throws: `CommandFailure` if it cannot be read.
    init(_ path: String) throws {
        var information = stat()
        guard stat(path, &information) == 0, access(path, R_OK) == 0 else {
            throw CommandFailure("The file \(path) cannot be read: \(String(cString: strerror(errno))).")
        }
        guard information.st_mode & S_IFMT == S_IFREG else { throw CommandFailure("\(path) is not a regular file.") }
        self.path = path
        length = Int(information.st_size)
    }

    /// The content from the start.
    func open(_ progress: TransferProgress) throws -> UploadChunks {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Machine.failure("read", path) }
        progress.restart()
        return UploadChunks(descriptor: FileDescriptor(descriptor), path: path, progress: progress)
    }
}

/// Closes the descriptor with the last reference.
final class FileDescriptor: Sendable {
    let number: Int32
    init(_ number: Int32) { self.number = number }
    deinit { close(number) }
}

/// The chunks of a file.
struct UploadChunks: AsyncSequence, AsyncIteratorProtocol, Sendable {
    typealias Element = ByteBuffer
    static let chunkBytes = 1 << 20

    let descriptor: FileDescriptor
    let path: String
    let progress: TransferProgress

    func makeAsyncIterator() -> UploadChunks { self }

    mutating func next() async throws -> ByteBuffer? {
        var buffer = ByteBufferAllocator().buffer(capacity: UploadChunks.chunkBytes)
        let number = descriptor.number
        let count = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: UploadChunks.chunkBytes) { bytes in
            Swift.max(0, read(number, bytes.baseAddress, UploadChunks.chunkBytes))
        }
        progress.advance(count)
        return count == 0 ? nil : buffer
    }
}

/// A file that gets its name when it is complete.
final class FileTarget {
    private let path: String
    private let descriptor: Int32
    private var partial: String { path + ".part" }

    init(_ path: String) throws {
        self.path = path
        descriptor = path == "-" ? 1 : open(path + ".part", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw Machine.failure("write", path) }
    }

    func write(_ buffer: ByteBuffer) throws {
        var rest = buffer.readableBytesView
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw Machine.failure("write", path) }
            rest = rest.dropFirst(count)
        }
    }

    func publish() throws {
        guard path != "-" else { return }
        guard close(descriptor) == 0, rename(partial, path) == 0 else { throw Machine.failure("write", path) }
    }

    func discard() {
        guard path != "-" else { return }
        close(descriptor)
        unlink(partial)
    }
}

/// Shows the progress of a transfer, only if standard error is a terminal.
final class TransferProgress: Sendable {
    private struct State {
        var done = 0
        var shownAt: UInt64 = 0
    }

    private let title: String
    private let total: Int?
    private let time: any TimeSource
    private let begun: UInt64
    private let isTerminal = isatty(2) == 1
    private let state = Mutex(State())
    private static let interval: UInt64 = 100_000_000

    init(_ title: String, total: Int?, time: any TimeSource) {
        self.title = title
        self.total = total
        self.time = time
        begun = time.monotonicNanoseconds()
    }

    var done: Int { state.withLock { $0.done } }

    func restart() { state.withLock { $0.done = 0 } }

    func advance(_ count: Int) {
        let now = time.monotonicNanoseconds()
        let (done, shows) = state.withLock { state -> (Int, Bool) in
            state.done += count
            let shows = isTerminal && now - state.shownAt > TransferProgress.interval
            if shows { state.shownAt = now }
            return (state.done, shows)
        }
        guard shows else { return }
        let rate = Double(done) / max(0.001, Double(now - begun) / 1e9)
        let part = total.map { " of \(CellText.bytes($0)) (\($0 == 0 ? 100 : done * 100 / $0) %)" } ?? ""
        Machine.write(to: 2, "\r\u{1b}[K\(title): \(CellText.bytes(done))\(part), \(CellText.bytes(Int(rate)))/s")
    }

    func end() { if isTerminal { Machine.write(to: 2, "\r\u{1b}[K") } }
}
