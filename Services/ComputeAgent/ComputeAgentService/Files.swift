import CDispatch
import Foundation
import Glibc
package import Kernel

/// Blocking file work; call it on a thread of a `WorkerThreads`.
package enum Files {
    /// Makes the directory and those above it.
    package static func makeDirectory(_ path: String, mode: UInt32 = 0o700) throws {
        if mkdir(path, mode) == 0 || errno == EEXIST { return }
        guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash > path.startIndex else {
            throw FileError.last("mkdir", path)
        }
        try makeDirectory(String(path[..<slash]), mode: mode)
        guard mkdir(path, mode) == 0 || errno == EEXIST else { throw FileError.last("mkdir", path) }
    }

    /// Creates a directory that other users can traverse but not list, because QEMU opens disks as a different user.
    package static func makePassableDirectory(_ path: String) throws {
        try makeDirectory(path, mode: 0o711)
        // Directories created by older versions could not be traversed; correct the mode.
        guard chmod(path, 0o711) == 0 else { throw FileError.last("chmod", path) }
    }

    /// Whether anything exists at the path.
    package static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    /// Bytes of a file; nil when there is none.
    package static func size(_ path: String) -> Int? {
        var info = stat()
        return stat(path, &info) == 0 ? Int(info.st_size) : nil
    }

    /// When the file's contents last changed; nil when there is no file.
    package static func modified(_ path: String) -> Timestamp? {
        var info = stat()
        guard stat(path, &info) == 0 else { return nil }
        return Timestamp(microseconds: Int64(info.st_mtim.tv_sec) * 1_000_000 + Int64(info.st_mtim.tv_nsec) / 1000)
    }

    /// The whole file; nil when there is none.
    package static func read(_ path: String) throws -> [UInt8]? {
        guard let size = size(path) else {
            if errno == ENOENT { return nil }
            throw FileError.last("stat", path)
        }
        return try read(path, offset: 0, count: size)
    }

    /// Up to `count` bytes from `offset`.
    package static func read(_ path: String, offset: Int, count: Int) throws -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError.last("open", path) }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            let part = bytes.withUnsafeMutableBytes { buffer in
                pread(descriptor, buffer.baseAddress! + filled, count - filled, offset + filled)
            }
            if part < 0, errno == EINTR { continue }
            guard part >= 0 else { throw FileError.last("read", path) }
            if part == 0 { break }
            filled += part
        }
        return Array(bytes.prefix(filled))
    }

    /// Replaces the file so that after a crash there is the old or the new content, never a mixture.
    package static func replace(_ path: String, with bytes: [UInt8], mode: UInt32 = 0o600) throws {
        let temporary = path + ".new"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
        guard descriptor >= 0 else { throw FileError.last("create", temporary) }
        do {
            try write(descriptor, bytes, temporary)
            guard fsync(descriptor) == 0 else { throw FileError.last("fsync", temporary) }
        } catch {
            close(descriptor)
            throw error
        }
        close(descriptor)
        try publish(temporary, as: path)
    }

    /// Writes into a file that exists (one of the kernel's); a missing one is left missing.
    package static func overwrite(_ path: String, with bytes: [UInt8]) throws {
        let descriptor = open(path, O_WRONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            if errno == ENOENT { return }
            throw FileError.last("open", path)
        }
        defer { close(descriptor) }
        try write(descriptor, bytes, path)
    }

    /// Writes all bytes to an open file.
    package static func write(_ descriptor: Int32, _ bytes: [UInt8], _ path: String) throws {
        var written = 0
        while written < bytes.count {
            let part = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress! + written, bytes.count - written) }
            if part < 0, errno == EINTR { continue }
            guard part > 0 else { throw FileError.last("write", path) }
            written += part
        }
    }

    /// Renames, and syncs the directory.
    package static func publish(_ temporary: String, as path: String) throws {
        guard rename(temporary, path) == 0 else { throw FileError.last("rename", path) }
        let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError.last("open", directory) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw FileError.last("fsync", directory) }
    }

    /// Removes a file; an absent one counts as removed.
    package static func remove(_ path: String) throws {
        guard unlink(path) == 0 || errno == ENOENT else { throw FileError.last("unlink", path) }
    }

    /// Removes a directory with all that is in it; an absent one counts as removed.
    package static func removeTree(_ path: String) throws {
        guard exists(path) else { return }
        try FileManager.default.removeItem(atPath: path)
    }

    /// Names in a directory, sorted; none when it does not exist.
    package static func list(_ path: String) throws -> [String] {
        guard exists(path) else { return [] }
        return try FileManager.default.contentsOfDirectory(atPath: path).sorted()
    }

    /// Total and free bytes of the file system that holds `path`.
    package static func space(_ path: String) throws -> (total: Int, free: Int) {
        var info = statvfs()
        guard statvfs(path, &info) == 0 else { throw FileError.last("statvfs", path) }
        return (Int(info.f_blocks) * Int(info.f_frsize), Int(info.f_bavail) * Int(info.f_frsize))
    }
}
