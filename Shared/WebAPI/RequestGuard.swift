import NIOCore
import NIOHTTP1

/// Checks request heads before any other handler: refuses ambiguous requests (request smuggling), closes the connection
/// after its last response, and informs `ConnectionGuard`. Placed directly after the decoder.
final class RequestGuard: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundIn = HTTPServerResponsePart
    typealias OutboundOut = HTTPServerResponsePart

    private let connection: ConnectionGuard
    /// The connection ends with the answer to the last request that was read.
    private var isLast = false

    init(_ connection: ConnectionGuard) { self.connection = connection }

    // MARK: requests

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        // Nothing is read after the last request of a connection (RFC 9112, 9.6).
        switch unwrapInboundIn(data) {
        case .head(let head):
            guard !isLast, !connection.isBroken else { return }
            if let refusal = RequestGuard.refusal(head) {
                breakOff(refusal, context, HTTPParserError.unknown)
                return
            }
            isLast = !head.isKeepAlive || head.headers.contains(name: "upgrade") || head.method == .CONNECT
            connection.headArrived()
        case .body:
            guard connection.isReceivingBody else { return }
        case .end:
            guard connection.isReceivingBody else { return }
            connection.bodyEnded()
            context.fireChannelRead(data)
            if isLast, !connection.hasRequests { context.close(promise: nil) }
            return
        }
        context.fireChannelRead(data)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard error is HTTPParserError || error is RequestBodyTooSlow else {
            context.fireErrorCaught(error)
            return
        }
        // The parser stops at its first error; later errors are repetitions.
        if connection.isBroken, !(error is RequestBodyTooSlow) { return }
        breakOff(error as? HTTPParserError == .headerOverflow ? .longHead : .malformed, context, error)
    }

    /// Responds if no response is in progress; otherwise the request in progress ends with `error`, and the connection with
    /// its answer.
    private func breakOff(_ refusal: ConnectionRefusal, _ context: ChannelHandlerContext, _ error: any Error) {
        guard connection.hasRequests else {
            // An error in the rest of a body whose response was already sent is ignored.
            if connection.isReceivingBody || connection.isBroken { context.close(promise: nil) } else { connection.refuse(refusal) }
            return
        }
        isLast = true
        connection.requestBroke()
        context.fireErrorCaught(error)
    }

    /// Why a head is refused; nil if it is valid.
    private static func refusal(_ head: HTTPRequestHead) -> ConnectionRefusal? {
        let headers = head.headers
        guard head.version.major == 1 else { return .malformed }
        let hosts = headers[canonicalForm: "host"].count
        guard hosts == 1 || hosts == 0 && head.version.minor == 0 else {
            return ConnectionRefusal(400, "The request must have exactly one Host field.")
        }
        let encodings = headers[canonicalForm: "transfer-encoding"].map { $0.lowercased() }
        let lengths = Set(headers[canonicalForm: "content-length"])
        if !encodings.isEmpty {
            guard encodings == ["chunked"], head.version.minor >= 1 else {
                return ConnectionRefusal(400, "The only Transfer-Encoding that is understood is \"chunked\", in HTTP/1.1.")
            }
            guard lengths.isEmpty else {
                return ConnectionRefusal(400, "The request has both Transfer-Encoding and Content-Length.")
            }
        }
        guard lengths.count <= 1, lengths.allSatisfy({ UInt($0) != nil }) else {
            return ConnectionRefusal(400, "Content-Length must be a single non-negative integer.")
        }
        if let expectation = headers.first(name: "expect"), expectation.lowercased() != "100-continue" {
            return ConnectionRefusal(417, "The only expectation that is understood is \"100-continue\".")
        }
        return nil
    }

    // MARK: answers

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        switch unwrapOutboundIn(data) {
        case .head(var head):
            if head.headers[canonicalForm: "connection"].contains(where: { $0.lowercased() == "close" }) { isLast = true }
            if isLast, connection.requests == 1 { head.headers.replaceOrAdd(name: "connection", value: "close") }
            context.write(wrapOutboundOut(.head(head)), promise: promise)
        case .body: context.write(data, promise: promise)
        case .end: end(context, data, promise)
        }
    }

    private func end(_ context: ChannelHandlerContext, _ data: NIOAny, _ promise: EventLoopPromise<Void>?) {
        connection.answered()
        // The responder keeps reading the body of a client that is still sending, so that the client receives this
        // response.
        guard isLast, !connection.isReceivingBody, !connection.hasRequests else {
            context.write(data, promise: promise)
            return
        }
        let written = promise ?? context.eventLoop.makePromise()
        let this = NIOLoopBound(context, eventLoop: context.eventLoop)
        written.futureResult.whenComplete { _ in this.value.close(promise: nil) }
        context.writeAndFlush(data, promise: written)
    }

    func triggerUserOutboundEvent(context: ChannelHandlerContext, event: Any, promise: EventLoopPromise<Void>?) {
        guard event is ContinueWanted else {
            context.triggerUserOutboundEvent(event, promise: promise)
            return
        }
        connection.sendContinue()
        promise?.succeed(())
    }
}
