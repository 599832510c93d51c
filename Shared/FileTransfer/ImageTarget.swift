package import Client
import Glibc
import JSON
package import Kernel
import NIOCore
import ServiceCatalog

/// A destination for the data of new images.
package protocol ImageTarget: Sendable {
    /// Sends the file at `path` as the data of an image that has none yet.
    ///
    /// - Parameters:
    ///   - subject: the subject whose access Image's policy decides about.
    ///   - progress: called with the number of bytes sent so far.
    /// - Throws: 404 or 410 if the image was deleted; 409 if it cannot receive data now; 413 if it exceeds a limit; `FileError`.
    func upload(_ imageID: String, from path: String, as subject: ActingSubject, _ progress: @escaping @Sendable (Int) -> Void)
        async throws
    /// - Throws: 404 if the image does not exist or the subject may not see it.
    func look(_ imageID: String, as subject: ActingSubject) async throws -> UploadedImage
}

/// An image as its uploader sees it.
package struct UploadedImage: Sendable, Hashable {
    /// `queued`, `saving`, `active`, …
    package let status: String
    /// Bytes of its data.
    package let size: Int?

    package init(status: String, size: Int?) {
        self.status = status
        self.size = size
    }
}

/// Uploads images to the Image service. The file is read on `threads`, piece by piece as the service takes it.
package struct RESTImageTarget: ImageTarget {
    private let client: RESTClient
    private let threads: WorkerThreads

    package init(client: RESTClient, threads: WorkerThreads) {
        self.client = client
        self.threads = threads
    }

    package func upload(
        _ imageID: String, from path: String, as subject: ActingSubject, _ progress: @escaping @Sendable (Int) -> Void
    ) async throws {
        let file = try await threads.run { try OpenFile(path) }
        _ = try await client.acting(for: subject).upload(
            service: .image, path: "/images/\(imageID)/file", length: Int64(file.size)
        ) { FilePieces(file: file, threads: threads, progress: progress) }
    }

    package func look(_ imageID: String, as subject: ActingSubject) async throws -> UploadedImage {
        let image = try await client.acting(for: subject).get(.image, "/images/\(imageID)")
        return UploadedImage(status: image["status"]?.stringValue ?? "", size: image["size"]?.intValue)
    }
}

/// A file that is open for reading. Blocks.
private final class OpenFile: Sendable {
    let size: Int
    private let path: String
    private let descriptor: Int32

    init(_ path: String) throws {
        self.path = path
        descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError.last("open", path) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            let error = FileError.last("look at", path)
            close(descriptor)
            throw error
        }
        size = Int(status.st_size)
    }

    deinit { close(descriptor) }

    /// Up to `count` bytes; empty at the end.
    func read(at offset: Int, count: Int) throws -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: count)
        var number: Int32 = 0
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { bytes in
            while true {
                let part = pread(descriptor, bytes.baseAddress, count, off_t(offset))
                if part >= 0 { return part }
                if errno != EINTR {
                    number = errno
                    return 0
                }
            }
        }
        guard number == 0 else { throw FileError(operation: "read", path: path, number: number) }
        return buffer
    }
}

/// The content of a file from its start, each time it is iterated.
private struct FilePieces: AsyncSequence, Sendable {
    typealias Element = ByteBuffer

    let file: OpenFile
    let threads: WorkerThreads
    let progress: @Sendable (Int) -> Void

    private static let count = 1 << 20

    func makeAsyncIterator() -> Iterator { Iterator(pieces: self) }

    struct Iterator: AsyncIteratorProtocol {
        let pieces: FilePieces
        private var offset = 0

        fileprivate init(pieces: FilePieces) { self.pieces = pieces }

        mutating func next() async throws -> ByteBuffer? {
            let (file, start) = (pieces.file, offset)
            let count = Swift.min(FilePieces.count, file.size - start)
            guard count > 0 else { return nil }
            let buffer = try await pieces.threads.run { try file.read(at: start, count: count) }
            guard buffer.readableBytes > 0 else { return nil }
            offset += buffer.readableBytes
            pieces.progress(offset)
            return buffer
        }
    }
}
