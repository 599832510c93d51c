import Database
import JSON
import Kernel
import Logging
import Telemetry

/// One run: everything outside of the processes, the processes, and the record of events.
/// All of it is used by one thread.
final class World: @unchecked Sendable {
    let seed: UInt64
    let executor = SimulationExecutor.shared
    let random: SeededRandom
    var faults: Faults
    let store: SimulatedStore
    let broker: SimulatedBroker
    let network = SimulatedNetwork()
    let storage = SimulatedStorage()
    let steps = StepWatch()
    var hosts: [String: SimulatedMachine] = [:]
    /// The errors of processes' wall clocks, by name: a successor has the clock of its predecessor's machine.
    var clockErrors: [String: Duration] = [:]
    private(set) var violations: [String] = []
    private(set) var counts: [String: Int] = [:]
    /// FNV-1a hash of all lines of the trace.
    private(set) var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    let isVerbose: Bool
    let log: Logger
    /// Processes by name; a dead process is replaced by its successor.
    private(set) var processes: [String: SimulatedProcess] = [:]
    private var programs: [(name: String, start: (SimulatedProcess) throws -> Void)] = []
    private var isEnding = false
    /// Programs of machines without power, which do not restart by themselves.
    private var held: Set<String> = []
    private var memories = 0

    /// 2026-11-21T12:00:00Z
    static let start = Timestamp(seconds: 1_795_262_400)

    init(seed: UInt64, store: SimulatedStore, isVerbose: Bool) {
        self.seed = seed
        self.isVerbose = isVerbose
        self.store = store
        random = SeededRandom(seed: seed &* 0x9e37_79b9_7f4a_7c15 &+ 1)
        faults = Faults(random)
        broker = SimulatedBroker()
        log = Telemetry.logger(service: "simulation", level: isVerbose ? "info" : "critical", time: WorldTime())
        broker.world = self
    }

    var now: Timestamp { World.start + .microseconds(Int64(executor.now / 1000)) }

    // MARK: record

    func trace(_ text: @autoclosure () -> String) {
        let line = "\(executor.now / 1000) \(executor.jobs) \(text())"
        for byte in line.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        if isVerbose { print(line) }
    }

    func count(_ what: String) { counts[what, default: 0] += 1 }

    func maximum(_ what: String, _ value: Int) { counts[what] = max(counts[what] ?? 0, value) }

    func violation(_ text: String) {
        trace("VIOLATION \(text)")
        if violations.count < 40 { violations.append(text) }
    }

    static func digest(_ bytes: [UInt8]) -> String {
        String(bytes.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }, radix: 16)
    }

    /// Identifies the memory of a guest from its start to its end.
    func nextMemory() -> Int {
        memories += 1
        return memories
    }

    // MARK: random decisions

    /// Whether a fault with a probability of `perMille` happens now.
    func happens(_ perMille: Int, _ name: String) -> Bool {
        guard faults.isOn, perMille > 0, random.below(1000) < perMille else { return false }
        count(name)
        return true
    }

    func between(_ low: Duration, _ high: Duration) -> Duration {
        low + .microseconds(Int64(random.below(Int(max(1, (high - low).microseconds)))))
    }

    // MARK: processes

    /// Adds a program, which runs from `startAll` on and is restarted when it dies.
    func add(_ name: String, _ start: @escaping (SimulatedProcess) throws -> Void) { programs.append((name, start)) }

    func startAll() throws {
        held = []
        for program in programs where processes[program.name]?.isAlive != true { try start(program.name) }
    }

    /// Kills the process; it starts again only with `release`.
    func hold(_ name: String) {
        held.insert(name)
        if let process = processes[name] { kill(process) }
    }

    func release(_ name: String) throws {
        guard held.remove(name) != nil, processes[name]?.isAlive != true else { return }
        try start(name)
    }

    private func start(_ name: String) throws {
        guard let program = programs.first(where: { $0.name == name }) else { return }
        let process = SimulatedProcess(name: name, world: self)
        processes[name] = process
        trace("start \(name)")
        try program.start(process)
    }

    /// Kills the process: pending results never arrive, and its later actions have no effect.
    func kill(_ process: SimulatedProcess) {
        guard process.isAlive else { return }
        trace("kill \(process.name)")
        process.end()
        store.forget(process)
        broker.forget(process)
        guard !isEnding else { return }
        executor.after(between(.milliseconds(50), .seconds(8))) { [self] in
            guard !isEnding, processes[process.name] === process, !held.contains(process.name) else { return }
            do { try start(process.name) } catch { violation("\(process.name) does not start: \(error)") }
        }
    }

    /// Processes of `service`, in order.
    func replicas(_ service: String) -> [SimulatedProcess] {
        programs.filter { $0.name.hasPrefix(service + "-") }.compactMap { processes[$0.name] }.filter(\.isAlive)
    }

    var allProcesses: [SimulatedProcess] { programs.compactMap { processes[$0.name] } }

    /// Ends the run and all its tasks.
    func end() {
        isEnding = true
        faults.isOn = false
        for process in allProcesses { kill(process) }
        executor.settle()
    }
}

/// The run's own clock, for actions of no process.
struct WorldTime: TimeSource {
    func now() -> Timestamp { World.start + .microseconds(Int64(SimulationExecutor.shared.now / 1000)) }
    func databaseNow() -> Timestamp? { now() }
    func monotonicNanoseconds() -> UInt64 { SimulationExecutor.shared.now }
    func sleep(for duration: Duration) async throws { try await SimulationExecutor.shared.sleep(duration) }
}
