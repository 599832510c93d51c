import ImageCore
import ImageFormat
import Kernel
import NIOCore
import Synchronization

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
        try ContentInspector.inspect(prefix, tail: complete ? tail : nil, size: complete ? size : nil, declared)
    }

    private static func inspect(_ prefix: [UInt8], tail: [UInt8]?, size: Int?, _ declared: DiskFormat?) throws -> Int? {
        guard let declared else { return nil }
        do {
            return try ImageHeader.inspect(prefix: prefix, tail: tail, size: size, declared: declared.rawValue).virtualSize
        } catch {
            throw ResourceError(.unsupportedMediaType, "The data is not accepted as an image: \(error.reason).")
        }
    }

    /// Inspects complete data that is stored already. Blocks.
    ///
    /// - Returns: the size of the disk in the data, if known.
    /// - Throws: 415 if it has the wrong format; `FileError`.
    static func inspect(_ stored: any StoredData, declared: DiskFormat?) throws -> Int? {
        let head = min(stored.size, ImageHeader.prefixLength)
        let end = min(stored.size, ImageHeader.tailLength)
        return try inspect(
            Array(stored.read(0, head).readableBytesView), tail: Array(stored.read(stored.size - end, end).readableBytesView),
            size: stored.size, declared)
    }
}

/// Receives data piece by piece into a store.
actor ImageIntake {
    let file: any IncomingData
    private let files: any ImageStoreDriver
    private let inspector: ContentInspector
    private let decompresses: Bool
    private var pending = ByteBuffer()
    private var inflater: GzipInflater?
    private var isStarted = false

    /// - Parameter decompresses: whether data that begins like gzip is decompressed.
    init(_ files: any ImageStoreDriver, _ file: any IncomingData, _ inspector: ContentInspector, decompresses: Bool = false) {
        self.files = files
        self.file = file
        self.inspector = inspector
        self.decompresses = decompresses
    }

    /// - Throws: 413, 415; `FileError`.
    func append(_ piece: ByteBuffer) async throws {
        if pending.readableBytes == 0 { pending = piece } else { pending.writeImmutableBuffer(piece) }
        if pending.readableBytes >= FileStore.chunkBytes { try await store() }
    }

    private func store() async throws {
        let batch = pending
        pending = ByteBuffer()
        if !isStarted {
            isStarted = true
            if decompresses, batch.readableBytesView.starts(with: GzipInflater.magic) { inflater = try GzipInflater() }
        }
        let (file, inspector, inflater) = (file, inspector, inflater)
        try await files.threads.run {
            if let inflater {
                try inflater.append(batch) { try ImageIntake.store($0, file, inspector) }
            } else {
                try ImageIntake.store(batch, file, inspector)
            }
        }
    }

    /// Publishes the data under its name; the lock is kept.
    ///
    /// - Parameter expected: the size according to the client, if known.
    /// - Throws: 400 if the data ended early; 413, 415; `FileError`.
    func finish(expected: Int?) async throws -> ReceivedContent {
        if pending.readableBytes > 0 { try await store() }
        let (file, inspector, inflater) = (file, inspector, inflater)
        return try await files.threads.run {
            try inflater?.finish()
            if let expected, inspector.size != expected {
                throw ResourceError.badRequest("The upload ended after \(inspector.size) of \(expected) bytes.")
            }
            let virtualSize = try inspector.finish()
            try file.publish()
            return ReceivedContent(
                size: inspector.size, virtualSize: virtualSize, checksum: file.checksum, hashValue: file.hashValue)
        }
    }

    private static func store(_ batch: ByteBuffer, _ file: any IncomingData, _ inspector: ContentInspector) throws {
        try inspector.append(batch)
        do { try file.append(batch) } catch let error as FileError where error.isNoSpace {
            throw ResourceError(
                .tooLarge, "There is not enough space left in the image store.", context: error.description)
        }
    }
}

extension ImageStoreDriver {
    /// Reads a stream to its end into `file`.
    ///
    /// - Parameter expected: the size according to the client, if known.
    /// - Throws: 400 if the stream ends early, 413, 415, and errors of the stream.
    func take(
        _ stream: any AsyncSequence<ByteBuffer, any Error> & Sendable, into file: any IncomingData,
        _ inspector: ContentInspector, expected: Int?
    ) async throws -> ReceivedContent {
        let intake = ImageIntake(self, file, inspector)
        for try await piece in stream { try await intake.append(piece) }
        return try await intake.finish(expected: expected)
    }
}

/// Counts the bytes of a long transfer, and says when its progress is to be recorded.
final class ProgressRecord: Sendable {
    private struct State {
        var count = 0
        var last: UInt64
    }

    private let state: Mutex<State>
    private let interval: UInt64
    private let ambient: Ambient

    /// - Parameter interval: time between two records, in nanoseconds.
    init(interval: UInt64, ambient: Ambient) {
        self.interval = interval
        self.ambient = ambient
        state = Mutex(State(last: ambient.time.monotonicNanoseconds()))
    }

    /// - Returns: the number of bytes so far if it is time to record it.
    func due(adding bytes: Int) -> Int? {
        let now = ambient.time.monotonicNanoseconds()
        return state.withLock { state in
            state.count += bytes
            guard now - state.last >= interval else { return nil }
            state.last = now
            return state.count
        }
    }
}
