import ComputeAgentCore
package import Contracts
import Glibc
import Kernel
import NIOCore
import NIOPosix

/// Connects guests' consoles to `wolke-console`.
///
/// No console listens on the host's network: displays are connections that libvirt opens, serial ports are sockets in the
/// servers' directories. The agent connects to the console service itself and copies the bytes both ways.
package struct ConsoleLinks: Sendable {
    /// The guest's side of a console.
    package enum Source: Sendable {
        /// A connected socket, owned by the link from now on.
        case descriptor(Int32)
        /// The path of a listening socket of QEMU.
        case socket(String)
    }

    private static let connectTimeout = TimeAmount.seconds(5)

    private let address: String

    /// - Parameter address: `host:port` of the console service, for orders without one.
    package init(address: String) { self.address = address }

    /// Connects both sides. Returns when the console service has accepted the connection; the bytes are copied until one side
    /// closes.
    ///
    /// - Throws: `ResourceError` 503 if one of them cannot be reached.
    package func connect(_ order: ConsoleConnection, _ source: Source) async throws {
        let address = order.address ?? address
        guard let colon = address.lastIndex(of: ":"), let port = Int(address[address.index(after: colon)...]) else {
            if case .descriptor(let descriptor) = source { close(descriptor) }
            throw ResourceError.badRequest("address: \"\(address)\" must be host:port")
        }
        let group = MultiThreadedEventLoopGroup.singleton
        // Both are on one event loop, so that each can apply back-pressure to the other.
        let loop = group.next()
        let guest: any Channel
        do { guest = try await ConsoleLinks.open(source, on: loop) } catch {
            throw ResourceError.unavailable("The console of server \(order.serverID) cannot be opened: \(error)")
        }
        do {
            let accepted = loop.makePromise(of: Void.self)
            let service = try await ConsoleLinks.bootstrap(loop)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandler(
                            ConsoleRequest(host: address, secret: order.secret, guest: guest, accepted: accepted))
                    }
                }
                .connect(host: ConsoleLinks.bare(address[..<colon]), port: port).get()
            service.closeFuture.whenComplete { _ in guest.close(promise: nil) }
            try await accepted.futureResult.get()
        } catch {
            guest.close(promise: nil)
            throw ResourceError.unavailable("The console service at \(address) cannot be reached: \(error)")
        }
    }

    private static func bare(_ host: Substring) -> String {
        host.hasPrefix("[") && host.hasSuffix("]") ? String(host.dropFirst().dropLast()) : String(host)
    }

    private static func bootstrap(_ loop: any EventLoop) -> ClientBootstrap {
        // Reading begins when both ends are joined.
        ClientBootstrap(group: loop).connectTimeout(connectTimeout).channelOption(.autoRead, value: false)
    }

    private static func open(_ source: Source, on loop: any EventLoop) async throws -> any Channel {
        switch source {
        case .descriptor(let descriptor): try await bootstrap(loop).withConnectedSocket(descriptor).get()
        case .socket(let path): try await bootstrap(loop).connect(unixDomainSocketPath: path).get()
        }
    }
}

/// Requests the upgrade and, once it is granted, joins both channels.
private final class ConsoleRequest: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private static let headBytesMax = 4096

    private let request: String
    private let guest: any Channel
    private var accepted: EventLoopPromise<Void>?
    private var received = ByteBuffer()

    init(host: String, secret: String, guest: any Channel, accepted: EventLoopPromise<Void>) {
        request = """
            GET / HTTP/1.1\r
            Host: \(host)\r
            Connection: Upgrade, Authorization\r
            Upgrade: \(ConsoleUpgrade.name)\r
            Authorization: Bearer \(secret)\r
            \r

            """
        self.guest = guest
        self.accepted = accepted
    }

    func channelActive(context: ChannelHandlerContext) {
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: request)), promise: nil)
        context.read()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        received.writeBuffer(&bytes)
        let view = received.readableBytesView
        guard let end = view.firstRange(of: Array("\r\n\r\n".utf8)) else {
            if received.readableBytes > ConsoleRequest.headBytesMax {
                fail(context, ChannelError.inputClosed)
            } else {
                context.read()
            }
            return
        }
        guard view.starts(with: Array("HTTP/1.1 101 ".utf8)) else {
            fail(context, ResourceError.unavailable("it refuses the session"))
            return
        }
        received.moveReaderIndex(to: end.upperBound)
        join(context)
    }

    private func join(_ context: ChannelHandlerContext) {
        do {
            let (left, right) = Junction.pair()
            try context.pipeline.syncOperations.addHandler(left)
            try guest.pipeline.syncOperations.addHandler(right)
            if received.readableBytes > 0 { guest.writeAndFlush(received, promise: nil) }
            context.pipeline.syncOperations.removeHandler(self, promise: nil)
            accepted?.succeed(())
            accepted = nil
            context.channel.read()
            guest.read()
        } catch { fail(context, error) }
    }

    private func fail(_ context: ChannelHandlerContext, _ error: any Error) {
        accepted?.fail(error)
        accepted = nil
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail(context, ChannelError.inputClosed)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { fail(context, error) }
}

/// One end of two joined channels on the same event loop. It reads only while the other end can be written, so that a slow
/// reader holds up the writer instead of filling memory.
private final class Junction: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private var partner: Junction?
    private var context: ChannelHandlerContext?
    private var isReadWanted = false

    static func pair() -> (Junction, Junction) {
        let (left, right) = (Junction(), Junction())
        left.partner = right
        right.partner = left
        return (left, right)
    }

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        partner = nil
    }

    private var isWritable: Bool { context?.channel.isWritable ?? false }

    private func write(_ bytes: ByteBuffer) { context?.write(wrapOutboundOut(bytes), promise: nil) }
    private func flush() { context?.flush() }
    private func close() { context?.close(promise: nil) }

    private func readAgain() {
        guard isReadWanted else { return }
        isReadWanted = false
        context?.read()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { partner?.write(unwrapInboundIn(data)) }

    func channelReadComplete(context: ChannelHandlerContext) {
        partner?.flush()
        if partner?.isWritable == true { context.read() } else { isReadWanted = true }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { partner?.readAgain() }
    }

    func channelInactive(context: ChannelHandlerContext) {
        partner?.close()
        partner = nil
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
