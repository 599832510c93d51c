import Kernel
package import NIOCore
import NIOHTTP1

/// A response of the listener to a request that cannot be routed: status, text, and seconds for `Retry-After`.
package struct ConnectionRefusal: Sendable, Hashable {
    package let status: Int
    package let message: String
    package let retryAfter: Int?

    package init(_ status: Int, _ message: String, retryAfter: Int? = nil) {
        self.status = status
        self.message = message
        self.retryAfter = retryAfter
    }

    static let tooMany = ConnectionRefusal(503, "Too many connections are open; try again.", retryAfter: 1)
    static let gaveWay = ConnectionRefusal(408, "No request arrived, and newer connections need the room.")
    static let slowHead = ConnectionRefusal(408, "The request's head did not arrive in time.")
    static let longHead = ConnectionRefusal(431, "The request's head is too long or has too many fields.")
    static let malformed = ConnectionRefusal(400, "The request is not valid HTTP.")
}

/// The body of a request came too slowly.
struct RequestBodyTooSlow: Error {}

/// How a listener writes a refusal: `Content-Type` and other fields, and the body.
package typealias RefusalWriter = @Sendable (ConnectionRefusal) -> (fields: [(name: String, value: String)], body: [UInt8])

/// Guards one connection: admits it, enforces the deadlines of `ConnectionLimits` and the size of the head, and answers
/// requests that no handler will see. It is first in the pipeline, where it sees bytes; `RequestGuard` informs it of
/// requests and responses.
final class ConnectionGuard: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = IOData
    typealias OutboundOut = IOData

    /// How long a refused client may take to read the refusal, while its data is dropped.
    private static let partingTime = TimeAmount.milliseconds(200)
    /// How long the response may take after the request's body has failed.
    private static let brokenTime = TimeAmount.seconds(30)

    private enum Phase {
        case serving
        /// The last answer was written; further input is dropped.
        case parting
    }

    private let ledger: ConnectionLedger
    private let limits: ConnectionLimits
    private let writer: RefusalWriter
    private var record: ConnectionLedger.Record?
    private var context: ChannelHandlerContext?
    private var ticker: RepeatedTask?
    private var phase = Phase.serving

    // Requests
    /// Requests without an answer yet.
    private(set) var requests = 0
    private(set) var isReceivingBody = false
    /// The request is malformed; nothing after it on this connection can be parsed.
    private(set) var isBroken = false
    private var brokenSince: NIODeadline?
    private var headBytes = 0
    /// When the wait for the present head began; nil between requests, until the first byte of the next one arrives.
    private var headSince: NIODeadline?
    private var idleSince = NIODeadline.now()

    // Progress
    private var isReadWanted = false
    private var windowSince: NIODeadline?
    private var windowBytes = 0
    private var written: Int64 = 0
    private var drained: Int64 = 0
    private var drainedSince = NIODeadline.now()

    init(_ ledger: ConnectionLedger, writer: @escaping RefusalWriter) {
        self.ledger = ledger
        self.writer = writer
        limits = ledger.limits
    }

    /// Whether a request has not been answered yet.
    var hasRequests: Bool { requests > 0 }

    private var isBetweenRequests: Bool { requests == 0 && !isReceivingBody }

    // MARK: life

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        ticker?.cancel()
        ticker = nil
    }

    func channelActive(context: ChannelHandlerContext) {
        let now = context.eventLoop.now
        let peer = PeerAddress.parse(context.channel.remoteAddress?.ipAddress)
        let record = ConnectionLedger.Record(
            source: PeerAddress.source(peer), isExempt: limits.trusts(peer), channel: context.channel, since: now)
        headSince = now
        drainedSince = now
        guard ledger.admit(record) else {
            refuse(.tooMany)
            context.fireChannelActive()
            return
        }
        self.record = record
        let tick = TimeAmount.nanoseconds(limits.tick.microseconds * 1000)
        let this = NIOLoopBound(self, eventLoop: context.eventLoop)
        ticker = context.eventLoop.scheduleRepeatedTask(initialDelay: tick, delay: tick) { _ in this.value.look() }
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        ticker?.cancel()
        ticker = nil
        if let record { ledger.release(record) }
        record = nil
        context.fireChannelInactive()
    }

    // MARK: bytes

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard phase == .serving else { return }
        let count = unwrapInboundIn(data).readableBytes
        if isBetweenRequests {
            if headSince == nil { headSince = context.eventLoop.now }
            headBytes += count
            guard headBytes <= limits.headBytesMax + 65_536 else {
                refuse(.longHead)
                return
            }
        } else if isReceivingBody {
            windowBytes += count
        }
        context.fireChannelRead(data)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        // The parser's own limits apply too late to an oversized head that arrives in several reads.
        if phase == .serving, isBetweenRequests, headBytes > limits.headBytesMax { refuse(.longHead) }
        isReadWanted = false
        context.fireChannelReadComplete()
    }

    func read(context: ChannelHandlerContext) {
        isReadWanted = true
        context.read()
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard phase == .serving else {
            promise?.fail(ChannelError.outputClosed)
            return
        }
        written += Int64(unwrapOutboundIn(data).readableBytes)
        context.write(data, promise: promise)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard event is ConnectionEvicted else {
            context.fireUserInboundEventTriggered(event)
            return
        }
        guard let record, phase == .serving else { return }
        if !isBetweenRequests {
            ledger.readmit(record)
        } else if headSince != nil {
            refuse(.gaveWay)
        } else {
            context.close(promise: nil)
        }
    }

    // MARK: requests, as RequestGuard sees them

    func headArrived() {
        requests += 1
        isReceivingBody = true
        headBytes = 0
        headSince = nil
        windowSince = nil
        record?.setBusy()
    }

    func bodyEnded() {
        isReceivingBody = false
        becomeIdle()
    }

    func requestBroke() {
        isBroken = true
        isReceivingBody = false
        brokenSince = context?.eventLoop.now
    }

    func answered() {
        requests = max(0, requests - 1)
        becomeIdle()
    }

    private func becomeIdle() {
        guard isBetweenRequests, let context else { return }
        idleSince = context.eventLoop.now
        record?.setIdle(since: idleSince)
    }

    // MARK: deadlines

    private func look() {
        guard let context, phase == .serving else { return }
        let now = context.eventLoop.now
        if isBetweenRequests {
            if let headSince {
                if now - headSince >= amount(limits.headTimeout) {
                    refuse(.slowHead)
                    return
                }
            } else if now - idleSince >= amount(limits.idleTimeout) {
                context.close(promise: nil)
                return
            }
        } else if let brokenSince, now - brokenSince >= ConnectionGuard.brokenTime {
            context.close(promise: nil)
            return
        } else if isReceivingBody {
            lookAtBody(context, now)
        }
        lookAtAnswer(context, now)
    }

    private func lookAtBody(_ context: ChannelHandlerContext, _ now: NIODeadline) {
        // Only time in which this process waits for more data counts against the client.
        guard isReadWanted, let since = windowSince else {
            windowSince = isReadWanted ? now : nil
            windowBytes = 0
            return
        }
        let window = amount(limits.bodyWindow)
        guard now - since >= window else { return }
        let wanted = Double(limits.bodyRateMin) * Double(window.nanoseconds) / 1e9
        windowSince = now
        defer { windowBytes = 0 }
        guard Double(windowBytes) < wanted else { return }
        requestBroke()
        context.fireErrorCaught(RequestBodyTooSlow())
    }

    private func lookAtAnswer(_ context: ChannelHandlerContext, _ now: NIODeadline) {
        let buffered: Int
        do {
            buffered = try context.channel.syncOptions?.getOption(.bufferedWritableBytes) ?? 0
        } catch {
            return
        }
        if buffered == 0 || written - Int64(buffered) > drained {
            drained = written - Int64(buffered)
            drainedSince = now
        } else if now - drainedSince >= amount(limits.writeTimeout) {
            context.close(promise: nil)
        }
    }

    private func amount(_ duration: Duration) -> TimeAmount { .nanoseconds(duration.microseconds * 1000) }

    // MARK: own answers

    /// Answers and closes. Further input is discarded for a moment first, because closing at once could destroy the
    /// response (RFC 9112, 9.6).
    func refuse(_ refusal: ConnectionRefusal) {
        guard let context, phase == .serving else { return }
        phase = .parting
        ticker?.cancel()
        ticker = nil
        if let record { ledger.release(record) }
        let (fields, body) = writer(refusal)
        var text = "HTTP/1.1 \(refusal.status) \(HTTPResponseStatus(statusCode: refusal.status).reasonPhrase)\r\n"
        for (name, value) in fields { text += "\(name): \(value)\r\n" }
        text += "content-length: \(body.count)\r\nconnection: close\r\n"
        if let seconds = refusal.retryAfter { text += "retry-after: \(seconds)\r\n" }
        var buffer = context.channel.allocator.buffer(capacity: text.utf8.count + body.count + 2)
        buffer.writeString(text + "\r\n")
        buffer.writeBytes(body)
        let this = NIOLoopBound(context, eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(.byteBuffer(buffer))).whenComplete { _ in
            this.value.close(mode: .output, promise: nil)
        }
        context.eventLoop.scheduleTask(in: ConnectionGuard.partingTime) { this.value.close(promise: nil) }
    }

    /// Sends `100 Continue`.
    func sendContinue() {
        guard let context, phase == .serving else { return }
        let buffer = context.channel.allocator.buffer(string: "HTTP/1.1 100 Continue\r\n\r\n")
        context.writeAndFlush(wrapOutboundOut(.byteBuffer(buffer)), promise: nil)
    }
}

extension ChannelPipeline.SynchronousOperations {
    /// Puts the guards around an HTTP/1.1 server's decoder, which must be in the pipeline.
    package func guardHTTP(_ ledger: ConnectionLedger, writer: @escaping RefusalWriter) throws {
        let connection = ConnectionGuard(ledger, writer: writer)
        let decoder = try handler(type: ByteToMessageHandler<HTTPRequestDecoder>.self)
        try addHandler(RequestGuard(connection), position: .after(decoder))
        try addHandler(connection, position: .first)
    }

    /// Keeps a listening channel within the ledger's limits.
    package func limitAccepting(_ ledger: ConnectionLedger) throws {
        try addHandler(AcceptGate(ledger.limits), position: .first)
    }
}
