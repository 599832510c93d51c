import Database
import Kernel
import Logging

extension Identity {
    /// Removes what has become meaningless, every ten minutes until cancelled: revocations of tokens that have expired
    /// anyway, and all but the newest of the changes that every service has seen long ago.
    func upkeep(_ log: Logger) async throws {
        while true {
            do { try await upkeepOnce() } catch let error as ResourceError {
                log.warning("upkeep failed; it will be tried again", metadata: ["error": "\(error.context ?? error.message)"])
            }
            try await ambient.time.sleep(for: .seconds(600))
        }
    }

    func upkeepOnce() async throws {
        let now = ambient.now
        let dayAgo = now + .seconds(-86_400)
        try await database.write { connection in
            try connection.execute("DELETE FROM token_revocations WHERE expires_at < \(now)")
            try connection.execute(
                "DELETE FROM identity_changes WHERE at < \(dayAgo) AND id < (SELECT max(id) FROM identity_changes)")
        }
    }
}
