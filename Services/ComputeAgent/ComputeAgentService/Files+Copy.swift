import Glibc
import Kernel
import Synchronization

/// Ends a copy from another thread.
final class CopyStop: Sendable {
    private let isStopped = Mutex(false)

    func stop() { isStopped.withLock { $0 = true } }
    func check() throws { if isStopped.withLock({ $0 }) { throw CancellationError() } }
}

extension Files {
    /// Bytes between two checks for cancellation.
    private static let chunk = 4 << 20
    /// `FICLONE` of Linux: shares the blocks if the file system supports it.
    private static let cloneRequest: UInt = 0x4004_9409

    /// Copies a file, keeping it sparse. The copy appears under its name when it is complete and synced.
    ///
    /// - Throws: `FileError`, `CancellationError`.
    static func copy(_ path: String, to copy: String, stop: CopyStop) throws {
        let temporary = copy + ".new"
        let source = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
        guard source >= 0 else { throw FileError.last("open", path) }
        defer { close(source) }
        let target = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard target >= 0 else { throw FileError.last("create", temporary) }
        defer { close(target) }
        do {
            if ioctl(target, cloneRequest, source) != 0 { try copyData(source, target, path, temporary, stop) }
            guard fsync(target) == 0 else { throw FileError.last("fsync", temporary) }
        } catch {
            try remove(temporary)
            throw error
        }
        try publish(temporary, as: copy)
    }

    private static func copyData(_ source: Int32, _ target: Int32, _ path: String, _ temporary: String, _ stop: CopyStop) throws {
        let end = lseek(source, 0, SEEK_END)
        guard end >= 0 else { throw FileError.last("look at", path) }
        guard ftruncate(target, end) == 0 else { throw FileError.last("extend", temporary) }
        var buffer = [UInt8](repeating: 0, count: chunk)
        var position: off_t = 0
        while position < end {
            // `SEEK_DATA` and `SEEK_HOLE`.
            let start = lseek(source, position, 3)
            if start < 0, errno == ENXIO { return }
            let stopAt = start < 0 ? end : lseek(source, start, 4)
            guard stopAt >= 0 else { throw FileError.last("look at", path) }
            position = max(position, start)
            while position < stopAt {
                try stop.check()
                let count = min(chunk, Int(stopAt - position))
                let part = pread(source, &buffer, count, position)
                if part < 0, errno == EINTR { continue }
                guard part > 0 else { throw FileError.last("read", path) }
                var written = 0
                while written < part {
                    let done = buffer.withUnsafeBytes {
                        pwrite(target, $0.baseAddress! + written, part - written, position + off_t(written))
                    }
                    if done < 0, errno == EINTR { continue }
                    guard done > 0 else { throw FileError.last("write", temporary) }
                    written += done
                }
                position += off_t(part)
            }
        }
    }
}
