package import NIOCore
import NIOHTTP1
import NIOPosix
package import WebAPI

/// A request of the agent's two small servers: metadata and health.
package struct SmallRequest: Sendable {
    package let method: String
    package let path: String
    /// Text form of the peer's address.
    package let remoteAddress: String?
    package let body: [UInt8]
}

/// An answer, whole.
package struct SmallResponse: Sendable {
    package var status: Int
    package var contentType: String
    package var body: [UInt8]

    package init(status: Int, contentType: String = "text/plain; charset=utf-8", body: [UInt8]) {
        self.status = status
        self.contentType = contentType
        self.body = body
    }

    package init(status: Int, text: String) { self.init(status: status, body: Array(text.utf8)) }
}

/// HTTP/1.1 over a given listening socket.
package enum SmallHTTPServer {
    /// Answers one request.
    package typealias Handler = @Sendable (SmallRequest) async -> SmallResponse

    /// Serves a listening socket, which belongs to the returned channel from now on.
    package static func serve(socket: Int32, _ ledger: ConnectionLedger, _ handler: @escaping Handler) async throws -> any Channel {
        try await bootstrap(ledger, handler).withBoundSocket(socket).get()
    }

    /// Serves an address of this host.
    package static func serve(
        host: String, port: Int, _ ledger: ConnectionLedger, _ handler: @escaping Handler
    ) async throws -> any Channel {
        try await bootstrap(ledger, handler).serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .bind(host: host, port: port).get()
    }

    private static func bootstrap(_ ledger: ConnectionLedger, _ handler: @escaping Handler) -> ServerBootstrap {
        ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.backlog, value: 128)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.limitAccepting(ledger) }
            }
            // Simple clients in guests may half-close the connection after the request and still expect the response.
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.configureHTTPServerPipeline(
                        withErrorHandling: true, withEncoderConfiguration: .init(),
                        withDecoderLimitConfiguration: decoderLimits(ledger.limits))
                    try pipeline.guardHTTP(ledger) {
                        ([("content-type", "text/plain; charset=utf-8")], Array(($0.message + "\n").utf8))
                    }
                    try pipeline.addHandler(SmallHTTPHandler(handler))
                }
            }
    }

    private static func decoderLimits(_ limits: ConnectionLimits) -> NIOHTTPDecoderLimitConfiguration {
        var configuration = NIOHTTPDecoderLimitConfiguration()
        configuration.maxHeaderFieldSize = limits.headBytesMax
        configuration.maxHeaderListSize = limits.headBytesMax
        configuration.maxHeaderFieldCount = 100
        return configuration
    }
}

private final class SmallHTTPHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    /// A guest's password is the only body that is read; it is far smaller.
    private static let bodyMax = 64 * 1024

    private let handler: SmallHTTPServer.Handler
    private var head: HTTPRequestHead?
    private var body: [UInt8] = []
    private var isAnswering = false
    private var isInputClosed = false

    init(_ handler: @escaping SmallHTTPServer.Handler) { self.handler = handler }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            self.head = head
            body = []
        case .body(let bytes):
            guard body.count + bytes.readableBytes <= SmallHTTPHandler.bodyMax else {
                head = nil
                body = []
                context.close(promise: nil)
                return
            }
            body += bytes.readableBytesView
        case .end:
            guard let head else { return }
            self.head = nil
            answer(head, body, on: context.channel)
            body = []
        }
    }

    private func answer(_ head: HTTPRequestHead, _ body: [UInt8], on channel: any Channel) {
        isAnswering = true
        let this = NIOLoopBound(self, eventLoop: channel.eventLoop)
        let request = SmallRequest(
            method: head.method.rawValue, path: head.uri, remoteAddress: channel.remoteAddress?.ipAddress,
            body: body)
        let handler = handler
        let isPersistent = head.isKeepAlive
        let version = head.version
        Task {
            let response = await handler(request)
            let headers: HTTPHeaders = [
                "content-type": response.contentType, "content-length": String(response.body.count),
                "connection": isPersistent ? "keep-alive" : "close",
            ]
            let head = HTTPResponseHead(
                version: version, status: HTTPResponseStatus(statusCode: response.status), headers: headers)
            channel.write(HTTPServerResponsePart.head(head), promise: nil)
            if request.method != "HEAD" {
                channel.write(
                    HTTPServerResponsePart.body(.byteBuffer(ByteBuffer(bytes: response.body))), promise: nil)
            }
            let written = channel.eventLoop.makePromise(of: Void.self)
            channel.writeAndFlush(HTTPServerResponsePart.end(nil), promise: written)
            written.futureResult.whenComplete { _ in this.value.answered(channel, isPersistent: isPersistent) }
        }
    }

    private func answered(_ channel: any Channel, isPersistent: Bool) {
        isAnswering = false
        if isInputClosed || !isPersistent { channel.close(promise: nil) }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event as? ChannelEvent == .inputClosed {
            isInputClosed = true
            if !isAnswering { context.close(promise: nil) }
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
