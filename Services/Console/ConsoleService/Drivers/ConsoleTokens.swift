import Contracts
import Cryptography
import Database
import Kernel

/// The console that a token opens.
struct ConsoleTarget: Sendable, Hashable {
    let serverID: String
    let host: String
    let kind: ConsoleKind
}

/// The tokens that Compute has issued.
struct ConsoleTokens: Sendable {
    let database: Database
    let ambient: Ambient

    /// Uses a token up.
    ///
    /// - Returns: nil for a token that is unknown, used or expired, and when its server has left the host.
    /// - Throws: `ResourceError` when the database cannot be reached.
    func redeem(_ token: String) async throws -> ConsoleTarget? {
        let hash = Hexadecimal.encode(HashAlgorithm.sha256.hash(Array(token.utf8)))
        let now = ambient.now
        return try await database.write { connection in
            let rows = try connection.query("SELECT server_id, host, kind FROM published_redeem_console_token(\(hash), \(now))")
            guard let row = rows.first, let kind = ConsoleKind(rawValue: try row.string("kind")) else { return nil }
            return ConsoleTarget(serverID: try row.string("server_id"), host: try row.string("host"), kind: kind)
        }
    }
}
