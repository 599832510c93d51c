import Contracts
import Database
import Kernel
import PlacementCore
import Synchronization

/// The fleet in memory, kept close to the database's state. Only the claim in SQL is authoritative; the cache makes it usually
/// succeed at the first attempt.
package final class FleetCache: Sendable {
    private struct State {
        var fleet = Fleet()
        var loadedAt: UInt64?
        var fingerprint = ""
        var checkedAt: UInt64 = 0
        var checkInterval: UInt64 = FleetCache.checkIntervalMin
        var stale: Set<String> = []
        var untold: Set<String> = []
    }

    private let ambient: Ambient
    private let loader: FleetLoader
    private let state = Mutex(State())
    /// Held while hosts are read, so that several threads do not read the same hosts.
    private let loading = Mutex(())
    /// Identifies this process in announcements of its own claims, which the cache already contains.
    let origin: String

    private static let checkIntervalMin: UInt64 = 200_000_000
    /// Time between two announcements. Many changes are announced together, because commits with notifications are serialized.
    static let announceInterval: Duration = .milliseconds(100)
    /// Maximum number of ids in one announcement; PostgreSQL limits it to 8000 bytes.
    private static let announceMax = 150

    init(ambient: Ambient, weights: SchedulingWeights, hostSilence: Duration) {
        self.ambient = ambient
        loader = FleetLoader(weights: weights, hostSilence: hostSilence)
        origin = ambient.newUUID().description
    }

    /// Reads or changes the fleet in memory. The body must not block.
    func withFleet<Value: Sendable>(_ body: (inout Fleet) -> Value) -> Value {
        state.withLock { body(&$0.fleet) }
    }

    // MARK: refreshing

    /// Applies the known changes to the fleet.
    ///
    /// - Parameter since: monotonic nanoseconds; everything is read again unless that was done after this time.
    func refresh(_ connection: Connection, since: UInt64 = 0) throws {
        let clock = ambient.time.monotonicNanoseconds()
        let (loaded, stale, check) = state.withLock { state in
            ((state.loadedAt ?? 0) > since && state.loadedAt != nil, !state.stale.isEmpty, clock >= state.checkedAt &+ state.checkInterval)
        }
        if loaded, !stale, !check { return }
        try loading.withLock { _ in
            if !loaded { return try load(connection, since: since) }
            if check { try compare(connection, clock) }
            try reload(connection)
        }
    }

    private func load(_ connection: Connection, since: UInt64) throws {
        let done = state.withLock { ($0.loadedAt ?? 0) > since && $0.loadedAt != nil }
        if done { return }
        let clock = ambient.time.monotonicNanoseconds()
        state.withLock { $0.stale = [] }
        let fingerprint = try loader.fingerprint(connection, at: ambient.databaseNow)
        let fleet = try loader.fleet(connection, at: ambient.databaseNow)
        state.withLock { state in
            state.fleet = fleet
            state.fingerprint = fingerprint
            state.loadedAt = max(clock, 1)
            state.checkedAt = clock
        }
    }

    private func compare(_ connection: Connection, _ clock: UInt64) throws {
        let fingerprint = try loader.fingerprint(connection, at: ambient.databaseNow)
        let took = ambient.time.monotonicNanoseconds() &- clock
        let changed = state.withLock { state in
            state.checkedAt = clock
            // In a large cloud the check is less frequent: it takes at most a twentieth of the time.
            state.checkInterval = max(FleetCache.checkIntervalMin, took &* 20)
            return state.fingerprint != fingerprint
        }
        if changed { try load(connection, since: UInt64.max) }
    }

    private func reload(_ connection: Connection) throws {
        let ids = state.withLock { state in
            defer { state.stale = [] }
            return state.stale
        }
        guard !ids.isEmpty else { return }
        if ids.contains("") { return try load(connection, since: UInt64.max) }
        let hosts = try loader.hosts(connection, where: "r.id = ANY(\(Array(ids))::uuid[])", at: ambient.databaseNow)
        let known = state.withLock { state in hosts.allSatisfy { state.fleet.update($0) } }
        if !known { try load(connection, since: UInt64.max) }
    }

    /// Makes the next `refresh` read these providers again.
    func markStale(_ ids: some Sequence<String>) { state.withLock { $0.stale.formUnion(ids) } }

    // MARK: other processes

    /// Adds these providers to the changed ones of the next announcement. Must be called after the commit.
    func tell(_ ids: some Sequence<String>) { state.withLock { $0.untold.formUnion(ids) } }

    /// Follows the announcements of other processes until the task is cancelled.
    func follow(_ database: Database) async {
        for await notification in database.notifications(.placementChanged) {
            hear(notification.payload(on: .placementChanged) ?? ProviderChanges(""))
        }
    }

    private func hear(_ changes: ProviderChanges) {
        if changes.origin != origin { markStale(changes.providers) }
    }

    /// Announces what has changed since the last announcement. If this fails, the changes are not announced later: the other processes
    /// notice them when one of their claims fails, or when they read everything again.
    func announce(_ database: Database) async throws {
        let ids = state.withLock { state in
            defer { state.untold = [] }
            return Array(state.untold)
        }
        for start in stride(from: 0, to: ids.count, by: FleetCache.announceMax) {
            let some = ids[start..<min(ids.count, start + FleetCache.announceMax)]
            let changes = ProviderChanges(origin: origin, providers: Array(some))
            try await database.autocommit { try $0.notify(.placementChanged, changes) }
        }
    }
}

/// Resource providers changed by a transaction, to be announced after its commit.
final class ChangedProviders: Sendable {
    private let ids = Mutex<Set<String>>([])

    var all: Set<String> { ids.withLock { $0 } }
    func add(_ more: some Sequence<String>) { ids.withLock { $0.formUnion(more) } }
}
