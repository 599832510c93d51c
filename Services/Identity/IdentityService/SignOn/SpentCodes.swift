import Authorization
import Cryptography
import Database
import Kernel

/// Ensures that each one-time code is used only once.
extension Identity {
    /// Number of consecutive wrong codes after which a user's codes are refused for a while, because a code has only a
    /// million values.
    private static let wrongCodesMax = 5
    private static let wrongCodesPause: Duration = .seconds(300)

    /// Whether `code` is one that an authenticator of the user shows now or showed in the step before, and was not used
    /// yet. Uses it up.
    func spendCode(_ code: Secret<String>, user: String) async throws -> Bool {
        let keys = try requireKeys()
        let now = ambient.now
        let step = OneTimeCode.step(at: now)
        return try await database.write { connection in
            let account = try connection.query(
                "SELECT failed_codes, failed_code_at FROM users WHERE id = \(user) FOR NO KEY UPDATE")
            guard let account = account.first else { return false }
            let failed = try account.int("failed_codes")
            let pausedSince = try account.optionalTimestamp("failed_code_at")
            let recent = pausedSince.map { now < $0 + Identity.wrongCodesPause } ?? false
            if recent, failed >= Identity.wrongCodesMax { return false }
            let rows = try connection.query(
                """
                SELECT id, type, key_id, last_step, encode(sealed, 'hex') AS sealed FROM credentials
                WHERE user_id = \(user) AND type = 'totp' ORDER BY id
                """)
            for row in rows {
                let (id, last) = (try row.string("id"), Int64(try row.int("last_step")))
                let blob = try keys.open(
                    Hexadecimal.decode(try row.string("sealed")) ?? [], keyID: try row.string("key_id"),
                    context: StoredCredential.context(id, user, "totp"))
                guard let secret = OneTimeCode.secret(base32: blob) else { continue }
                let right = [step, step - 1].first { step in
                    step > last
                        && constantTimeEqual(Array(OneTimeCode.code(secret: secret, step: step).utf8), Array(code.exposed.utf8))
                }
                guard let right else { continue }
                try connection.execute("UPDATE credentials SET last_step = \(right) WHERE id = \(id)")
                try connection.execute("UPDATE users SET failed_codes = 0, failed_code_at = NULL WHERE id = \(user)")
                return true
            }
            try connection.execute(
                "UPDATE users SET failed_codes = \(recent ? failed + 1 : 1), failed_code_at = \(now) WHERE id = \(user)")
            return false
        }
    }
}
