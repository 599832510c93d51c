import CLibpq
import Synchronization

/// Notifications that follow a commit instead of being part of it.
///
/// A transaction that notifies takes PostgreSQL's one lock for that until its commit is on disk, so that such commits
/// go one after the other. What is announced here is told to this process at once when the transaction has committed,
/// and a little later, many together, to the others. A process that dies in between tells nobody: good for hints that
/// are found in tables too.
final class Announcements: Sendable {
    private struct State {
        var listeners: [Int: (channels: Set<String>, deliver: @Sendable (Notification) -> Void)] = [:]
        var lastListener = 0
    }

    private let state = Mutex(State())
    /// The server's process behind the session that tells the others.
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

    /// Whether a notification has come from here, so that it is known already.
    func isOwn(backend pid: Int32) -> Bool { pid != 0 && pid == backend.pid.load(ordering: .relaxed) }

    func addListener(_ channels: [String], _ deliver: @escaping @Sendable (Notification) -> Void) -> Int {
        state.withLock { state in
            state.lastListener += 1
            state.listeners[state.lastListener] = (Set(channels), deliver)
            return state.lastListener
        }
    }

    func removeListener(_ number: Int) { _ = state.withLock { $0.listeners.removeValue(forKey: number) } }

    /// Tells those here, and puts what concerns others on the way.
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
        // What comes together in a while goes in one statement.
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
                // Whoever listens has lost its session too, and looks at everything when it has a new one.
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
