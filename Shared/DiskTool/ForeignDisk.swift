import Glibc
package import ImageFormat
import Kernel

/// A file with untrusted content that our own parser has accepted.
package struct ForeignDisk: Sendable {
    package let path: String
    package let driver: DiskDriver
    /// The parser's result.
    package let header: ImageHeader

    /// For tests in which the parser was deceived.
    init(path: String, driver: DiskDriver, header: ImageHeader) {
        self.path = path
        self.driver = driver
        self.header = header
    }

    /// Parses a file's header and compares it with the declared format.
    ///
    /// - Parameter declared: the image's `disk_format`.
    /// - Throws: `ImageRefusal`, `FileError`.
    package init(path: String, declared: String) throws {
        guard let driver = DiskDriver(diskFormat: declared) else {
            throw ImageRefusal("disk_format '\(declared)' is not supported")
        }
        let descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError.last("open", path) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw FileError.last("look at", path) }
        let size = Int(status.st_size)
        let prefix = try ForeignDisk.read(descriptor, 0, min(size, ImageHeader.prefixLength), path)
        let tailStart = max(0, size - ImageHeader.tailLength)
        let tail = try ForeignDisk.read(descriptor, tailStart, size - tailStart, path)
        header = try ImageHeader.inspect(prefix: prefix, tail: tail, size: size, declared: declared)
        self.path = path
        self.driver = driver
    }

    private static func read(_ descriptor: Int32, _ offset: Int, _ count: Int, _ path: String) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            let part = bytes.withUnsafeMutableBytes { buffer in
                pread(descriptor, buffer.baseAddress! + filled, count - filled, off_t(offset + filled))
            }
            if part < 0, errno == EINTR { continue }
            guard part > 0 else { throw FileError.last("read", path) }
            filled += part
        }
        return bytes
    }
}
