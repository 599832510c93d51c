package import Cryptography
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
            for hash in hashes.values { hash.update(bytes) }
            guard let base = bytes.baseAddress else { return }
            var written = 0
            while written < bytes.count {
                let count = write(descriptor, base + written, bytes.count - written)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { throw FileError.last("write", path) }
                written += count
            }
        }
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
