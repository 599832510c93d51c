package import Commands
import Cryptography
import DiskTool
import FileTransfer
import Glibc
package import ImageCore
import ImageFormat
import Kernel
import NIOCore

/// Converts imported data to the format of this cloud, with QEMU's tool in a sandbox.
package struct ImageConverter: Sendable {
    /// The format that imported images get.
    package let format: DiskFormat
    private let driver: DiskDriver
    private let sandbox: Sandbox
    /// Separate threads: a conversion occupies one for its whole duration, and uploads and downloads must not wait for it.
    private let threads: WorkerThreads
    private static let conversionsMax = 2

    /// - Parameter format: `raw` or `qcow2`.
    package init?(to format: DiskFormat, in sandbox: Sandbox) {
        guard format == .raw || format == .qcow2, let driver = DiskDriver(diskFormat: format.rawValue) else { return nil }
        (self.format, self.driver, self.sandbox) = (format, driver, sandbox)
        threads = WorkerThreads(name: "convert", count: ImageConverter.conversionsMax)
    }

    /// Whether images of this format are converted. `iso` and the parts of an AMI are not converted.
    func converts(_ declared: DiskFormat) -> Bool { declared != format && [.raw, .qcow2, .vmdk, .vdi, .vhd].contains(declared) }

    /// Converts the data `source` to the new data `target` of the same store, and hashes it.
    ///
    /// - Parameter bytesMax: the largest result.
    /// - Throws: `ImageRefusal` for a disk that is not accepted, 413 for one that is too large; `SandboxError`, `CommandError`,
    ///   `CancellationError`, `FileError`.
    func convert(
        _ source: String, _ declared: DiskFormat, to target: String, in files: FileStore, bytesMax: Int, tooLarge: ResourceError
    ) async throws -> ReceivedContent {
        let tool = DiskTool(sandbox)
        return try await withTaskCancellationHandler {
            try await threads.run {
                let disk = try ForeignDisk(path: files.path(source), declared: declared.rawValue)
                let size = try tool.measure(disk, largest: ImageHeader.virtualSizeMax)
                // A raw file is sparse here, but downloads and copies transfer all bytes.
                guard format != .raw || size <= bytesMax else { throw tooLarge }
                let partial = files.partialPath(target)
                do {
                    try tool.convert(disk, to: partial, driver, size: size, bytesMax: bytesMax)
                    let content = try ImageConverter.publish(partial, as: files.path(target), virtualSize: size, files.directory)
                    guard content.size <= bytesMax else { throw tooLarge }
                    return content
                } catch {
                    unlink(partial)
                    throw error is DiskTooLarge ? tooLarge : error
                }
            }
        } onCancel: {
            tool.cancel()
        }
    }

    /// Hashes a complete file, syncs it and gives it its final name.
    private static func publish(_ partial: String, as path: String, virtualSize: Int, _ directory: String) throws -> ReceivedContent {
        let stored = try StoredFile(path: partial)
        let (checksum, hash) = (IncrementalHash(.md5), IncrementalHash(.sha512))
        var offset = 0
        while offset < stored.size {
            let count = min(FileStore.chunkBytes, stored.size - offset)
            let piece = try stored.read(offset, count)
            piece.withUnsafeReadableBytes { bytes in
                checksum.update(bytes)
                hash.update(bytes)
            }
            offset += count
        }
        let descriptor = open(partial, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError.last("open", partial) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw FileError.last("flush", partial) }
        try FileStore.rename(partial, to: path, in: directory)
        return ReceivedContent(
            size: stored.size, virtualSize: virtualSize, checksum: Hexadecimal.encode(checksum.finish()),
            hashValue: Hexadecimal.encode(hash.finish()))
    }
}
