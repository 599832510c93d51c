import Glibc
import Kernel

/// Runs one seed from the empty database to the last check.
final class Run: @unchecked Sendable {
    struct Result: CustomStringConvertible {
        let seed: UInt64
        let hash: UInt64
        var violations: [String]
        let simulated: Double
        let real: Double
        let counts: [String: Int]

        var description: String {
            let head =
                "seed \(seed) \(violations.isEmpty ? "clean" : "FAILED") \(String(hash, radix: 16)) simulated \(Int(simulated)) s in \(Int(real * 1000)) ms"
            let counts = counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
            return ([head + " (\(counts))"] + violations.map { "    " + $0 }).joined(separator: "\n")
        }
    }

    private let world: World
    private static let jobsMax = 6_000_000

    init(seed: UInt64, store: SimulatedStore, isVerbose: Bool) {
        SimulationExecutor.shared.reset(seed: seed)
        world = World(seed: seed, store: store, isVerbose: isVerbose)
    }

    func execute() -> Result {
        let started = SystemTime().monotonicNanoseconds()
        var isDone = false
        let world = world
        do {
            try world.store.reset()
            try Scratch.clear()
            Plane(world: world).install(replicas: 1 + world.random.below(2))
            try world.startAll()
            let ended = Ended()
            Task {
                do { try await Story(world).tell() } catch { world.violation("the story ended: \(error)") }
                ended.value = true
            }
            try world.executor.run(jobsMax: Run.jobsMax) { ended.value }
        } catch { world.violation("\(error)") }
        isDone = true
        let simulated = Double(world.executor.now) / 1e9
        world.end()
        return Result(
            seed: world.seed, hash: world.hash, violations: world.violations, simulated: isDone ? simulated : 0,
            real: Double(SystemTime().monotonicNanoseconds() - started) / 1e9, counts: world.counts)
    }

    private final class Ended: @unchecked Sendable { var value = false }
}
