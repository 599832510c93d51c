import Authorization
import Contracts
import Cryptography
import Database
import Kernel
import WebAPI

/// The statements about tokens of consoles. Only their hashes are stored.
enum ConsoleTokenStore {
    /// The console that an unexpired token opens.
    struct Access: Sendable {
        let server: String
        let host: String
        let kind: ConsoleKind
    }

    static let createAction = "os_compute_api:os-remote-consoles"

    private static func hash(_ token: String) -> String { Hexadecimal.encode(HashAlgorithm.sha256.hash(Array(token.utf8))) }

    /// - Parameter host: the host of the server, which the token is bound to.
    static func insert(
        _ connection: Connection, _ decision: Authorized<ServerRecord>, on host: String, _ kind: ConsoleKind, token: String,
        at now: Timestamp, expiry: Timestamp
    ) throws {
        let server = try decision.value(for: createAction)
        let row: Changes = [
            "token_hash": "\(hash(token))", "server_id": "\(server.id)", "host": "\(host)", "kind": "\(kind.rawValue)",
            "expires_at": "\(expiry)",
        ]
        try connection.execute(row.insertion("console_tokens", at: now, isUpdated: false))
    }

    /// - Returns: nil for a token that is unknown, used or expired.
    static func find(_ connection: Connection, token: String, at now: Timestamp) throws -> Access? {
        let rows = try connection.query(
            """
            SELECT t.server_id, t.host, t.kind FROM console_tokens t JOIN servers s ON s.id = t.server_id
            WHERE t.token_hash = \(hash(token)) AND t.used_at IS NULL AND t.expires_at > \(now) AND NOT s.deleted AND s.host = t.host
            """)
        guard let row = rows.first, let kind = ConsoleKind(rawValue: try row.string("kind")) else { return nil }
        return Access(server: try row.string("server_id"), host: try row.string("host"), kind: kind)
    }

    /// Deletes expired tokens.
    ///
    /// - Returns: how many.
    static func forget(_ connection: Connection, before: Timestamp, limit: Int) throws -> Int {
        try connection.execute(
            """
            DELETE FROM console_tokens WHERE token_hash IN (SELECT token_hash FROM console_tokens WHERE expires_at < \(before)
                ORDER BY expires_at LIMIT \(limit) FOR UPDATE SKIP LOCKED)
            """)
    }
}
