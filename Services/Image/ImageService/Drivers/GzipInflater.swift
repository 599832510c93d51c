import CZlib
import ImageCore
import Kernel
import NIOCore

/// Decompresses gzip (RFC 1952) piece by piece, with bounded memory. Must be used by one caller at a time, but on any thread.
final class GzipInflater: @unchecked Sendable {
    /// The first bytes of every member.
    static let magic: [UInt8] = [0x1f, 0x8b]
    private static let outputBytes = 256 << 10
    /// zlib's code for a gzip header and the largest window.
    private static let windowBits: Int32 = 31

    private var stream = z_stream()
    private var isAtEnd = false
    private var isOpen = true

    /// - Throws: an internal error if zlib cannot be set up.
    init() throws {
        guard wolke_inflate_init(&stream, GzipInflater.windowBits) == Z_OK else {
            throw ResourceError.internalError("zlib cannot be initialized")
        }
    }

    deinit { close() }

    func close() {
        if isOpen { inflateEnd(&stream) }
        isOpen = false
    }

    /// Passes the decompressed data to `output` in pieces of bounded size.
    ///
    /// - Throws: 415 for data that is not gzip; errors of `output`, which bounds the size.
    func append(_ input: ByteBuffer, _ output: (ByteBuffer) throws -> Void) throws {
        var input = input
        try input.readWithUnsafeMutableReadableBytes { bytes in
            stream.next_in = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
            stream.avail_in = UInt32(bytes.count)
            while stream.avail_in > 0 { try step(output) }
            return bytes.count
        }
    }

    private func step(_ output: (ByteBuffer) throws -> Void) throws {
        if isAtEnd {
            // Another member may follow; zlib refuses anything else.
            guard inflateReset(&stream) == Z_OK else { throw GzipInflater.malformed }
            isAtEnd = false
        }
        var piece = ByteBufferAllocator().buffer(capacity: GzipInflater.outputBytes)
        var result = Z_OK
        piece.writeWithUnsafeMutableBytes(minimumWritableBytes: GzipInflater.outputBytes) { space in
            stream.next_out = space.baseAddress?.assumingMemoryBound(to: UInt8.self)
            stream.avail_out = UInt32(space.count)
            result = inflate(&stream, Z_NO_FLUSH)
            return space.count - Int(stream.avail_out)
        }
        guard result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR else { throw GzipInflater.malformed }
        isAtEnd = result == Z_STREAM_END
        if piece.readableBytes > 0 { try output(piece) }
        // The output may be full while the input is used up.
        if result == Z_OK, stream.avail_in == 0, stream.avail_out == 0 { try step(output) }
    }

    /// - Throws: 415 if the data ends within a member.
    func finish() throws {
        guard isAtEnd else { throw GzipInflater.malformed }
    }

    private static let malformed = ResourceError(
        .unsupportedMediaType, "The data is not accepted as an image: it begins like gzip, but cannot be decompressed.")
}
