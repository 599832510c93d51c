import ComputeCore
import Database
import Kernel
import Logging
import Workflow

/// How often a workflow that must come to its end repeats what another service refuses for good. After that it goes on without, because
/// the refusal would keep a server from ever being deleted. `osctl doctor` reports what is left.
struct Refusals: Sendable {
    /// About three minutes, with the engine's pauses: an operator may change what a refusal is about.
    static let attemptsMax = 24

    /// Whether it has been repeated often enough.
    let areFinal: Bool

    init(_ context: StepContext) { areFinal = context.attempt >= Refusals.attemptsMax }
}

extension ServerSteps {
    /// Runs `body`; leaves what another service refuses for good as it is, and says so in the log and in the record of the action.
    ///
    /// - Parameter what: for the log.
    func tolerate(
        _ refusals: Refusals, of server: String, action: String = "delete", _ what: String, _ body: () async throws -> Void
    ) async throws {
        do { try await body() } catch let error as ResourceError where !error.isRetryable && refusals.areFinal {
            compute.log.error(
                "another service refuses to release something of a server, which is left",
                metadata: ["server": "\(server)", "what": "\(what)", "error": "\(error.message)"])
            let words = "Left because it was refused: \(what): \(error.message)"
            try await compute.database.write { try ServerActions.note($0, server: server, action: action, words) }
        }
    }
}
