import Synchronization

/// A task for one step, which can be cancelled before it starts.
final class StepTask<Value: Sendable>: Sendable {
    private struct State {
        var isCancelled = false
        var task: Task<Value, Never>?
    }

    private let state = Mutex(State())

    /// Runs `body`, and cancels it when the caller's task is cancelled.
    func run(_ body: @escaping @Sendable () async -> Value) async -> Value {
        let (task, isCancelled) = state.withLock { state in
            let task = Task { await body() }
            state.task = task
            return (task, state.isCancelled)
        }
        if isCancelled { task.cancel() }
        return await withTaskCancellationHandler {
            await task.value
        } onCancel: {
            task.cancel()
        }
    }

    func cancel() {
        let task = state.withLock { state in
            state.isCancelled = true
            return state.task
        }
        task?.cancel()
    }
}
