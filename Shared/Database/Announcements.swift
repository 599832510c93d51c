import CLibpq
import Foundation
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
        var isRunning = false
        var isClosed = false
        var waiting: Set<Notification> = []
    }

    private let configuration: DatabaseConfiguration
    private let condition = NSCondition()
    // Guarded by `condition`.
    private nonisolated(unsafe) var state = State()
    /// The server's process behind the session that tells the others.
    private let backend = Atomic<Int32>(0)

    private static let intervalMicroseconds: UInt32 = 50_000

    init(_ configuration: DatabaseConfiguration) { self.configuration = configuration }

    /// Whether a notification has come from here, so that it is known already.
    func isOwn(backend pid: Int32) -> Bool { pid != 0 && pid == backend.load(ordering: .relaxed) }

    func addListener(_ channels: [String], _ deliver: @escaping @Sendable (Notification) -> Void) -> Int {
        condition.withLock {
            state.lastListener += 1
            state.listeners[state.lastListener] = (Set(channels), deliver)
            return state.lastListener
        }
    }

    func removeListener(_ number: Int) { _ = condition.withLock { state.listeners.removeValue(forKey: number) } }

    /// Tells those here, and puts what concerns others on the way.
    func make(_ announcements: [Announcement]) {
        guard !announcements.isEmpty else { return }
        let listeners = condition.withLock {
            for item in announcements where item.everywhere { state.waiting.insert(item.notification) }
            if !state.waiting.isEmpty, !state.isClosed {
                if !state.isRunning { start() }
                condition.signal()
            }
            return Array(state.listeners.values)
        }
        for item in Set(announcements.map(\.notification)) {
            for listener in listeners where listener.channels.contains(item.channel) { listener.deliver(item) }
        }
    }

    func close() {
        condition.withLock {
            state.isClosed = true
            condition.broadcast()
        }
    }

    // MARK: the thread

    private func start() {
        state.isRunning = true
        let thread = Thread { [self] in run() }
        thread.name = "announce"
        thread.stackSize = 1 << 18
        thread.start()
    }

    private func run() {
        let connection = Connection(configuration: configuration)
        while let some = next() {
            do {
                backend.store(PQbackendPID(try connection.open()), ordering: .relaxed)
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

    /// What has come together in a while; nil at the end.
    private func next() -> [Notification]? {
        condition.lock()
        while state.waiting.isEmpty, !state.isClosed { condition.wait() }
        condition.unlock()
        usleep(Announcements.intervalMicroseconds)
        return condition.withLock {
            guard !state.waiting.isEmpty else { return nil }
            defer { state.waiting = [] }
            return Array(state.waiting)
        }
    }
}

/// A notification for after the commit.
struct Announcement {
    let notification: Notification
    /// Also to other processes.
    let everywhere: Bool
}
