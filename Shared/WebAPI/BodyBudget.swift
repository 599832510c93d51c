import Synchronization

/// Bytes of request bodies that this process holds at once, so that many large bodies cannot fill its memory.
package final class BodyBudget: Sendable {
    private struct State {
        var held = 0
        var perOwner: [String: Int] = [:]
    }

    /// The total limit, and the limit of one owner: a project, or a source address for requests without a token.
    package let bytesMax: Int
    package var bytesPerOwnerMax: Int { max(bytesMax / 4, min(bytesMax, 2 << 20)) }
    /// Allows 32 unauthenticated bodies of the largest size, so that one address cannot keep others from signing on.
    private static let anonymousBytesMax = 2 << 20
    private let state = Mutex(State())

    /// - Parameter bytesMax: the total limit in bytes.
    package init(bytesMax: Int = 64 << 20) { self.bytesMax = bytesMax }

    /// Bytes currently held.
    package var held: Int { state.withLock { $0.held } }

    /// The memory that one request holds, released when the request ends.
    final class Share: Sendable {
        private let budget: BodyBudget
        private let owner: String
        private let most: Int
        private let bytes = Mutex(0)

        fileprivate init(_ budget: BodyBudget, _ owner: String, most: Int) {
            self.budget = budget
            self.owner = owner
            self.most = most
        }

        deinit { budget.release(bytes.withLock { $0 }, owner) }

        /// Reserves `count` more bytes; returns false if the budget is exhausted.
        func take(_ count: Int) -> Bool {
            guard budget.take(count, owner, most: most) else { return false }
            bytes.withLock { $0 += count }
            return true
        }
    }

    /// - Parameter owner: the owner whose share it counts against.
    func share(of owner: String) -> Share { Share(self, owner, most: bytesPerOwnerMax) }

    /// - Parameter source: the source address of a request without a token.
    func share(ofAnonymous source: String) -> Share {
        Share(self, "from " + source, most: min(bytesPerOwnerMax, BodyBudget.anonymousBytesMax))
    }

    private func take(_ count: Int, _ owner: String, most: Int) -> Bool {
        state.withLock { state in
            let own = state.perOwner[owner, default: 0] + count
            guard state.held + count <= bytesMax, own <= most else { return false }
            state.held += count
            state.perOwner[owner] = own
            return true
        }
    }

    private func release(_ count: Int, _ owner: String) {
        state.withLock { state in
            state.held -= count
            let own = state.perOwner[owner, default: 0] - count
            state.perOwner[owner] = own > 0 ? own : nil
        }
    }
}
