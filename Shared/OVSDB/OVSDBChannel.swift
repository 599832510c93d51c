import NIOCore

/// Cuts a byte stream into JSON documents. OVSDB's JSON-RPC (RFC 7047 §4) has no delimiter between messages, so this
/// counts braces outside strings.
struct JSONFrameDecoder: ByteToMessageDecoder {
    typealias InboundOut = ByteBuffer

    private var scanned = 0
    private var depth = 0
    private var inString = false
    private var escaped = false

    mutating func decode(context: ChannelHandlerContext, buffer: inout ByteBuffer) throws -> DecodingState {
        guard let length = try scan(buffer) else { return .needMoreData }
        scanned = 0
        guard let frame = buffer.readSlice(length: length) else { return .needMoreData }
        context.fireChannelRead(wrapInboundOut(frame))
        return .continue
    }

    mutating func decodeLast(
        context: ChannelHandlerContext, buffer: inout ByteBuffer, seenEOF: Bool
    ) throws -> DecodingState {
        try decode(context: context, buffer: &buffer)
    }

    /// The length of the first complete document, including preceding white space.
    private mutating func scan(_ buffer: ByteBuffer) throws -> Int? {
        try buffer.withUnsafeReadableBytes { bytes in
            while scanned < bytes.count {
                let byte = bytes[scanned]
                scanned += 1
                if inString {
                    if escaped {
                        escaped = false
                    } else if byte == UInt8(ascii: "\\") {
                        escaped = true
                    } else if byte
                        == UInt8(ascii: "\"")
                    {
                        inString = false
                    }
                    continue
                }
                switch byte {
                case UInt8(ascii: "\""): inString = true
                case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
                case UInt8(ascii: "}"), UInt8(ascii: "]"):
                    depth -= 1
                    if depth == 0 { return scanned }
                    if depth < 0 { throw OVSDBError.protocolViolation("unbalanced brackets") }
                default:
                    if depth == 0, byte > 32 { throw OVSDBError.protocolViolation("data outside of an object") }
                }
            }
            return nil
        }
    }
}

/// Passes documents to a stream that ends with the connection.
final class OVSDBStreamHandler: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer

    private let continuation: AsyncThrowingStream<ByteBuffer, any Error>.Continuation

    init(_ continuation: AsyncThrowingStream<ByteBuffer, any Error>.Continuation) { self.continuation = continuation }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { continuation.yield(unwrapInboundIn(data)) }

    func channelInactive(context: ChannelHandlerContext) {
        continuation.finish()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        continuation.finish(throwing: error)
        context.close(promise: nil)
    }
}
