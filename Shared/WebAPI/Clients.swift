import Database
import NIOCore
import Synchronization

/// Which connections are still there.
final class Clients: Sendable {
    private let open = Mutex<[ObjectIdentifier: ClientPresence]>([:])

    /// Of the client of `channel`, until the connection closes.
    func presence(_ channel: any Channel) -> ClientPresence {
        let id = ObjectIdentifier(channel)
        let (presence, isNew) = open.withLock { open in
            if let known = open[id] { return (known, false) }
            let presence = ClientPresence(source: channel.remoteAddress?.ipAddress ?? "")
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
