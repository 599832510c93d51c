import CDispatch
import Cryptography
import FileTransfer
import Glibc
import ImageCore
package import JSON
package import Kernel
import NIOCore

/// Stores image data as files in one directory, which replicas may share.
///
/// Data being received is `ID.part`, and becomes `ID` when it is complete and synced. The receiving process holds a lock on
/// the file from before the database refers to it until the database records it as complete; the kernel releases the lock
/// when the process dies. A file that is neither locked nor referred to by the database is therefore a leftover.
package struct FileStore: ImageStoreDriver {
    package static let type = "file"
    package let directory: String
    package let threads: WorkerThreads

    /// Size of the pieces in which data is read and written.
    package static let chunkBytes = 1 << 20

    /// - Throws: `FileError` if the directory cannot be created or written.
    package init(directory: String, threads: Int = 8) throws {
        try self.init(directory: directory, sharing: WorkerThreads(name: "images", count: threads))
    }

    /// - Parameter threads: the threads of another store.
    /// - Throws: `FileError` if the directory cannot be created or written.
    package init(directory: String, sharing threads: WorkerThreads) throws {
        self.directory = directory
        try FileStore.makeDirectory(directory)
        guard access(directory, W_OK | X_OK) == 0 else { throw FileError.last("write to", directory) }
        self.threads = threads
    }

    package var properties: JSONValue { ["data_dir": .string(directory)] }

    /// Identifies the directory, whatever its path.
    struct Identity: Equatable {
        let device: dev_t
        let inode: ino_t
    }

    /// - Throws: `FileError`.
    func identity() throws -> Identity {
        var status = stat()
        guard stat(directory, &status) == 0 else { throw FileError.last("look at", directory) }
        return Identity(device: status.st_dev, inode: status.st_ino)
    }

    /// The path of the data published under `id`.
    package func path(_ id: String) -> String { "\(directory)/\(id)" }
    func partialPath(_ id: String) -> String { "\(directory)/\(id).part" }

    private static func makeDirectory(_ path: String) throws {
        var partial = path.hasPrefix("/") ? "" : "."
        for part in path.split(separator: "/") {
            partial += "/" + part
            if mkdir(partial, 0o755) != 0, errno != EEXIST { throw FileError.last("create the directory", partial) }
        }
        _ = chmod(path, 0o700)
    }

    /// Starts receiving data under a new id.
    package func receive(_ id: String) async throws -> any IncomingData {
        try await threads.run { try IncomingFile(id: id, partial: partialPath(id), final: path(id), directory: directory) }
    }

    /// Opens stored data.
    ///
    /// - Throws: `FileError` if it does not exist.
    package func open(_ id: String) async throws -> any StoredData { try await threads.run { try StoredFile(path: path(id)) } }

    /// Deletes stored data; succeeds if it does not exist.
    package func remove(_ id: String) async throws {
        try await threads.run {
            if unlink(path(id)) != 0, errno != ENOENT { throw FileError.last("remove", path(id)) }
        }
    }

    /// Gives a synced file its final name, durably.
    static func rename(_ partial: String, to final: String, in directory: String) throws {
        guard Glibc.rename(partial, final) == 0 else { throw FileError.last("publish", final) }
        let parent = Glibc.open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard parent >= 0 else { throw FileError.last("open", directory) }
        defer { close(parent) }
        guard fsync(parent) == 0 else { throw FileError.last("flush", directory) }
    }

    // MARK: leftovers

    /// The ids of all files, complete or not.
    package func ids() async throws -> Set<String> {
        try await threads.run {
            guard let handle = opendir(directory) else { throw FileError.last("list", directory) }
            defer { closedir(handle) }
            var ids: Set<String> = []
            while let entry = readdir(handle) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                let id = name.hasSuffix(".part") ? String(name.dropLast(5)) : name
                if UUID128(id)?.description == id { ids.insert(id) }
            }
            return ids
        }
    }

    /// Whether a process is currently receiving `id`.
    package func isHeld(_ id: String) async throws -> Bool {
        try await threads.run {
            // The name of the incomplete file is checked first, because a file can become complete in between, but not the
            // reverse.
            for path in [partialPath(id), path(id)] {
                let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
                if descriptor < 0 {
                    if errno == ENOENT { continue }
                    throw FileError.last("open", path)
                }
                defer { close(descriptor) }
                if flock(descriptor, LOCK_EX | LOCK_NB) != 0 { return true }
            }
            return false
        }
    }

    /// Deletes the complete and the partial file of an id. The caller has checked that nothing refers to them.
    package func removeLeftover(_ id: String) async throws {
        try await threads.run {
            for path in [partialPath(id), path(id)] where unlink(path) != 0 && errno != ENOENT {
                throw FileError.last("remove", path)
            }
        }
    }
}

/// Writes and hashes arriving data. Must be used by one caller at a time, but on any thread.
final class IncomingFile: IncomingData, @unchecked Sendable {
    let id: String
    private let partial: String
    private let final: String
    private let directory: String
    private let writer: HashingWriter

    init(id: String, partial: String, final: String, directory: String) throws {
        self.id = id
        self.partial = partial
        self.final = final
        self.directory = directory
        writer = try HashingWriter(path: partial, [.md5, .sha512])
        guard flock(writer.descriptor, LOCK_EX | LOCK_NB) == 0 else { throw FileError.last("lock", partial) }
    }

    var checksum: String { writer.hash(.md5) ?? "" }
    var hashValue: String { writer.hash(.sha512) ?? "" }

    func append(_ bytes: ByteBuffer) throws { try writer.append(bytes) }

    /// Syncs the data and gives it its final name. The lock is kept.
    func publish() throws {
        try writer.flush()
        try FileStore.rename(partial, to: final, in: directory)
    }

    /// Deletes the data under either name.
    func discard() throws {
        defer { release() }
        for path in [partial, final] where unlink(path) != 0 && errno != ENOENT {
            throw FileError.last("remove", path)
        }
    }

    /// Releases the lock.
    func release() { writer.close() }
}

/// Open stored data, which stays readable if the image is deleted in the meantime.
final class StoredFile: StoredData {
    private let descriptor: Int32
    private let path: String
    let size: Int

    init(path: String) throws {
        self.path = path
        descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError.last("open", path) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            close(descriptor)
            throw FileError.last("look at", path)
        }
        size = Int(status.st_size)
        _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_SEQUENTIAL)
    }

    deinit { close(descriptor) }

    /// Reads exactly `count` bytes from `offset`.
    func read(_ offset: Int, _ count: Int) throws -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: count)
        while buffer.readableBytes < count {
            let position = offset + buffer.readableBytes
            let got = try buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count - buffer.readableBytes) { space in
                while true {
                    let got = pread(descriptor, space.baseAddress, min(space.count, count), off_t(position))
                    if got < 0, errno == EINTR { continue }
                    guard got >= 0 else { throw FileError.last("read", path) }
                    return got
                }
            }
            guard got > 0 else { throw ResourceError.internalError("\(path) ends at \(position) bytes") }
        }
        if buffer.readableBytes > count { buffer.moveWriterIndex(to: buffer.readerIndex + count) }
        return buffer
    }
}
