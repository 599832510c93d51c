import Glibc
import Kernel
import Synchronization

/// Gives a sandbox's group access to a file or directory while tools use it.
///
/// Several runs, also of different processes, may use a file at the same time. Each run holds a shared `flock` on it. The run
/// that can get an exclusive lock when it ends is the last one and removes the group's permission.
final class FileGrant: Sendable {
    /// Number of attempts to get a lock that others hold only briefly, and the delay between them in microseconds.
    private static let attemptsMax = 2000
    private static let pause: UInt32 = 1000

    private let descriptor: Mutex<Int32?>

    private let isDirectory: Bool

    /// For a file, or for a directory with all its contents.
    ///
    /// - Throws: `FileError`, also for a symbolic link; `SandboxError` if something is not a regular file (nor a directory of a
    ///   tree), or is locked by another process.
    static func grants(_ file: Sandbox.File, group: gid_t) throws -> [FileGrant] {
        let first = try FileGrant(file, group: group)
        guard first.isDirectory else { return [first] }
        return try [first] + names(file.path).flatMap { try grants(.readingTree("\(file.path)/\($0)"), group: group) }
    }

    private static func names(_ path: String) throws -> [String] {
        guard let directory = opendir(path) else { throw FileError.last("list", path) }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    private init(_ file: Sandbox.File, group: gid_t) throws {
        let opened = open(file.path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
        guard opened >= 0 else { throw FileError.last("open", file.path) }
        descriptor = Mutex(opened)
        var status = stat()
        let isKnown = fstat(opened, &status) == 0
        isDirectory = file.isTree && isKnown && status.st_mode & S_IFMT == S_IFDIR
        do {
            guard isKnown else { throw FileError.last("look at", file.path) }
            guard isDirectory || status.st_mode & S_IFMT == S_IFREG else {
                throw SandboxError("\(file.path) is not a regular file")
            }
            try FileGrant.share(opened, file.path)
            // Read after the lock was acquired, so that no other run can change it any more.
            guard fstat(opened, &status) == 0 else { throw FileError.last("look at", file.path) }
            var permissions = status.st_mode & 0o700 | (isDirectory ? 0o050 : file.isWritable ? 0o060 : 0o040)
            // Another run may be changing the file.
            if status.st_gid == group { permissions |= status.st_mode & 0o060 }
            if status.st_gid != group, fchown(opened, uid_t.max, group) != 0 {
                throw FileError.last("change the group of", file.path)
            }
            if status.st_mode & 0o7777 != permissions, fchmod(opened, permissions) != 0 {
                throw FileError.last("change the mode of", file.path)
            }
        } catch {
            withdraw()
            throw error
        }
    }

    deinit { withdraw() }

    private static func share(_ descriptor: Int32, _ path: String) throws {
        for _ in 0..<attemptsMax {
            if flock(descriptor, LOCK_SH | LOCK_NB) == 0 { return }
            guard errno == EWOULDBLOCK || errno == EINTR else { throw FileError.last("lock", path) }
            usleep(pause)
        }
        throw SandboxError("the file \(path) is locked by another process")
    }

    /// Ends the use of the file; may be repeated.
    func withdraw() {
        guard
            let descriptor = descriptor.withLock({ held in
                defer { held = nil }
                return held
            })
        else { return }
        defer { close(descriptor) }
        // If other runs still use the file, the last of them removes the permission.
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else { return }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return }
        // The mode is changed first, so that the process's own group does not get the sandbox's permission. For root, neither
        // call can fail on a file that it could open, unless the storage itself fails; then the next use repeats this.
        _ = fchmod(descriptor, status.st_mode & 0o700)
        _ = fchown(descriptor, uid_t.max, getegid())
    }
}
