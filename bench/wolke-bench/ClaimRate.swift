import ArgumentParser
import Contracts
import Database
import JSON
import Kernel
import PlacementCore
import PlacementService

/// The scheduler with its claims in the database: decision, transaction, commit.
struct ClaimRate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "claims", abstract: "Asks the scheduler for hosts again and again; prints committed claims per second.")

    @Option(help: "libpq connection string of a database with the schema and with hosts.")
    var database: String

    @Option(help: "Requests at once.")
    var concurrency = 32

    @Option(help: "Sessions with PostgreSQL, as the service has by default.")
    var connections = 8

    @Option(help: "Seconds.")
    var seconds = 3

    @Option(help: "End after so many claims; 0 means by time.")
    var claims = 0

    func run() async throws {
        let ambient = Ambient()
        let pool = Database(DatabaseConfiguration(connectionString: database, connectionsMax: connections))
        let placement = Placement(database: pool, ambient: ambient)
        // The first one reads the fleet.
        if claims == 0 { try await ClaimRate.claim(placement, ambient) }
        let begun = ambient.time.monotonicNanoseconds()
        let end = begun + UInt64(seconds) * 1_000_000_000
        let claims = claims
        let done = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<(claims > 0 ? 1 : concurrency) {
                group.addTask {
                    var done = 0
                    while claims > 0 ? done < claims : ambient.time.monotonicNanoseconds() < end {
                        try await ClaimRate.claim(placement, ambient)
                        done += 1
                    }
                    return done
                }
            }
            return try await group.reduce(0, +)
        }
        let took = Double(ambient.time.monotonicNanoseconds() - begun) / 1e9
        print("{\"claims_per_second\": \(Double(done) / took), \"claims\": \(done)}")
    }

    private static func claim(_ placement: Placement, _ ambient: Ambient) async throws {
        let question = ScheduleServer(
            operationID: ambient.newUUID().description, consumerID: ambient.newUUID().description, projectID: "bench", userID: "bench",
            resources: ["VCPU": 1, "MEMORY_MB": 64, "DISK_GB": 1])
        let answer = try await placement.schedule(try question.document())
        guard answer["result"]?.stringValue == "scheduled" else { throw ValidationError("refused: \(answer)") }
    }
}
