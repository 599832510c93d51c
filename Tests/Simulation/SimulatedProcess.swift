import Database
import Kernel
import WebAPI

/// One instance of a program: its tasks end with it, and later actions have no effect.
final class SimulatedProcess: @unchecked Sendable {
    let name: String
    let world: World
    private(set) var isAlive = true
    /// The handler of its requests.
    var api: API? {
        didSet { api?.scheduler = RequestScheduler(.init(processors: 2), time: ProcessTime(process: self)) }
    }
    private var tasks: [Int: Task<Void, Never>] = [:]
    private var watches: [Int: () -> Void] = [:]
    private var numbers = 0

    init(name: String, world: World) {
        self.name = name
        self.world = world
    }

    var ambient: Ambient { Ambient(time: ProcessTime(process: self), random: world.random) }
    var database: Database { Database(inline: ProcessSession(process: self), random: world.random) }
    var bus: SimulatedBus { SimulatedBus(process: self) }

    /// Runs a loop of the program; it is an error if the loop ends before the process.
    func loop(_ name: String, _ body: @escaping @Sendable () async throws -> Void) {
        spawn { [self] in
            do {
                try await body()
                if isAlive { world.violation("\(self.name): the loop \(name) ended") }
            } catch {
                if isAlive { world.violation("\(self.name): the loop \(name) ended: \(error)") }
            }
        }
    }

    func spawn(_ body: @escaping @Sendable () async -> Void) {
        numbers += 1
        let number = numbers
        tasks[number] = Task { [self] in
            await body()
            tasks[number] = nil
        }
    }

    /// Calls `action` when the process dies, unless `unwatch` comes first.
    func watch(_ action: @escaping () -> Void) -> Int {
        numbers += 1
        watches[numbers] = action
        return numbers
    }

    func unwatch(_ number: Int) { watches[number] = nil }

    fileprivate func requireAlive() throws {
        if !isAlive { throw CancellationError() }
    }

    /// An external call: takes time, and the process may die in it.
    func reach(_ what: String) async throws {
        try requireAlive()
        try await world.executor.sleep(world.between(.microseconds(50), .microseconds(1500)))
        try requireAlive()
        if world.happens(world.faults.kills, "kill") {
            world.trace("dies at \(what)")
            world.kill(self)
            throw CancellationError()
        }
    }

    func end() {
        isAlive = false
        api = nil
        for number in watches.keys.sorted() { watches[number]?() }
        watches = [:]
        for number in tasks.keys.sorted() { tasks[number]?.cancel() }
        tasks = [:]
    }
}

/// A process's clock: its own wall time, with the simulation's monotonic time.
struct ProcessTime: TimeSource {
    let process: SimulatedProcess

    func now() -> Timestamp { process.world.now + (process.world.clockErrors[process.name] ?? .zero) }
    func databaseNow() -> Timestamp? { process.world.now }
    func monotonicNanoseconds() -> UInt64 { process.world.executor.now }

    func sleep(for duration: Duration) async throws {
        try process.requireAlive()
        try await process.world.executor.sleep(duration)
        try process.requireAlive()
    }
}
