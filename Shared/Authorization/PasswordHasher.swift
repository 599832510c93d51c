import CCrypt
import Cryptography
import Database
import Foundation
package import Kernel
import Synchronization

/// Hashes and checks passwords with yescrypt on dedicated threads, one per core. Hashing then neither blocks the request path nor
/// needs memory for more hashes at a time (16 MiB each at the default cost).
package final class PasswordHasher: Sendable {
    private typealias Job = @Sendable () -> Void

    private struct State {
        /// Queued by source address, so that a flood from one address delays a sign-on from another by one turn only.
        var waiting = FairQueue<Job>(runningMax: Int.max)
        /// Number of waiting jobs by address and user.
        var ofUser: [String: Int] = [:]
        var idle = 0
        var threads = 0
    }

    /// Maximum number of waiting sign-ons; further ones are refused with 503.
    private static let waitingMax = 512
    /// Maximum of one address for one user; further ones get 429.
    private static let userWaitingMax = 32

    private let cost: Int
    private let threadsMax: Int
    private let random: any RandomSource
    private let condition = NSCondition()
    // Guarded by `condition`.
    private nonisolated(unsafe) var state = State()
    /// A hash that is checked for unknown users, so that they take as long as a wrong password.
    private let decoy: String

    private let hashes = Atomic(0)
    /// Number of hashes computed so far.
    package var hashesDone: Int { hashes.load(ordering: .relaxed) }
    /// Called before each password is hashed, on the hashing thread.
    private let willHash: (@Sendable (Secret<String>) -> Void)?

    /// Number of jobs that wait for a thread.
    var waitingCount: Int { condition.withLock { state.waiting.count } }

    /// - Parameters:
    ///   - cost: 1 to 11, as crypt(5) defines it for yescrypt; each step doubles time and memory.
    ///   - threads: number of concurrent hashes; nil for one per core.
    ///   - willHash: lets tests control when a thread continues.
    package init(
        cost: Int = 5, threads: Int? = nil, random: any RandomSource = SystemRandom(),
        willHash: (@Sendable (Secret<String>) -> Void)? = nil
    ) {
        precondition((1...11).contains(cost))
        self.cost = cost
        self.random = random
        self.willHash = willHash
        threadsMax = threads ?? max(1, ProcessInfo.processInfo.activeProcessorCount)
        decoy =
            PasswordHasher.setting(cost: cost, salt: Array(repeating: 0, count: 16))
            + "$" + String(repeating: ".", count: 43)
    }

    /// A salted hash for storage.
    ///
    /// - Throws: 503 if too many jobs wait.
    package func hash(_ password: Secret<String>) async throws -> String {
        guard PasswordHasher.isUsable(password) else {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute password. It must have 1 to \(PasswordHasher.bytesMax) bytes, none of them NUL.")
        }
        let setting = PasswordHasher.setting(cost: cost, salt: random.bytes(16))
        let hash = try await WorkSeat.yielding { try await onThread { self.crypt(password, setting) } }
        guard let hash else { throw ResourceError.internalError("crypt refused the setting \(setting.prefix(8))") }
        return hash
    }

    /// Whether `hash` was made from `password`. A nil hash takes the same time and never matches.
    ///
    /// - Parameter user: the user who signs on.
    /// - Throws: 503 if too many jobs wait, 429 if too many of this client for this user wait.
    package func verify(_ password: Secret<String>, hash: String?, of user: String = "") async throws -> Bool {
        let stored = hash ?? decoy
        // crypt(3) stops at a NUL; bytes after it would not be checked.
        guard PasswordHasher.isUsable(password) else { return false }
        let computed = try await WorkSeat.yielding { try await onThread(user) { self.crypt(password, stored) } }
        guard let computed, hash != nil else { return false }
        return constantTimeEqual(Array(computed.utf8), Array(stored.utf8))
    }

    /// Longest password, in bytes of UTF-8.
    private static let bytesMax = 4096

    private static func isUsable(_ password: Secret<String>) -> Bool {
        let bytes = password.exposed.utf8
        return (1...bytesMax).contains(bytes.count) && !bytes.contains(0)
    }

    // MARK: yescrypt

    /// The parameter part of a `$y$` setting, as libxcrypt's `crypt_gensalt` writes it.
    static func setting(cost: Int, salt: [UInt8]) -> String {
        let blocks = cost < 3 ? 8 : 32
        let exponent = cost < 3 ? cost + 9 : cost + 7
        return "$y$j" + String(digits[exponent - 1]) + String(digits[blocks - 1]) + "$" + encode(salt)
    }

    private static let digits = Array("./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

    /// yescrypt's base 64: groups of three bytes, least significant first.
    private static func encode(_ bytes: [UInt8]) -> String {
        var text = ""
        for start in stride(from: 0, to: bytes.count, by: 3) {
            var value: UInt32 = 0
            var bits = 0
            for byte in bytes[start..<min(start + 3, bytes.count)] {
                value |= UInt32(byte) << UInt32(bits)
                bits += 8
            }
            while bits > 0 {
                text.append(digits[Int(value & 63)])
                value >>= 6
                bits -= 6
            }
        }
        return text
    }

    /// Longest passphrase that crypt(3) accepts: CRYPT_MAX_PASSPHRASE_SIZE includes the NUL.
    private static let cryptBytesMax = 511

    /// The input of crypt(3): the password, or the base64 of its SHA-512 if the password is too long.
    private static func passphrase(_ password: String) -> String {
        guard password.utf8.count > cryptBytesMax else { return password }
        return Data(HashAlgorithm.sha512.hash(password.utf8)).base64EncodedString()
    }

    private func crypt(_ password: Secret<String>, _ setting: String) -> String? {
        hashes.add(1, ordering: .relaxed)
        willHash?(password)
        var output = [CChar](repeating: 0, count: 384)
        guard wolke_crypt(PasswordHasher.passphrase(password.exposed), setting, &output, output.count) == 0 else { return nil }
        return String(decoding: output.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    // MARK: threads

    private func onThread<Value: Sendable>(_ user: String = "", _ body: @escaping @Sendable () -> Value) async throws -> Value {
        let source = DatabaseScope.current.source
        return try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Value, any Error>) in
            if let refusal = enqueue(source, user, { continuation.resume(returning: body()) }) { continuation.resume(throwing: refusal) }
        }
    }

    /// - Returns: the error if the job cannot wait.
    private func enqueue(_ source: String, _ user: String, _ job: @escaping Job) -> ResourceError? {
        condition.lock()
        defer { condition.unlock() }
        guard state.waiting.count < PasswordHasher.waitingMax else { return .unavailable("too many password checks are waiting") }
        let share = "\(source) \(user)"
        guard user.isEmpty || state.ofUser[share, default: 0] < PasswordHasher.userWaitingMax else {
            return ResourceError(.tooManyRequests, "Too many sign-ons of this user are waiting; try again.", retryAfter: 1)
        }
        state.ofUser[share, default: 0] += 1
        _ = state.waiting.append(
            { [self] in
                condition.withLock {
                    state.ofUser[share, default: 1] -= 1
                    if state.ofUser[share] == 0 { state.ofUser[share] = nil }
                }
                job()
            }, of: source)
        if state.waiting.count > state.idle, state.threads < threadsMax {
            state.threads += 1
            let thread = Thread { [self] in while true { next() } }
            thread.name = "password"
            thread.stackSize = 1 << 20
            thread.start()
        } else {
            condition.signal()
        }
        return nil
    }

    /// Waits for the next job and runs it.
    private func next() {
        condition.lock()
        while true {
            if let (job, source) = state.waiting.next() {
                condition.unlock()
                job()
                condition.withLock { state.waiting.finish(source) }
                return
            }
            state.idle += 1
            condition.wait()
            state.idle -= 1
        }
    }
}
