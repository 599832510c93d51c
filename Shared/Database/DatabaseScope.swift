import Kernel
import Synchronization

/// The owner of the current task's work in the database. Determines its share of the sessions and its time limits.
///
/// The request pipeline sets it, so handlers and stores need not know about it. Work outside a request belongs to the
/// control plane.
package struct DatabaseScope: Sendable {
    /// The share of the sessions to which work belongs.
    package enum Lane: Sendable, Hashable {
        /// Workflows, agents, periodic tasks and requests of the services themselves. Some sessions are reserved for them.
        case plane
        /// A tenant's requests: by project, or by user if there is no project.
        case tenant(String)
    }

    /// The kind of work, which determines time limits.
    package enum Work: Sendable, Hashable {
        case request, plane, periodicTask
    }

    package let lane: Lane
    package let work: Work
    package let presence: ClientPresence?
    /// The source address of the request for limits; empty if unknown.
    package let source: String
    /// Set after the request's first change: from then on the request runs to completion even if the client disconnects.
    let committed: Flag
    /// Whether cancelling the task cancels and rolls back waiting and running jobs.
    let stopsWithTask: Bool

    init(
        lane: Lane, work: Work, presence: ClientPresence? = nil, source: String = "", committed: Flag = Flag(),
        stopsWithTask: Bool = false
    ) {
        self.stopsWithTask = stopsWithTask
        self.source = source
        self.lane = lane
        self.work = work
        self.presence = presence
        self.committed = committed
    }

    @TaskLocal package static var current = DatabaseScope.plane

    /// The control plane's own work.
    package static let plane = DatabaseScope(lane: .plane, work: .plane)
    /// A workflow's step, which is cancelled before its lease ends.
    package static let step = DatabaseScope(lane: .plane, work: .plane, stopsWithTask: true)
    /// Periodic tasks and `osctl doctor`, whose queries read whole tables.
    package static let periodicTask = DatabaseScope(lane: .plane, work: .periodicTask)

    /// A request before authentication: it counts against the share of its source address.
    ///
    /// - Parameter source: the client's address if it is not the connection's: the client of a trusted proxy.
    package static func request(_ presence: ClientPresence?, source: String? = nil) -> DatabaseScope {
        let source = source ?? presence?.source ?? ""
        return DatabaseScope(lane: .tenant("from \(source)"), work: .request, presence: presence, source: source)
    }

    /// The same request in the share of `lane`.
    package func of(_ lane: Lane) -> DatabaseScope {
        DatabaseScope(lane: lane, work: work, presence: presence, source: source, committed: committed)
    }
}

/// Whether the client of a connection is still connected.
package final class ClientPresence: Sendable {
    private struct State {
        var isGone = false
        var last = 0
        var handlers: [Int: @Sendable () -> Void] = [:]
    }

    private let state = Mutex(State())
    /// The address of the connection's peer for limits; empty if unknown.
    package let source: String

    package init(source: String = "") { self.source = source }

    package var isGone: Bool { state.withLock(\.isGone) }

    /// The client has closed the connection.
    package func leave() {
        let handlers = state.withLock { state in
            state.isGone = true
            defer { state.handlers = [:] }
            return Array(state.handlers.values)
        }
        for handler in handlers { handler() }
    }

    /// Calls `handler` when the client disconnects, immediately if it already has.
    ///
    /// - Returns: what `forget` needs.
    package func onLeave(_ handler: @escaping @Sendable () -> Void) -> Int {
        let (number, isGone) = state.withLock { state in
            state.last += 1
            if !state.isGone { state.handlers[state.last] = handler }
            return (state.last, state.isGone)
        }
        if isGone { handler() }
        return number
    }

    package func forget(_ number: Int) { state.withLock { $0.handlers[number] = nil } }
}

/// The client disconnected before the answer, or the step was cancelled; the job was rolled back.
package struct ClientGone: Error, Sendable {
    package init() {}
}
