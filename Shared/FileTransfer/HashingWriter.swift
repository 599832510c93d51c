import CLinux
package import Cryptography
import Dispatch
import Glibc
import Kernel
package import NIOCore

/// Writes a new file and computes hashes while writing. Blocks; must be used by one caller at a time, but on any thread.
package final class HashingWriter: @unchecked Sendable {
    private let path: String
    /// Descriptor of the open file; −1 after it was closed.
    package private(set) var descriptor: Int32
    /// Number of bytes written.
    package private(set) var size = 0
    private let hashes: [HashAlgorithm: IncrementalHash]
    /// Number of bytes whose way to the disk has begun.
    private var begun = 0

    /// Chunks of at least this size are hashed by all algorithms at once, each on a processor of its own.
    private static let parallelBytesMin = 32 << 10
    /// The disk writes in the background in pieces of this size, so that `flush` has little left to wait for.
    private static let writebackBytes = 8 << 20

    /// - Parameter algorithms: the hashes to compute; each costs time.
    /// - Throws: `FileError`, also if the file exists.
    package init(path: String, _ algorithms: Set<HashAlgorithm>) throws {
        self.path = path
        hashes = Dictionary(uniqueKeysWithValues: algorithms.map { ($0, IncrementalHash($0)) })
        descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FileError.last("create", path) }
    }

    deinit { close() }

    /// - Throws: `FileError`.
    package func append(_ chunk: ByteBuffer) throws {
        size += chunk.readableBytes
        try chunk.withUnsafeReadableBytes { bytes in
            update(bytes)
            guard let base = bytes.baseAddress else { return }
            var written = 0
            while written < bytes.count {
                let count = write(descriptor, base + written, bytes.count - written)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { throw FileError.last("write", path) }
                written += count
            }
        }
        guard size - begun >= HashingWriter.writebackBytes else { return }
        // Only a hint: `flush` waits for the data and reports errors.
        clinux_begin_writeback(descriptor, Int64(begun), Int64(size - begun))
        begun = size
    }

    private func update(_ bytes: UnsafeRawBufferPointer) {
        let all = Array(hashes.values)
        guard all.count > 1, bytes.count >= HashingWriter.parallelBytesMin else {
            for hash in all { hash.update(bytes) }
            return
        }
        // Each iteration has a hash of its own, and the call returns when all have ended.
        nonisolated(unsafe) let work = (hashes: all, bytes: bytes)
        DispatchQueue.concurrentPerform(iterations: all.count) { work.hashes[$0].update(work.bytes) }
    }

    /// Syncs the data to disk.
    ///
    /// - Throws: `FileError`.
    package func flush() throws {
        guard fsync(descriptor) == 0 else { throw FileError.last("flush", path) }
    }

    /// The hash of all written data, in lowercase hexadecimal digits; nil for an algorithm that was not requested. May be called
    /// once, at the end.
    package func hash(_ algorithm: HashAlgorithm) -> String? { hashes[algorithm].map { Hexadecimal.encode($0.finish()) } }

    package func close() {
        if descriptor >= 0 { Glibc.close(descriptor) }
        descriptor = -1
    }
}
