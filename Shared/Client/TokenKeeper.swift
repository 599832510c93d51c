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
    /// Whether the current token is one that another process obtained.
    private var isFromCache = false

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
            isFromCache = current != nil
        }
        if let current, current.isFresh(at: ambient.now) { return current }
        return try await renew()
    }

    /// Discards `token` after a service has refused it.
    func discard(_ token: CloudToken) {
        guard isCurrent(token) else { return }
        current = nil
        cache?.remove()
    }

    /// Discards `token` if another process obtained it: its catalog may be older than a service of the cloud.
    ///
    /// - Returns: whether the next token is another one.
    func discardCached(_ token: CloudToken) -> Bool {
        if isFromCache { discard(token) }
        return !isCurrent(token)
    }

    private func isCurrent(_ token: CloudToken) -> Bool {
        guard let current else { return false }
        return constantTimeEqual(Array(current.secret.exposed.utf8), Array(token.secret.exposed.utf8))
    }

    private func renew() async throws -> CloudToken {
        if let pending { return try await pending.value }
        let task = Task { try await signOn() }
        pending = task
        defer { pending = nil }
        let token = try await task.value
        current = token
        isFromCache = false
        cache?.store(token)
        return token
    }
}
