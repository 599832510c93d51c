import Foundation

/// A queue of items with its own thread, which may block and starts with the first item.
final class ThreadMailbox<Item: Sendable>: Sendable {
    private struct State {
        var waiting: [Item] = []
        var isRunning = false
        var isClosed = false
    }

    private let name: String
    private let run: @Sendable (ThreadMailbox<Item>) -> Void
    private let condition = NSCondition()
    // Guarded by `condition`.
    private nonisolated(unsafe) var state = State()

    /// - Parameters:
    ///   - name: the thread's name in debuggers.
    ///   - run: takes items until there will be no more.
    init(_ name: String, run: @escaping @Sendable (ThreadMailbox<Item>) -> Void) {
        self.name = name
        self.run = run
    }

    /// Gives items to the thread; they are dropped once the mailbox is closed.
    func put(_ items: [Item]) {
        guard !items.isEmpty else { return }
        condition.withLock {
            guard !state.isClosed else { return }
            state.waiting += items
            if !state.isRunning { start() }
            condition.signal()
        }
    }

    /// Closes the mailbox. The thread ends when it has taken the remaining items.
    func close() {
        condition.withLock {
            state.isClosed = true
            condition.broadcast()
        }
    }

    /// Waits for items, on the thread.
    ///
    /// - Parameter microseconds: how long to wait after the first item, to collect more into one batch.
    /// - Returns: all waiting items; nil after the last ones.
    func take(after microseconds: UInt32 = 0) -> [Item]? {
        condition.withLock { while state.waiting.isEmpty, !state.isClosed { condition.wait() } }
        if microseconds > 0 { usleep(microseconds) }
        return condition.withLock {
            guard !state.waiting.isEmpty else { return nil }
            defer { state.waiting = [] }
            return state.waiting
        }
    }

    private func start() {
        state.isRunning = true
        let thread = Thread { [self] in run(self) }
        thread.name = name
        thread.stackSize = 1 << 18
        thread.start()
    }
}
