import Glibc
import Kernel
import Synchronization

/// Lets a sandbox's group at a file, or a directory, for as long as tools use it.
///
/// Several runs, also of several processes, may use one file at a time: each holds a shared `flock` on it, and the one that
/// gets the lock for itself when it ends is the last, and takes the group's permission back.
final class FileGrant: Sendable {
    /// Tries to get a lock that others hold for a moment only, and microseconds between two of them.
    private static let attemptsMax = 2000
    private static let pause: UInt32 = 1000

    private let descriptor: Mutex<Int32?>

    private let isDirectory: Bool

    /// For a file, or for a tree with all that is in it.
    ///
    /// - Throws: `FileError`, also for a link; `SandboxError` for what is no regular file (nor a directory of a tree), and
    ///   where somebody holds the lock of one.
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
            // As it is now that no other run can take it back.
            guard fstat(opened, &status) == 0 else { throw FileError.last("look at", file.path) }
            var permissions = status.st_mode & 0o700 | (isDirectory ? 0o050 : file.isWritable ? 0o060 : 0o040)
            // Another run may be writing it.
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

    /// Ends the use of the file; safe to repeat.
    func withdraw() {
        guard
            let descriptor = descriptor.withLock({ held in
                defer { held = nil }
                return held
            })
        else { return }
        defer { close(descriptor) }
        // Where others use it still, the last of them does the rest.
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else { return }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return }
        // The mode first: the process's own group must not get what the sandbox's had. Neither can fail for root on a file
        // that it could open, unless the storage itself does; then the next use finds the file as it is and repeats this.
        _ = fchmod(descriptor, status.st_mode & 0o700)
        _ = fchown(descriptor, uid_t.max, getegid())
    }
}
