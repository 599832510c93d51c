import ComputeCore
import Database
import Kernel
import Logging
import Workflow

/// How often a workflow that must finish retries a request that another service refuses permanently. Afterwards it continues without it;
/// otherwise the refusal would prevent the deletion of the server forever. `osctl doctor` reports what is left.
struct Refusals: Sendable {
    /// About three minutes, with the engine's pauses, in which an operator may remove the cause of a refusal.
    static let attemptsMax = 24

    /// Whether the request has been retried often enough.
    let areFinal: Bool

    init(_ context: StepContext) { areFinal = context.attempt >= Refusals.attemptsMax }
}

extension ServerSteps {
    /// Runs `body`. If another service refuses permanently, ignores the error, and records it in the log and in the record of the action.
    ///
    /// - Parameter what: for the log.
    func tolerate(
        _ refusals: Refusals, of server: String, action: String = "delete", _ what: String, _ body: () async throws -> Void
    ) async throws {
        do { try await body() } catch let error as ResourceError where !error.isRetryable && refusals.areFinal {
            compute.log.error(
                "another service refuses to release something of a server, which is left",
                metadata: ["server": "\(server)", "what": "\(what)", "error": "\(error.message)"])
            let text = "Not released, because the request was refused: \(what): \(error.message)"
            try await compute.database.write { try ServerActions.note($0, server: server, action: action, text) }
        }
    }
}
