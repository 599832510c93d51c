import CLibpq
import Synchronization

/// Notifications that follow a commit instead of being part of it.
///
/// A transaction that uses `NOTIFY` holds a database-wide lock until its commit is on disk, so such commits are serialized.
/// Announcements are delivered to this process right after the commit, and in batches to other processes a little later.
/// They are lost if the process dies in between, so use them only for hints that can also be found in tables.
final class Announcements: Sendable {
    private struct State {
        var listeners: [Int: (channels: Set<String>, deliver: @Sendable (Notification) -> Void)] = [:]
        var lastListener = 0
    }

    private let state = Mutex(State())
    /// PID of the PostgreSQL backend behind the session that notifies other processes.
    private let backend: Backend
    private let others: ThreadMailbox<Notification>

    private final class Backend: Sendable {
        let pid = Atomic<Int32>(0)
    }

    private static let intervalMicroseconds: UInt32 = 50_000

    init(_ configuration: DatabaseConfiguration) {
        let backend = Backend()
        self.backend = backend
        others = ThreadMailbox("announce") { Announcements.tell($0, configuration, backend) }
    }

    /// Whether this process sent the notification, so that it has been delivered already.
    func isOwn(backend pid: Int32) -> Bool { pid != 0 && pid == backend.pid.load(ordering: .relaxed) }

    func addListener(_ channels: [String], _ deliver: @escaping @Sendable (Notification) -> Void) -> Int {
        state.withLock { state in
            state.lastListener += 1
            state.listeners[state.lastListener] = (Set(channels), deliver)
            return state.lastListener
        }
    }

    func removeListener(_ number: Int) { _ = state.withLock { $0.listeners.removeValue(forKey: number) } }

    /// Delivers to listeners in this process and queues the rest for other processes.
    func make(_ announcements: [Announcement]) {
        guard !announcements.isEmpty else { return }
        others.put(announcements.filter(\.everywhere).map(\.notification))
        let listeners = state.withLock { Array($0.listeners.values) }
        for item in Set(announcements.map(\.notification)) {
            for listener in listeners where listener.channels.contains(item.channel) { listener.deliver(item) }
        }
    }

    func close() { others.close() }

    // MARK: the thread

    private static func tell(_ mailbox: ThreadMailbox<Notification>, _ configuration: DatabaseConfiguration, _ backend: Backend) {
        let connection = Connection(configuration: configuration)
        // Announcements that arrive within the delay are sent in one statement.
        while let all = mailbox.take(after: intervalMicroseconds) {
            let some = Array(Set(all))
            do {
                backend.pid.store(PQbackendPID(try connection.open()), ordering: .relaxed)
                try connection.query(
                    """
                    SELECT pg_notify(c, p)
                    FROM unnest(\(some.map(\.channel))::text[], \(some.map(\.payload))::text[]) AS n (c, p)
                    """)
            } catch {
                // Listeners have lost their session too, and read everything again after they reconnect.
                connection.close()
            }
        }
        connection.close()
    }
}

/// A notification for after the commit.
struct Announcement {
    let notification: Notification
    /// Also to other processes.
    let everywhere: Bool
}
