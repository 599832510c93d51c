import ArgumentParser
import Authorization
import Kernel

/// The ceiling of password sign-ons: checks of one hash on all cores, with nothing around them.
struct Hashing: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hash", abstract: "Checks a password against a stored hash again and again; prints checks per second.")

    @Option(help: "A stored hash; its own cost is used.")
    var like: String

    @Option(help: "Seconds.")
    var seconds = 5

    func run() async throws {
        let hasher = PasswordHasher()
        let time = Ambient().time
        let end = time.monotonicNanoseconds() + UInt64(seconds) * 1_000_000_000
        let stored = like
        let checks = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<16 {
                group.addTask {
                    var checks = 0
                    while time.monotonicNanoseconds() < end {
                        _ = try await hasher.verify(Secret("not the password"), hash: stored)
                        checks += 1
                    }
                    return checks
                }
            }
            return try await group.reduce(0, +)
        }
        print("{\"hashes_per_second\": \(Double(checks) / Double(seconds))}")
    }
}
