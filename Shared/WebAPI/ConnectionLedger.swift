import NIOCore
import Synchronization
package import Telemetry

/// The open connections of one listener, and the order in which they are evicted when there are too many.
///
/// A new connection over the limit evicts the one that has been idle for longest: first among those that have never sent a
/// complete request head, then among those between two requests. A connection with a request in progress is never evicted.
/// If none can be evicted, the new connection is refused.
package final class ConnectionLedger: Sendable {
    /// One admitted connection.
    final class Record: Sendable {
        let source: String
        let isExempt: Bool
        let channel: any Channel
        /// Eviction order; `busy` connections are not evicted.
        private let order = Atomic<UInt64>(busy)

        private static let busy = UInt64.max
        private static let idleClass: UInt64 = 1 << 62

        init(source: String, isExempt: Bool, channel: any Channel, since: NIODeadline) {
            self.source = source
            self.isExempt = isExempt
            self.channel = channel
            order.store(since.uptimeNanoseconds, ordering: .relaxed)
        }

        func setBusy() { order.store(Record.busy, ordering: .relaxed) }

        func setIdle(since: NIODeadline) { order.store(Record.idleClass | since.uptimeNanoseconds, ordering: .relaxed) }

        var evictionOrder: UInt64? {
            let value = order.load(ordering: .relaxed)
            return value == Record.busy ? nil : value
        }
    }

    private struct State {
        var records: [ObjectIdentifier: Record] = [:]
        var perSource: [String: Int] = [:]
    }

    /// Connections evicted together when the limit is reached, because finding many costs as much as finding one.
    private static let evictionBatch = 32

    package let limits: ConnectionLimits
    private let listener: String
    private let metrics: Metrics
    private let total: ConnectionTotal?
    private let state = Mutex(State())

    /// - Parameters:
    ///   - listener: the listener's name in the metrics.
    ///   - total: shared by the listeners of the process.
    package init(limits: ConnectionLimits, listener: String, metrics: Metrics, total: ConnectionTotal? = nil) {
        self.limits = limits
        self.total = total
        self.listener = listener
        self.metrics = metrics
        state.withLock { showOpen($0) }
    }

    /// The number of open connections.
    package var count: Int { state.withLock { $0.records.count } }

    /// Whether the connection is admitted. Connections evicted for it are notified.
    func admit(_ record: Record) -> Bool {
        let (isAdmitted, evicted) = state.withLock { state -> (Bool, [Record]) in
            var evicted: [Record] = []
            if !record.isExempt, state.perSource[record.source, default: 0] >= limits.connectionsPerSourceMax {
                evicted = evict(&state) { $0.source == record.source }
                if evicted.isEmpty { return (false, []) }
            }
            // Other listeners claim places of the total at the same time.
            while state.records.count >= limits.connectionsMax || total?.claim() == false {
                let more = evict(&state) { _ in true }
                if more.isEmpty { return (false, evicted) }
                evicted += more
            }
            if !insert(record, &state) { total?.add(-1) }
            return (true, evicted)
        }
        for record in evicted {
            metrics.increment(
                "wolke_http_connections_evicted_total", [("listener", listener)],
                help: "Idle connections evicted for new ones.")
            record.channel.pipeline.fireUserInboundEventTriggered(ConnectionEvicted())
        }
        if !isAdmitted {
            metrics.increment(
                "wolke_http_connections_refused_total", [("listener", listener)],
                help: "Connections refused because all others had a request in progress.")
        }
        return isAdmitted
    }

    /// Keeps a connection that began a request while it was being evicted.
    func readmit(_ record: Record) {
        state.withLock { if insert(record, &$0) { total?.add(1) } }
    }

    /// Forgets a closed connection; safe to repeat.
    func release(_ record: Record) {
        state.withLock { remove(record, &$0) }
    }

    /// - Returns: whether the connection is new. The caller must count it in the total.
    private func insert(_ record: Record, _ state: inout State) -> Bool {
        guard state.records.updateValue(record, forKey: ObjectIdentifier(record)) == nil else { return false }
        state.perSource[record.source, default: 0] += 1
        showOpen(state)
        return true
    }

    private func remove(_ record: Record, _ state: inout State) {
        guard state.records.removeValue(forKey: ObjectIdentifier(record)) != nil else { return }
        total?.add(-1)
        if let count = state.perSource[record.source] {
            state.perSource[record.source] = count > 1 ? count - 1 : nil
        }
        showOpen(state)
    }

    /// Called with the lock held, so that the last value is the current one.
    private func showOpen(_ state: State) {
        metrics.set(
            "wolke_http_connections", Double(total?.count ?? state.records.count), [("listener", listener)], help: "Open connections.")
    }

    private func evict(_ state: inout State, where fits: (Record) -> Bool) -> [Record] {
        var candidates: [(order: UInt64, record: Record)] = []
        for record in state.records.values where fits(record) {
            if let order = record.evictionOrder { candidates.append((order, record)) }
        }
        // At most a quarter of them, because the newest ones may be about to send a request.
        let count = min(ConnectionLedger.evictionBatch, max(1, candidates.count / 4))
        let chosen = candidates.sorted { $0.order < $1.order }.prefix(count).map(\.record)
        for record in chosen { remove(record, &state) }
        return chosen
    }
}

/// Connections of all listeners of a process together.
package final class ConnectionTotal: Sendable {
    private let connectionsMax: Int
    private let open = Atomic<Int>(0)

    /// - Parameter connectionsMax: the maximum number of open connections.
    package init(connectionsMax: Int) { self.connectionsMax = connectionsMax }

    /// Open connections of all listeners.
    package var count: Int { open.load(ordering: .relaxed) }

    /// Counts one more connection, unless the maximum is reached.
    func claim() -> Bool {
        var current = count
        while current < connectionsMax {
            let (isExchanged, original) = open.compareExchange(expected: current, desired: current + 1, ordering: .relaxed)
            if isExchanged { return true }
            current = original
        }
        return false
    }

    func add(_ count: Int) { open.wrappingAdd(count, ordering: .relaxed) }
}

/// A connection gives way to a newer one.
struct ConnectionEvicted: Sendable {}

/// The client may send the body that it has announced (`Expect: 100-continue`).
struct ContinueWanted: Sendable {}

/// Stops accepting while connections and refusals together would use up the process's descriptors; new ones wait in the kernel's queue.
final class AcceptGate: ChannelDuplexHandler {
    typealias InboundIn = any Channel
    typealias InboundOut = any Channel
    typealias OutboundIn = Never
    typealias OutboundOut = Never

    private let openMax: Int
    private var open = 0
    private var isReadWanted = false

    init(_ limits: ConnectionLimits) { openMax = limits.connectionsMax + limits.refusalsMax }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let channel = unwrapInboundIn(data)
        open += 1
        let this = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        channel.closeFuture.hop(to: context.eventLoop).whenComplete { _ in
            let (handler, context) = this.value
            handler.open -= 1
            guard handler.isReadWanted, handler.open < handler.openMax else { return }
            handler.isReadWanted = false
            context.read()
        }
        context.fireChannelRead(data)
    }

    func read(context: ChannelHandlerContext) {
        guard open < openMax else {
            isReadWanted = true
            return
        }
        context.read()
    }

    /// A failure to accept affects one connection; the listener continues.
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard context.channel.isActive else {
            context.fireErrorCaught(error)
            return
        }
    }
}
