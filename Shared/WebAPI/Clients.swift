import Database
import NIOCore
import Synchronization

/// Tracks which clients are still connected. A client that half-closes its connection counts as gone, although it might
/// still read.
final class Clients: Sendable {
    private let open = Mutex<[ObjectIdentifier: ClientPresence]>([:])

    /// Of the client of `channel`, until the connection closes.
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
    /// Notices that a client closes its side. The channel stays open then, until an answer cannot be written.
    final class Watch: ChannelInboundHandler, RemovableChannelHandler, Sendable {
        typealias InboundIn = NIOAny
        private let clients: Clients

        init(_ clients: Clients) { self.clients = clients }

        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            if case ChannelEvent.inputClosed? = event as? ChannelEvent { clients.presence(context.channel).leave() }
            context.fireUserInboundEventTriggered(event)
        }
    }
}
