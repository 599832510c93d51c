import Database
import Kernel
import NIOCore
import Synchronization

/// Tracks which clients are still connected.
///
/// A client that closes its sending side may still be reading (RFC 9112, 9.6), or it may be gone: TCP shows the same for both until
/// something is written. It gets a short time for its answer, and then counts as disconnected.
final class Clients: Sendable {
    private let open = Mutex<[ObjectIdentifier: ClientPresence]>([:])

    /// The client of `channel`, until the connection closes.
    func presence(_ channel: any Channel) -> ClientPresence {
        let id = ObjectIdentifier(channel)
        let (presence, isNew) = open.withLock { open in
            if let known = open[id] { return (known, false) }
            let presence = ClientPresence(source: PeerAddress.source(PeerAddress.parse(channel.remoteAddress?.ipAddress)))
            open[id] = presence
            return (presence, true)
        }
        if isNew {
            channel.closeFuture.whenComplete { [self] _ in
                open.withLock { $0[id] = nil }
                presence.leave()
            }
        }
        return presence
    }
}

extension Clients {
    /// Detects that a client closes its sending side. The channel stays open until an answer cannot be written.
    final class Watch: ChannelInboundHandler, RemovableChannelHandler, Sendable {
        typealias InboundIn = NIOAny
        private let clients: Clients
        private let patience: Duration

        /// - Parameter patience: how long a client that sends nothing more may wait for its answer.
        init(_ clients: Clients, patience: Duration) {
            self.clients = clients
            self.patience = patience
        }

        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            if case ChannelEvent.inputClosed? = event as? ChannelEvent {
                let presence = clients.presence(context.channel)
                context.eventLoop.scheduleTask(in: .nanoseconds(patience.microseconds * 1000)) { presence.leave() }
            }
            context.fireUserInboundEventTriggered(event)
        }
    }
}
