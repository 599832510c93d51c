import ImageCore
import ImageFormat
import Kernel
import NIOCore

/// The properties of data that has arrived completely.
struct ReceivedContent: Sendable {
    let size: Int
    let virtualSize: Int?
    let checksum: String
    let hashValue: String
}

/// Inspects data while it is received. Must be used by one caller at a time, but on any thread.
final class ContentInspector: @unchecked Sendable {
    /// The required format; nil if the data is a container around the disk.
    private let declared: DiskFormat?
    private let sizeMax: Int
    private let tooLarge: ResourceError
    private(set) var size = 0
    private var prefix: [UInt8] = []
    private var tail: [UInt8] = []
    private var isInspected = false

    init(declared: DiskFormat?, sizeMax: Int, tooLarge: ResourceError) {
        self.declared = declared
        self.sizeMax = sizeMax
        self.tooLarge = tooLarge
    }

    /// - Throws: 413 if the data is too large, 415 if it has the wrong format.
    func append(_ buffer: ByteBuffer) throws {
        size += buffer.readableBytes
        guard size <= sizeMax else { throw tooLarge }
        buffer.withUnsafeReadableBytes { bytes in
            if prefix.count < ImageHeader.prefixLength {
                prefix.append(contentsOf: bytes.prefix(ImageHeader.prefixLength - prefix.count))
            }
            tail.append(contentsOf: bytes.suffix(ImageHeader.tailLength))
        }
        if tail.count > ImageHeader.tailLength { tail.removeFirst(tail.count - ImageHeader.tailLength) }
        if !isInspected, prefix.count == ImageHeader.prefixLength {
            isInspected = true
            _ = try inspect(complete: false)
        }
    }

    /// - Returns: the size of the disk in the data, if known.
    func finish() throws -> Int? { try inspect(complete: true) }

    private func inspect(complete: Bool) throws -> Int? {
        guard let declared else { return nil }
        do {
            return try ImageHeader.inspect(
                prefix: prefix, tail: complete ? tail : nil, size: complete ? size : nil, declared: declared.rawValue
            ).virtualSize
        } catch {
            throw ResourceError(.unsupportedMediaType, "The data is not accepted as an image: \(error.reason).")
        }
    }
}

extension FileStore {
    /// Reads a stream to its end into `file`.
    ///
    /// - Parameter expected: the size according to the client, if known.
    /// - Throws: 400 if the stream ends early, 413, 415, and errors of the stream.
    func take(
        _ stream: any AsyncSequence<ByteBuffer, any Error> & Sendable, into file: IncomingFile,
        _ inspector: ContentInspector, expected: Int?
    ) async throws -> ReceivedContent {
        var pending = ByteBuffer()
        for try await piece in stream {
            if pending.readableBytes == 0 { pending = piece } else { pending.writeImmutableBuffer(piece) }
            if pending.readableBytes >= FileStore.chunkBytes {
                let batch = pending
                pending = ByteBuffer()
                try await threads.run { try FileStore.store(batch, file, inspector) }
            }
        }
        let last = pending
        return try await threads.run {
            if last.readableBytes > 0 { try FileStore.store(last, file, inspector) }
            if let expected, inspector.size != expected {
                throw ResourceError.badRequest(
                    "The upload ended after \(inspector.size) of \(expected) bytes.")
            }
            let virtualSize = try inspector.finish()
            try file.publish()
            return ReceivedContent(
                size: inspector.size, virtualSize: virtualSize, checksum: file.checksum, hashValue: file.hashValue)
        }
    }

    private static func store(_ batch: ByteBuffer, _ file: IncomingFile, _ inspector: ContentInspector) throws {
        try inspector.append(batch)
        do { try file.append(batch) } catch let error as FileError where error.isNoSpace {
            throw ResourceError(
                .tooLarge, "There is not enough space left in the image store.", context: error.description)
        }
    }
}
