import JSON
import Kernel

/// Holds the current token. Concurrent callers share one sign-on request.
actor TokenKeeper {
    private let ambient: Ambient
    private let cache: (any TokenCache)?
    private let signOn: @Sendable () async throws -> CloudToken
    private var current: CloudToken?
    private var pending: Task<CloudToken, any Error>?
    private var hasReadCache = false

    init(ambient: Ambient, cache: (any TokenCache)?, signOn: @escaping @Sendable () async throws -> CloudToken) {
        self.ambient = ambient
        self.cache = cache
        self.signOn = signOn
    }

    /// A token that is valid for long enough.
    func token() async throws -> CloudToken {
        if !hasReadCache {
            hasReadCache = true
            current = cache?.load()
        }
        if let current, current.isFresh(at: ambient.now) { return current }
        return try await renew()
    }

    /// Discards `token` after a service has refused it.
    func discard(_ token: CloudToken) {
        guard let current, constantTimeEqual(Array(current.secret.exposed.utf8), Array(token.secret.exposed.utf8)) else {
            return
        }
        self.current = nil
        cache?.remove()
    }

    private func renew() async throws -> CloudToken {
        if let pending { return try await pending.value }
        let task = Task { try await signOn() }
        pending = task
        defer { pending = nil }
        let token = try await task.value
        current = token
        cache?.store(token)
        return token
    }
}
