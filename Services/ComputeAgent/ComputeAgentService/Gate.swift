/// A semaphore for async tasks: limits how many run at a time; others wait in order.
package actor Gate {
    private var free: Int
    private var nextID = 0
    private var waiting: [(id: Int, continuation: CheckedContinuation<Void, any Error>)] = []

    package init(width: Int) { free = max(1, width) }

    /// Runs `body` once there is room.
    ///
    /// - Throws: what `body` throws; `CancellationError` when cancelled while waiting.
    package nonisolated func run<Value: Sendable>(
        _ body: @Sendable () async throws -> Value
    ) async throws -> Value {
        try await enter()
        do {
            let value = try await body()
            await leave()
            return value
        } catch {
            await leave()
            throw error
        }
    }

    private func enter() async throws {
        try Task.checkCancellation()
        if free > 0 {
            free -= 1
            return
        }
        let id = nextID
        nextID += 1
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { waiting.append((id, $0)) }
        } onCancel: {
            Task { await self.giveUp(id) }
        }
    }

    private func giveUp(_ id: Int) {
        guard let place = waiting.firstIndex(where: { $0.id == id }) else { return }
        waiting.remove(at: place).continuation.resume(throwing: CancellationError())
    }

    private func leave() {
        if waiting.isEmpty { free += 1 } else { waiting.removeFirst().continuation.resume() }
    }
}
