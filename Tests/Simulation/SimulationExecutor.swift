@_spi(ExperimentalCustomExecutors) import _Concurrency
import Kernel

/// Runs all jobs of all tasks on one thread. The seed determines which ready job runs next. When none is ready, the clock jumps
/// to the next timer, so that waiting takes no time.
final class SimulationExecutor: TaskExecutor, @unchecked Sendable {
    static let shared = SimulationExecutor()

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private struct Timer {
        let at: UInt64
        let number: Int
    }

    private var ready: [UnownedJob] = []
    private var timers: [Timer] = []
    private var actions: [Int: () -> Void] = [:]
    private var numbers = 0
    private var random = SeededRandom(seed: 0)
    /// Nanoseconds since the start of the run.
    private(set) var now: UInt64 = 0
    private(set) var jobs = 0

    /// From here on, all tasks of this process run on this executor. Must be called once, before the first task.
    static func install() { _createExecutors(factory: Factory.self) }

    private struct Factory: ExecutorFactory {
        static var mainExecutor: any MainExecutor { PlatformExecutorFactory.mainExecutor }
        static var defaultExecutor: any TaskExecutor { SimulationExecutor.shared }
    }

    func enqueue(_ job: consuming ExecutorJob) { ready.append(UnownedJob(job)) }

    /// Restarts at time 0.
    func reset(seed: UInt64) {
        random = SeededRandom(seed: seed)
        timers = []
        actions = [:]
        numbers = 0
        now = 0
        jobs = 0
    }

    // MARK: timers

    /// Runs `action` after `delay`.
    @discardableResult
    func after(_ delay: Duration, _ action: @escaping () -> Void) -> Int {
        numbers += 1
        actions[numbers] = action
        push(Timer(at: now + UInt64(max(0, delay.microseconds)) * 1000, number: numbers))
        return numbers
    }

    func cancel(_ timer: Int) { actions[timer] = nil }

    private func isEarlier(_ left: Int, _ right: Int) -> Bool {
        (timers[left].at, timers[left].number) < (timers[right].at, timers[right].number)
    }

    private func push(_ timer: Timer) {
        timers.append(timer)
        var index = timers.count - 1
        while index > 0, isEarlier(index, (index - 1) / 2) {
            timers.swapAt(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    private func pop() -> Timer? {
        guard let first = timers.first else { return nil }
        let last = timers.removeLast()
        guard !timers.isEmpty else { return first }
        timers[0] = last
        var index = 0
        while true {
            var least = index
            for child in [2 * index + 1, 2 * index + 2] where child < timers.count && isEarlier(child, least) { least = child }
            if least == index { return first }
            timers.swapAt(index, least)
            index = least
        }
    }

    // MARK: running

    /// Runs until `isDone` returns true.
    ///
    /// - Throws: `Failure` if nothing can happen any more, or if there are too many events.
    func run(jobsMax: Int, until isDone: () -> Bool) throws {
        let executor = asUnownedTaskExecutor()
        while !isDone() {
            if !ready.isEmpty {
                let index = ready.count == 1 ? 0 : random.below(ready.count)
                ready.swapAt(index, ready.count - 1)
                jobs += 1
                guard jobs < jobsMax else { throw Failure(description: "\(jobs) jobs have run: something spins") }
                ready.removeLast().runSynchronously(on: executor)
            } else if let timer = pop() {
                guard let action = actions.removeValue(forKey: timer.number) else { continue }
                now = max(now, timer.at)
                action()
            } else {
                throw Failure(description: "every task waits and no timer is set")
            }
        }
    }

    /// Runs cancelled tasks to their end.
    func settle(jobsMax: Int = 200_000) {
        let executor = asUnownedTaskExecutor()
        var count = 0
        while let job = ready.popLast(), count < jobsMax {
            count += 1
            job.runSynchronously(on: executor)
        }
        ready = []
    }

    /// Suspends the task for `duration` of simulated time.
    ///
    /// - Throws: `CancellationError`.
    func sleep(_ duration: Duration) async throws {
        let wait = Wait<Void>()
        try await wait.value { self.after(duration) { wait.finish(.success(())) } }
    }
}

/// A value that one task waits for.
final class Wait<Value: Sendable>: @unchecked Sendable {
    private var continuation: CheckedContinuation<Value, any Error>?
    private var result: Result<Value, any Error>?

    var isFinished: Bool { result != nil }

    func finish(_ result: Result<Value, any Error>) {
        guard self.result == nil else { return }
        self.result = result
        continuation?.resume(with: result)
        continuation = nil
    }

    /// Also waits in a cancelled task.
    func kept() async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            if let result { continuation.resume(with: result) } else { self.continuation = continuation }
        }
    }

    /// - Parameter start: starts the operation that provides the value; its timer is cancelled at the end.
    func value(_ start: () -> Int? = { nil }) async throws -> Value {
        let timer = start()
        defer { if let timer { SimulationExecutor.shared.cancel(timer) } }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                if let result { continuation.resume(with: result) } else { self.continuation = continuation }
            }
        } onCancel: {
            finish(.failure(CancellationError()))
        }
    }
}
